"""The loop that a worker thread runs, and what runs the batches of an `async def` function.

It is Python, so that only Python stands below a user's function: Python before 3.14 ends the threads that it finds at
exit by unwinding their stack, which frames of Rust would not survive.
"""

from __future__ import annotations

import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from penstock._deadline import DEADLINE
from penstock._scope import enter
from penstock.errors import Closed

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from penstock._deadline import Deadline
    from penstock._lifecycle import OwnLoop
    from penstock._scope import Scope

CANCEL_SECONDS = 1.0
"""Time that cancelled coroutines have to end before their model is closed."""


class Worker(Protocol):
    """One thread's side of a batcher or a served model."""

    def wait(self) -> bool: ...
    def deadline(self) -> Deadline | None: ...
    def scope(self) -> Scope | None: ...
    def next(self) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any] | None] | None: ...
    def returned(self, value: Any) -> None: ...
    def raised(self, error: BaseException) -> None: ...


def work(worker: Worker) -> None:
    """Runs batches until none will come any more."""
    while worker.wait():
        DEADLINE.set(worker.deadline())
        enter(worker.scope())
        while (call := worker.next()) is not None:
            _call(worker, *call)
            # While it waits, the thread must hold on to nothing: neither the last batch nor the function.
            del call


def _call(worker: Worker, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> None:
    try:
        # The result goes straight on: an array that nobody else holds need not be copied.
        if kwargs is None:
            worker.returned(function(*args))
        else:
            worker.returned(function(*args, **kwargs))
    except BaseException as error:  # noqa: BLE001  whatever it is, somebody waits for it
        worker.raised(error)


def _ended() -> BaseException:
    """What those hear whose coroutine was cancelled at the end. It is not raised: nobody is to look for it in a log."""
    return Closed("the function was cancelled: it ran on after all time to close had passed")


class Overlap:
    """Runs the batches of an `async def` function on Penstock's own loop: one thread waits for all of its workers.

    As many batches overlap as there are workers, and none of them costs a thread of its own.
    """

    def __init__(self, workers: Iterable[Worker], loop: OwnLoop) -> None:
        self._free: SimpleQueue[Worker] = SimpleQueue()
        for worker in workers:
            self._free.put(worker)
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()

    def work(self) -> None:
        """Runs batches until none will come any more."""
        while True:
            worker = self._free.get()
            if not worker.wait():
                return
            self._loop.call(self._start, worker)
            # While it waits, the thread must hold on to nothing.
            del worker

    @property
    def is_busy(self) -> bool:
        """True while a batch runs."""
        return bool(self._tasks)

    def cancel(self) -> None:
        """Cancels what still runs, and waits a moment for it to end."""
        if self._tasks:
            self._loop.call(self._cancel)
            deadline = time.monotonic() + CANCEL_SECONDS
            while self._tasks and time.monotonic() < deadline:
                time.sleep(0.005)

    def _start(self, worker: Worker) -> None:
        import asyncio  # noqa: PLC0415  importing it costs as much as a third of `import numpy`

        task = asyncio.get_running_loop().create_task(self._run(worker))
        # A loop holds its tasks weakly.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _run(self, worker: Worker) -> None:
        import asyncio  # noqa: PLC0415  as above

        DEADLINE.set(worker.deadline())
        enter(worker.scope())
        closing = False
        while (call := worker.next()) is not None:
            if closing:
                worker.raised(_ended())
                continue
            function, args, kwargs = call
            del call
            try:
                worker.returned(await function(*args, **(kwargs or {})))
            except asyncio.CancelledError as error:
                # A model may well raise this by itself; the task's own end is another matter.
                task = asyncio.current_task()
                closing = task is not None and bool(task.cancelling())
                worker.raised(_ended() if closing else error)
            except BaseException as error:  # noqa: BLE001  whatever it is, somebody waits for it
                worker.raised(error)
            del function, args, kwargs
        self._free.put(worker)
