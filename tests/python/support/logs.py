"""Loggers that tests listen to."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Self

from tests.python.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator


class Kept(logging.Handler):
    """Keeps every record of a logger while it is entered."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self._logger = logging.getLogger(name)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def __enter__(self) -> Self:
        self._logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)

    @property
    def lines(self) -> list[str]:
        return [record.getMessage() for record in self.records]


class Blocked(Kept):
    """A handler that waits to be let go on."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.entered = threading.Event()
        self.opened = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.entered.set()
        assert self.opened.wait(PATIENCE * 2)
        super().emit(record)


def readers() -> list[threading.Thread]:
    """The threads that bring records to `logging`."""
    return [thread for thread in threading.enumerate() if thread.name == "penstock-log"]


def as_they_were() -> Iterator[None]:
    """Puts levels and handlers back, and looks whether every reader has ended."""
    levels = {name: logging.getLogger(name).level for name in ("penstock", "penstock.access", "penstock.serve")}
    root, handlers = logging.root.level, logging.root.handlers[:]
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    logging.root.setLevel(root)
    logging.root.handlers[:] = handlers
    assert readers() == []
