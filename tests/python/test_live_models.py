"""Models are added to a server that is open, replaced and taken away: what has come is answered, and labels stay."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penstock import AsyncClient, Client, ModelCache, Retry, Server, model
from penstock.errors import Closed, ConfigError, DependencyCycle, LoadFailed, ModelNotFound, RemoteError
from tests.python.support import in_processes as far
from tests.python.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 30.0
X = {"inputs": {"x": ("float32", [1])}, "outputs": {"y": ("float32", [1])}}
ONE = {"x": np.ones((1, 1), np.float32)}
ONCE = Retry(attempts=1)


class Gate:
    """What a model's load or its batch waits for."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def pass_by(self) -> None:
        self.reached.set()
        assert self.opened.wait(PATIENCE)


def adding(
    name: str, number: float, *, load: Gate | None = None, batch: Gate | None = None, fails: bool = False, **said: Any
) -> type:
    """A model that adds a number."""

    class Adding:
        closed: list[float] = []  # noqa: RUF012  one for each declaration

        def load(self, _ctx: Any) -> None:
            if load is not None:
                load.pass_by()
            if fails:
                raise OSError("no such file")

        def predict(self, x: Any) -> Any:
            if batch is not None:
                batch.pass_by()
            return x + np.float32(number)

        def close(self) -> None:
            self.closed.append(number)

    made: type = model(name, **{"load_retries": 0, **X, **said})(Adding)
    return made


def ask(client: Client, name: str, **options: Any) -> float:
    return float(client.infer(name, ONE, **options)["y"].ravel()[0])


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


def states(client: Client) -> dict[str, str]:
    return {f"{row['name']}@{row['version']}": row["state"] for row in client.repository_index()}


def test_a_model_is_added_and_taken_away() -> None:
    first, second = adding("first", 1), adding("second", 2)
    with Server(first, port=0) as server, Client(server.url) as client:
        with pytest.raises(ModelNotFound, match=r"there is no model 'second'; there are \[\"first\"\]"):
            ask(client, "second")
        server.add(second)
        assert ask(client, "second") == 3
        assert states(client) == {"first@1": "READY", "second@1": "READY"}
        assert server.names == ["first", "second"] == list(server.stats().models)
        assert 'penstock_requests_total{model="second",outcome="ok"} 1' in server.metrics()
        assert client.get("/v2/models/second").json()["versions"] == ["1"]
        server.remove("second")
        assert second.closed == [2]  # type: ignore[attr-defined]
        with pytest.raises(ModelNotFound):
            ask(client, "second")
        assert states(client) == {"first@1": "READY"}
        assert server.names == ["first"] == list(server.stats().models)
        assert 'model="second"' not in server.metrics()
        assert ask(client, "first") == 2
        server.add(second)
        assert ask(client, "second") == 3
        server.remove("first")
        assert server.ready
        server.remove("second@1")
        assert server.names == []


def test_before_the_start_models_are_added_and_taken_away_too() -> None:
    server = Server(adding("first", 1), port=0)
    server.add(adding("second", 2))
    with pytest.raises(ConfigError, match="is there already"):
        server.add(adding("second", 3))
    server.add(adding("second", 3), replace=True)
    server.remove("first")
    with pytest.raises(ModelNotFound):
        server.remove("first")
    with server, Client(server.url) as client:
        assert ask(client, "second") == 4
    with pytest.raises(Closed):
        server.add(adding("third", 3))
    with pytest.raises(Closed):
        server.remove("second")


def test_it_is_asked_over_grpc_at_once_and_watched() -> None:
    with Server(adding("first", 1), port=0) as server, Client(server.grpc_url) as client:
        server.add(adding("second", 2))
        assert ask(client, "second") == 3
        server.remove("second")
        with pytest.raises(ModelNotFound):
            ask(client, "second")


def test_one_that_cannot_be_loaded_is_not_there_afterwards() -> None:
    with Server(adding("first", 1), port=0) as server, Client(server.url) as client:
        with pytest.raises(LoadFailed, match="no such file"):
            server.add(adding("bad", 1, fails=True))
        assert states(client) == {"first@1": "READY"}
        with pytest.raises(ModelNotFound, match="requires 'nothing'"):
            server.add(adding("needy", 1, requires="nothing"))
        with pytest.raises(ConfigError, match="is served already"):
            server.add(adding("first", 2))
        with pytest.raises(ConfigError, match="is no model"):
            server.add(int)
        with pytest.raises(DependencyCycle):
            server.add(adding("circle", 1, requires="circle"))
        assert server.names == ["first"]
        server.add(adding("bad", 1, fails=True), preload=False)
        with pytest.raises((LoadFailed, RemoteError), match="no such file"):
            ask(client, "bad")
        assert states(client)["bad@1"] == "UNAVAILABLE"


def test_what_others_require_stays() -> None:
    with Server([adding("base", 1), adding("head", 2, requires="base")], port=0) as server:
        with pytest.raises(ConfigError, match="'head' requires 'base'"):
            server.remove("base")
        server.add(adding("base", 1, version="2"))
        # The name alone is the other version now; what is loaded on the first goes with it.
        server.remove("base", 1)
        server.remove("head")
        server.remove("base")
        assert server.names == []


