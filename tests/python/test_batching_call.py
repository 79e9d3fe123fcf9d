"""Calling without awaiting: from threads, from notebook cells whose loop is running, and from inside functions."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from penstock import Batcher, batched
from penstock.errors import ConfigError, ModelError
from tests.python.support.waiting import PATIENCE, Gate, outcomes, soon


def double(x: np.ndarray) -> np.ndarray:
    return x * 2


async def async_double(x: np.ndarray) -> np.ndarray:
    await asyncio.sleep(0.001)
    return x * 2


KINDS = {
    "worker": (double, 1),
    "several workers": (double, 3),
    "inline": (double, "inline"),
    "async function": (async_double, 1),
    "async function with workers": (async_double, 3),
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


def of_kind(kind: str, **settings: Any) -> Batcher:
    fn, workers = KINDS[kind]
    return batched(fn, workers=workers, **settings)


@EVERY_KIND
def test_many_threads_get_their_own_answers(kind: str) -> None:
    f = of_kind(kind)

    def one(thread: int) -> list[tuple[int, float]]:
        return [(number, f.call(float(number))) for number in range(thread * 1000, thread * 1000 + 50)]

    with ThreadPoolExecutor(8) as pool:
        for answers in pool.map(one, range(8)):
            assert all(got == 2 * number for number, got in answers)
    assert f.stats().requests == 400


@EVERY_KIND
def test_call_works_without_any_loop(kind: str) -> None:
    f = of_kind(kind)
    assert f.call(21) == 42
    assert f.call(np.arange(3)).tolist() == [0, 2, 4]
    assert f.stats().reasons == {"tick": 2}


@EVERY_KIND
async def test_call_inside_a_running_loop_does_not_deadlock(kind: str) -> None:
    f = of_kind(kind)
    assert f.call(21) == 42  # as a notebook cell does
    assert await f(4) == 8
    assert f.call(22) == 44


@EVERY_KIND
async def test_call_inside_a_running_loop_with_requests_in_flight_answers_all(kind: str) -> None:
    f = of_kind(kind)
    futures = [f(number) for number in range(10)]
    assert f.call(50) == 100
    futures.append(f(10))
    assert await outcomes(futures) == [2 * number for number in range(11)]


@EVERY_KIND
def test_call_under_a_window_is_answered_when_the_window_ends(kind: str) -> None:
    f = of_kind(kind, dispatch="window", max_wait=0.05)
    assert f.call(3) == 6
    assert f.stats().reasons == {"window": 1}


@EVERY_KIND
def test_calls_of_several_threads_fill_a_window(kind: str) -> None:
    f = of_kind(kind, dispatch="window", max_wait=3600, max_batch_size=4)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(f.call, range(4), timeout=PATIENCE)) == [0, 2, 4, 6]
    assert f.stats().reasons == {"full": 1}


async def test_call_takes_arguments_keywords_and_structures() -> None:
    def f(x: np.ndarray, y: list, *, factor: int = 1) -> list:
        return [(number * factor, name) for number, name in zip(x.tolist(), y, strict=True)]

    batcher = batched(f)
    assert batcher.call(2, "a", factor=3) == (6, "a")
    assert await asyncio.to_thread(batcher.call, 2, "b") == (2, "b")


async def test_calls_in_threads_and_awaits_on_the_loop_share_batches(gate: Gate) -> None:
    f = batched(gate.run)
    blocker = f(0)
    await gate.is_entered()
    calls = [asyncio.ensure_future(asyncio.to_thread(f.call, number)) for number in (1, 2)]
    await soon(lambda: f.stats().queued == 2)
    futures = [f(3), f(4)]
    gate.open()
    assert await outcomes([blocker, *calls, *futures]) == [0, 10, 20, 30, 40]
    assert len(gate.batches) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_call_inside_its_own_function_is_refused_and_says_what_to_do(workers: int) -> None:
    holder: list[Batcher] = []

    def f(x: np.ndarray) -> np.ndarray:
        return holder[0].call(x[0])

    holder.append(batched(f, workers=workers))
    with pytest.raises(ModelError, match=r"\.fn") as caught:
        holder[0].call(1)
    assert isinstance(caught.value.__cause__, ConfigError)


@pytest.mark.timeout(20)
def test_call_inside_its_own_inline_function_does_not_hang() -> None:
    holder: list[Batcher] = []

    def f(x: np.ndarray) -> np.ndarray:
        return x if x[0] == 0 else np.array([holder[0].call(0) + 1])

    holder.append(batched(f, workers="inline"))
    # It does not wait for itself: nothing stands in the way of an answer.
    with contextlib.suppress(ModelError):
        assert holder[0].call(5) == 1
    assert holder[0].call(0) == 0


@pytest.mark.timeout(20)
def test_call_inside_its_own_async_function_is_refused() -> None:
    holder: list[Batcher] = []

    async def f(x: np.ndarray) -> np.ndarray:
        return np.array([holder[0].call(0)])

    holder.append(batched(f))
    with pytest.raises(ModelError) as caught:
        holder[0].call(1)
    assert isinstance(caught.value.__cause__, ConfigError)


@pytest.mark.timeout(20)
def test_one_async_function_may_not_call_another_but_may_await_it() -> None:
    inner = batched(async_double)

    async def calls(x: np.ndarray) -> np.ndarray:
        return np.array([inner.call(number) for number in x.tolist()])

    async def awaits(x: np.ndarray) -> np.ndarray:
        return np.array(await asyncio.gather(*map(inner, x.tolist())))

    with pytest.raises(ModelError) as caught:
        batched(calls).call(1)
    assert isinstance(caught.value.__cause__, ConfigError)
    assert batched(awaits).call(3) == 6


@pytest.mark.parametrize("workers", [1, "inline"])
async def test_one_function_may_call_another(workers: int | str) -> None:
    inner = batched(double)
    outer = batched(lambda x: np.array([inner.call(number) + 1 for number in x.tolist()]), workers=workers)
    assert await asyncio.gather(*map(outer, range(5))) == [1, 3, 5, 7, 9]


async def test_an_async_function_runs_on_penstocks_loop_and_not_the_callers() -> None:
    seen = []

    async def f(x: np.ndarray) -> np.ndarray:
        seen.append((asyncio.get_running_loop(), threading.current_thread().name))
        return x

    batcher = batched(f)
    await batcher(1)
    batcher.call(2)
    loops, names = zip(*seen, strict=True)
    assert set(names) == {"penstock-asyncio"}
    assert asyncio.get_running_loop() not in loops
    assert loops[0] is loops[1]


async def test_a_callable_object_with_an_async_call_is_an_async_function() -> None:
    class Model:
        async def __call__(self, x: np.ndarray) -> np.ndarray:
            await asyncio.sleep(0)
            return x + 1

    assert await batched(Model())(1) == 2


async def test_async_functions_of_several_batchers_overlap() -> None:
    met = asyncio.Barrier(2)

    async def f(x: np.ndarray) -> np.ndarray:
        async with asyncio.timeout(PATIENCE):
            await met.wait()  # passes only where both run at once
        return x

    first, second = batched(f), batched(f)
    assert await outcomes([first(1), second(2)]) == [1, 2]


async def test_a_slow_async_function_leaves_the_callers_loop_free() -> None:
    released = threading.Event()

    async def f(x: np.ndarray) -> np.ndarray:
        while not released.is_set():  # noqa: ASYNC110  set by another thread
            await asyncio.sleep(0.005)
        return x

    future = batched(f)(1)
    await asyncio.sleep(0.02)
    assert not future.done()
    released.set()
    assert await asyncio.wait_for(future, PATIENCE) == 1
