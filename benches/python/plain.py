"""Good batchers in plain Python: what a careful person writes by hand, and what Penstock is measured against.

Both gather rows into one buffer and hand out row views; both cut at the end of the loop's tick. They leave out what a
product needs (errors of one request, cancellation before the call, other dtypes, several loops, bounds, statistics).
Closures, not classes: their calls are up to a fifth faster.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class PlainBatcher:
    """What both make: a function that takes a row and gives a future, and one that ends the batcher."""

    call: Callable[[Any], asyncio.Future[Any]]
    close: Callable[[], None]


def inline_batcher(function: Callable[[Any], Any], width: int, max_batch_size: int = 100) -> PlainBatcher:
    """Runs the function on the event loop."""

    def run(rows: Any, futures: list[asyncio.Future[Any]]) -> None:
        # As `_answer` does, whose call a batch of one would feel.
        for future, result in zip(futures, function(rows)):  # noqa: B905  as there
            if not future.done():
                future.set_result(result)

    return PlainBatcher(_gathering(width, max_batch_size, run), lambda: None)


def thread_batcher(function: Callable[[Any], Any], width: int, max_batch_size: int = 100) -> PlainBatcher:
    """Runs the function on a worker thread; one `call_soon_threadsafe` a batch."""
    loop = asyncio.get_running_loop()
    work: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def send(rows: Any, futures: list[asyncio.Future[Any]]) -> None:
        work.put((rows, futures))

    def run() -> None:
        while (batch := work.get()) is not None:
            rows, futures = batch
            # The rows are told apart here, beside the loop and not on it.
            loop.call_soon_threadsafe(_answer, futures, list(function(rows)))

    def close() -> None:
        work.put(None)
        thread.join()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return PlainBatcher(_gathering(width, max_batch_size, send), close)


def _gathering(
    width: int, max_batch_size: int, send: Callable[[Any, list[asyncio.Future[Any]]], None]
) -> Callable[[Any], asyncio.Future[Any]]:
    """Gathers rows and sends them when the batch is full or the tick ends."""
    loop = asyncio.get_running_loop()
    create_future, call_soon = loop.create_future, loop.call_soon
    rows = np.empty((max_batch_size, width), np.float32)
    futures: list[asyncio.Future[Any]] = []

    def flush() -> None:
        nonlocal rows, futures
        if futures:
            full, waiting = rows[: len(futures)], futures
            rows, futures = np.empty((max_batch_size, width), np.float32), []
            send(full, waiting)

    def call(row: Any) -> asyncio.Future[Any]:
        future = create_future()
        count = len(futures)
        rows[count] = row
        futures.append(future)
        if count + 1 == max_batch_size:
            flush()
        elif count == 0:
            call_soon(flush)
        return future

    return call


def _answer(futures: list[asyncio.Future[Any]], results: Any) -> None:
    # A strict zip would ask the array for a row too many, half a microsecond a batch.
    for future, result in zip(futures, results):  # noqa: B905
        if not future.done():
            future.set_result(result)