def test_requests_that_had_come_are_answered(pool: ThreadPoolExecutor) -> None:
    gate = Gate()
    leaving = adding("leaving", 1, batch=gate)
    with Server([leaving, adding("first", 1)], port=0) as server, Client(server.url) as client:
        running = pool.submit(ask, client, "leaving")
        assert gate.reached.wait(PATIENCE)
        waiting = pool.submit(ask, client, "leaving")
        until(lambda: server.stats().models["leaving"].queued == 1)
        removal = pool.submit(server.remove, "leaving", drain=PATIENCE)
        until(lambda: client.get("/v2/models/leaving").status_code == 404)
        assert ask(client, "first") == 2
        assert not removal.done()
        gate.opened.set()
        assert (running.result(PATIENCE), waiting.result(PATIENCE)) == (2, 2)
        removal.result(PATIENCE)
        assert leaving.closed == [1]  # type: ignore[attr-defined]


def test_when_the_time_is_up_what_waits_is_refused(pool: ThreadPoolExecutor) -> None:
    gate = Gate()
    with Server([adding("leaving", 1, batch=gate), adding("first", 1)], port=0) as server:
        with Client(server.url, retry=ONCE) as client:
            running = pool.submit(ask, client, "leaving")
            assert gate.reached.wait(PATIENCE)
            waiting = pool.submit(ask, client, "leaving")
            until(lambda: server.stats().models["leaving"].queued == 1)
            removal = pool.submit(server.remove, "leaving", drain=0.1)
            with pytest.raises((Closed, RemoteError), match="was closed"):
                waiting.result(PATIENCE)
            gate.opened.set()
            assert running.result(PATIENCE) == 2
            removal.result(PATIENCE)
        server.add(adding("leaving", 5))
        with Client(server.url) as client:
            assert ask(client, "leaving") == 6


def test_a_request_that_waits_for_the_load_is_answered_before_its_model_leaves(pool: ThreadPoolExecutor) -> None:
    gate = Gate()
    with Server([adding("cold", 1, load=gate)], port=0, preload=[]) as server, Client(server.url) as client:
        waiting = pool.submit(ask, client, "cold")
        assert gate.reached.wait(PATIENCE)
        removal = pool.submit(server.remove, "cold", drain=PATIENCE)
        until(lambda: client.get("/v2/models/cold").status_code == 404)
        gate.opened.set()
        assert waiting.result(PATIENCE) == 2
        removal.result(PATIENCE)


def test_a_replacement_serves_once_it_is_loaded(pool: ThreadPoolExecutor) -> None:
    gate = Gate()
    old = adding("m", 1)
    with Server(old, port=0) as server, Client(server.url) as client:
        replaced = pool.submit(server.add, adding("m", 2, load=gate), replace=True)
        assert gate.reached.wait(PATIENCE)
        assert ask(client, "m") == 2
        gate.opened.set()
        replaced.result(PATIENCE)
        assert ask(client, "m") == 3
        until(lambda: old.closed == [1])  # type: ignore[attr-defined]
        assert server.names == ["m"]
        with pytest.raises(LoadFailed, match="no such file"):
            server.add(adding("m", 4, fails=True), replace=True)
        assert ask(client, "m") == 3
        client.unload_model("m")
        assert ask(client, "m") == 3, "what serves is what was there before, also after it left"
        server.add(adding("m", 5), replace=True, preload=False)
        assert ask(client, "m") == 6


def test_a_replacement_may_declare_something_else(pool: ThreadPoolExecutor) -> None:
    loading, running = Gate(), Gate()
    wide: dict[str, Any] = {"inputs": {"x": ("float32", [2])}, "outputs": {"y": ("float32", [2])}}
    two = {"x": np.ones((1, 2), np.float32)}
    old = adding("m", 1, batch=running)
    with Server(old, port=0) as server, Client(server.url) as client:
        late = pool.submit(ask, client, "m")
        assert running.reached.wait(PATIENCE)
        later = pool.submit(ask, client, "m")
        until(lambda: server.stats().models["m"].queued == 1)
        replaced = pool.submit(server.add, adding("m", 2, load=loading, **wide), replace=True, drain=PATIENCE)
        assert loading.reached.wait(PATIENCE)
        assert client.get("/v2/models/m").json()["inputs"][0]["shape"] == [-1, 1]
        loading.opened.set()
        until(lambda: client.get("/v2/models/m").json()["inputs"][0]["shape"] == [-1, 2])
        assert client.infer("m", two)["y"].tolist() == [[3, 3]]
        assert not replaced.done()
        running.opened.set()
        assert (late.result(PATIENCE), later.result(PATIENCE)) == (2, 2)
        replaced.result(PATIENCE)
        until(lambda: old.closed == [1])  # type: ignore[attr-defined]
        with pytest.raises(LoadFailed):
            server.add(adding("m", 3, fails=True), replace=True)
        assert client.infer("m", two)["y"].tolist() == [[3, 3]]
        server.add(adding("m", 4), replace=True, preload=False)
        assert ask(client, "m") == 5
        assert list(server.stats().models) == ["m"]


