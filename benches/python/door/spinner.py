"""One Python thread that spins in the server's process: what is left of the door, by the switch interval.

The floor to compare with is the same server beside the same thread in a process of its own: it takes as much of the
CPU, but nothing of the interpreter lock.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections import defaultdict
from typing import TYPE_CHECKING

from benches.python.door.client import Connection
from benches.python.door.machine import Served, serving
from benches.python.door.rounds import Figures, Lane, progress, spread, visit
from benches.python.door.servers import PENSTOCK_DIALECT, penstock
from benches.python.door.story import Bench, Story
from benches.python.door.workload import check, compact
from benches.python.measure import table
from penstock import testing

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIENTS = 64
SECONDS = 1.0
PLACES = {"on CPU 0": "0", "on both CPUs": "0,1"}
INTERVALS_MS = (5.0, 1.0, 0.5, 0.1)
ALONE, ELSEWHERE = "no thread spins", "it spins in another process"
SPIN = "count = 0\nwhile True: count += 1"
COLUMNS = (
    ("requests/s", "requests_per_second", 0),
    ("p50 µs", "p50_us", 0),
    ("p99 µs", "p99_us", 0),
    ("rows/batch", "rows_per_batch", 1),
    ("waited for the lock, µs a batch", "lock_wait_us_per_batch", 0),
)


def run(bench: Bench) -> Story:
    effort = bench.effort(SECONDS)
    results: dict[tuple[str, str], list[Figures]] = defaultdict(list)
    for place, cpus in PLACES.items():
        with serving(penstock("mlp,control", cpus=cpus), logs=bench.logs) as (door,):
            check(door, PENSTOCK_DIALECT)
            lane = Lane("penstock", door, PENSTOCK_DIALECT)
            for number in range(effort.rounds):
                progress(f"{place}, round {number + 1} of {effort.rounds}")
                for kind in [ALONE, ELSEWHERE, *map(title, INTERVALS_MS)]:
                    with spinning(door, kind, cpus):
                        results[place, kind].append(visit(lane, CLIENTS, effort.seconds))
    rows = []
    for (place, kind), rounds in results.items():
        cells = [spread([one[key] for one in rounds], digits) for _, key, digits in COLUMNS]
        shares = [kept(results[place, other], rounds) for other in (ALONE, ELSEWHERE)]
        rows.append([place, kind, *cells, *shares])
    head = ["server", "spinner", *(title for title, *_ in COLUMNS), "of no spinner, %", "of one elsewhere, %"]
    data = [{"server": place, "spinner": kind, "rounds": rounds} for (place, kind), rounds in results.items()]
    text = f"MLP at {CLIENTS} clients.\n\n" + table(head, rows)
    return Story("A Python thread that spins in the server's process", text, data)


def title(interval_ms: float) -> str:
    return f"switch interval {interval_ms:g} ms"


def kept(whole: list[Figures], rounds: list[Figures]) -> str:
    key = "requests_per_second"
    return spread([100 * one[key] / other[key] for one, other in zip(rounds, whole, strict=True)], 0)


@contextlib.contextmanager
def spinning(door: Served, kind: str, cpus: str) -> Iterator[None]:
    chosen = {title(interval): interval for interval in INTERVALS_MS}.get(kind)
    if kind == ELSEWHERE:
        other = subprocess.Popen(["taskset", "-c", cpus, sys.executable, "-c", SPIN])
        try:
            time.sleep(0.2)
            yield
        finally:
            other.kill()
            other.wait()
    elif chosen is None:
        yield
    else:
        _control(door, chosen)
        try:
            yield
        finally:
            _control(door, None)


def _control(door: Served, interval_ms: float | None) -> None:
    """Spins, with the interpreter's switch interval at that; `None` stops it and sets the default again."""
    values = [0.0, INTERVALS_MS[0]] if interval_ms is None else [1.0, interval_ms]
    body = compact(testing.infer_body({"x": ("FP32", [1, 2], values)}))
    with Connection(door) as connection:
        connection.ask("/v2/models/control/infer", body)
        assert connection.status() == 200, "the spinner does not obey"
