"""The pauses of Python's garbage collector, counted while a server runs."""

from __future__ import annotations

import gc
import os
import threading
import time

from penstock import _native

_lock = threading.Lock()
_users = 0
_began = 0.0


def watch() -> None:
    """Counts pauses from here on, until everybody who wanted that has said `leave`."""
    global _users  # noqa: PLW0603  there is one collector for the process
    with _lock:
        _users += 1
        if _users == 1:
            gc.callbacks.append(_note)


def leave() -> None:
    """Ends what `watch` began."""
    global _users  # noqa: PLW0603  as above
    with _lock:
        _users = max(0, _users - 1)
        if not _users and _note in gc.callbacks:
            gc.callbacks.remove(_note)


def _note(phase: str, information: dict[str, int]) -> None:
    # Collections do not overlap: the interpreter stands still for each.
    global _began  # noqa: PLW0603  as above
    if phase == "start":
        _began = time.perf_counter()
    elif _began:
        _native.count_collection(information["generation"], time.perf_counter() - _began)
        _began = 0.0


def _forget() -> None:
    global _lock, _users  # noqa: PLW0603  the parent's servers do not run here
    _lock = threading.Lock()
    _users = 0
    if _note in gc.callbacks:
        gc.callbacks.remove(_note)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
