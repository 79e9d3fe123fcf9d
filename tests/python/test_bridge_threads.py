"""One batcher between loops and threads, loops that come and go, and batchers that nobody holds any more."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penstock import Batcher, batched
from tests.python.support.loops import FACTORIES
from tests.python.support.waiting import PATIENCE, Gate, outcomes, soon, until

if TYPE_CHECKING:
    from collections.abc import Callable

EVERY_LOOP = pytest.mark.parametrize("loop", FACTORIES)
WORKERS = pytest.mark.parametrize("workers", [1, 3, "inline"])


def double(x: np.ndarray) -> np.ndarray:
    return x * 2


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def run(loop: str, main: Callable[[], Any]) -> Any:
    with asyncio.Runner(loop_factory=FACTORIES[loop]) as runner:
        return runner.run(main())


@EVERY_LOOP
@WORKERS
def test_loops_in_several_threads_share_a_batcher_and_get_their_own_answers(loop: str, workers: int | str) -> None:
    f = batched(double, workers=workers)
    ready = threading.Barrier(3, timeout=PATIENCE)

    def thread(offset: int) -> None:
        async def one(number: int) -> None:
            row = await f(np.full(3, number))
            assert row.tolist() == [2 * number] * 3

        async def main() -> None:
            ready.wait()
            for _ in range(10):
                await asyncio.wait_for(asyncio.gather(*(one(offset + n) for n in range(100))), PATIENCE)

        run(loop, main)

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(thread, offset) for offset in (0, 1000, 2000)]:
            done.result()
    assert f.stats().requests == 3000


def test_different_kinds_of_loops_and_plain_threads_share_one_batch(gate: Gate) -> None:
    f = batched(gate.run)

    async def one(number: int) -> int:
        return await asyncio.wait_for(f(number), PATIENCE)

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(f.call, 0)
        until(gate.entered.is_set)
        others = [
            pool.submit(run, "asyncio-debug", lambda: one(1)),
            pool.submit(run, "uvloop", lambda: one(2)),
            pool.submit(f.call, 3),
        ]
        until(lambda: f.stats().queued == 3)
        gate.open()
        assert [done.result() for done in [first, *others]] == [0, 10, 20, 30]
    assert [len(batch) for batch in gate.batches] == [1, 3]


@EVERY_LOOP
@WORKERS
def test_a_loop_after_a_loop_after_a_loop_leaks_nothing(loop: str, workers: int | str) -> None:
    f = batched(double, workers=workers)

    async def main() -> None:
        assert await asyncio.gather(*map(f, range(5))) == [0, 2, 4, 6, 8]

    for _ in range(3):
        run(loop, main)
    before, threads = descriptors(), threading.active_count()
    for _ in range(50):
        run(loop, main)
    gc.collect()
    assert descriptors() - before <= 4
    assert threading.active_count() <= threads  # those of other tests may end meanwhile
    assert f.stats().requests == 53 * 5


@EVERY_LOOP
def test_batchers_that_were_used_on_loops_of_the_past_hold_no_descriptors(loop: str) -> None:
    kept: list[Batcher] = []

    def new() -> None:
        kept.append(batched(double, workers="inline"))

        async def main() -> None:
            assert await kept[-1](1) == 2

        run(loop, main)

    new()
    before = descriptors()
    for _ in range(50):
        new()
    gc.collect()
    assert len(kept) == 51
    assert descriptors() - before <= 10


@EVERY_LOOP
def test_a_loop_that_is_gone_is_let_go_of(loop: str) -> None:
    f = batched(double)
    traces = []

    async def main() -> None:
        traces.append(weakref.ref(asyncio.get_running_loop()))
        assert await f(1) == 2

    for _ in range(5):
        run(loop, main)
    gc.collect()
    # The last one is known until the next one comes.
    assert sum(trace() is not None for trace in traces) <= 2


@EVERY_LOOP
def test_one_loop_that_runs_again_and_again_goes_on_with_what_waited(loop: str) -> None:
    f, g = batched(double), batched(double, workers="inline")
    with asyncio.Runner(loop_factory=FACTORIES[loop]) as runner:
        futures: list[asyncio.Future] = []

        async def send() -> None:
            futures.extend([f(1), g(2)])

        async def receive() -> list[Any]:
            return await outcomes(futures)

        runner.run(send())
        assert runner.run(receive()) == [2, 4]


@EVERY_LOOP
@WORKERS
def test_a_loop_that_closes_with_requests_in_flight_harms_no_later_loop(loop: str, workers: int | str) -> None:
    gate = Gate()

    def f(x: np.ndarray) -> np.ndarray:
        return gate.run(x) if workers != "inline" else x * 10

    batcher = batched(f, workers=workers, max_batch_size=2)
    abandoned = []

    async def leave() -> None:
        abandoned.extend(batcher(number) for number in range(6))
        if workers != "inline":
            await gate.is_entered()

    run(loop, leave)
    gate.open()

    async def main() -> list[Any]:
        return await outcomes(map(batcher, range(100, 110)))

    assert run(loop, main) == [10 * number for number in range(100, 110)]
    until(lambda: batcher.stats().queued == batcher.stats().running == 0)
    assert batcher.call(7) == 70


@EVERY_LOOP
def test_a_loop_that_closes_before_its_tick_ends_harms_no_later_loop(loop: str) -> None:
    f, g = batched(double), batched(double, workers="inline")

    async def leave() -> None:
        asyncio.get_running_loop().call_soon(lambda: (f(1), g(1)))

    async def main() -> list[Any]:
        return await outcomes([f(3), g(4), *map(f, range(3))])

    for _ in range(3):
        run(loop, leave)
        assert run(loop, main) == [6, 8, 0, 2, 4]


def test_a_minimum_counts_from_the_new_loops_request_and_not_from_a_lost_one() -> None:
    f = batched(double, min_batch_size=2, max_wait=3600, workers="inline")

    async def refused() -> None:
        with pytest.raises(TypeError):
            f()

    async def main() -> list[Any]:
        first = f(1)
        await asyncio.sleep(0.02)
        assert not first.done()
        return await outcomes([first, f(2)])

    asyncio.run(refused())
    assert asyncio.run(main()) == [2, 4]
    assert f.stats().reasons == {"tick": 1}


async def test_a_batcher_that_nobody_holds_still_answers() -> None:
    assert await batched(double)(4) == 8
    assert await batched(double, workers="inline")(4) == 8
    futures = [batched(double, workers=workers)(number) for workers in (1, 2, "inline") for number in range(5)]
    gc.collect()
    assert await outcomes(futures) == [2 * number for number in range(5)] * 3


async def test_a_batcher_that_nobody_holds_still_answers_while_its_function_runs(gate: Gate) -> None:
    f = batched(gate.run, max_batch_size=1)
    futures = [f(number) for number in range(3)]
    await gate.is_entered()
    del f
    gc.collect()
    gate.open()
    assert await outcomes(futures) == [0, 10, 20]


@pytest.mark.parametrize("dispatch", ["tick", "window"])
@pytest.mark.parametrize("workers", [1, "inline"])
async def test_a_batcher_that_nobody_holds_lets_its_window_go(dispatch: str, workers: int | str) -> None:
    future = batched(double, dispatch=dispatch, min_batch_size=2, max_wait=2.0, workers=workers)(4)
    gc.collect()
    assert await outcomes([future]) == [8]


def alive(name: str) -> int:
    return sum(name in thread.name for thread in threading.enumerate())


async def test_dropped_batchers_end_their_threads() -> None:
    def evaporating(x: np.ndarray) -> np.ndarray:
        return x

    batchers = [batched(evaporating, workers=2) for _ in range(10)]
    assert await outcomes(f(1) for f in batchers) == [1] * 10
    assert alive("evaporating") == 20
    del batchers

    def gone() -> bool:
        gc.collect()
        return alive("evaporating") == 0

    await soon(gone)


class Model:
    """Batches a method of its own: a cycle."""

    def __init__(self, workers: int | str) -> None:
        self.weights = np.arange(3)
        self.predict = batched(self.cyclical, workers=workers)

    def cyclical(self, x: np.ndarray) -> np.ndarray:
        return x + self.weights


class AsyncModel(Model):
    async def cyclical(self, x: np.ndarray) -> np.ndarray:
        return x + self.weights


@pytest.mark.parametrize("used", [True, False])
@pytest.mark.parametrize(("kind", "workers"), [(Model, 1), (Model, 2), (Model, "inline"), (AsyncModel, 1)])
async def test_an_object_that_batches_its_own_method_can_be_collected(
    kind: type[Model], workers: int | str, used: bool
) -> None:
    model = kind(workers)
    if used:
        assert (await model.predict(np.zeros(3))).tolist() == [0, 1, 2]
        assert model.predict.call(np.ones(3)).tolist() == [1, 2, 3]
    trace = weakref.ref(model)
    del model

    def gone() -> bool:
        gc.collect()
        return trace() is None and alive("cyclical") == 0

    await soon(gone)


async def test_a_cycle_with_work_in_progress_is_not_collected_before_it_has_answered(gate: Gate) -> None:
    class Slow:
        def __init__(self) -> None:
            self.f = batched(self.method, max_batch_size=1)

        def method(self, x: np.ndarray) -> np.ndarray:
            return gate.run(x)

    slow = Slow()
    trace = weakref.ref(slow)
    futures = [slow.f(number) for number in range(3)]
    await gate.is_entered()
    del slow
    gc.collect()
    gate.open()
    assert await outcomes(futures) == [0, 10, 20]

    def gone() -> bool:
        gc.collect()
        return trace() is None

    await soon(gone)


async def test_a_closure_over_its_own_batcher_can_be_collected() -> None:
    class Marker:
        pass

    def make() -> weakref.ref:
        marker = Marker()

        def recursive(x: np.ndarray) -> np.ndarray:
            assert marker
            assert f
            return x

        f = batched(recursive)
        assert f.call(1) == 1
        return weakref.ref(marker)

    trace = make()

    def gone() -> bool:
        gc.collect()
        return trace() is None

    await soon(gone)


async def test_a_flood_of_cancellations_and_requests_stays_consistent() -> None:
    f = batched(double, max_batch_size=8, workers=2)
    kept: list[tuple[int, asyncio.Future]] = []
    for number in range(3000):
        future = f(number)
        if number % 3:
            kept.append((number, future))
        else:
            future.cancel()
        if number % 50 == 0:
            await asyncio.sleep(0)
    assert await outcomes(future for _, future in kept) == [2 * number for number, _ in kept]
    stats = f.stats()
    await soon(lambda: f.stats().queued == f.stats().running == 0)
    stats = f.stats()
    assert stats.requests + stats.abandoned == 3000
