"""Interleaved visits to servers that stand behind one another: the CPU time of each of them counts by itself."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benches.python.door.rounds import progress
from benches.python.door.workload import send

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benches.python.door.machine import Served
    from benches.python.door.workload import Dialect

Figures = dict[str, float]

CLIENTS = 64
PROBE = 10
LEAST = 5


@dataclass(frozen=True)
class Lane:
    """A way to a model.

    Attributes:
        url: where requests go.
        dialect: how it is asked.
        front: who answers them, if not the upstream itself.
        upstream: who computes.
    """

    name: str
    url: str
    dialect: Dialect
    front: Served | None
    upstream: Served


def visit(lane: Lane, seconds: float, rate: float | None) -> Figures:
    """One visit in the closed loop of 64 clients; how many requests make `seconds` is known from `rate`."""
    if rate is None:
        rate = send(lane.url, lane.dialect, clients=CLIENTS, requests_per_client=PROBE).requests_per_second
    each = max(LEAST, int(rate * seconds / CLIENTS))
    before, began = _cpu(lane), time.monotonic()
    report = send(lane.url, lane.dialect, clients=CLIENTS, requests_per_client=each, deadline=20 * seconds + 20)
    took = time.monotonic() - began
    front, upstream = (after - first for after, first in zip(_cpu(lane), before, strict=True))
    answered = max(1, report.answered)
    return {
        "requests_per_second": report.requests_per_second,
        "front_us": front / answered * 1e6,
        "upstream_us": upstream / answered * 1e6,
        "upstream_busy": upstream / took,
        "p50_us": report.p50 * 1e6,
        "p99_us": report.p99 * 1e6,
        "errors": float(report.planned - report.ok + report.reopened),
    }


def _cpu(lane: Lane) -> tuple[float, float]:
    return (0.0 if lane.front is None else lane.front.cpu_seconds()), lane.upstream.cpu_seconds()


def interleaved(lanes: Sequence[Lane], rounds: int, seconds: float) -> dict[str, list[Figures]]:
    """Rounds of every lane, in turning order."""
    results: dict[str, list[Figures]] = defaultdict(list)
    rates: dict[str, float] = {}
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}")
        first = number % len(lanes)
        for lane in [*lanes[first:], *lanes[:first]]:
            figures = visit(lane, seconds, rates.get(lane.name))
            rates[lane.name] = figures["requests_per_second"]
            results[lane.name].append(figures)
            time.sleep(0.02)
    return dict(results)


def middle(rounds: Sequence[Figures], key: str) -> float:
    """The median of the rounds."""
    return statistics.median(figures[key] for figures in rounds)
