"""Who goes first, on whose behalf, and who is told when to come again: over HTTP, over gRPC and in the process."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penstock import Client, Server, batched, model
from penstock.errors import ConfigError, Overloaded, RemoteError
from penstock.testing import TestClient
from tests.python.support.http_server import HttpServer
from tests.python.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.python.support.http_server import Peer

X = {"x": np.ones((1, 1), np.float32)}


@model("order", inputs={"x": ("float32", [1])}, outputs={"y": ("int64", [])}, max_batch_size=1)
class Order:
    def load(self, _ctx: Any) -> None:
        self.number = 0

    def predict(self, x: Any) -> Any:
        if x[0, 0] < 0:
            time.sleep(0.5)
        self.number += 1
        return np.full(len(x), self.number)


@model("naps", inputs={"x": ("float32", [1])}, outputs={"y": ("float32", [1])}, max_batch_size=1)
def naps(x: Any) -> Any:
    time.sleep(0.05)
    return x


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server([Order, naps], port=0) as server:
        yield server


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, server: Server) -> Iterator[Client]:
    with Client(server.url if request.param == "http" else server.grpc_url, retry=None) as client:
        yield client


def queued(server: Server, name: str) -> Callable[[int], None]:
    return lambda count: until(lambda: server.stats().models[name].queued >= count)


def test_a_client_says_who_goes_first(server: Server, client: Client) -> None:
    wait = queued(server, "order")
    with ThreadPoolExecutor(4) as threads:
        before = server.stats().models["order"].batches
        blocker = threads.submit(client.infer, "order", {"x": -X["x"]})
        until(lambda: server.stats().models["order"].batches > before)
        low = threads.submit(client.infer, "order", X, priority="low")
        wait(1)
        normal = threads.submit(client.infer, "order", X, tenant="a")
        wait(2)
        high = threads.submit(client.infer, "order", X, priority="high", tenant="b")
        wait(3)
        order = [int(asked.result(30)["y"][0]) for asked in (blocker, high, normal, low)]
    assert order == list(range(order[0], order[0] + 4))


@pytest.mark.parametrize(
    "terms",
    [{"priority": "urgent"}, {"priority": 0}, {"tenant": ""}, {"tenant": "a\nb"}, {"tenant": "x" * 129}, {"tenant": 7}],
)
def test_terms_that_cannot_be_are_refused_before_they_are_sent(client: Client, terms: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(terms))):
        client.infer("order", X, **terms)


def test_terms_are_header_fields() -> None:
    seen = []

    def behave(peer: Peer) -> None:
        for request in peer:
            seen.append((request.header("x-request-priority"), request.header("x-request-tenant")))
            peer.answer('{"outputs": []}')

    with HttpServer(behave) as server, Client(server.url) as client:
        client.infer("m", {}, binary=False)
        client.infer("m", {}, binary=False, priority="low", tenant="team a")
    assert seen == [(None, None), ("low", "team a")]


def hopeless(ask: Callable[[float], Any]) -> Overloaded:
    """What a request is refused with that could not be answered in time."""
    with pytest.raises(Overloaded) as caught:
        ask(0.2)
    return caught.value


def test_whoever_could_not_be_answered_in_time_is_told_when_to_come_again(server: Server, client: Client) -> None:
    for _ in range(5):
        client.infer("naps", X)
    with ThreadPoolExecutor(30) as threads:
        asked = [threads.submit(client.infer, "naps", X, priority="high") for _ in range(30)]
        queued(server, "naps")(20)
        error = hopeless(lambda timeout: client.infer("naps", X, timeout=timeout))
        inside = hopeless(lambda timeout: TestClient(server).request(
            "POST", "/v2/models/naps/infer", headers={"x-request-timeout": str(timeout)},
            json={"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1]}]},
        ).raise_for_status())  # fmt: skip
        for each in asked:
            each.result(30)
    assert isinstance(error, RemoteError)
    for refused in (error, inside):
        assert refused.retry_after is not None
        assert 0.1 < refused.retry_after < 10
        assert refused.retry_after != int(refused.retry_after), "it is said in milliseconds"
    assert server.stats().models["naps"].hopeless >= 2


def test_in_the_process_too() -> None:
    @batched(max_batch_size=1)
    def sleeps(x: np.ndarray) -> np.ndarray:
        time.sleep(0.05)
        return x

    for i in range(5):
        sleeps.call(i)
    with sleeps, ThreadPoolExecutor(30) as threads:
        asked = [threads.submit(sleeps.options(priority="high").call, i) for i in range(30)]
        until(lambda: sleeps.stats().queued >= 20)
        error = hopeless(lambda timeout: sleeps.options(timeout=timeout).call(1))
        for each in asked:
            each.result(30)
    assert error.retry_after is not None
    assert 0.1 < error.retry_after < 10
    assert sleeps.stats().hopeless == 1
