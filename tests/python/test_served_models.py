"""Models of a server come and go: the first request loads them, others wait for nobody, what is in use stays."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penstock import AsyncClient, Client, ModelCache, Processes, Server, model
from penstock.errors import (
    CapacityError,
    Closed,
    ConfigError,
    DependencyCycle,
    LoadFailed,
    ModelNotFound,
    PenstockError,
    RemoteError,
)
from tests.python.support import in_processes as far
from tests.python.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIB = 1 << 20
PATIENCE = 30.0

X = {"inputs": {"x": ("float32", [1])}, "outputs": {"y": ("float32", [1])}}


class Book:
    """What happened to models, in its order."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.batches: list[tuple[str, int]] = []
        self.gates: dict[str, threading.Event] = {}
        self.failures: dict[str, Exception] = {}

    def of(self, name: str) -> list[str]:
        return [line.removeprefix(f"{name} ") for line in self.lines if line.startswith(f"{name} ")]

    def hold(self, name: str) -> threading.Event:
        """The loads of that model wait from here on."""
        return self.gates.setdefault(name, threading.Event())


def adding(book: Book, name: str, number: float, **declared: Any) -> type:
    """A model that adds a number, and has an array of a mebibyte."""

    class Adding:
        def load(self, ctx: Any) -> None:
            book.lines.append(f"{name} loads")
            if name in book.gates:
                while not book.gates[name].wait(0.02):
                    ctx.progress(0.5, "weights")
            if name in book.failures:
                raise book.failures[name]
            self.weights = np.full(MIB // 4, number, np.float32)
            self.ctx = ctx

        def predict(self, x: Any) -> Any:
            book.batches.append((name, len(x)))
            return x + self.weights[0]

        def close(self) -> None:
            book.lines.append(f"{name} closes")

    made: type = model(name, **{"size": MIB, "load_retries": 0, **X, **declared})(Adding)
    return made


def ask(client: Client, name: str, value: float = 1.0, **options: Any) -> float:
    return float(client.infer(name, {"x": np.full((1, 1), value, np.float32)}, **options)["y"][0, 0])


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


def state(server: Server, reference: str) -> str:
    return server.cache.progress(reference).state


def test_the_first_request_loads_and_all_that_come_meanwhile_are_one_batch(threads: ThreadPoolExecutor) -> None:
    book = Book()
    gate = book.hold("a")
    models = [adding(book, "a", 1, max_batch_size=64), adding(book, "b", 2)]
    with Server(models, port=0, preload=["b"]) as server, Client(server.url) as client:
        assert book.lines == ["b loads"]
        asked = [threads.submit(ask, client, "a", value) for value in range(20)]
        until(lambda: server.stats().models["a"].queued == 20)
        assert ask(client, "b") == 3, "nobody else waits"
        assert server.ready
        gate.set()
        assert [each.result(PATIENCE) for each in asked] == [value + 1 for value in range(20)]
        assert book.of("a") == ["loads"]
        assert [size for name, size in book.batches if name == "a"] == [20]
        assert ask(client, "a") == 2
        stats = server.cache.stats()
        assert (stats.loads, stats.misses, stats.joins) == (2, 1, 19)
    assert sorted(book.lines[-2:]) == ["a closes", "b closes"]


def test_what_was_used_least_recently_leaves_and_comes_back() -> None:
    book = Book()
    models = [adding(book, name, number) for number, name in enumerate("abc")]
    cache = ModelCache(memory=2 * MIB + MIB // 2)
    with cache, Server(models, port=0, preload=[], cache=cache) as server, Client(server.url) as client:
        for round_ in range(3):
            for number, name in enumerate("abc"):
                assert ask(client, name, round_) == round_ + number
        assert book.of("a") == ["loads", "closes"] * 2 + ["loads", "closes"]
        assert server.cache.stats().evictions == {"space": 7}
        until(lambda: state(server, "a") == "unloaded")
        assert [state(server, name) for name in "bc"] == ["ready", "ready"]
    assert book.lines.count("c closes") == 3


@pytest.mark.parametrize("kind", ["class", "async", "generate", "batched", "processes"])
def test_every_kind_of_model_leaves_and_comes_back(kind: str) -> None:
    book = Book()
    (served, asking), other = KINDS[kind](book), adding(book, "other", 1)
    with Server([served, other], port=0, preload=[]) as server, Client(server.url) as client:
        for _ in range(3):
            assert asking(client)
            assert ask(client, "other") == 2
            server.cache.unload("it").wait(PATIENCE)
            assert state(server, "it") == "unloaded"
        assert server.cache.stats().loads == 4
        assert asking(client)


def _of_class(book: Book) -> tuple[Any, Callable[[Client], bool]]:
    return adding(book, "it", 5), lambda client: ask(client, "it") == 6


def _asynchronous(_: Book) -> tuple[Any, Callable[[Client], bool]]:
    @model("it", workers=2, **X)
    class Slow:
        async def load(self, ctx: Any) -> None:
            await asyncio.sleep(0.01)
            self.number = 7

        async def warmup(self) -> None:
            self.number += 1

        async def predict(self, x: Any) -> Any:
            await asyncio.sleep(0.001)
            return x + self.number

        async def close(self) -> None:
            await asyncio.sleep(0)

    return Slow, lambda client: ask(client, "it") == 9


def _generating(_: Book) -> tuple[Any, Callable[[Client], bool]]:
    @model("it", task="generate")
    def words(request: Any) -> Any:
        yield from request.prompt.split()

    def asking(client: Client) -> bool:
        answer = client.post("/v2/models/it/generate", json={"text_input": "a b"}).json()
        return bool(answer["text_output"] == "ab")

    return words, asking


def _batched(_: Book) -> tuple[Any, Callable[[Client], bool]]:
    @model("it", **X)
    def counting(batch: Any) -> Any:
        for step in range(3):
            yield {index: batch.inputs[index]["x"] + step for index in batch.live}

    return counting, lambda client: ask(client, "it") == 3


def _in_processes(_: Book) -> tuple[Any, Callable[[Client], bool]]:
    return far.doubling_it, lambda client: ask(client, "it") == 2


KINDS = {
    "class": _of_class,
    "async": _asynchronous,
    "generate": _generating,
    "batched": _batched,
    "processes": _in_processes,
}


def test_a_load_that_fails_refuses_those_who_wait_and_says_when_to_come_again(threads: ThreadPoolExecutor) -> None:
    book = Book()
    gate = book.hold("a")
    book.failures["a"] = OSError("no weights")
    with Server([adding(book, "a", 1)], port=0, preload=[]) as server, Client(server.url) as client:
        asked = [threads.submit(ask, client, "a") for _ in range(8)]
        until(lambda: server.stats().models["a"].queued == 8)
        gate.set()
        for each in asked:
            with pytest.raises(RemoteError, match="model 'a' failed to load: OSError: no weights") as failure:
                each.result(PATIENCE)
            assert failure.value.status == 503
        until(lambda: server.stats().models["a"].queued == 0)
        answer = client.post("/v2/models/a/infer", json=BODY)
        assert answer.status_code == 503
        assert 1 <= int(answer.headers["retry-after"]) <= 6
        assert book.of("a") == ["loads"], "it is remembered"
        del book.failures["a"]
        server.cache.reload("a").wait(PATIENCE)
        assert ask(client, "a") == 2


BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]}


