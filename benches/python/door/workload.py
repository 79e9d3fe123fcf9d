"""What is sent and what must come back: the same rows in every server's own words."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from benches.python.door.machine import NotServing
from examples.mlp import mlp
from penstock import testing

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from benches.python.door.machine import Served

ROWS = 100
WIDTH = 64
CHECK_CLIENTS = 8
CHECKS_WITHIN = 30.0

features = np.random.default_rng(1).random((ROWS, WIDTH)).round(6)
"""Six decimals, as sensors and peers' tables have them: some 600 bytes of JSON a row."""

EXPECTED: NDArray[np.float32] = mlp(features.astype(np.float32))


@dataclass(frozen=True)
class Dialect:
    """How a row is asked for, and how an answer is read: floats, or `None` where the body itself comes back.

    `streams` is how many clients share a connection, over gRPC.
    """

    bodies: list[bytes]
    read: Callable[[bytes], Any] | None
    headers: dict[str, str] = field(default_factory=dict)
    streams: int = 1


def compact(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _oip_bodies() -> list[bytes]:
    return [compact(testing.infer_body({"x": ("FP32", [1, WIDTH], row.tolist())})) for row in features]


def _binary_bodies() -> tuple[list[bytes], dict[str, str]]:
    values = features.astype("<f4")
    head = compact(
        {
            "inputs": [
                {
                    "name": "x",
                    "datatype": "FP32",
                    "shape": [1, WIDTH],
                    "parameters": {"binary_data_size": values[0].nbytes},
                }
            ],
            "parameters": {"binary_data_output": True},
        }
    )
    return [head + row.tobytes() for row in values], {"Inference-Header-Content-Length": str(len(head))}


def _read_binary(answer: bytes) -> NDArray[np.float32]:
    # The JSON header's length is in a response header that the load generator does not keep; the tensor is the end.
    return np.frombuffer(answer[-8 * 4 :], "<f4")


OIP_JSON = Dialect(_oip_bodies(), lambda answer: json.loads(answer)["outputs"][0]["data"])
OIP_BINARY = Dialect(_binary_bodies()[0], _read_binary, _binary_bodies()[1])
PLAIN_JSON = Dialect([compact({"x": row.tolist()}) for row in features], lambda answer: json.loads(answer)["y"])
ECHO = Dialect(OIP_JSON.bodies, None)

LOAD_TAKES_HEADERS = "headers" in inspect.signature(testing.load).parameters


def send(url: str, dialect: Dialect, **settings: Any) -> testing.LoadReport:
    """The load generator, with the headers of the dialect where there are any."""
    if dialect.headers:
        settings["headers"] = dialect.headers
    if dialect.streams != 1:
        settings["streams"] = dialect.streams
    return testing.load(url, dialect.bodies, **settings)


def check(
    server: Served, dialect: Dialect, expected: NDArray[np.float32] = EXPECTED, within: float = CHECKS_WITHIN
) -> None:
    """Every row, from several clients at once, so that batches form: the answers must be those of a direct call.

    Raises:
        NotServing: where an answer is missing or wrong.
    """
    each = -(-len(dialect.bodies) // CHECK_CLIENTS)
    report = send(
        server.url, dialect, clients=CHECK_CLIENTS, requests_per_client=each, keep_answers=True, deadline=within
    )
    if report.ok != report.planned:
        raise NotServing(f"{server.name}: {report.ok} of {report.planned} answered, statuses {report.statuses}")
    for index, _, answer in report.answers:
        if dialect.read is None:
            right = answer == dialect.bodies[index]
        else:
            values = np.asarray(dialect.read(answer), np.float32).reshape(-1)
            right = values.shape == expected[index].shape and np.allclose(values, expected[index], rtol=1e-4, atol=1e-4)
        if not right:
            raise NotServing(f"{server.name} answered row {index} with {answer[:200]!r}")
