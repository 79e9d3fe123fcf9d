"""The servers of the tables, each on CPU 0, and what a round of them costs."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from benches.python.door.machine import Launch
from benches.python.door.servers import Absent, install
from benches.python.streaming.ask import PATH

if TYPE_CHECKING:
    from collections.abc import Callable

    from benches.python.door.machine import Served
    from benches.python.door.story import Bench

HERE = Path(__file__).resolve().parent
PEERS = HERE / "peers"
HYPER, OURS, FASTAPI = "bare hyper", "penstock", "FastAPI + sse-starlette"
WRITES = "write,writev,sendto,sendmsg,sendmmsg"
ATTACHES_IN = 0.5


def bare_hyper(bench: Bench, cpus: str = "0") -> Launch:
    """The floor: frames that were made beforehand, written by hyper on one thread."""
    return Launch(HYPER, (str(bench.hyper), "{port}"), PATH, cpus=cpus)


def penstock(cpus: str = "0", *settings: str) -> Launch:
    """The door as `penstock serve` starts it, everything at its default."""
    command = (sys.executable, "-m", "penstock", "serve", str(HERE / "apps.py"), "--port", "{port}", *settings)
    return Launch(OURS, command, PATH, cpus=cpus, ready="/v2/health/ready")


def fastapi(bench: Bench) -> Launch:
    """What most people stream tokens with; installs it first.

    Raises:
        Absent: where that cannot be done.
    """
    programs = install(bench.peers, "sse", PEERS / "sse.txt")
    command = (
        *(str(programs / "uvicorn"), "sse_app:app", "--port", "{port}", "--loop", "uvloop", "--http", "httptools"),
        *("--no-access-log", "--log-level", "warning", "--ws", "none", "--lifespan", "off"),
    )
    return Launch(FASTAPI, command, PATH, {"PYTHONPATH": str(PEERS), "PYTHONDONTWRITEBYTECODE": "1"}, PEERS)


def launches(bench: Bench) -> tuple[list[Launch], list[str]]:
    """All that can be had here, and why others cannot."""
    found, notes = [bare_hyper(bench), penstock()], []
    try:
        found.append(fastapi(bench))
    except Absent as reason:
        notes.append(f"FastAPI is left out: {reason}.")
    return found, notes


def cpu_of(server: Served) -> Callable[[], float]:
    """Seconds of CPU that all threads of a server had, by their schedstat: ticks are too coarse for this."""

    def seconds() -> float:
        spent = 0
        for number, _ in server._processes():
            for thread in Path(f"/proc/{number}/task").iterdir():
                with contextlib.suppress(OSError):
                    spent += int((thread / "schedstat").read_text().split()[0])
        return spent / 1e9

    return seconds


class Writes:
    """Counts the calls that write, by strace, while the block runs; `count` is `None` where there is no strace."""

    def __init__(self, server: Served) -> None:
        self._numbers = [str(number) for number, _ in server._processes()]
        self.count: int | None = None

    def __enter__(self) -> Self:
        self._process = None
        if shutil.which("strace"):
            pids = [part for number in self._numbers for part in ("-p", number)]
            command = ["strace", "-c", "-f", "-e", f"trace={WRITES}", *pids]
            self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            time.sleep(ATTACHES_IN)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        _, table = self._process.communicate(timeout=30)
        total = re.search(r"^100\.00\s+\S+\s+\d+\s+(\d+)", table, re.MULTILINE)
        self.count = int(total[1]) if total else None