def test_a_load_that_takes_too_long_is_status_504_and_counts_once_it_comes(threads: ThreadPoolExecutor) -> None:
    book = Book()
    gate = threading.Event()

    @model("a", load_timeout=0.2, load_retries=0, **X)
    class Slow:
        def load(self, _: Any) -> None:
            book.lines.append("a loads")
            gate.wait(PATIENCE)

        def predict(self, x: Any) -> Any:
            return x

    with Server([Slow], port=0, preload=[]) as server, Client(server.url) as client:
        with pytest.raises(RemoteError, match="'a' failed to load: it took longer") as failure:
            ask(client, "a")
        assert failure.value.status == 504
        assert client.post("/v2/models/a/infer", json=BODY).status_code == 504
        gate.set()
        until(lambda: state(server, "a") == "ready")
        assert ask(client, "a") == 1
        assert book.lines == ["a loads"]


def test_who_has_no_time_to_wait_is_told_so_and_the_load_goes_on() -> None:
    book = Book()
    gate = book.hold("a")
    with Server([adding(book, "a", 1)], port=0, preload=[]) as server, Client(server.url) as client:
        began = time.monotonic()
        answer = client.post("/v2/models/a/infer", json=BODY, headers={"x-request-timeout": "0.2"})
        assert (answer.status_code, time.monotonic() - began < PATIENCE / 2) == (504, True)
        until(lambda: server.stats().models["a"].queued == 0)
        gate.set()
        until(lambda: state(server, "a") == "ready")
        assert (ask(client, "a"), book.of("a")) == (2, ["loads"])


