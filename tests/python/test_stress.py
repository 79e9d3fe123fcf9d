"""A hundred at once on every part, while things go wrong: an answer or a typed error to each, and nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pytest

import penstock
from penstock import AsyncClient, Client, ItemError, ModelCache, Pipeline, Pool, Server, batched, model
from penstock.errors import ModelError, Overloaded, PenstockError, RemoteError, TransportError
from tests.python.support import graphs, weights
from tests.python.support import in_processes as far
from tests.python.support.http_server import HttpServer
from tests.python.support.pipelines import Diary, doubling, telling
from tests.python.support.waiting import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CROWD = 100
LONG = PATIENCE * 3
MIB = 1 << 20
SCALAR = {"inputs": {"x": ("float32", [1])}, "outputs": {"y": ("float32", [1])}}


T = TypeVar("T")


def crowd(one: Callable[[int], T]) -> list[T]:
    """What a hundred threads make of their numbers, which all begin at the same moment."""
    begin = threading.Barrier(CROWD)

    def member(number: int) -> T:
        begin.wait(PATIENCE)
        return one(number)

    with ThreadPoolExecutor(CROWD) as threads:
        return list(threads.map(member, range(CROWD), timeout=LONG))


def ask(client: Any, name: str, value: float, **options: Any) -> float:
    return float(client.infer(name, {"x": np.full((1, 1), value, np.float32)}, **options)["y"][0, 0])


def test_batching_with_a_hundred_workers_and_poison() -> None:
    """Every seventh item is refused, and every hundred-and-first makes its whole batch raise."""

    @batched(workers=CROWD, max_batch_size=8)
    def double(x: np.ndarray) -> list[Any]:
        time.sleep(0.002)
        if any(one % 101 == 100 for one in x.tolist()):
            raise ValueError("poison")
        return [ItemError(f"not {one}") if one % 7 == 3 else one * 2 for one in x.tolist()]

    def one(thread: int) -> Counter[str]:
        seen: Counter[str] = Counter()
        for number in range(thread * 20, thread * 20 + 20):
            poison, refused = number % 101 == 100, number % 7 == 3
            if poison or refused:
                with pytest.raises(ModelError if poison else ItemError, match="poison" if poison else f"not {number}"):
                    double.call(number)
                seen["failed"] += 1
            else:
                assert double.call(number) == number * 2
                seen["answered"] += 1
        return seen

    assert sum(crowd(one), Counter()).total() == 20 * CROWD
    double.close(timeout=PATIENCE)
    stats = double.stats()
    assert (stats.requests, stats.queued, stats.running, stats.abandoned) == (20 * CROWD, 0, 0, 0)


def test_pooling_while_one_server_of_three_dies() -> None:
    """Requests that may be repeated are answered by the two that are left."""
    with contextlib.ExitStack() as stack:
        servers = [HttpServer() for _ in range(3)]
        doomed = contextlib.ExitStack()
        doomed.enter_context(servers[0])
        for server in servers[1:]:
            stack.enter_context(server)
        half = threading.Barrier(CROWD + 1)
        client = stack.enter_context(Client([server.url for server in servers], pool=Pool(max_size=20), timeout=LONG))

        def one(thread: int) -> Counter[str]:
            seen: Counter[str] = Counter()
            for number in range(40):
                if number == 20:
                    half.wait(LONG)
                target = f"/{thread}-{number}"
                try:
                    assert client.get(target).json()["target"] == target
                    seen["answered"] += 1
                except PenstockError as error:
                    # Repeats have a budget: where a third of all breaks off at once it can be spent.
                    assert isinstance(error, TransportError), error  # noqa: PT017  nothing else may be
                    seen[type(error).__name__] += 1
            return seen

        def kill() -> None:
            half.wait(LONG)
            doomed.close()

        killer = threading.Thread(target=kill)
        killer.start()
        seen = sum(crowd(one), Counter())
        killer.join(PATIENCE)
        assert not killer.is_alive()
        assert seen.total() == 40 * CROWD
        assert seen["answered"] > 39 * CROWD, seen
        assert all(server.requests for server in servers)
        assert all(server.most <= 20 for server in servers)
        until(lambda: client.stats().total.outstanding == 0)
        assert client.get("/after").json()["target"] == "/after"


async def test_streaming_to_a_hundred_readers_of_whom_some_leave() -> None:
    """A third leaves at its second piece, a third reads slowly; each gets its own pieces, in their order."""
    diary = Diary()
    with Server(telling(diary, workers=CROWD), port=0) as server:

        async def one(number: int) -> int:
            pieces = []
            body = {"model": "tell", "prompt": str(number + 2), "stream": True}
            async with client.stream("POST", "/v1/completions", json=body) as answer:
                async for event in answer.raise_for_status().sse():
                    if event.data == "[DONE]":
                        break
                    pieces.append(event.json()["choices"][0]["text"])
                    if number % 3 == 0 and len(pieces) == 2:
                        return 2
                    if number % 3 == 1:
                        await asyncio.sleep(0.001)
            assert "".join(pieces) == "".join(f"{at} " for at in range(number + 2))
            return number + 2

        async with AsyncClient(server.url, pool=Pool(max_size=CROWD), timeout=LONG) as client:
            counts = await asyncio.wait_for(asyncio.gather(*map(one, range(CROWD))), LONG)
        assert counts == [2 if number % 3 == 0 else number + 2 for number in range(CROWD)]
        await asyncio.to_thread(until, lambda: "\npenstock_http_requests_in_flight 0\n" in server.metrics())
        assert server.stats().models["tell"].queued == 0


def test_loading_with_memory_for_two_models_of_six() -> None:
    """Whoever asks gets an answer of the right model, whichever had to leave for it; one model never loads."""
    loads: Counter[str] = Counter()

    def adding(name: str, number: float) -> type:
        @model(name, **SCALAR, size=MIB, load_retries=0)
        class Adding:
            def load(self, _: Any) -> None:
                loads[name] += 1
                if name == "m5":
                    raise ValueError("torn")
                self.weights = np.full(MIB // 4, number, np.float32)

            def predict(self, x: Any) -> Any:
                return x + self.weights[0]

        return Adding

    models = [adding(f"m{number}", number) for number in range(6)]
    cache = ModelCache(memory=2 * MIB + MIB // 2)
    with cache, Pipeline(models, cache=cache, preload=[]) as pipeline:

        def one(thread: int) -> Counter[str]:
            random = np.random.default_rng(thread)
            seen: Counter[str] = Counter()
            for chosen in random.integers(6, size=10).tolist():
                x = {"x": np.full((1, 1), thread, np.float32)}
                try:
                    assert pipeline.call(f"m{chosen}", x, timeout=LONG)["y"][0, 0] == thread + chosen
                    seen["answered"] += 1
                except PenstockError as error:
                    assert chosen == 5, (chosen, error)  # noqa: PT017  others are to be answered
                    seen["refused"] += 1
            return seen

        seen = sum(crowd(one), Counter())
        assert seen.total() == 10 * CROWD
        assert seen["answered"] > 7 * CROWD
        assert set(loads) == {f"m{number}" for number in range(6)}
        stats = pipeline.stats().models
        assert all(each.queued == 0 for each in stats.values())


def test_processes_that_are_killed_again_and_again() -> None:
    """A batch whose process is killed is run again, or fails by name when it was hit twice."""
    done, killed = threading.Event(), threading.Event()
    with Server([far.fragile], port=0) as server, Client(server.url, timeout=LONG) as client:
        native = server._native
        assert native is not None

        def kill() -> None:
            for _ in range(8):
                if done.wait(0.15):
                    return
                for number in native.process_numbers(0):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(number, signal.SIGKILL)
                        killed.set()

        def one(thread: int) -> Counter[str]:
            seen: Counter[str] = Counter()
            for number in range(thread * 1000 + 100, thread * 1000 + 110):
                assert number % 10 < 5 or killed.wait(PATIENCE), "there was no process to kill"
                try:
                    x = np.array([number], np.float32)
                    assert client.infer("fragile", {"x": x})["y"].tolist() == [number * 2]
                    seen["answered"] += 1
                except RemoteError as error:
                    assert "process of model 'fragile'" in str(error), error  # noqa: PT017  nothing else may be
                    seen["lost"] += 1
            return seen

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            seen = sum(crowd(one), Counter())
        finally:
            done.set()
            killer.join(PATIENCE)
        assert seen["answered"] > 5 * CROWD, seen
        stats = server.stats().models["fragile"]
        assert stats.restarts > 0
        assert stats.queued == 0
        assert client.infer("fragile", {"x": np.array([1], np.float32)})["y"].tolist() == [2]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_server_with_room_for_ten_refuses_the_others_and_recovers(protocol: str) -> None:
    """Beyond its queue it says so at once; what it took, it answers; afterwards it serves as before."""
    gate = threading.Event()

    @model("gated", **SCALAR, max_batch_size=2, max_queue=8)
    def gated(x: Any) -> Any:
        assert gate.wait(LONG)
        return x * 2

    with Server(gated, port=0) as server:
        url = server.url if protocol == "http" else server.grpc_url
        with Client(url, pool=Pool(max_size=CROWD), timeout=LONG, retry=None) as client:
            refused = threading.Semaphore(0)

            def one(number: int) -> str:
                try:
                    assert ask(client, "gated", number) == number * 2
                except Overloaded:
                    refused.release()
                    return "refused"
                return "answered"

            def open_late() -> None:
                for _ in range(CROWD - 10):
                    assert refused.acquire(timeout=LONG)
                gate.set()

            opener = threading.Thread(target=open_late)
            opener.start()
            seen = Counter(crowd(one))
            opener.join(LONG)
            # Two are with the model, or one that came alone, and eight wait.
            assert seen.total() == CROWD
            assert 9 <= seen["answered"] <= 10, seen
            assert crowd(lambda number: number)  # the threads are gone, and others can come
            assert [ask(client, "gated", number) for number in range(5)] == [0, 2, 4, 6, 8]
            assert server.stats().models["gated"].queued == 0


def test_a_pipeline_of_all_parts_with_deadlines_and_refusals() -> None:
    """Requests that are wrong, too late or one too many get their own error; all others their own answer."""
    diary = Diary()
    with Pipeline([doubling(diary, max_queue=40), doubling(diary, "other")]) as pipeline:

        def one(thread: int) -> Counter[str]:
            seen: Counter[str] = Counter()
            for number in range(20):
                value = -1.0 if number % 5 == 4 else float(thread * 20 + number)
                timeout = 0.000001 if number % 10 == 7 else LONG
                try:
                    name = "other" if number % 2 else "double"
                    answer = pipeline.call(name, {"x": np.full((1, 2), value, np.float32)}, timeout=timeout)
                    assert answer["y"].tolist() == [[value * 2] * 2]
                    seen["answered"] += 1
                except PenstockError as error:
                    kind = type(error).__name__
                    assert kind != "ItemError" or value < 0
                    assert kind != "DeadlineExceeded" or timeout < 1
                    seen[kind] += 1
            return seen

        seen = sum(crowd(one), Counter())
        assert set(seen) <= {"answered", "ItemError", "DeadlineExceeded", "Overloaded"}
        assert seen.total() == 20 * CROWD
        assert seen["ItemError"] > 0
        assert seen["answered"] > 5 * CROWD, seen
        until(lambda: all(each.queued == 0 for each in pipeline.stats().models.values()))


def test_a_hundred_read_the_same_weights_and_run_the_same_graph(tmp_path: Path) -> None:
    """Nobody sees half a file, another's rows, or memory that was given back."""
    array = np.arange(100_000, dtype=np.float32)
    path = tmp_path / "model.safetensors"
    path.write_bytes(weights.of_arrays({"a": ("F32", array), "b": ("F32", array[::-1].copy())}))
    graph = graphs.scaled(tmp_path / "double.onnx")
    session = penstock.load_onnx(graph, threads=1)

    def one(thread: int) -> bool:
        for turn in range(5):
            held = penstock.load_safetensors(path, mode=("read", "mmap")[(thread + turn) % 2])
            x = np.full((1 + thread % 4, 4), thread, np.float32)
            if not (np.array_equal(held["a"], array) and np.array_equal(held["b"][::-1], array)):
                return False
            if not np.array_equal(session.run({"x": x})["y"], x * 2):
                return False
        return True

    assert all(crowd(one))
