"""The model repository over both protocols, readiness, and what a client hears of a load."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penstock import AsyncClient, Client, ModelCache, Server, model
from penstock.errors import DeadlineExceeded, LoadFailed, ModelNotFound, RemoteError
from tests.python.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 30.0
X = {"inputs": {"x": ("float32", [1])}, "outputs": {"y": ("float32", [1])}}
ONE = {"x": np.ones((1, 1), np.float32)}


class Gate:
    """What loads of the models here pass; a test closes it, or has them fail."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.opened.set()
        self.error: Exception | None = None
        self.done: float | None = None
        self.loads: list[str] = []

    def pass_by(self, ctx: Any) -> None:
        while not self.opened.wait(0.02):
            ctx.progress(self.done, "weights")
        if self.error is not None:
            raise self.error
        self.loads.append(ctx.name)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


def models(gate: Gate) -> list[Any]:
    @model("head", requires=["encoder"], load_retries=0, **X)
    class Head:
        def load(self, ctx: Any) -> None:
            gate.pass_by(ctx)
            self.by = ctx["encoder"].by

        def predict(self, x: Any) -> Any:
            return x * np.float32(self.by)

    @model("encoder", load_retries=0, **X)
    class Encoder:
        def load(self, ctx: Any) -> None:
            self.by = 3

        def predict(self, x: Any) -> Any:
            return x

    @model("talk", task="generate", load_retries=0)
    class Talk:
        def load(self, ctx: Any) -> None:
            gate.pass_by(ctx)

        def predict(self, request: Any) -> Any:
            yield from request.prompt.split()

    return [Head, Encoder, Talk]


def states(client: Client) -> dict[str, str]:
    return {row["name"]: row["state"] for row in client.repository_index()}


@pytest.fixture(params=["http", "grpc"])
def served(request: pytest.FixtureRequest, gate: Gate) -> Iterator[tuple[Server, Client]]:
    with Server(models(gate), port=0, preload=[]) as server:
        url = server.url if request.param == "http" else server.grpc_url
        with Client(url) as client:
            yield server, client


def test_models_are_listed_loaded_and_unloaded(served: tuple[Server, Client], gate: Gate) -> None:
    server, client = served
    assert client.repository_index()[0] == {
        "name": "encoder",
        "version": "1",
        "state": "UNAVAILABLE",
        "reason": "unloaded",
    }
    assert (client.repository_index(ready=True), client.is_ready(), client.is_ready("head")) == ([], True, False)
    client.load_model("head")
    assert states(client) == {"encoder": "READY", "head": "READY", "talk": "UNAVAILABLE"}
    assert client.is_ready("head")
    client.load_model("head")
    assert gate.loads == ["head", "head"], "one that is there is loaded anew"
    assert client.infer("head", ONE)["y"].tolist() == [[3]]
    with pytest.raises(RemoteError, match="head") as caught:
        client.unload_model("encoder")
    assert caught.value.status == 409 or caught.value.code == "FAILED_PRECONDITION"
    client.unload_model("head", dependents=True)
    assert (client.repository_index(ready=True), client.is_ready("head")) == ([], False)
    assert client.infer("head", ONE)["y"].tolist() == [[3]], "a request has it loaded again"
    client.unload_model("encoder", dependents=True)
    assert client.repository_index(ready=True) == []
    assert server.cache.stats().loads == 5


def test_what_cannot_be_loaded_is_said(served: tuple[Server, Client], gate: Gate) -> None:
    _, client = served
    with pytest.raises(ModelNotFound, match="nobody"):
        client.load_model("nobody")
    with pytest.raises(RemoteError, match="'config' is not taken"):
        client.load_model("head", {"config": "{}"})
    gate.error = ValueError("no such file")
    with pytest.raises(RemoteError, match=r"'head'.*no such file"):
        client.load_model("head")
    row = next(row for row in client.repository_index() if row["name"] == "head")
    assert row["state"] == "UNAVAILABLE"
    assert "no such file" in row["reason"]
    gate.error = None
    client.load_model("head")
    assert client.is_ready("head")


