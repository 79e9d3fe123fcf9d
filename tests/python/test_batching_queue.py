"""Who goes first, what is held back, and what happens where the queue is full."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import pytest

from penstock import batched
from penstock.errors import Overloaded
from tests.python.support.waiting import Gate, outcomes, soon

if TYPE_CHECKING:
    import numpy as np


def double(x: np.ndarray) -> np.ndarray:
    return x * 2


async def test_first_come_first_served_within_a_priority(gate: Gate) -> None:
    f = batched(gate.run, max_batch_size=3)
    futures = [f(0)]
    await gate.is_entered()
    futures += [f(number) for number in range(1, 10)]
    gate.open()
    await asyncio.gather(*futures)
    assert gate.batches == [[0], [1, 2, 3], [4, 5, 6], [7, 8, 9]]


async def test_high_goes_before_normal_and_normal_before_low(gate: Gate) -> None:
    f = batched(gate.run, max_batch_size=2)
    futures = [f(0)]
    await gate.is_entered()
    for number in range(1, 4):
        futures += [
            f.options(priority="low")(300 + number),
            f(200 + number),
            f.options(priority="high")(100 + number),
        ]
    gate.open()
    results = await asyncio.gather(*futures)
    assert gate.seen == [0, 101, 102, 103, 201, 202, 203, 301, 302, 303]
    assert results[1:4] == [3010, 2010, 1010]
    assert all(len(batch) <= 2 for batch in gate.batches)


async def test_a_batch_takes_lower_priorities_along_where_it_has_room(gate: Gate) -> None:
    f = batched(gate.run)
    futures = [f(0)]
    await gate.is_entered()
    futures += [f.options(priority="low")(3), f(2), f.options(priority="high")(1)]
    gate.open()
    assert await asyncio.gather(*futures) == [0, 30, 20, 10]
    assert gate.batches == [[0], [1, 2, 3]]


async def test_a_group_with_a_higher_priority_goes_before_an_older_group(gate: Gate) -> None:
    f = batched(gate.run)
    futures = [f(0)]
    await gate.is_entered()
    futures += [f.options(priority="low")(1.5), f.options(priority="high")(2)]
    gate.open()
    assert await asyncio.gather(*futures) == [0, 15.0, 20]
    assert gate.batches == [[0], [2], [1.5]]


async def test_the_group_that_waited_longest_goes_first(gate: Gate) -> None:
    f = batched(gate.run)
    futures = [f(0)]
    await gate.is_entered()
    for item in (1.5, 2, True, 2.5, 3):
        futures.append(f(item))
        await asyncio.sleep(0.002)
    gate.open()
    await outcomes(futures)
    assert gate.batches == [[0], [1.5, 2.5], [2, 3], [True]]


@pytest.mark.parametrize("workers", [1, "inline"])
async def test_a_window_waits_for_company_and_is_cut_when_its_time_is_over(workers: int | str) -> None:
    f = batched(double, dispatch="window", max_wait=0.2, workers=workers)
    start = time.monotonic()
    futures = []
    for number in range(3):
        futures.append(f(number))
        await asyncio.sleep(0.01)
    assert await asyncio.gather(*futures) == [0, 2, 4]
    waited = time.monotonic() - start
    assert f.stats().reasons == {"window": 1}
    assert waited >= 0.19, "the window was cut before its time"
    assert waited < 20, "the window was forgotten"


@pytest.mark.parametrize("workers", [1, "inline"])
async def test_a_window_is_cut_at_once_where_it_is_full(workers: int | str) -> None:
    f = batched(double, dispatch="window", max_wait=3600, max_batch_size=4, workers=workers)
    assert await asyncio.gather(*(f(number) for number in range(8))) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert f.stats().reasons == {"full": 2}


async def test_every_group_has_a_window_of_its_own() -> None:
    f = batched(double, dispatch="window", max_wait=0.1)
    first = f(1)
    await asyncio.sleep(0.05)
    second = f(1.5)
    assert await asyncio.gather(first, second) == [2, 3.0]
    assert f.stats().reasons == {"window": 2}


async def test_a_window_that_ends_while_the_worker_is_busy_is_cut_when_it_is_free(gate: Gate) -> None:
    f = batched(gate.run, dispatch="window", max_wait=0.01)
    futures = [f(0)]
    await gate.is_entered()
    futures.append(f(1))
    await asyncio.sleep(0.05)
    futures.append(f(2))
    gate.open()
    assert await asyncio.gather(*futures) == [0, 10, 20]
    assert gate.batches == [[0], [1, 2]]


async def test_the_other_worker_watches_a_window_while_one_is_busy(gate: Gate) -> None:
    seen = threading.Event()

    def f(x: np.ndarray) -> np.ndarray:
        if x[0] == 0:
            return gate.run(x)
        seen.set()
        return x * 10

    batcher = batched(f, dispatch="window", max_wait=0.05, workers=2)
    blocked = batcher(0)
    await gate.is_entered()
    assert await batcher(1) == 10
    assert seen.is_set()
    gate.open()
    assert await blocked == 0


@pytest.mark.parametrize("workers", [1, "inline"])
async def test_a_minimum_holds_a_small_batch_back_until_max_wait(workers: int | str) -> None:
    f = batched(double, min_batch_size=4, max_wait=0.2, workers=workers)
    start = time.monotonic()
    assert await asyncio.gather(f(1), f(2)) == [2, 4]
    assert time.monotonic() - start >= 0.19
    assert f.stats().reasons == {"window": 1}


@pytest.mark.parametrize("workers", [1, "inline"])
async def test_a_minimum_that_is_reached_lets_the_tick_go(workers: int | str) -> None:
    f = batched(double, min_batch_size=4, max_wait=3600, workers=workers)
    futures = [f(number) for number in range(3)]
    await asyncio.sleep(0.05)
    assert not any(future.done() for future in futures)
    futures.append(f(3))
    assert await asyncio.gather(*futures) == [0, 2, 4, 6]
    assert f.stats().reasons == {"tick": 1}


async def test_a_full_queue_refuses_and_loses_nothing(gate: Gate) -> None:
    f = batched(gate.run, max_queue=5)
    futures = [f(0)]
    await gate.is_entered()
    futures += [f(number) for number in range(1, 6)]
    for _ in range(3):
        with pytest.raises(Overloaded, match="max_queue=5") as caught:
            await f(99)
        assert caught.value.retryable
        assert caught.value.http_status == 503
    assert f.stats().queued == 5
    assert f.stats().rejected == 3
    gate.open()
    assert await asyncio.gather(*futures) == [0, 10, 20, 30, 40, 50]
    assert 99 not in gate.seen
    assert await f(7) == 70


async def test_a_full_queue_refuses_call_from_a_thread(gate: Gate) -> None:
    f = batched(gate.run, max_queue=1)
    futures = [f(0)]
    await gate.is_entered()
    futures.append(f(1))
    with pytest.raises(Overloaded):
        await asyncio.to_thread(f.call, 2)
    gate.open()
    assert await asyncio.gather(*futures) == [0, 10]


async def test_cancelled_requests_make_room_and_never_reach_the_function(gate: Gate) -> None:
    f = batched(gate.run, max_queue=5)
    blocker = f(0)
    await gate.is_entered()
    gone = [f(number) for number in range(1, 6)]
    for future in gone:
        future.cancel()
    futures = [f(number) for number in range(11, 16)]
    with pytest.raises(Overloaded):
        f(16)
    gate.open()
    assert await asyncio.gather(blocker, *futures) == [0, 110, 120, 130, 140, 150]
    assert gate.batches == [[0], [11, 12, 13, 14, 15]]
    stats = f.stats()
    assert (stats.abandoned, stats.rejected, stats.requests) == (5, 1, 6)


async def test_room_comes_back_after_a_refusal(gate: Gate) -> None:
    f = batched(gate.run, max_queue=2)
    blocker = f(0)
    await gate.is_entered()
    gone, kept = f(1), f(2)
    with pytest.raises(Overloaded):
        f(3)
    gone.cancel()
    admitted = []

    def admit() -> bool:
        try:
            admitted.append(f(4))
        except Overloaded:
            return False
        return True

    await soon(admit)
    gate.open()
    assert await asyncio.gather(blocker, kept, *admitted) == [0, 20, 40]
    assert 1 not in gate.seen
    assert 3 not in gate.seen


async def test_some_cancelled_in_the_middle_leave_the_others_their_own_rows(gate: Gate) -> None:
    f = batched(gate.run, max_batch_size=4)
    futures = [f(0)]
    await gate.is_entered()
    waiting = [f(number) for number in range(1, 20)]
    for future in waiting[::3]:
        future.cancel()
    gate.open()
    await futures[0]
    results = await outcomes(waiting)
    for number, result in enumerate(results, 1):
        if (number - 1) % 3 == 0:
            assert isinstance(result, asyncio.CancelledError)
        else:
            assert result == number * 10
    assert gate.seen == [0, *(number for number in range(1, 20) if (number - 1) % 3)]


async def test_a_batch_whose_every_request_was_cancelled_is_not_run(gate: Gate) -> None:
    f = batched(gate.run)
    blocker = f(0)
    await gate.is_entered()
    for number in range(1, 4):
        f(number).cancel()
    gate.open()
    await blocker
    assert await f(9) == 90
    assert gate.batches == [[0], [9]]
    assert f.stats().batches == 2


async def test_cancelled_arrays_and_objects_leave_together(gate: Gate) -> None:
    seen = []

    def f(x: tuple) -> list:
        numbers, names = x
        seen.append((numbers.tolist(), names))
        gate.entered.set()
        assert gate.opened.wait(60)
        return names

    batcher = batched(f)
    blocker = batcher((0, "zero"))
    await gate.is_entered()
    futures = [batcher((number, f"name {number}")) for number in range(1, 6)]
    futures[1].cancel()
    futures[4].cancel()
    gate.open()
    await blocker
    assert await asyncio.gather(futures[0], futures[2], futures[3]) == ["name 1", "name 3", "name 4"]
    assert seen[1] == ([1, 3, 4], ["name 1", "name 3", "name 4"])
