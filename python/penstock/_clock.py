"""Time in a test's hands: windows, deadlines and aging that pass when they are told to."""

from __future__ import annotations

import heapq
import itertools
import threading
from typing import TYPE_CHECKING, Any

from penstock import _native
from penstock._policy import check_seconds

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class VirtualClock(_native.NativeClock):
    """A clock that stands still until it is told to move, for tests of what depends on time.

    A batcher made with `clock=` lives by it: `max_wait`, the `timeout` of `options`, aging, and the times that it
    learns from. Nothing waits for real time, so a test of a window of an hour takes no longer than any other. Threads
    and event loops still run by themselves: await a result, do not look for it right after `advance`.

    The clock moves in one step. What fell due within it happens after it, at the clock's new time: to see a window end
    before a deadline, advance to each of them in turn. A function that calls `advance` takes that long.

    Example:
        >>> import asyncio, penstock
        >>> clock = penstock.VirtualClock()
        >>> @penstock.batched(max_batch_size=8, max_wait=60, dispatch="window", clock=clock)
        ... def double(x):
        ...     return x * 2
        >>> async def main():
        ...     waiting = [double(i) for i in range(3)]
        ...     await asyncio.sleep(0)               # the end of the tick
        ...     clock.advance(60)                    # the end of the window
        ...     rows = await asyncio.gather(*waiting)
        ...     return [int(row) for row in rows], double.stats().reasons
        >>> asyncio.run(main())
        ([0, 2, 4], {'window': 1})
    """

    _timers: list[tuple[float, int, _Timer]]

    def __init__(self) -> None:
        self._timers = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def advance(self, seconds: float) -> None:
        """Moves the clock forward and wakes whoever waits for it. It can be called from any thread.

        Raises:
            ConfigError: for what is no length of time.
        """
        check_seconds("seconds", seconds)
        self._move(float(seconds))
        now = self.now()
        due = []
        with self._lock:
            while self._timers and self._timers[0][0] <= now:
                due.append(heapq.heappop(self._timers)[2])
        for timer in due:
            timer.fire()

    def __repr__(self) -> str:
        return f"<penstock.VirtualClock at {self.now():.9g} s>"

    def _call_later(
        self, loop: asyncio.AbstractEventLoop, delay: float, callback: Callable[..., object], *args: Any
    ) -> _Timer:
        """As `loop.call_later`, by this clock."""
        timer = _Timer(loop, callback, args)
        # Whole nanoseconds, as the clock counts: a moment that is reached must not be missed by rounding.
        due = round(self.now() + delay, 9)
        with self._lock:
            heapq.heappush(self._timers, (due, next(self._numbers), timer))
        return timer


class _Timer:
    """Something that a loop calls when its time has come, unless it was cancelled."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self._loop = loop
        self._call: tuple[Callable[..., object], tuple[Any, ...]] | None = (callback, args)

    def cancel(self) -> None:
        self._call = None

    def fire(self) -> None:
        if self._call is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._run)

    def _run(self) -> None:
        if self._call is not None:
            callback, args = self._call
            self._call = None
            callback(*args)
