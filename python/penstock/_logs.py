"""The thread that brings the records of the core to `logging`.

One thread serves every server of the process. It reads bursts of finished records from a journal; what reads too slowly
costs records, which are counted, and never holds up a request.
"""

from __future__ import annotations

import codecs
import collections
import io
import logging
import os
import sys
import threading
import time
import traceback
from typing import Any

from penstock import _lifecycle, _native
from penstock._tracing import Spans

ACCESS = "penstock.access"
CAPACITY = 8192
"""Records that wait for the thread at most: those of a tenth of a second, where a server is at its fastest."""

CLOSE_SECONDS = 2.0
"""Time that closing waits for handlers to write what is left."""

LEVEL_SECONDS = 5.0
"""Time after which a changed level of a logger has reached the core."""

_LEVELS = (5, logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
_NOTHING = logging.CRITICAL
_OWN_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class Drain:
    """A journal and the thread that reads it."""

    def __init__(self) -> None:
        self.journal = _native.NativeJournal(capacity=CAPACITY, level=finest_level())
        self.users = 0
        self._thread = threading.Thread(target=_read, args=(self.journal,), name="penstock-log", daemon=True)

    def start(self) -> None:
        """Begins to read."""
        self._thread.start()

    def close(self, limit: float) -> None:
        """Hands on what is left, for at most `limit` seconds."""
        self.journal.close()
        # A handler that closes the server runs on the very thread.
        if self._thread is not threading.current_thread():
            self._thread.join(limit)

    def _at_exit(self, deadline: float) -> None:
        self.close(max(0.0, deadline - time.monotonic()))


_lock = threading.Lock()
_current: Drain | None = None
_abandoned: collections.deque[_native.NativeJournal] = collections.deque()
"""Journals of those who are gone without having said so."""


def acquire() -> _native.NativeJournal:
    """The journal of this process; its thread runs until everybody who acquired it has released it."""
    global _current  # noqa: PLW0603  there is one for the process
    with _lock:
        if _current is None:
            drain = Drain()
            drain.start()
            _lifecycle.close_at_exit(drain, last=True)
            _current = drain
        _current.users += 1
        return _current.journal


def release(journal: _native.NativeJournal, limit: float = CLOSE_SECONDS) -> None:
    """Gives a journal back; the last to do so waits, for at most `limit` seconds, until everything was handed on."""
    global _current  # noqa: PLW0603  as above
    with _lock:
        drain = _current
        if drain is None or drain.journal is not journal:
            return
        drain.users -= 1
        if drain.users:
            return
        _current = None
    drain.close(limit)


def abandon(journal: _native.NativeJournal) -> None:
    """Gives a journal back at the next look of its thread; safe wherever the collector may run."""
    _abandoned.append(journal)


def refresh_level() -> None:
    """Tells the core which events the loggers want now."""
    with _lock:
        if _current is not None:
            _current.journal.set_level(finest_level())


def finest_level() -> int:
    """The lowest level that any logger of the core's rooms lets through."""
    names = [name for name in list(logging.root.manager.loggerDict) if name.startswith("penstock.") and name != ACCESS]
    loggers = [logging.getLogger(name) for name in ("penstock", *names)]
    return next((level for level in _LEVELS if any(logger.isEnabledFor(level) for logger in loggers)), _NOTHING)


def _read(journal: _native.NativeJournal) -> None:
    losses = _Losses()
    spans = Spans()
    checked = time.monotonic()
    direct = _Direct()
    while (burst := journal.wait(1.0 if losses.count else LEVEL_SECONDS, direct.look)) is not None:
        records, dropped, recorded, written = burst
        if written:
            direct.write(written)
        for record in records:
            _hand_on(*record)
        if recorded:
            spans.add(recorded)
        losses.add(dropped)
        if time.monotonic() - checked >= LEVEL_SECONDS:
            checked = time.monotonic()
            journal.set_level(finest_level())
        while _abandoned:
            release(_abandoned.popleft())
        # While it waits, the thread must hold on to nothing.
        del burst, records, recorded, written
    losses.report()


def _hand_on(name: str, level: int, created: float, message: str, attributes: dict[str, object]) -> None:
    """One record to its logger; whatever the handlers and filters of a user do, the thread goes on."""
    try:
        logger = logging.getLogger(name)
        if not logger.isEnabledFor(level):
            return
        record = logger.makeRecord(name, level, "penstock", 0, message, (), None)
        if not _OWN_ATTRIBUTES.isdisjoint(attributes):
            attributes = {f"{key}_" if key in _OWN_ATTRIBUTES else key: value for key, value in attributes.items()}
        record.relativeCreated += (created - record.created) * 1e3
        record.created = created
        record.msecs = float(int(created % 1 * 1e3))
        record.__dict__.update(attributes)
        logger.handle(record)
    except BaseException:  # noqa: BLE001  nobody else is there to hear of it
        _complain()


def _complain() -> None:
    """As `logging.Handler.handleError`, for what a handler did not keep to itself."""
    if logging.raiseExceptions and sys.stderr is not None:
        try:
            sys.stderr.write("--- Logging error ---\n")
            traceback.print_exc(file=sys.stderr)
        except (OSError, ValueError):
            pass


class _Direct:
    """Where access records are written as text by the core, because no handler or filter of a user wants them.

    That is so where `penstock.logs.configure` alone has set `logging` up. It costs a tenth of what records cost.
    """

    def __init__(self) -> None:
        self._handler: Any = None

    def look(self) -> tuple[str, int] | None:
        """How the lines look that go to the one handler, and how many seconds its clock is ahead of UTC."""
        logs = sys.modules.get("penstock.logs")
        handler = None if logs is None else logs._handler  # noqa: SLF001  one package
        look = None if handler is None or logs is None else logs._look_of(handler)  # noqa: SLF001  as above
        if handler is None or look is None or not _goes_only_to(handler):
            return None
        self._handler = handler
        return (look, time.localtime().tm_gmtoff or 0)

    def write(self, lines: bytes) -> None:
        handler = self._handler
        try:
            with handler.lock:
                stream = handler.stream
                if isinstance(stream, io.TextIOWrapper) and codecs.lookup(stream.encoding).name == "utf-8":
                    # Whatever waits in it comes before.
                    stream.flush()
                    stream.buffer.write(lines)
                else:
                    stream.write(lines.decode())
                handler.flush()
        except Exception:  # noqa: BLE001  nobody else is there to hear of it
            _complain()


def _goes_only_to(handler: logging.Handler) -> bool:
    """Whether that handler is the only one that access records come to, all of them and unchanged."""
    access, above, root = logging.getLogger(ACCESS), logging.getLogger("penstock"), logging.root
    return (
        access.isEnabledFor(logging.INFO)
        and handler.level <= logging.INFO
        and root.handlers == [handler]
        and access.propagate
        and above.propagate
        and not (access.handlers or above.handlers or access.filters or handler.filters)
        and logging.getLogRecordFactory() is logging.LogRecord
        and type(access).makeRecord is logging.Logger.makeRecord
        and type(access).handle is logging.Logger.handle
    )


class _Losses:
    """Records that were dropped, reported once a second at most."""

    def __init__(self) -> None:
        self.count = 0
        self._reported = float("-inf")

    def add(self, dropped: int) -> None:
        self.count += dropped
        if self.count and time.monotonic() - self._reported >= 1:
            self.report()

    def report(self) -> None:
        if self.count:
            message = f"{self.count} log records were dropped: the handlers are slower than the requests"
            _hand_on("penstock.logs", logging.WARNING, time.time(), message, {"dropped": self.count})
        self.count = 0
        self._reported = time.monotonic()


def _forget() -> None:
    global _lock, _current  # noqa: PLW0603  the parent's thread does not exist here
    _lock = threading.Lock()
    _current = None


# `logging` closes its handlers at exit. It must come after the servers, whose last records are still to be written.
_lifecycle.come_first_at_exit()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
