"""Interleaved rounds: every round visits every server once, in turning order, so that what slows a round slows all."""

from __future__ import annotations

import re
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from benches.python.door.machine import busy_cpu_seconds
from benches.python.door.workload import send

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from benches.python.door.machine import Served
    from benches.python.door.workload import Dialect

Figures = dict[str, float]
Item = TypeVar("Item")
PROBE = 400
LEAST = 20
COUNTERS = (
    "penstock_lock_acquisitions_total",
    "penstock_lock_wait_seconds_total",
    "penstock_batch_size_sum",
    "penstock_batch_size_count",
)


@dataclass(frozen=True)
class Lane:
    """A server spoken to in one dialect."""

    name: str
    server: Served
    dialect: Dialect


@dataclass(frozen=True)
class Effort:
    """How often and how long: rounds, and seconds of each visit."""

    rounds: int
    seconds: float


def turning(items: Sequence[Item], rounds: int) -> Iterator[tuple[int, Sequence[Item]]]:
    """Every round's number and order: each begins with the next item."""
    for number in range(rounds):
        first = number % len(items)
        yield number, [*items[first:], *items[:first]]


def visit(lane: Lane, clients: int, seconds: float, rate: float | None = None, least: int = LEAST) -> Figures:
    """One visit in the closed loop; how many requests make `seconds` is known from `rate`, or found by a short run.

    `least`: so many of each client at least, however long they take.
    """
    if rate is None:
        each = _each(PROBE, clients, least)
        rate = send(lane.server.url, lane.dialect, clients=clients, requests_per_client=each).requests_per_second
    each = _each(rate * seconds, clients, least)
    counted, before, began = counters(lane.server), lane.server.cpu_seconds(), time.monotonic()
    own = time.process_time()
    others = busy_cpu_seconds() - own
    report = send(lane.server.url, lane.dialect, clients=clients, requests_per_client=each, deadline=10 * seconds + 10)
    after, took = lane.server.cpu_seconds(), time.monotonic() - began
    own = time.process_time() - own
    others = busy_cpu_seconds() - time.process_time() - others - (after - before)
    return {
        "others_cpus": max(0.0, others) / took,
        "load_cpus": own / took,
        "requests_per_second": report.requests_per_second,
        "cpu_us": (after - before) / max(1, report.answered) * 1e6,
        "p50_us": report.p50 * 1e6,
        "p99_us": report.p99 * 1e6,
        "errors": float(report.planned - report.ok + report.reopened),
        **growth(counted, counters(lane.server), report.ok),
    }


def _each(requests: float, clients: int, least: int) -> int:
    return max(least, int(requests / clients))


def counters(server: Served) -> Figures:
    """Penstock's own counters, summed over its models; nothing for others."""
    if not server.name.startswith("penstock"):
        return {}
    text = server.get("/metrics")
    return {name: total(name, text) for name in COUNTERS}


def total(name: str, text: str) -> float:
    """A counter of `/metrics`, over all its labels."""
    return sum(map(float, re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)", text, re.MULTILINE)))


def growth(before: Figures, after: Figures, requests: int) -> Figures:
    """What the counters say about the requests between."""
    if not before:
        return {}
    locks, waited, rows, batches = (after[name] - before[name] for name in COUNTERS)
    return {
        "rows_per_batch": rows / max(1.0, batches),
        "locks_per_request": locks / max(1, requests),
        "lock_wait_us_per_batch": waited / max(1.0, batches) * 1e6,
    }


def interleaved(
    lanes: Sequence[Lane],
    clients: Iterable[int],
    effort: Effort,
    visiting: Callable[[Lane, int, float, float | None], Figures] = visit,
) -> dict[tuple[str, int], list[Figures]]:
    """Rounds of every lane at every number of clients; `visiting` is for what is more than a visit."""
    results: dict[tuple[str, int], list[Figures]] = defaultdict(list)
    for count in clients:
        rates: dict[str, float] = {}
        for number, order in turning(lanes, effort.rounds):
            progress(f"{count} clients, round {number + 1} of {effort.rounds}")
            for lane in order:
                figures = visiting(lane, count, effort.seconds, rates.get(lane.name))
                rates[lane.name] = figures["requests_per_second"]
                results[lane.name, count].append(figures)
                time.sleep(0.02)
    return dict(results)


def disturbance(results: Mapping[Any, Sequence[Figures]]) -> str:
    """How quiet the machine was: a table of a busy one is worth little, whatever its medians say."""
    seen = [100 * figures["others_cpus"] for rounds in results.values() for figures in rounds]
    return f"Others than server and load, interrupts and the host among them: {spread(seen)} % of a CPU, by visit."


def progress(what: str) -> None:
    """Says on stderr how far it is; stdout is for tables."""
    print(f"  {what}", file=sys.stderr, flush=True)


def spread(values: Sequence[float], digits: int = 1) -> str:
    """The median, and in brackets the least and the greatest."""
    middle, low, high = statistics.median(values), min(values), max(values)
    if len(values) == 1:
        return f"{middle:,.{digits}f}"
    return f"{middle:,.{digits}f} ({low:,.{digits}f}-{high:,.{digits}f})"


def ratios(above: Sequence[Figures], below: Sequence[Figures], key: str = "cpu_us") -> list[float]:
    """Round by round."""
    return [one[key] / other[key] for one, other in zip(above, below, strict=True) if other[key]]


COLUMNS: tuple[tuple[str, str, int, Callable[[Sequence[float]], float] | None], ...] = (
    ("requests/s", "requests_per_second", 0, None),
    ("CPU µs/request", "cpu_us", 1, None),
    ("p50 µs", "p50_us", 0, None),
    ("p99 µs", "p99_us", 0, None),
    ("errors", "errors", 0, sum),
    ("rows/batch", "rows_per_batch", 1, statistics.median),
    ("locks/request", "locks_per_request", 4, statistics.median),
)


def cells(rounds: Sequence[Figures]) -> list[str]:
    """The columns of a lane's rounds; empty where the server does not count such a thing."""
    made = []
    for _, key, digits, single in COLUMNS:
        values = [figures[key] for figures in rounds if key in figures]
        if not values:
            made.append("")
        elif single is None:
            made.append(spread(values, digits))
        else:
            made.append(f"{single(values):,.{digits}f}")
    return made


HEAD = [title for title, *_ in COLUMNS]
