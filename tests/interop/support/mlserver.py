"""MLServer with the runtimes of `tests/interop/mlserver`, in its own environment."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.interop.support.doors import open_doors
from tests.interop.support.environments import require
from tests.interop.support.processes import Process, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.interop.support.doors import Doors

FOLDER = Path(__file__).resolve().parents[1] / "mlserver"
MODELS = ("mirror", "halves")


@contextmanager
def mlserver(folder: Path) -> Iterator[Doors]:
    """MLServer once its models are ready, until the block is left."""
    program = require("mlserver", "mlserver")
    port, grpc_port = free_port(), free_port()
    process = Process(
        [str(program), "start", str(FOLDER)],
        folder / "mlserver.log",
        folder=folder,
        environment={
            "MLSERVER_HTTP_PORT": str(port),
            "MLSERVER_GRPC_PORT": str(grpc_port),
            "MLSERVER_METRICS_DIR": str(folder),
            "PYTHONPATH": str(FOLDER),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
    )
    with open_doors(process, (port, grpc_port), MODELS) as doors:
        yield doors
