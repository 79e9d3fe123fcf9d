"""What runs when the process forks or the interpreter ends, and the loop on which `async def` functions run."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from penstock import _native

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Future

EXIT_SECONDS = 2.0
"""Time that exit waits for functions that still run; after it they are left behind."""


class Closable(Protocol):
    """Something with threads of its own."""

    def _at_exit(self, deadline: float) -> None: ...


@runtime_checkable
class _TakesNoMore(Protocol):
    """What can be told to take nothing more, without waiting."""

    def _begin_close(self, *, drain: bool) -> None: ...


_ending = False
_open: weakref.WeakSet[Closable] = weakref.WeakSet()
_open_last: weakref.WeakSet[Closable] = weakref.WeakSet()


def is_ending() -> bool:
    """True once the interpreter ends: who does not come along any more is not to be told of."""
    return _ending


def close_at_exit(what: Closable, *, last: bool = False) -> None:
    """Closes `what` when the interpreter ends, while Python code can still run; with `last` after everything else."""
    (_open_last if last else _open).add(what)


def come_first_at_exit() -> None:
    """Puts Penstock's end before that of every module that was imported until now."""
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)


class OwnLoop:
    """One asyncio loop in a thread of Penstock's own: `async def` functions never run on a caller's loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.thread: threading.Thread | None = None

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Runs a coroutine on the loop and blocks this thread until it is done."""
        import asyncio  # noqa: PLC0415  importing it costs as much as a third of `import numpy`

        return asyncio.run_coroutine_threadsafe(coroutine, self._running()).result()

    def submit(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Starts a coroutine on the loop; what comes of it can be waited for, and cancelled, in any thread."""
        import asyncio  # noqa: PLC0415  as above

        return asyncio.run_coroutine_threadsafe(coroutine, self._running())

    def call(self, callback: Callable[..., None], *args: Any) -> None:
        """Runs a callback on the loop, soon, in a copy of this thread's context."""
        self._running().call_soon_threadsafe(callback, *args)

    def _running(self) -> asyncio.AbstractEventLoop:
        import asyncio  # noqa: PLC0415  as above

        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self.thread = threading.Thread(target=self._loop.run_forever, name="penstock-asyncio", daemon=True)
                self.thread.start()
            return self._loop

    def stop(self, deadline: float) -> None:
        """Cancels what runs on the loop and ends its thread."""
        with self._lock:
            loop, thread = self._loop, self.thread
            self._loop = self.thread = None
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(_cancel_all_and_stop, loop)
        thread.join(max(0.0, deadline - time.monotonic()))
        if not thread.is_alive():
            loop.close()


def _cancel_all_and_stop(loop: asyncio.AbstractEventLoop) -> None:
    import asyncio  # noqa: PLC0415  as above

    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    # One more turn for the cancelled tasks to end in.
    loop.call_soon(loop.stop)


_own_loop = OwnLoop()


def own_loop() -> OwnLoop:
    """The loop of this process; a forked child has one of its own."""
    return _own_loop


def on_own_loop(function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    """`function`, blocking: its coroutine runs on Penstock's own loop."""

    def run(*args: Any, **kwargs: Any) -> Any:
        return _own_loop.run(function(*args, **kwargs))

    return run


def _at_exit() -> None:
    global _ending  # noqa: PLW0603  there is one end
    _ending = True
    deadline = time.monotonic() + EXIT_SECONDS
    # Nobody is to be asked while others are waited for: a daemon thread that is in Rust, and in Python below that, when
    # the interpreter ends, could not be ended.
    for what in [*_open]:
        if isinstance(what, _TakesNoMore):
            what._begin_close(drain=False)  # noqa: SLF001  the protocol of this module
    for what in [*_open, *_open_last]:
        what._at_exit(deadline)  # noqa: SLF001  the protocol of this module
    _own_loop.stop(deadline)
    _native.shutdown(max(0.1, deadline - time.monotonic()))


def _after_fork_in_child() -> None:
    global _own_loop  # noqa: PLW0603  the parent's loop has no thread here
    _native.reset_after_fork()
    _own_loop = OwnLoop()
    _open.clear()
    _open_last.clear()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