def test_a_load_may_take_longer_than_who_asked_waits(served: tuple[Server, Client], gate: Gate) -> None:
    _, client = served
    gate.opened.clear()
    with pytest.raises((DeadlineExceeded, RemoteError)):
        client.load_model("head", timeout=0.2)
    assert states(client)["head"] == "LOADING"
    gate.opened.set()
    until(lambda: states(client)["head"] == "READY")


async def test_a_running_event_loop_can_do_the_same(gate: Gate) -> None:
    async with Server(models(gate), port=0, preload=[]) as server, AsyncClient(server.url) as client:
        await client.load_model("head")
        assert await client.is_ready("head")
        await client.unload_model("head", dependents=True)
        assert await client.repository_index(ready=True) == []


@pytest.mark.parametrize("access", ["read-only", "off"])
def test_calls_may_be_kept_from_the_models(gate: Gate, access: str) -> None:
    with Server(models(gate), port=0, preload=[], repository=access) as server:
        for url in (server.url, server.grpc_url):
            with Client(url) as client:
                for ask in (client.load_model, client.unload_model):
                    with pytest.raises(RemoteError, match="models are neither") as caught:
                        ask("head")
                    assert caught.value.status in {403, 501} or caught.value.code in {
                        "PERMISSION_DENIED",
                        "UNIMPLEMENTED",
                    }
                if access == "read-only":
                    assert len(client.repository_index()) == 3
        assert gate.loads == []


def test_the_server_is_live_and_not_ready_until_what_it_starts_with_is_there(gate: Gate) -> None:
    gate.opened.clear()
    server = Server(models(gate), port=0, preload=["head"])
    with ThreadPoolExecutor(1) as threads:
        starting = threads.submit(server.start)
        until(lambda: server._native is not None)
        with Client(server.url) as client:
            assert (client.is_live(), client.is_ready(), client.is_ready("head")) == (True, False, False)
            until(lambda: states(client)["head"] == "LOADING")
            gate.opened.set()
            starting.result(PATIENCE)
            assert (client.is_live(), client.is_ready(), client.is_ready("head")) == (True, True, True)
            assert not client.is_ready("talk"), "it is loaded when it is asked for"
        server.close()


def test_a_stream_hears_how_far_its_model_is(gate: Gate) -> None:
    gate.opened.clear()
    gate.done = 0.45
    with Server(models(gate), port=0, preload=[]) as server, Client(server.url) as client:
        began = time.monotonic()
        with client.stream("POST", "/v2/models/talk/generate_stream", json={"text_input": "a b"}) as answer:
            assert answer.status_code == 200
            assert time.monotonic() - began >= 0.9
            lines = answer.lines()
            first = next(lines)
            gate.opened.set()
            rest = list(lines)
        assert first == ": loading talk 45 % weights"
        assert [line for line in rest if line.startswith("data:")]


def test_a_stream_whose_model_cannot_be_loaded_is_refused(gate: Gate) -> None:
    gate.error = ValueError("no such file")
    with Server(models(gate), port=0, preload=[]) as server, Client(server.url) as client:
        answer = client.post("/v2/models/talk/generate_stream", json={"text_input": "a"})
        assert answer.status_code == 503
        assert "no such file" in answer.text
        with pytest.raises((LoadFailed, RemoteError), match="no such file"):
            client.post("/v1/completions", json={"model": "talk", "prompt": "a"}).raise_for_status()


def test_answers_say_how_long_a_model_took_to_come_and_metrics_what_was_counted(gate: Gate) -> None:
    with ModelCache() as cache, Server(models(gate), port=0, preload=[], cache=cache) as server:
        assert server.cache is cache
        with Client(server.url) as client:
            cold, warm = (client.infer("head", ONE) for _ in range(2))
            assert cold.timing["load"] > 0
            assert "load" not in warm.timing
            text = client.get("/metrics").text
    for line in (
        'penstock_models_loads_total{model="head",outcome="ok"} 1',
        'penstock_models_misses_total{model="head"} 1',
        'penstock_models_hits_total{model="head"} 1',
        'penstock_models_ready{model="encoder"} 1',
        "penstock_models_hit_rate 0.5",
        "penstock_models_load_seconds_count 2",
        "penstock_models_stuck 0",
    ):
        assert f"\n{line}\n" in text, f"{line} is not in\n{text}"
