"""MLServer with the runtimes of `tests/interop/mlserver`, in its own environment."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.interop.support.environments import require
from tests.interop.support.processes import Process, answers, free_port, listens

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).resolve().parents[1] / "mlserver"
MODELS = ("mirror", "halves")


class Doors(NamedTuple):
    """The addresses of both of its doors."""

    http: str
    grpc: str


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
    base = f"http://127.0.0.1:{port}"
    try:
        # The server itself says that it is ready before it has looked for models.
        process.wait_until(
            lambda: listens(grpc_port) and all(answers(f"{base}/v2/models/{name}/ready") for name in MODELS)
        )
        yield Doors(base, f"grpc://127.0.0.1:{grpc_port}")
    finally:
        process.stop()
