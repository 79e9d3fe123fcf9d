"""Good batchers in plain Python: what a careful person writes by hand, and what Penstock is measured against.

Both gather rows into one buffer and hand out row views; both cut at the end of the loop's tick. They leave out what a
product needs (errors of one request, cancellation before the call, other dtypes, several loops, bounds, statistics).
"""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

Array = "NDArray[np.float32]"


class InlineBatcher:
    """Runs the function on the event loop."""

    def __init__(self, function: Callable[[Any], Any], width: int, max_batch_size: int = 100) -> None:
        self.function = function
        self.width = width
        self.max = max_batch_size
        self.loop = asyncio.get_running_loop()
        self._fresh()

    def _fresh(self) -> None:
        self.rows = np.empty((self.max, self.width), np.float32)
        self.futures: list[asyncio.Future[Any]] = []

    def __call__(self, row: Any) -> asyncio.Future[Any]:
        future = self.loop.create_future()
        count = len(self.futures)
        if count == 0:
            self.loop.call_soon(self.flush)
        elif count == self.max:
            self.flush()
            count = 0
            self.loop.call_soon(self.flush)
        self.rows[count] = row
        self.futures.append(future)
        return future

    def flush(self) -> None:
        if not self.futures:
            return
        rows, futures = self.rows[: len(self.futures)], self.futures
        self._fresh()
        for future, result in zip(futures, self.function(rows), strict=True):
            if not future.done():
                future.set_result(result)

    def close(self) -> None:
        """Nothing to end."""


class ThreadBatcher(InlineBatcher):
    """Runs the function on a worker thread; one `call_soon_threadsafe` a batch."""

    def __init__(self, function: Callable[[Any], Any], width: int, max_batch_size: int = 100) -> None:
        super().__init__(function, width, max_batch_size)
        self.work: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def flush(self) -> None:
        if self.futures:
            self.work.put((self.rows[: len(self.futures)], self.futures))
            self._fresh()

    def _run(self) -> None:
        while (batch := self.work.get()) is not None:
            rows, futures = batch
            results = list(self.function(rows))
            self.loop.call_soon_threadsafe(_answer, futures, results)

    def close(self) -> None:
        self.work.put(None)
        self.thread.join()


def _answer(futures: list[asyncio.Future[Any]], results: list[Any]) -> None:
    for future, result in zip(futures, results, strict=True):
        if not future.done():
            future.set_result(result)
