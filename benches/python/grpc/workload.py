"""What is sent over gRPC and what must come back: the rows of the HTTP benchmarks as messages with raw tensors."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from benches.python.door.machine import NotServing
from benches.python.door.workload import CHECK_CLIENTS, EXPECTED, OIP_BINARY, ROWS, WIDTH, Dialect, features, send
from penstock import testing

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from benches.python.door.machine import Served

SERVES_WITHIN = 20.0
PACKED = 16
"""Calls that share a connection where 64 are out: four connections."""

_rows = features.astype("<f4")


def messages(model: str) -> list[bytes]:
    """Every row as a request of a model."""
    return [testing.infer_message(model, {"x": ("FP32", [1, WIDTH], row.tobytes())}) for row in _rows]


MESSAGES = messages("mlp")


def _tail(values: int) -> Callable[[bytes], Any]:
    """The raw contents are the last field of an answer."""
    return lambda answer: np.frombuffer(answer[-4 * values :], "<f4")


def network(streams: int) -> Dialect:
    """Answers of the network."""
    return Dialect(MESSAGES, _tail(EXPECTED.shape[1]), streams=streams)


def mirror(streams: int) -> Dialect:
    """Tensors come back as they went."""
    return Dialect(MESSAGES, _tail(WIDTH), streams=streams)


def echo(streams: int) -> Dialect:
    """Messages come back as they went."""
    return Dialect(MESSAGES, None, streams=streams)


HTTP = OIP_BINARY


def check(server: Served, dialect: Dialect, expected: NDArray[np.float32] | None = None) -> None:
    """As over HTTP; a server that listens may take a while until it has its model.

    Raises:
        NotServing: where an answer is missing or wrong.
    """
    until = time.monotonic() + SERVES_WITHIN
    while True:
        each = -(-ROWS // CHECK_CLIENTS)
        how: dict[str, Any] = {"clients": CHECK_CLIENTS, "requests_per_client": each, "keep_answers": True}
        report = send(server.url, dialect, **how)
        if report.ok == report.planned:
            break
        if time.monotonic() > until:
            raise NotServing(f"{server.name}: {report.ok} of {report.planned} answered, {report.codes}")
        time.sleep(0.2)
    wanted = EXPECTED if expected is None else expected
    for index, _, answer in report.answers:
        if dialect.read is None:
            right = answer == dialect.bodies[index]
        else:
            right = np.allclose(dialect.read(answer), wanted[index], rtol=1e-4, atol=1e-4)
        if not right:
            raise NotServing(f"{server.name} answered row {index} with {answer[:200]!r}")


def mirrored() -> NDArray[np.float32]:
    """What `mirror` gives back."""
    return _rows
