"""Closing: what waits is run or told, what runs is waited for, and nothing hangs."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from penstock import Batcher, batched
from penstock.errors import Closed, ModelError
from tests.python.support.waiting import PATIENCE, Gate, outcomes, soon, until

if TYPE_CHECKING:
    import numpy as np

WORKERS = pytest.mark.parametrize("workers", [1, 3, "inline"])


def double(x: np.ndarray) -> np.ndarray:
    return x * 2


def open_later(gate: Gate) -> None:
    threading.Timer(0.05, gate.open).start()


@WORKERS
async def test_a_closed_batcher_refuses_every_way_in(workers: int | str) -> None:
    f = batched(double, workers=workers)
    assert await f(1) == 2
    assert not f.closed
    f.close()
    assert f.closed
    for refused in (f, f.call, f.options(priority="high"), f.options(timeout=5).call):
        with pytest.raises(Closed, match="closed"):
            refused(1)
    with pytest.raises(Closed):
        await f.map([1, 2])
    with pytest.raises(RuntimeError):
        f(1)


@WORKERS
@pytest.mark.parametrize("drain", [True, False])
async def test_closing_an_unused_batcher_and_closing_twice_work(drain: bool, workers: int | str) -> None:
    f = batched(double, workers=workers)
    f.close(drain=drain)
    f.close(drain=not drain)
    await f.aclose()
    assert f.closed
    assert f.stats().requests == 0


async def test_draining_runs_what_waits(gate: Gate) -> None:
    f = batched(gate.run, max_batch_size=2)
    futures = [f(0)]
    await gate.is_entered()
    futures += [f(number) for number in range(1, 6)]
    open_later(gate)
    await f.aclose(drain=True)
    assert await asyncio.gather(*futures) == [0, 10, 20, 30, 40, 50]
    assert f.stats().queued == f.stats().running == 0
    assert f.stats().reasons.get("drain", 0) >= 1


async def test_close_blocks_until_what_runs_is_done(gate: Gate) -> None:
    f = batched(gate.run)
    future = f(1)
    await gate.is_entered()
    open_later(gate)
    f.close()
    assert f.stats().running == 0
    assert await future == 10


async def test_without_draining_whoever_waits_gets_closed_and_whoever_runs_an_answer(gate: Gate) -> None:
    f = batched(gate.run)
    running = f(0)
    await gate.is_entered()
    waiting = [f(number) for number in range(1, 6)]
    open_later(gate)
    await f.aclose(drain=False)
    errors = await outcomes(waiting)
    assert [type(error) for error in errors] == [Closed] * 5
    assert len({id(error) for error in errors}) == 5
    assert await running == 0
    assert gate.seen == [0]


@pytest.mark.parametrize("drain", [True, False])
async def test_call_in_a_thread_is_answered_when_its_batcher_closes(drain: bool, gate: Gate) -> None:
    f = batched(gate.run)
    running = f(0)
    await gate.is_entered()
    waiting = asyncio.ensure_future(asyncio.to_thread(f.call, 1))
    await soon(lambda: f.stats().queued == 1)
    open_later(gate)
    await f.aclose(drain=drain)
    (outcome,) = await outcomes([waiting])
    assert outcome == 10 if drain else isinstance(outcome, Closed)
    assert await running == 0


async def test_draining_after_not_draining_and_the_other_way_round(gate: Gate) -> None:
    f = batched(gate.run)
    running = f(0)
    await gate.is_entered()
    waiting = f(1)
    open_later(gate)
    f.begin_close(True)
    f.close(drain=False)
    (outcome,) = await outcomes([waiting])
    assert isinstance(outcome, Closed) or outcome == 10
    assert await running == 0


@WORKERS
async def test_draining_cuts_an_open_window_at_once(workers: int | str) -> None:
    f = batched(double, dispatch="window", max_wait=3600, workers=workers)
    futures = [f(number) for number in range(3)]
    await f.aclose()
    assert await outcomes(futures) == [0, 2, 4]
    assert f.stats().reasons == {"drain": 1}


@WORKERS
async def test_draining_lets_a_minimum_go(workers: int | str) -> None:
    f = batched(double, min_batch_size=10, max_wait=3600, workers=workers)
    future = f(4)
    f.close()
    assert await outcomes([future]) == [8]


@WORKERS
async def test_not_draining_an_open_window_answers_its_waiters(workers: int | str) -> None:
    f = batched(double, dispatch="window", max_wait=3600, workers=workers)
    futures = [f(number) for number in range(3)]
    f.close(drain=False)
    assert [type(error) for error in await outcomes(futures)] == [Closed] * 3


@pytest.mark.parametrize("how", ["close", "aclose"])
async def test_a_time_limit_ends_the_wait_and_not_the_work(how: str, gate: Gate) -> None:
    f = batched(gate.run)
    future = f(1)
    await gate.is_entered()
    if how == "close":
        f.close(timeout=0.01)
    else:
        await f.aclose(timeout=0.01)
    assert f.stats().running == 1
    gate.open()
    assert await future == 10


async def test_a_cancelled_aclose_does_no_harm(gate: Gate) -> None:
    f = batched(gate.run)
    future = f(1)
    await gate.is_entered()
    closing = asyncio.ensure_future(f.aclose())
    await soon(lambda: f.closed)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    gate.open()
    assert await future == 10
    await asyncio.wait_for(f.aclose(), PATIENCE)


async def test_closing_from_many_tasks_and_threads_at_once_works(gate: Gate) -> None:
    f = batched(gate.run)
    futures = [f(0)]
    await gate.is_entered()
    futures.append(f(1))
    open_later(gate)
    await asyncio.wait_for(
        asyncio.gather(*(f.aclose() for _ in range(5)), *(asyncio.to_thread(f.close) for _ in range(5))), PATIENCE
    )
    assert await asyncio.gather(*futures) == [0, 10]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("workers", [1, 2, "inline"])
async def test_closing_inside_the_function_does_not_wait_for_itself(workers: int | str) -> None:
    holder: list[Batcher] = []

    def f(x: np.ndarray) -> np.ndarray:
        holder[0].close()
        return x * 2

    holder.append(batched(f, workers=workers))
    futures = [holder[0](number) for number in range(3)]
    assert await outcomes(futures) == [0, 2, 4]
    assert holder[0].closed
    await asyncio.wait_for(holder[0].aclose(), PATIENCE)


SELF_CLOSING_COROUTINE = """
holder = []
async def f(x):
    {close}
    return x * 2
