"""The upstream that can be told to fail: what it answers is true, what it does wrong is what it was told."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penstock
from penstock import Client, Retry, Timeout
from penstock.errors import Closed, ConfigError, FirstChunkTimeout, IdleTimeout, ReadFailed, RemoteError, TransportError
from penstock.testing import FakeUpstream
from tests.python.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

ONE = Retry(attempts=1)
ROW = {"x": np.ones((1, 2), np.float32)}
CHAT = {"model": "say", "messages": [{"role": "user", "content": "a b c"}], "stream": True}


@pytest.fixture
def upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream() as upstream:
        yield upstream


@pytest.fixture
def client(upstream: FakeUpstream) -> Iterator[Client]:
    with Client(upstream.url, retry=ONE, timeout=Timeout(first=20, idle=20)) as client:
        yield client


def test_it_answers_by_both_protocols(upstream: FakeUpstream, client: Client) -> None:
    assert client.infer("echo", ROW)["y"].tolist() == [[1, 1]]
    assert client.infer("echo", ROW, binary=False)["y"].tolist() == [[1, 1]]
    assert client.is_ready()
    assert client.is_ready("echo")
    assert {each["id"] for each in client.get("/v1/models").json()["data"]} == {"say"}
    whole = client.post("/v1/completions", json={"model": "say", "prompt": "once upon"}).json()
    assert whole["choices"][0]["text"] == "once upon"
    with client.stream("POST", "/v1/chat/completions", json=CHAT) as answer:
        events = [event.data for event in answer.sse()]
    said = [json.loads(each)["choices"][0]["delta"].get("content", "") for each in events[:-1]]
    assert "".join(said).endswith("a b c\nassistant: ")
    assert events[-1] == "[DONE]"


def test_it_remembers_what_came(upstream: FakeUpstream, client: Client) -> None:
    client.post("/v1/completions?a=1", json={"model": "say", "prompt": "x"}, headers={"X-Mine": "yes"})
    (request,) = upstream.requests
    assert (request.method, request.path, request.headers["x-mine"]) == ("POST", "/v1/completions?a=1", "yes")
    assert request.json()["prompt"] == "x"
    assert 1 <= request.connection <= upstream.connections


def test_it_fails_as_often_as_it_is_told(upstream: FakeUpstream, client: Client) -> None:
    upstream.fail(503, 2, headers={"retry-after": "7"})
    upstream.fail(418, body="teapot")
    answers = [client.post("/v2/models/echo/infer", json={}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [503, 503, 418, 400]
    assert answers[0].headers["retry-after"] == "7"
    assert answers[0].json() == {"error": "told to fail with 503"}
    assert answers[2].text == "teapot"
    upstream.fail(500, None, path="/v2/models/echo")
    assert [client.get("/v2/models/echo").status_code for _ in range(3)] == [500] * 3
    upstream.heal()
    assert client.get("/v2/models/echo").status_code == 200
    upstream.fail(429)
    with pytest.raises(RemoteError) as refused:
        client.infer("echo", ROW)
    assert refused.value.status == 429


def test_it_is_late(upstream: FakeUpstream, client: Client) -> None:
    upstream.delay(0.2, 1)
    began = time.monotonic()
    client.infer("echo", ROW)
    assert time.monotonic() - began >= 0.2


def test_it_drops_connections(upstream: FakeUpstream, client: Client) -> None:
    upstream.drop()
    with pytest.raises(TransportError):
        client.infer("echo", ROW)
    upstream.drop(after=1, path="/infer")
    with pytest.raises(ReadFailed):
        client.post("/v2/models/echo/infer", json={"inputs": []})
    upstream.drop(after=2)
    heard = []

    def hear() -> None:
        with client.stream("POST", "/v1/chat/completions", json=CHAT) as answer:
            for event in answer.sse():
                heard.append(event.data)  # noqa: PERF401  what came before the break counts

    with pytest.raises(penstock.PenstockError):
        hear()
    assert len(heard) == 2
    assert client.infer("echo", ROW)["y"].tolist() == [[1, 1]]


def test_it_stalls_until_it_is_healed(upstream: FakeUpstream, client: Client) -> None:
    upstream.stall()
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(client.post("/v2/models/echo/infer", json={})))
    asking.start()
    until(lambda: upstream.requests)
    assert not answers
    upstream.heal()
    asking.join(30)
    assert answers[0].status_code == 400
    upstream.stall()
    with pytest.raises(FirstChunkTimeout):
        client.post("/v2/models/echo/infer", json={}, timeout=Timeout(first=0.1))
    upstream.stall(after=1)
    with (
        pytest.raises(IdleTimeout),
        client.stream("POST", "/v1/chat/completions", json=CHAT, timeout=Timeout(idle=0.2)) as answer,
    ):
        list(answer.sse())


def test_its_health_is_what_it_is_told(upstream: FakeUpstream, client: Client) -> None:
    upstream.ready = False
    assert not client.is_ready()
    assert not client.is_ready("echo")
    assert client.is_live()
    upstream.ready = True
    assert client.is_ready()


def test_models_of_ones_own_and_one_more() -> None:
    @penstock.model("one", inputs={"x": ("float32", [1])}, outputs={"y": ("float32", [1])})
    def one(x: Any) -> Any:
        return x + 1

    @penstock.model("two", inputs={"x": ("float32", [1])}, outputs={"y": ("float32", [1])})
    def two(x: Any) -> Any:
        return x + 2

    with FakeUpstream(one) as upstream, Client(upstream.url) as client:
        upstream.add(two)
        x = {"x": np.zeros((1, 1), np.float32)}
        assert [client.infer(name, x)["y"].tolist() for name in ("one", "two")] == [[[1]], [[2]]]


def test_connections_break_and_the_next_begins(upstream: FakeUpstream, client: Client) -> None:
    client.infer("echo", ROW)
    upstream.break_connections()
    with Client(upstream.url, retry=Retry(attempts=3)) as patient:
        assert patient.infer("echo", ROW)["y"].tolist() == [[1, 1]]


def test_what_it_cannot_be_told(upstream: FakeUpstream) -> None:
    for wrong, words in [
        (lambda: upstream.fail(99), "status"),
        (lambda: upstream.fail(503, 0), "times"),
        (lambda: upstream.delay(-1), "seconds"),
        (lambda: upstream.drop(after=-1), "after"),
    ]:
        with pytest.raises(ConfigError, match=words):
            wrong()
    assert repr(upstream) == f"<penstock.testing.FakeUpstream echo, say {upstream.url}>"
    upstream.close()
    upstream.close()
    assert repr(upstream).endswith("closed>")
    with pytest.raises(Closed):
        upstream.fail()
