"""What a token costs the server: its CPU and its writes, with a thousand streams at once."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from benches.python.door.machine import busy_cpu_seconds, serving
from benches.python.door.rounds import progress, ratios, spread
from benches.python.door.story import Bench, Story
from benches.python.measure import table
from benches.python.streaming.ask import Flow
from benches.python.streaming.pour import Poured, pour
from benches.python.streaming.servers import HYPER, OURS, Writes, cpu_of, launches

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benches.python.door.machine import Served

STREAMS = 1024
FLOWS = {
    "paced": Flow(burst=1, pause_ms=100, tokens=50),
    "in bursts of 32": Flow(burst=32, pause_ms=2000, tokens=160),
}
QUICK_STREAMS = 16
# strace makes every write so slow that with more of them tokens would gather, and share writes that they do not share.
TRACED = 64
Results = dict[tuple[str, str], list[dict[str, float]]]


def run(bench: Bench) -> Story:
    count = QUICK_STREAMS if bench.quick else STREAMS
    rounds = bench.effort(0).rounds
    wanted, notes = launches(bench)
    results: Results = defaultdict(list)
    writes: dict[tuple[str, str], float] = {}
    with serving(*wanted, logs=bench.logs) as servers:
        for kind, flow in flows(bench).items():
            for number in range(rounds):
                first = number % len(servers)
                for server in (*servers[first:], *servers[:first]):
                    progress(f"{kind}, round {number + 1} of {rounds}: {server.name}")
                    results[server.name, kind].append(visit(server, flow, count))
            for server in servers:
                progress(f"{kind}, writes: {server.name}")
                writes[server.name, kind] = counted_writes(server, flow, min(count, TRACED))
    text = "\n\n".join([_table(results, writes), _compared(results), *notes])
    return Story(f"A token, {count:,} streams at once: the server", text, packed(results, writes))


def flows(bench: Bench, full: Mapping[str, Flow] = FLOWS) -> dict[str, Flow]:
    """Shorter ones where it is only to be seen that they run."""
    if not bench.quick:
        return dict(full)
    return {kind: replace(flow, pause_ms=50, tokens=4 * flow.burst) for kind, flow in full.items()}


def visit(server: Served, flow: Flow, count: int) -> dict[str, float]:
    seen: Poured = pour(server.port, flow, count, cpu_of(server))
    return {
        "cpu_us": seen.cost / max(1, seen.tokens) * 1e6,
        "tokens_per_second": seen.tokens / max(1e-9, seen.seconds),
        "server_cpus": seen.cost / max(1e-9, seen.seconds),
        "first_p50_ms": float(np.median(seen.first)) * 1e3,
        "gap_p99_ms": float(np.percentile(seen.gaps, 99)) * 1e3 if seen.gaps else 0.0,
    }


def counted_writes(server: Served, flow: Flow, count: int) -> float:
    """Calls that write, for each token, heads and ends included; 0 where they cannot be counted."""
    with Writes(server) as writes:
        pour(server.port, flow, count, busy_cpu_seconds)
    return (writes.count or 0) / (count * flow.tokens)


def _table(results: Results, writes: dict[tuple[str, str], float]) -> str:
    rows = []
    for (name, kind), rounds in sorted(results.items(), key=lambda item: item[0][1], reverse=True):
        cells = [
            spread([figures[key] for figures in rounds], digits)
            for key, digits in (("cpu_us", 2), ("tokens_per_second", 0), ("first_p50_ms", 1), ("gap_p99_ms", 1))
        ]
        rows.append([kind, name, *cells, f"{writes.get((name, kind), 0):.3f}"])
    head = ["tokens", "server", "CPU µs/token", "tokens/s", "first token p50 ms", "gap p99 ms", "writes/token"]
    return table(head, rows)


def _compared(results: Results) -> str:
    rows = []
    for (name, kind), rounds in results.items():
        if name != HYPER:
            rows.append([kind, name, spread(ratios(rounds, results[HYPER, kind]), 2), _over(results, name, kind)])
    return "CPU a token, round by round:\n\n" + table(["tokens", "server", "÷ hyper", f"÷ {OURS}"], rows)


def _over(results: Results, name: str, kind: str) -> str:
    ours: Sequence[Any] = results.get((OURS, kind), ())
    return f"{median(ratios(results[name, kind], ours)):.1f}" if ours and name != OURS else ""


def packed(results: Results, writes: dict[tuple[str, str], float]) -> list[dict[str, Any]]:
    """For JSON."""
    return [
        {"server": name, "tokens": kind, "rounds": rounds, "writes_per_token": writes.get((name, kind))}
        for (name, kind), rounds in results.items()
    ]