holder.append(batched(f))
print(holder[0].call(4))
print(holder[0].closed)
"""


@pytest.mark.parametrize("close", ["holder[0].close()", "await holder[0].aclose()"])
def test_closing_inside_an_async_function_does_not_wait_for_itself(close: str, script: Any) -> None:
    done = script.run(SELF_CLOSING_COROUTINE.format(close=close), limit=12)
    assert (done.code, done.out, done.err) == (0, ["8", "True"], "")


async def test_the_context_manager_drains(gate: Gate) -> None:
    gate.open()
    with batched(gate.run) as f:
        assert isinstance(f, Batcher)
        futures = [f(number) for number in range(3)]
    assert f.closed
    assert await outcomes(futures) == [0, 10, 20]


async def test_the_async_context_manager_drains(gate: Gate) -> None:
    async with batched(gate.run) as f:
        futures = [f(0)]
        await gate.is_entered()
        futures.append(f(1))
        open_later(gate)
    assert f.closed
    assert await outcomes(futures) == [0, 10]


async def test_leaving_a_context_by_an_exception_does_not_run_what_waits(gate: Gate) -> None:
    f = batched(gate.run)

    async def leave() -> None:
        async with f:
            futures.append(f(0))
            await gate.is_entered()
            futures.append(f(1))
            open_later(gate)
            raise KeyError

    futures: list[asyncio.Future] = []
    with pytest.raises(KeyError):
        await leave()
    running, waiting = futures
    assert await running == 0
    assert isinstance((await outcomes([waiting]))[0], Closed)
    assert gate.seen == [0]


def test_leaving_a_plain_context_by_an_exception_closes() -> None:
    with pytest.raises(KeyError), batched(double) as f:
        raise KeyError
    assert f.closed


def test_closing_ends_the_threads() -> None:
    def ending(x: np.ndarray) -> np.ndarray:
        return x

    def alive() -> int:
        return sum("ending" in thread.name for thread in threading.enumerate())

    f = batched(ending, workers=3)
    assert alive() == 0, "threads start on first use"
    f.call(1)
    assert alive() == 3
    f.close()
    until(lambda: alive() == 0)


async def test_a_function_that_fails_while_its_batcher_drains_answers_everyone() -> None:
    def f(x: np.ndarray) -> np.ndarray:
        raise ValueError("no")

    batcher = batched(f, dispatch="window", max_wait=3600)
    futures = [batcher(number) for number in range(3)]
    await batcher.aclose()
    assert [type(error) for error in await outcomes(futures)] == [ModelError] * 3
