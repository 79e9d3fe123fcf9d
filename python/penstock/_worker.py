"""The loop that a worker thread runs.

It is Python, so that only Python stands below a user's function: Python before 3.14 ends the threads that it finds at
exit by unwinding their stack, which frames of Rust would not survive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Worker(Protocol):
    """One thread's side of a batcher or a served model."""

    def wait(self) -> bool: ...
    def next(self) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any] | None] | None: ...
    def returned(self, value: Any) -> None: ...
    def raised(self, error: BaseException) -> None: ...


def work(worker: Worker) -> None:
    """Runs batches until none will come any more."""
    while worker.wait():
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
