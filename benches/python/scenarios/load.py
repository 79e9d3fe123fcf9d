"""The load generator as a process of its own, on the CPU of the load: `penstock bench`, every answer checked."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benches.python.door.machine import LOAD_CPU, ROOT, NotServing

if TYPE_CHECKING:
    from benches.python.door.machine import Served

Report = dict[str, Any]
REQUEST_TIMEOUT = 20.0
MARGIN = 20.0
FINE = (0, 1)
"""Exit statuses of a run that was carried out: 1 says that an answer was not fine, which is ours to judge."""


@dataclass(frozen=True)
class Load:
    """What is sent.

    Attributes:
        connections: how many.
        rate: requests a second over all of them, at random moments; none for the closed loop.
        requests: how many in all, in the closed loop.
        seconds: of sending, where their number is not given.
        drains_in: seconds after which what fell due and found no connection must be answered, too.
        headers: of every request.
        warmup: seconds of the same load that nothing counts.
        model: that is asked, with random rows that fit it.
    """

    connections: int
    rate: float | None = None
    requests: int | None = None
    seconds: float = 0.0
    drains_in: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    warmup: float = 0.0
    model: str = "mlp"

    @property
    def deadline(self) -> float:
        """Seconds after which the run is cut off: nothing may take so long."""
        return self.warmup + self.seconds + self.drains_in + REQUEST_TIMEOUT + MARGIN

    def command(self, base: str) -> list[str]:
        """The command, with its report on the standard output."""
        words = ["taskset", "-c", str(LOAD_CPU), sys.executable, "-m", "penstock", "bench", base, "--model", self.model]
        options: list[tuple[str, object]] = [
            ("--clients", self.connections),
            ("--timeout", REQUEST_TIMEOUT),
            ("--deadline", self.deadline),
            ("--json", "-"),
        ]
        if self.requests is not None:
            options.append(("--requests", self.requests))
        else:
            options.append(("--duration", self.seconds))
        if self.rate is not None:
            options.append(("--rate", self.rate))
        if self.warmup:
            options.append(("--warmup", self.warmup))
        options += [("--header", f"{name}: {value}") for name, value in self.headers.items()]
        words += [str(part) for option in options for part in option]
        return [*words, "--check", *(["--poisson"] if self.rate is not None else [])]


def send(server: Served, load: Load) -> Report:
    """Sends it and gives the report.

    Raises:
        NotServing: where the load could not be sent, or hung.
    """
    sending = start(server, load)
    return finish(sending, load.deadline + MARGIN)


def start(server: Served, load: Load) -> subprocess.Popen[str]:
    """Begins to send."""
    command = load.command(server.base)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def finish(sending: subprocess.Popen[str], limit: float) -> Report:
    """The report of what was sent, within so many seconds.

    Raises:
        NotServing: where there is none.
    """
    try:
        said, notes = sending.communicate(timeout=limit)
    except subprocess.TimeoutExpired as error:
        raise NotServing(f"the load generator did not end within {limit:.0f} s") from error
    finally:
        if sending.poll() is None:
            sending.kill()
            sending.communicate()
    if sending.returncode not in FINE:
        raise NotServing(f"the load generator ended with status {sending.returncode}: {notes.strip()[-400:]}")
    report: Report = json.loads(said)
    return report
