"""KServe's model server with the runtimes of `tests/interop/kserve`, in its own environment, and its client there."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.interop.support.doors import open_doors
from tests.interop.support.environments import ROOT, require
from tests.interop.support.processes import Process, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.interop.support.doors import Doors

FOLDER = Path(__file__).resolve().parents[1] / "kserve"
MODELS = ("mirror", "halves")
ENVIRONMENT = {"PYTHONPATH": str(ROOT / "python"), "PYTHONDONTWRITEBYTECODE": "1"}
"""Its client runs over our transport, too: the extension is made for every Python."""


@contextmanager
def kserve(folder: Path) -> Iterator[Doors]:
    """KServe's model server once its models are ready, until the block is left."""
    python = require("kserve", "python")
    port, grpc_port = free_port(), free_port()
    process = Process(
        [str(python), str(FOLDER / "runtimes.py"), "--http_port", str(port), "--grpc_port", str(grpc_port)],
        folder / "kserve.log",
        folder=folder,
        environment=ENVIRONMENT,
    )
    with open_doors(process, (port, grpc_port), MODELS) as doors:
        yield doors


def their_client(task: str, *arguments: str) -> Any:
    """What a task of `tests/interop/kserve/asks.py` says: KServe's own client, in a process of its own."""
    python = require("kserve", "python")
    done = subprocess.run(
        [str(python), str(FOLDER / "asks.py"), task, *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
