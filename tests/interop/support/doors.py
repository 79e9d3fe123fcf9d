"""Servers of others with both doors of the Open Inference Protocol."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from tests.interop.support.processes import answers, listens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.interop.support.processes import Process


class Doors(NamedTuple):
    """The addresses of both of its doors."""

    http: str
    grpc: str


@contextmanager
def open_doors(process: Process, ports: tuple[int, int], models: tuple[str, ...]) -> Iterator[Doors]:
    """A server that was started at these ports, once its models are ready, until the block is left."""
    port, grpc_port = ports
    base = f"http://127.0.0.1:{port}"
    try:
        # A server may say that it is ready before it has looked for models.
        process.wait_until(
            lambda: listens(grpc_port) and all(answers(f"{base}/v2/models/{name}/ready") for name in models)
        )
        yield Doors(base, f"grpc://127.0.0.1:{grpc_port}")
    finally:
        process.stop()
