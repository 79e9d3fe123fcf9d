"""The servers of a run: upstreams and the gateway before them, as a user starts them, behind wires that can be cut."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.interop.support.processes import Process, answers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.faults.relay import Relay

APP = Path(__file__).with_name("app.py")
PORTS = range(20_000, 32_000)
"""Below those that the system gives to clients: one of these must not take the port of a server that is down."""
LONGEST_STOP = 30.0


class Served:
    """`penstock serve`, which may be killed, stalled and started again at its port."""

    def __init__(self, name: str, folder: Path, arguments: Sequence[str], environment: dict[str, str]) -> None:
        self.name = name
        self.port = _free_port()
        self.log = folder / f"{name}.log"
        self._folder = folder
        self._command = [sys.executable, "-m", "penstock", "serve", *arguments, "--port", str(self.port)]
        self._environment = environment
        self._sessions: list[int] = []
        self._process: Process | None = None
        self._said_before = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def process(self) -> Process:
        assert self._process is not None, f"{self.name} does not run"
        return self._process

    def start(self) -> None:
        self._said_before = self.log.stat().st_size if self.log.exists() else 0
        self._process = Process(self._command, self.log, folder=self._folder, environment=self._environment)
        self._sessions.append(self._process.number)

    def wait_ready(self) -> None:
        self.process.wait_until(lambda: answers(f"{self.url}/v2/health/ready"))

    def has_given_up(self) -> bool:
        """Whether its supervisor said, since the last start, that its workers die too often."""
        with self.log.open("rb") as log:
            log.seek(self._said_before)
            return b": it gives up" in log.read()

    def send(self, number: signal.Signals) -> None:
        """Signals every process of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.number, number)

    def kill(self) -> None:
        """Ends all of it at once, and waits until its port is free."""
        self.send(signal.SIGKILL)
        self.process.wait()

    def terminate(self) -> None:
        """Ends it as a user would.

        Raises:
            AssertionError: where it does not end well and in time.
        """
        self.process.send(signal.SIGTERM)
        try:
            status = self.process.wait(LONGEST_STOP)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not end within {LONGEST_STOP} s: {self.log}") from None
        assert status == 0, f"{self.name} ended with status {status}: {self.log}"

    def kill_one(self, chance: random.Random) -> str:
        """Kills one of the processes below the first, where there is any."""
        below = sorted(_members(self.process.number) - {self.process.number})
        if not below:
            return "nobody"
        victim = chance.choice(below)
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        return f"one of {len(below)}"

    def left_behind(self) -> set[int]:
        """Processes of it that still are there."""
        return set().union(*(_members(session) for session in self._sessions))


def upstream(index: int, folder: Path, computed: Path) -> Served:
    """One of the servers that compute: every other one by several processes that share its port, the rest by processes
    of the models' own.
    """
    by_port = index % 2 == 0
    environment = {
        "FAULTS_FOLDER": str(computed),
        "FAULTS_WORKERS": "threads" if by_port else "processes",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    arguments = [str(APP), "--drain-timeout", "5", *(["--workers", "2"] if by_port else [])]
    return Served(f"upstream-{index}", folder, arguments, environment)


def gateway(folder: Path, relays: Sequence[Relay]) -> Served:
    """The server before them. What `once` and `told` must not do, they must not do here either."""
    settings = folder / "gateway.toml"
    settings.write_text("".join(f'[model.{name}]\non_error = "fail"\n' for name in ("once", "told")))
    arguments = ["--config", str(settings), "--workers", "2", "--upstream-timeout", "5", "--drain-timeout", "5"]
    for relay in relays:
        arguments += ["--upstream", f"http://127.0.0.1:{relay.port}"]
    return Served("gateway", folder, arguments, {})


def _members(session: int) -> set[int]:
    """The processes of a session that have not ended."""
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            state, _, _, its_session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(its_session) == session and state != "Z":
                found.add(int(entry.name))
    return found


def _free_port() -> int:
    chance = random.SystemRandom()
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            port = chance.choice(PORTS)
            probe.bind(("127.0.0.1", port))
            return port
