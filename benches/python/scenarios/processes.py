"""What a process holds, as the kernel counts it: memory, handles, sockets, threads."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Self

from benches.python.door.machine import PAGE

if TYPE_CHECKING:
    from types import TracebackType

LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Held:
    """At one moment.

    Attributes:
        memory: resident, in MiB.
        handles: open files, sockets among them.
        sockets: of those.
        threads: of the operating system.
    """

    memory: float
    handles: int
    sockets: int
    threads: int


def held(process: int) -> Held:
    """What a process holds now.

    Raises:
        OSError: where it has ended.
    """
    folder = Path(f"/proc/{process}")
    resident = int((folder / "statm").read_text().split()[1]) * PAGE / (1 << 20)
    handles = sockets = 0
    for handle in (folder / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since
            sockets += str(handle.readlink()).startswith("socket:")
            handles += 1
    return Held(resident, handles, sockets, sum(1 for _ in (folder / "task").iterdir()))


class Watched:
    """The most that a process holds while the block runs."""

    def __init__(self, process: int) -> None:
        self._process = process
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.most = held(process)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        with contextlib.suppress(OSError):  # that it ended is said by whoever asks it
            while not self._ended.is_set():
                now = held(self._process)
                names = [one.name for one in fields(Held)]
                self.most = Held(*(max(getattr(self.most, name), getattr(now, name)) for name in names))
                time.sleep(LOOK_SECONDS)
