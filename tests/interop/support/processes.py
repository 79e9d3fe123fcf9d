"""Servers in processes of their own: started, waited for, and ended whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

STARTS_WITHIN = 60.0
STOPS_WITHIN = 15.0
LAST_WORDS = 2000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def listens(address: int | str) -> bool:
    """Whether somebody accepts at a port of 127.0.0.1, or at the path of a Unix socket."""
    family, target = (socket.AF_UNIX, address) if isinstance(address, str) else (socket.AF_INET, ("127.0.0.1", address))
    with socket.socket(family) as probe:
        probe.settimeout(1)
        return probe.connect_ex(target) == 0


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


class Process:
    """A server's process group, and the log of what it printed."""

    def __init__(
        self, command: Sequence[str], log: Path, *, folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.log = log
        self._name = command[0].rsplit("/", 1)[-1]
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )

    @property
    def number(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def wait_until(self, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + STARTS_WITHIN
        while not ready():
            ended = self._process.poll()
            assert ended is None, f"{self._name} ended with status {ended}: {self._last_words()}"
            assert time.monotonic() < end, f"{self._name} did not start: {self._last_words()}"
            time.sleep(0.02)

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, limit: float = STOPS_WITHIN) -> int:
        return self._process.wait(limit)

    def stop(self, first: signal.Signals = signal.SIGTERM) -> None:
        """Asks it to end, and kills its whole group where that does not help."""
        if self._process.poll() is None:
            self._process.send_signal(first)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOPS_WITHIN)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(STOPS_WITHIN)

    def _last_words(self) -> str:
        return self.log.read_text(errors="replace")[-LAST_WORDS:]