def test_what_can_never_fit_is_refused_at_once() -> None:
    book = Book()
    cache = ModelCache(memory=MIB // 2)
    with cache, Server([adding(book, "a", 1)], port=0, preload=[], cache=cache) as server:
        with Client(server.url) as client, pytest.raises(RemoteError, match="a memory of 524288") as failure:
            ask(client, "a")
        assert failure.value.status == 503
        with pytest.raises(CapacityError):
            Server([adding(book, "b", 1)], port=0, cache=cache).start()
    assert book.lines == []


def test_a_stream_holds_its_model_until_its_last_byte(threads: ThreadPoolExecutor) -> None:
    book = Book()
    turnstile = threading.Semaphore(0)

    @model("talk", task="generate", size=MIB)
    class Talk:
        def load(self, _: Any) -> None:
            self.weights = np.zeros(MIB, np.uint8)

        def predict(self, request: Any) -> Any:
            for word in request.prompt.split():
                turnstile.acquire(timeout=PATIENCE)
                yield word

        def close(self) -> None:
            book.lines.append("talk closes")

    cache = ModelCache(memory=MIB + MIB // 2)
    models = [Talk, adding(book, "a", 1)]
    with cache, Server(models, port=0, preload=[], cache=cache) as server, Client(server.url) as client:
        with client.stream("POST", "/v2/models/talk/generate_stream", json={"text_input": "a b c"}) as stream:
            events = stream.sse()
            turnstile.release()
            assert next(events).json()["text_output"] == "a"
            asked = threads.submit(ask, client, "a")
            until(lambda: state(server, "a") == "waiting for space")
            assert state(server, "talk") == "ready"
            turnstile.release(2)
            assert [event.json()["text_output"] for event in events if event.data][:2] == ["b", "c"]
        assert asked.result(PATIENCE) == 2
        assert book.lines[0] == "talk closes"


def test_a_model_is_given_what_it_requires_and_leaves_before_it() -> None:
    book = Book()
    book_scaler = model("scaler", **X)(_scaler(book))

    @model("head", **X)
    class Head:
        requires = ("scaler", "words")

        def load(self, ctx: Any) -> None:
            self.scaler, self.words = ctx["scaler"], ctx["words"]
            book.lines.append("head loads")

        def predict(self, x: Any) -> Any:
            return self.scaler.predict(x) + len(self.words)

        def close(self) -> None:
            book.lines.append("head closes")

    with ModelCache() as cache:
        cache.loader("words")(lambda _: {"a": 1, "b": 2})
        with Server([Head, book_scaler], port=0, preload=[], cache=cache) as server, Client(server.url) as client:
            assert ask(client, "head", 2.0) == 2.0 * 3 + 2
            assert ask(client, "scaler", 2.0) == 6
            with pytest.raises(ConfigError, match="head"):
                server.cache.unload("scaler").wait(PATIENCE)
        assert book.lines == ["scaler loads", "head loads", "head closes", "scaler closes"]
        assert [row.name for row in cache.index()] == ["words"], "the cache lives on without the server's models"
        with cache.acquire("words") as words:
            assert words == {"a": 1, "b": 2}


def _scaler(book: Book) -> type:
    class Scaling:
        def load(self, _: Any) -> None:
            book.lines.append("scaler loads")
            self.scale = 3.0

        def predict(self, x: Any) -> Any:
            return x * self.scale

        def close(self) -> None:
            book.lines.append("scaler closes")

    return Scaling


def test_what_is_required_must_be_there_and_not_in_a_circle() -> None:
    book = Book()
    with pytest.raises(ModelNotFound, match="model 'a' requires 'nothing'"):
        Server([adding(book, "a", 1, requires="nothing")], port=0).start()
    with pytest.raises(DependencyCycle, match=r"a -> b -> a|b -> a -> b"):
        Server([adding(book, "a", 1, requires=["b"]), adding(book, "b", 1, requires=["a"])], port=0).start()
    with pytest.raises(ModelNotFound, match="x"):
        Server([adding(book, "a", 1)], port=0, preload=["x"]).start()
    assert book.lines == []


def test_a_name_alone_is_the_highest_version_or_what_its_alias_says() -> None:
    book = Book()
    models = [adding(book, "head", number, version=number) for number in (9, 10, 2)]
    with Server(models, port=0, preload="head@9,head@10") as server, Client(server.url) as client:
        assert server.names == ["head@9", "head@10", "head@2"]
        assert ask(client, "head", 0) == 10
        assert ask(client, "head", 0, version="2") == 2
        server.cache.alias("head", "head@9").wait(PATIENCE)
        assert ask(client, "head", 0) == 9
        server.cache.alias("prod", "head@2").wait(PATIENCE)
        assert ask(client, "prod", 0) == 2
        assert client.get("/v2/models/head").json()["versions"] == ["10", "9", "2"]
        with pytest.raises(ModelNotFound, match="no version '3'"):
            ask(client, "head", 0, version="3")
        assert set(server.stats().models) == {"head@9", "head@10", "head@2"}
    with pytest.raises(ConfigError, match="head"):
        Server([models[0], models[0]], port=0).start()


def test_a_reload_serves_the_old_one_until_the_new_one_is_there(threads: ThreadPoolExecutor) -> None:
    book = Book()
    with Server([adding(book, "a", 1)], port=0) as server, Client(server.url) as client:
        gate = book.hold("a")
        reload = server.cache.reload("a")
        until(lambda: book.of("a") == ["loads", "loads"])
        assert [ask(client, "a", value) for value in range(5)] == [1, 2, 3, 4, 5]
        gate.set()
        reload.wait(PATIENCE)
        until(lambda: book.of("a") == ["loads", "loads", "closes"])
        assert ask(client, "a") == 2
        book.failures["a"] = OSError("torn")
        with pytest.raises(LoadFailed, match="torn"):
            server.cache.reload("a").wait(PATIENCE)
        assert ask(client, "a") == 2
        assert server.ready


def test_requests_never_fail_while_models_are_unloaded_and_loaded(threads: ThreadPoolExecutor) -> None:
    book = Book()
    models = [adding(book, name, number) for number, name in enumerate("abc")]
    cache = ModelCache(memory=2 * MIB + MIB // 2)
    stop = threading.Event()
    with cache, Server(models, port=0, preload=[], cache=cache) as server, Client(server.url) as client:

        def asking(seed: int) -> int:
            rng = np.random.default_rng(seed)
            count = 0
            while not stop.is_set():
                number = int(rng.integers(3))
                assert ask(client, "abc"[number], seed) == seed + number
                count += 1
            return count

        asked: list[Future[int]] = [threads.submit(asking, seed) for seed in range(8)]
        for _ in range(10):
            time.sleep(0.05)
            for name in "abc":
                server.cache.reload(name)
        stop.set()
        assert sum(each.result(PATIENCE) for each in asked) > 0
    loads = sum(line.endswith("loads") for line in book.lines)
    assert loads == sum(line.endswith("closes") for line in book.lines)


def test_closing_ends_loads_and_refuses_who_waits(threads: ThreadPoolExecutor) -> None:
    book = Book()
    book.hold("a")
    others = set(threading.enumerate())
    server = Server([adding(book, "a", 1)], port=0, preload=[]).start()
    with Client(server.url) as client:
        asked = threads.submit(ask, client, "a")
        until(lambda: book.of("a") == ["loads"])
        began = time.monotonic()
        server.close(drain=False)
        assert time.monotonic() - began < PATIENCE / 2
        with pytest.raises((Closed, PenstockError)):
            asked.result(PATIENCE)
    until(lambda: not [each for each in {*threading.enumerate()} - others if each.name.startswith("penstock-load")])


def test_a_server_leaves_a_cache_that_is_not_its_own() -> None:
    book = Book()
    with ModelCache() as cache:
        with Server([adding(book, "a", 1)], port=0, cache=cache) as server:
            with cache.acquire("a") as instance:
                assert instance.ctx.name == "a"
            with pytest.raises(ConfigError, match="the cache has a model 'a'"):
                Server([adding(book, "a", 1)], port=0, cache=cache).start()
            assert server.cache is cache
        assert book.lines == ["a loads", "a closes"]
        assert not cache.closed
        with Server([adding(book, "a", 2)], port=0, cache=cache) as server, Client(server.url) as client:
            assert ask(client, "a") == 3


def test_a_server_of_its_own_cache_closes_it() -> None:
    book = Book()
    with Server([adding(book, "a", 1)], port=0) as server:
        cache = server.cache
    assert cache.closed
    assert book.lines == ["a loads", "a closes"]


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"requires": 3}, "requires must be names"),
        ({"requires": ["a@b@c"]}, "such as 'scaler'"),
        ({"size": "much"}, "size must be"),
        ({"size": -1}, "size"),
        ({"load_timeout": 0}, "load_timeout must be"),
        ({"load_timeout": float("inf")}, "load_timeout must be"),
        ({"load_timeout": True}, "load_timeout must be"),
        ({"load_retries": -1}, "load_retries"),
        ({"load_retries": 1.5}, "load_retries"),
        ({"warmup": 3}, "warmup must be a function"),
        ({"version": "a/b"}, "version is made of"),
        ({"requires": "x", "workers": Processes(1)}, "runs in processes"),
    ],
)
def test_declarations_that_cannot_be_are_refused(declared: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        model("m", **X, **declared)(lambda x: x)


def test_a_declaration_is_in_one_place() -> None:
    class Twice:
        requires = ("a",)

        def predict(self, x: Any) -> Any:
            return x

    with pytest.raises(ConfigError, match="both a keyword and an attribute"):
        model("m", requires="b", **X)(Twice)


@pytest.mark.parametrize("wrong", [{"cache": 3}, {"preload": 3}, {"preload": [3]}])
def test_a_server_refuses_what_is_no_cache_and_what_are_no_names(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Server([adding(Book(), "a", 1)], port=0, **wrong)


def test_an_awaited_request_waits_for_the_load_too() -> None:
    book = Book()
    gate = book.hold("a")

    async def main(url: str) -> list[float]:
        async with AsyncClient(url) as client:
            x = np.ones((1, 1), np.float32)
            asked = [asyncio.ensure_future(client.infer("a", {"x": x})) for _ in range(10)]
            await asyncio.sleep(0.05)
            gate.set()
            return [float((await each)["y"][0, 0]) for each in asked]

    with Server([adding(book, "a", 1)], port=0, preload=[]) as server:
        assert asyncio.run(main(server.url)) == [2.0] * 10
    assert book.of("a") == ["loads", "closes"]


def test_what_a_server_refuses_before_it_is_loaded_loads_nothing() -> None:
    book = Book()
    with Server([adding(book, "a", 1)], port=0, preload=[]) as server, Client(server.url) as client:
        with pytest.raises(RemoteError):
            client.infer("a", {"wrong": np.ones((1, 1), np.float32)})
        assert book.lines == []


def test_no_answer_comes_before_it_is_known_that_the_model_is_loaded() -> None:
    with Server(adding(Book(), "a", 1), port=0, preload=[]) as server, Client(server.url) as client:
        for _ in range(20):
            assert ask(client, "a") == 2
            assert state(server, "a") == "ready"
            client.unload_model("a")


def test_after_a_reload_nothing_is_answered_by_the_old_instance() -> None:
    loads, entered, goes_on = [0], threading.Event(), threading.Event()

    @model("m", workers=2, max_batch_size=1, **X)
    class Counting:
        def load(self, _ctx: Any) -> None:
            loads[0] += 1
            self.number = np.float32(loads[0])

        def predict(self, x: Any) -> Any:
            if x[0, 0] < 0:
                entered.set()
                assert goes_on.wait(PATIENCE)
            return x * 0 + self.number

    with ThreadPoolExecutor(1) as pool, Server(Counting, port=0) as server, Client(server.url) as client:
        # Its other worker is free, and the old instance in use until this is answered.
        late = pool.submit(ask, client, "m", -1.0)
        assert entered.wait(PATIENCE)
        server.cache.reload("m").wait(PATIENCE)
        try:
            assert [ask(client, "m") for _ in range(20)] == [2] * 20
        finally:
            goes_on.set()
        assert late.result(PATIENCE) == 1
