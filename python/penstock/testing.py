"""For those who test and measure a server.

`TestClient` asks a server object without a socket, for unit tests. `FakeUpstream` is a server that can be told to fail.
`load` is a load generator that knows no Python on its hot path; it sends to loopback addresses only.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from penstock import _native
from penstock._display import Table
from penstock._fake_upstream import FakeRequest, FakeUpstream
from penstock._headers import Headers
from penstock._test_client import TestClient, TestResponse
from penstock.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "FakeRequest",
    "FakeUpstream",
    "Headers",
    "LoadReport",
    "TestClient",
    "TestResponse",
    "infer_body",
    "infer_message",
    "load",
]


@dataclass(frozen=True)
class LoadReport(Table):
    """What a run of the load generator saw; times in seconds.

    Attributes:
        planned: requests that were to be sent; answered + failed + unfinished.
        answered: requests that got a whole answer, whatever its status.
        ok: answers with a status of 200 to 299; over gRPC those that ended with `OK`.
        failed: requests lost: to the transport, or to the time-out of a request.
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
        p9999: latency that 99.99 % of the answers stayed within.
        lag: what 99 % of the load generator's own delays stayed within, in the open loop: from the moment that a
            request was due to the moment that a client with nothing else to do turned to it. 0 in the closed loop.
        errors: lost requests by the name of the error, for example `{"ReadFailed": 2}`.
        codes: answers by the code that a call of gRPC ended with, for example `{"OK": 98, "RESOURCE_EXHAUSTED": 2}`;
            empty over HTTP.
        refused: answers that refused the request for want of room and said when to come again: 429 or 503 with
            `Retry-After`, over gRPC RESOURCE_EXHAUSTED or UNAVAILABLE with it.
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
    p9999: float = 0.0
    lag: float = 0.0
    errors: dict[str, int] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)
    refused: int = 0


_OF_THE_LATENCY = ("p50", "p90", "p95", "p99", "p999", "p9999", "max", "mean")
_WAKE_SECONDS = 0.05  # how often waiting lets Python look for Ctrl-C


def load(
    url: str,
    bodies: Iterable[Any],
    *,
    clients: int = 100,
    requests_per_client: int = 50,
    rate: float | None = None,
    duration: float = 5.0,
    deadline: float = 60.0,
    timeout: float = 30.0,
    method: str = "POST",
    streams: int = 1,
    headers: Mapping[str, str] | None = None,
    keep_answers: bool = False,
) -> LoadReport:
    """Sends requests to a server on this machine and reports what came back. Blocks; Ctrl-C ends the run.

    Without `rate`, the closed loop: each client sends its requests one after another. With it, the open loop: requests
    are due at random moments, `rate` a second for `duration` seconds, and latency counts from the moment a request was
    due, so that a server that stalls cannot hide it. `penstock bench` does the same from a shell, and more.

    Args:
        url: where to send, for example `server.url + "/v2/models/digits/infer"`. `grpc://` for unary calls over
            HTTP/2, for example `server.grpc_url`; the path names the method, and is
            `/inference.GRPCInferenceService/ModelInfer` where there is none.
        bodies: bodies in turn; `bytes` as they are, anything else as JSON. `[b""]` for requests without one. Over gRPC
            they are messages, for example those of `infer_message`, and so are the answers that are kept.
        clients: connections, or requests that are out at a time where several clients share one.
        requests_per_client: requests of each, in the closed loop.
        rate: requests a second, in the open loop.
        duration: seconds of sending, in the open loop.
        deadline: seconds after which the run ends whatever is missing.
        timeout: seconds after which a request that was sent is lost, and its connection with it.
        method: method of every request.
        streams: how many clients share a connection, over gRPC.
        headers: headers of every request.
        keep_answers: keep every answer in `answers`.

    Raises:
        ConfigError: for a target that is not on this machine, or numbers that make no load.
        ConnectFailed: where nobody listens.
    """
    place = split_url(url)
    if rate is not None and not (math.isfinite(rate) and rate > 0):
        raise ConfigError(f"rate must be a positive number of requests per second, not {rate}")
    encoded = [body if isinstance(body, bytes) else json.dumps(body).encode() for body in bodies]
    settings = dict(
        LOAD_DEFAULTS,
        clients=clients,
        requests_each=requests_per_client,
        rate=rate or 0.0,
        poisson_seed=7,
        duration=duration,
        deadline=deadline,
        timeout=timeout,
        method=method,
        protocol="gRPC" if place.grpc else "HTTP/1.1",
        streams=streams,
        headers=list((headers or {}).items()),
        keep=keep_answers,
    )
    run = _native.NativeLoad(place.authority, place.path, encoded, settings)
    found = None
    try:
        while found is None:
            found = run.wait(_WAKE_SECONDS)
    finally:
        run.stop()  # Ctrl-C is raised in there, and nobody waits any more
    times = {name: found["latency"][name] for name in _OF_THE_LATENCY}
    same = {one.name: found[one.name] for one in fields(LoadReport) if one.name in found and one.name != "lag"}
    return LoadReport(**{**same, **times, "lag": found["lag"]["p99"]})


LOAD_DEFAULTS: Final[Mapping[str, Any]] = {
    "method": "POST",
    "headers": [],
    "clients": 1,
    "requests_each": 0,
    "requests": 0,
    "rate": 0.0,
    "poisson_seed": None,
    "duration": 0.0,
    "warmup": 0.0,
    "timeout": 30.0,
    "deadline": 60.0,
    "protocol": "HTTP/1.1",
    "streams": 1,
    "connection_close": False,
    "keep": False,
    "check": False,
    "max_reopens": 100,
}


SERVICE: Final = "inference.GRPCInferenceService"


class Place(NamedTuple):
    """Where requests go: `host:port`, the path with its query, and whether gRPC is spoken there."""

    authority: str
    path: str
    grpc: bool


def split_url(url: str) -> Place:
    """What the address of a server says; the path of a `grpc://` address names a method, `ModelInfer` if there is none.

    Raises:
        ConfigError: where it is no `http://` or `grpc://` address.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "grpc") or not parts.netloc:
        raise ConfigError(f"url must be http://host:port/path or grpc://host:port, not {url!r}")
    grpc, path = parts.scheme == "grpc", parts.path or "/"
    if grpc and path == "/":
        path = f"/{SERVICE}/ModelInfer"
    return Place(parts.netloc, path + (f"?{parts.query}" if parts.query else ""), grpc)


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


def infer_message(model: str, inputs: Mapping[str, tuple[str, Sequence[int], bytes]], *, request_id: str = "") -> bytes:
    """The message of a `ModelInfer` over gRPC: `{"x": ("FP32", [1, 64], data)}`, data little-endian, row by row."""
    tensors = [(name, datatype, list(shape), bytes(data)) for name, (datatype, shape, data) in inputs.items()]
    return _native.infer_message(model, tensors, request_id)
