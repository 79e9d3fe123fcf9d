"""A visit: one client on one loop in a process of its own, and what was seen of it from outside."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benches.python.client import nginx
from benches.python.client.clients import Setup
from benches.python.door.machine import LOAD_CPU, ROOT, Launch, busy_cpu_seconds
from benches.python.door.rounds import progress, turning
from benches.python.door.servers import Absent, install

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benches.python.door.machine import Served
    from benches.python.door.rounds import Effort, Figures
    from benches.python.door.story import Bench

HERE = Path(__file__).resolve().parent
WORKER = "benches.python.client.worker"
CLIENT_CPU = "0"
SERVER_CPU = str(LOAD_CPU)
LOOPS = ("asyncio", "uvloop")
OURS = ("penstock", "the loop alone")
PATIENCE = 120.0
TICK = 0.05
"""Seconds between looks at the sockets."""


@dataclass(frozen=True)
class Lane:
    """A client on a loop."""

    client: str
    loop: str
    python: str

    @property
    def name(self) -> str:
        return f"{self.client} on {self.loop}"


@dataclass(frozen=True)
class Cell:
    """A load by the name that it has in the table, and what it is made of (see loads.py)."""

    name: str
    load: dict[str, Any]


Results = dict[tuple[str, str], "list[Figures]"]


def server(folder: Path, *, certificate: tuple[str, str] = ("", "")) -> Launch:
    """nginx on the CPU that the clients do not have.

    Raises:
        Absent: where there is no nginx.
    """
    if nginx.program() is None:
        raise Absent("nginx is not installed")
    tls = certificate if all(certificate) else ()
    name = "nginx-tls" if tls else "nginx"
    command = (sys.executable, str(HERE / "nginx.py"), "{port}", str(folder / name), *tls)
    return Launch(name, command, nginx.PATH, cpus=SERVER_CPU)


def setup(base: str, connections: int, **changed: Any) -> dict[str, Any]:
    made = Setup(base, nginx.PATH, connections, keeps=True, authority=None, answer_bytes=len(nginx.ANSWER))
    return {**asdict(made), **changed}


def lanes(bench: Bench, clients: Iterable[str], loops: Iterable[str] = LOOPS) -> tuple[list[Lane], list[str]]:
    """The clients that can be had here on every loop, and why others cannot."""
    found: list[Lane] = []
    notes: list[str] = []
    theirs = None
    try:
        theirs = str(install(bench.peers, "clients", HERE / "peers.txt") / "python")
    except Absent as reason:
        notes.append(f"The peers are left out: {reason}.")
    for client in clients:
        python = sys.executable if client in OURS else theirs
        if python is not None:
            found += [Lane(client, loop, python) for loop in loops]
    return found, notes


def visit(
    lane: Lane, cells: Sequence[Cell], nginx_process: Served, *, watch: bool = False, worker: str = WORKER
) -> list[Figures]:
    """All cells in one process; figures of a cell that failed are `{"failed": why}`.

    `watch`: count its sockets while it runs, at most. `worker`: the module that the process runs.
    """
    loads = json.dumps([cell.load for cell in cells])
    served_by = ",".join(str(number) for number, _ in nginx_process._processes())
    command = [lane.python, "-m", worker, CLIENT_CPU, lane.client, lane.loop, served_by, loads]
    before, began = _cpu_seconds(nginx_process), time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        sockets = _most_sockets(process, nginx_process.port) if watch else 0
        try:
            out, wrong = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            return [{"failed": f"not done within {PATIENCE:.0f} s"} for _ in cells]
    others = max(0.0, _cpu_seconds(nginx_process) - before) / (time.monotonic() - began)
    if process.returncode != 0 or not out:
        words = (wrong.strip().splitlines() or [f"status {process.returncode}"])[-1]
        return [{"failed": words[:300]} for _ in cells]
    report = json.loads(out)
    seen = {"others_cpus": others, "sockets": sockets, "version": report["version"]}
    return [{**figures, **seen} for figures in report["figures"]]


def _cpu_seconds(nginx_process: Served) -> float:
    """What everything but nginx, the clients so far and this process did."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    ours = used.ru_utime + used.ru_stime + time.process_time() + nginx_process.cpu_seconds()
    return busy_cpu_seconds() - ours


def _most_sockets(process: subprocess.Popen[str], port: int) -> int:
    """The most connections to a port at any look until the process ends (proc_pid_net(5): state 01 is ESTABLISHED).

    By their own end: where sockets come and go while the kernel writes the list, it may name one twice.
    """
    most = 0
    end = f":{port:04X}"
    while process.poll() is None:
        rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
        most = max(most, len({row[1] for row in rows if row[2].endswith(end) and row[3] == "01"}))
        time.sleep(TICK)
    return most


def rounds_of(
    found: Sequence[Lane], cells: Sequence[Cell], served: Served, effort: Effort, **options: Any
) -> tuple[Results, list[str]]:
    """Interleaved: every round visits every lane once. What failed is told in words, and is no figure."""
    results: Results = defaultdict(list)
    failed: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for number, order in turning(found, effort.rounds):
        for lane in order:
            progress(f"round {number + 1} of {effort.rounds}: {lane.name}")
            for cell, figures in zip(cells, visit(lane, cells, served, **options), strict=True):
                if "failed" in figures:
                    failed[lane.name, str(figures["failed"])][cell.name] = None
                else:
                    results[lane.name, cell.name].append(figures)
    notes = [f"{name} failed ({'; '.join(loads)}): {reason}." for (name, reason), loads in failed.items()]
    return dict(results), notes


def packed(results: Results) -> list[dict[str, object]]:
    """For JSON."""
    return [{"client": name, "load": load, "rounds": rounds} for (name, load), rounds in results.items()]