@pytest.mark.parametrize("same", [True, False], ids=["same", "other"])
def test_who_waits_for_a_model_that_is_replaced(pool: ThreadPoolExecutor, same: bool) -> None:
    gate = Gate()
    with Server([adding("m", 1, load=gate)], port=0, preload=[]) as server, Client(server.url, retry=ONCE) as client:
        waiting = pool.submit(ask, client, "m")
        assert gate.reached.wait(PATIENCE)
        server.add(adding("m", 2, **({} if same else {"max_batch_size": 7})), replace=True)
        if same:
            assert waiting.result(PATIENCE) == 3
        else:
            with pytest.raises((Closed, RemoteError), match="was closed"):
                waiting.result(PATIENCE)
        assert ask(client, "m") == 3
        gate.opened.set()
        until(lambda: server.cache.stats().loading == 0)
        assert ask(client, "m") == 3


def test_no_request_is_lost_while_models_are_replaced(pool: ThreadPoolExecutor) -> None:
    done = threading.Event()

    def asks(url: str) -> int:
        count = 0
        with Client(url, retry=ONCE) as client:
            while not done.is_set():
                assert ask(client, "m") in range(40)
                count += 1
        return count

    with Server(adding("m", 0), port=0) as server:
        askers = [pool.submit(asks, server.url) for _ in range(4)]
        for number in range(1, 12):
            # Every other one has a queue of its own.
            server.add(adding("m", number, max_batch_size=10 + number // 2), replace=True)
        done.set()
        assert all(asker.result(PATIENCE) > 0 for asker in askers)


def test_labels_stay_when_a_second_version_comes() -> None:
    with Server(adding("m", 1), port=0) as server, Client(server.url) as client:
        server.add(adding("m", 2, version=2))
        assert ask(client, "m") == 3
        assert ask(client, "m", version="1") == 2
        assert server.names == ["m", "m@2"] == list(server.stats().models)
        assert len(server.explain("m@2").batches) == 1
        server.remove("m", 1)
        assert server.names == ["m@2"]
        assert ask(client, "m") == 3
        server.add(adding("m", 1))
        assert sorted(server.names) == ["m", "m@2"]


def test_processes_are_added_and_leave() -> None:
    with Server(adding("first", 1), port=0) as server, Client(server.url) as client:
        server.add(far.doubling_it)
        assert ask(client, "it") == 2
        server.remove("it")
        with pytest.raises(ModelNotFound):
            ask(client, "it")


def test_a_cache_of_the_users_keeps_what_is_not_the_servers() -> None:
    with ModelCache() as cache:
        cache.loader("own")(lambda _: object())
        with Server(adding("m", 1), port=0, cache=cache) as server:
            with pytest.raises(ConfigError, match="the cache has a model 'own'"):
                server.add(adding("own", 1))
            server.add(adding("n", 1))
            server.remove("m")
            assert {row.name for row in cache.index()} == {"own", "n"}
        assert {row.name for row in cache.index()} == {"own"}


def test_many_threads_change_at_once(pool: ThreadPoolExecutor) -> None:
    with Server(adding("first", 0), port=0) as server, Client(server.url) as client:

        def comes_and_goes(number: int) -> None:
            name = f"m{number % 4}"
            for _ in range(5):
                server.add(adding(name, number), replace=True)
                with_answer: Future[float] = pool.submit(ask, client, "first")
                assert with_answer.result(PATIENCE) == 1

        with ThreadPoolExecutor(8) as others:
            list(others.map(comes_and_goes, range(8)))
        assert sorted(server.names) == ["first", "m0", "m1", "m2", "m3"]
        for number in range(4):
            server.remove(f"m{number}")
        assert server.names == ["first"]


def test_it_closes_while_a_model_is_being_added(pool: ThreadPoolExecutor) -> None:
    gate = Gate()
    with Server(adding("first", 1), port=0) as server:
        adds = pool.submit(server.add, adding("slow", 1, load=gate))
        assert gate.reached.wait(PATIENCE)
        closes = pool.submit(server.close)
        gate.opened.set()
        closes.result(PATIENCE)
        assert adds.exception(PATIENCE) is None or isinstance(adds.exception(), Exception)


def test_the_async_twins() -> None:
    async def main() -> None:
        async with Server(adding("first", 1), port=0) as server, AsyncClient(server.url) as client:
            await server.aadd(adding("second", 2))
            assert (await client.infer("second", ONE))["y"].tolist() == [[3]]
            await server.aadd(adding("second", 3), replace=True)
            assert (await client.infer("second", ONE))["y"].tolist() == [[4]]
            await server.aremove("second")
            with pytest.raises(ModelNotFound):
                await client.infer("second", ONE)
            assert not await server.apoll()

    asyncio.run(main())


def test_a_server_needs_something_to_serve() -> None:
    with pytest.raises(ConfigError, match="at least one model"):
        Server([])
