"""The batchers that are measured side by side, behind one small face."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from plain import inline_batcher, thread_batcher

import penstock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

WIDTH = 64
MAX_BATCH = 100
FAST, SLOW = 20, 5
"""Awaits of each task in one measurement: a peer that takes five times as long does a quarter as many."""


def double(x: Any) -> Any:
    """The function under all batchers: cheap, so that the batcher is what is measured."""
    return x * 2.0


@dataclass
class Contender:
    """One way to an answer.

    Attributes:
        name: what tables call it.
        call: gives an awaitable for a row.
        calls: awaits of each task in one measurement.
        answers: whether the answer is the doubled row, which is checked once.
        close: ends it.
    """

    name: str
    call: Callable[[Any], Awaitable[Any]]
    calls: int = FAST
    answers: bool = True
    close: Callable[[], object] = lambda: None

    async def rest(self) -> None:
        """Runs after each measurement, untimed: a contender must not work while another one is measured."""


class BatchedPeer(Contender):
    """The package `batched`: its task polls for ever, so it is ended after each measurement and made anew."""

    def __init__(self, name: str, function: Callable[[list[Any]], Any], timeout_ms: float) -> None:
        from batched import aio

        self.make = lambda: aio.dynamically(function, batch_size=MAX_BATCH, timeout_ms=timeout_ms)
        super().__init__(name, self.make(), calls=SLOW)

    async def rest(self) -> None:
        task = self.call._task  # type: ignore[attr-defined]
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self.call = self.make()


def _stacked(items: list[Any]) -> list[Any]:
    return list(double(np.stack(items)))


async def _stacked_on_the_loop(items: list[Any]) -> list[Any]:
    return _stacked(items)


def bare_future() -> Contender:
    """The least that an awaited answer costs: no batch, no function."""
    loop = asyncio.get_running_loop()

    def call(row: Any) -> asyncio.Future[Any]:
        future = loop.create_future()
        loop.call_soon(future.set_result, row)
        return future

    return Contender("bare future", call, answers=False)


def bare_future_and_function() -> Contender:
    """As above, and the function is called: the least that a batcher of one could cost."""
    loop = asyncio.get_running_loop()

    def answer(future: asyncio.Future[Any], row: Any) -> None:
        future.set_result(double(row))

    def call(row: Any) -> asyncio.Future[Any]:
        future = loop.create_future()
        loop.call_soon(answer, future, row)
        return future

    return Contender("bare future + function", call)


def plain(workers: str) -> Contender:
    """A good batcher in plain Python, on a worker thread or inline."""
    make = inline_batcher if workers == "inline" else thread_batcher
    batcher = make(double, WIDTH, MAX_BATCH)
    return Contender(f"plain {workers}", batcher.call, close=batcher.close)


def ours(workers: str) -> Contender:
    """Penstock, on a worker thread or inline."""
    threads = "inline" if workers == "inline" else 1
    batcher = penstock.Batcher(double, max_batch_size=MAX_BATCH, workers=threads)
    return Contender(f"penstock {workers}", batcher, close=batcher.close)


def ours_without_function() -> Contender:
    """Penstock inline over a function that does nothing: what it adds to a future of a batch of one."""
    batcher = penstock.Batcher(lambda x: x, max_batch_size=MAX_BATCH, workers="inline")
    return Contender("penstock inline, no function", batcher, answers=False, close=batcher.close)


def batched_peers() -> list[Contender]:
    """The package `batched`, if it is here, at the timeouts that suit it best (of 0, 0.1, 1 and 5 ms)."""
    try:
        return [
            BatchedPeer("batched worker", _stacked, timeout_ms=0.1),
            BatchedPeer("batched inline", _stacked_on_the_loop, timeout_ms=0),
        ]
    except ImportError:
        print("left out: the package batched is not installed (pip install batched==0.1.5)\n")
        return []
