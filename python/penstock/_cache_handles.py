"""What goes on by itself: loads that were asked for ahead of time, and other changes that take their time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from penstock._cache_loader import check_timeout
from penstock._cache_records import LoadProgress
from penstock._display import load_bar
from penstock.errors import DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

    from penstock import _native

_LOOK_AGAIN = 0.25
"""Seconds after which progress is looked at again, whatever was heard."""

_PACE = 0.05
"""Seconds between two looks at progress at least: a loader may say something every millisecond."""


class Operation:
    """Something that goes on by itself: `await` it, or block with `wait()`. Giving up waiting stops nothing."""

    def __init__(self, native: _native.NativeOperation, what: str) -> None:
        self._native = native
        self._what = what

    def __await__(self) -> Generator[Any, None, None]:
        return self._native.future().__await__()

    def wait(self, timeout: float | None = None) -> None:
        """Blocks until it has ended. Ctrl-C works.

        Args:
            timeout: seconds to wait at most; `None` for as long as it takes.

        Raises:
            DeadlineExceeded: where it has not ended by then; it goes on.
        """
        if timeout is not None:
            check_timeout("timeout", timeout)
        if not self._native.wait(timeout):
            raise DeadlineExceeded(f"{self._what} did not end within timeout={timeout} s")

    @property
    def done(self) -> bool:
        """True once it has ended, well or not."""
        return self._native.done

    def __repr__(self) -> str:
        return f"<penstock.models.{type(self).__name__} {self._what} {'done' if self.done else 'under way'}>"


class LoadHandle(Operation):
    """Loads that were asked for ahead of time. `await` it, or block with `wait()`: it raises the first failure."""

    def __init__(
        self,
        native: _native.NativeOperation,
        what: str,
        names: Callable[[int], str],
        cache: _native.NativeModelCache,
    ) -> None:
        super().__init__(native, what)
        self._names = names
        self._cache = cache

    def cancel(self) -> None:
        """Takes back what nobody else wants: loads that wait leave the queue, loads that run are told to stop."""
        self._native.cancel()

    def progress(self) -> LoadSteps:
        """How far the models are, those that they require included: an iterator, `async` or not.

        It gives a `LoadProgress` for each model that has moved, at most 20 times a second, and ends when all are done.
        What failed is raised by `await` and `wait()`, not here.
        """
        return LoadSteps(self)

    def now(self) -> list[LoadProgress]:
        """How far each model is now, in the order of loading."""
        rows = self._native.progress()
        return [LoadProgress(**{**row, "model": self._names(row["model"])}) for row in rows]

    def _next_change(self) -> _native.NativeOperation:
        return self._cache.changed(self._cache.version())

    def bar(self) -> None:
        """Shows a bar until all is done, and raises what failed (needs `pip install penstock[notebook]`)."""
        with load_bar(self._what) as bar:
            for _ in self.progress():
                rows = self.now()
                bar.total = float(max(1, len(rows)))
                bar.n = sum(_share(row) for row in rows)
                bar.set_postfix_str(", ".join(_words(row) for row in rows if row.state not in ("ready", "unloaded")))
        self.wait()


class LoadSteps:
    """The progress of loads as they go on; made by `LoadHandle.progress`."""

    def __init__(self, handle: LoadHandle) -> None:
        self._handle = handle
        self._known: dict[str, tuple[object, ...]] = {}

    def __iter__(self) -> Iterator[LoadProgress]:
        while True:
            change, done = self._handle._next_change(), self._handle.done  # noqa: SLF001  one module
            yield from self._moved()
            if done:
                return
            while not (change.wait(_LOOK_AGAIN) or self._handle.done):
                pass
            time.sleep(_PACE)

    async def __aiter__(self) -> AsyncIterator[LoadProgress]:
        import asyncio  # noqa: PLC0415  importing it costs as much as a third of `import numpy`

        while True:
            change, done = self._handle._next_change().future(), self._handle.done  # noqa: SLF001  one module
            for progress in self._moved():
                yield progress
            if done:
                return
            while not (change.done() or self._handle.done):
                await asyncio.wait([change], timeout=_LOOK_AGAIN)
            await asyncio.sleep(_PACE)

    def _moved(self) -> Iterator[LoadProgress]:
        for row in self._handle.now():
            state = (row.state, row.phase, row.fraction, row.position)
            if self._known.get(row.model) != state:
                self._known[row.model] = state
                yield row


def _share(row: LoadProgress) -> float:
    return 1.0 if row.state == "ready" else (row.fraction or 0.0) if row.state in ("loading", "warming") else 0.0


def _words(row: LoadProgress) -> str:
    return f"{row.model} {row.phase or row.state}"
