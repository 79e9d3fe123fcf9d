"""How much time is left for the batch that a function runs."""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import Protocol


class Deadline(Protocol):
    """A moment that comes nearer."""

    def remaining(self) -> float: ...


class Countdown:
    """So many seconds from now, by the system's clock: what a worker process is told."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds until then; 0 once it has passed."""
        return max(0.0, self._end - time.monotonic())


DEADLINE: ContextVar[Deadline | None] = ContextVar("penstock_deadline", default=None)
"""The earliest deadline of the batch that runs in this context."""


def remaining() -> float | None:
    """Seconds until the first of the requests that share the running batch must be answered.

    To be asked inside a batched function or a served model, in its own thread or coroutine: a model that can do less
    (fewer steps, a smaller beam) finds out how much it may do. 0.0 once the time has passed; then whoever waited with
    that deadline is gone, while others of the batch may still wait.

    Returns:
        Seconds, or `None` where no request of the batch has a deadline, and outside a batch.

    Example:
        >>> import penstock
        >>> @penstock.batched(workers="inline")
        ... def describe(items: list[str]) -> list[str]:
        ...     left = penstock.remaining()
        ...     return ["in a hurry" if left is not None and left < 1 else "at leisure"] * len(items)
        >>> describe.call("a"), describe.options(timeout=0.5).call("a")
        ('at leisure', 'in a hurry')
    """
    deadline = DEADLINE.get()
    return None if deadline is None else deadline.remaining()
