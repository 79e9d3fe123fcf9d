"""For those who test and measure a server.

`TestClient` asks a server object without a socket, for unit tests. `load` is a load generator that knows no Python on
its hot path; it sends to loopback addresses only.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from penstock import _native
from penstock._display import Table
from penstock._test_client import Headers, TestClient, TestResponse
from penstock.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Headers", "LoadReport", "TestClient", "TestResponse", "infer_body", "load"]


@dataclass(frozen=True)
class LoadReport(Table):
    """What a run of the load generator saw; times in seconds.

    Attributes:
        planned: requests that were to be sent; answered + failed + unfinished.
        answered: requests that got a whole answer, whatever its status.
        ok: answers with a status of 200 to 299.
        failed: requests lost to the transport.
        unfinished: requests not answered when the deadline came.
        reopened: connections that broke and were opened again.
        seconds: length of the run.
        requests_per_second: answers per second.
        bytes_read: bytes of all answers' bodies.
        p50: median latency; in the open loop counted from the moment that the request was due.
        p90: latency that 90 % of the answers stayed within.
        p95: likewise, 95 %.
        p99: likewise, 99 %.
        p999: likewise, 99.9 %.
        max: longest latency.
        mean: mean latency.
        statuses: answers by status.
        answers: (index of the body that was sent, status, body of the answer), where they were kept.
    """

    planned: int
    answered: int
    ok: int
    failed: int
    unfinished: int
    reopened: int
    seconds: float
    requests_per_second: float
    bytes_read: int
    p50: float
    p90: float
    p95: float
    p99: float
    p999: float
    max: float
    mean: float
    statuses: dict[int, int]
    answers: list[tuple[int, int, bytes]] = field(repr=False)


def load(
    url: str,
    bodies: Iterable[Any],
    *,
    clients: int = 100,
    requests_per_client: int = 50,
    rate: float | None = None,
    duration: float = 5.0,
    deadline: float = 60.0,
    keep_answers: bool = False,
) -> LoadReport:
    """Sends POST requests to a server on this machine and reports what came back. Blocks; Ctrl-C ends the waiting.

    Without `rate`, the closed loop: each client sends its requests one after another. With it, the open loop: requests
    are due at random moments, `rate` a second for `duration` seconds, and latency counts from the moment a request was
    due, so that a server that stalls cannot hide it.

    Args:
        url: where to send, for example `server.url + "/v2/models/digits/infer"`.
        bodies: bodies in turn; `bytes` as they are, anything else as JSON.
        clients: connections.
        requests_per_client: requests of each, in the closed loop.
        rate: requests a second, in the open loop.
        duration: seconds of sending, in the open loop.
        deadline: seconds after which the run ends whatever is missing.
        keep_answers: keep every answer in `answers`.

    Raises:
        ConfigError: for a target that is not on this machine, or numbers that make no load.
        ConnectFailed: where nobody listens.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.netloc:
        raise ConfigError(f"url must be http://host:port/path, not {url!r}")
    if rate is not None and not (math.isfinite(rate) and rate > 0):
        raise ConfigError(f"rate must be a positive number of requests per second, not {rate}")
    encoded = [body if isinstance(body, bytes) else json.dumps(body).encode() for body in bodies]
    report = _native.run_load(
        parts.netloc,
        parts.path or "/",
        encoded,
        clients=clients,
        requests=requests_per_client,
        rate=rate or 0.0,
        duration=duration,
        deadline=deadline,
        keep=keep_answers,
    )
    return LoadReport(**report)


def infer_body(inputs: dict[str, tuple[str, Sequence[int], Any]], *, request_id: str | None = None) -> dict[str, Any]:
    """The body of an inference request: `{"x": ("FP32", [1, 64], data)}`, data as nested or flat lists."""
    tensors = [
        {"name": name, "datatype": datatype, "shape": list(shape), "data": data}
        for name, (datatype, shape, data) in inputs.items()
    ]
    body: dict[str, Any] = {"inputs": tensors}
    if request_id is not None:
        body["id"] = request_id
    return body
