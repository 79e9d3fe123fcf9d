"""Batchers that live by a clock which the test moves: no test here waits for time to pass."""

from __future__ import annotations

import asyncio
import math
import threading
from typing import TYPE_CHECKING, Any

import pytest

from penstock import Batcher, VirtualClock
from penstock.errors import ConfigError, DeadlineExceeded, Overloaded
from tests.python.support.waiting import Gate, outcomes, until

if TYPE_CHECKING:
    import numpy as np

HOUR = 3600.0


def double(x: np.ndarray) -> np.ndarray:
    return x * 2


async def end_of_tick() -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def test_a_clock_stands_still_until_it_is_moved() -> None:
    clock = VirtualClock()
    assert clock.now() == 0
    clock.advance(1.5)
    clock.advance(0)
    assert clock.now() == 1.5
    assert repr(clock) == "<penstock.VirtualClock at 1.5 s>"


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf, "1", None, True])
def test_what_is_no_time_is_refused(seconds: Any) -> None:
    with pytest.raises(ConfigError, match="seconds"):
        VirtualClock().advance(seconds)


def test_what_is_no_clock_is_refused() -> None:
    with pytest.raises(ConfigError, match="clock must be a VirtualClock"):
        Batcher(double, clock=asyncio)


@pytest.mark.parametrize("workers", [1, 2, "inline"])
async def test_a_window_of_an_hour_ends_when_the_clock_says_so(workers: Any) -> None:
    clock = VirtualClock()
    f: Batcher[Any] = Batcher(double, workers=workers, dispatch="window", max_wait=HOUR, clock=clock)
    first = [f(number) for number in range(3)]
    await end_of_tick()
    clock.advance(HOUR - 1)
    second = f(7)
    await end_of_tick()
    assert not any(future.done() for future in [*first, second])
    clock.advance(1)
    assert await outcomes([*first, second]) == [0, 2, 4, 14]
    stats = f.stats()
    assert (stats.batches, stats.reasons) == (1, {"window": 1})
    await f.aclose()


async def test_a_deadline_passes_when_the_clock_says_so() -> None:
    clock, gate = VirtualClock(), Gate()
    f: Batcher[Any] = Batcher(gate.run, clock=clock)
    first = f(1)
    await gate.is_entered()
    late, patient = f.options(timeout=0.2)(2), f.options(timeout=HOUR)(3)
    await end_of_tick()
    clock.advance(0.1)
    await end_of_tick()
    assert not late.done()
    clock.advance(0.1)
    with pytest.raises(DeadlineExceeded):
        await asyncio.wait_for(late, 30)
    gate.open()
    assert await outcomes([first, patient]) == [10, 30]
    assert 2 not in gate.seen
    await f.aclose()


def test_a_blocking_call_gives_up_when_the_clock_says_so() -> None:
    clock, gate = VirtualClock(), Gate()
    f: Batcher[Any] = Batcher(gate.run, clock=clock)
    caught: list[BaseException] = []

    def call() -> None:
        try:
            f.options(timeout=HOUR).call(1)
        except DeadlineExceeded as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    until(gate.entered.is_set)
    clock.advance(HOUR)
    thread.join(30)
    assert len(caught) == 1
    gate.open()
    f.close()


async def test_a_low_priority_ages_by_the_clock() -> None:
    clock, gate = VirtualClock(), Gate()
    f: Batcher[Any] = Batcher(gate.run, max_batch_size=1, aging=10, clock=clock)
    blocking = f(0)
    await gate.is_entered()
    old = f.options(priority="low")(1)
    await end_of_tick()
    clock.advance(25)
    young = f.options(priority="high")(2)
    await end_of_tick()
    gate.open()
    await outcomes([blocking, old, young])
    assert gate.seen == [0, 1, 2]
    await f.aclose()


async def test_a_function_takes_as_long_as_it_moves_the_clock() -> None:
    clock = VirtualClock()

    def slow(x: np.ndarray) -> np.ndarray:
        clock.advance(2.0)
        return x

    f: Batcher[Any] = Batcher(slow, clock=clock)
    for number in range(3):
        assert await asyncio.wait_for(f(number), 30) == number
    # What it has learned: two seconds a call, so half a second is hopeless behind another.
    waiting = f(3)
    with pytest.raises(Overloaded, match="deadline"):
        f.options(timeout=0.5)(4)
    assert await asyncio.wait_for(waiting, 30) == 3
    assert await asyncio.wait_for(f.options(timeout=5)(5), 30) == 5
    await f.aclose()


async def test_a_timer_of_a_loop_that_has_closed_is_let_go_of() -> None:
    clock = VirtualClock()
    f: Batcher[Any] = Batcher(double, dispatch="window", max_wait=1, clock=clock)

    async def leave() -> None:
        f.options(timeout=1)(1).cancel()

    await asyncio.to_thread(asyncio.run, leave())
    clock.advance(2)
    await f.aclose()
