"""The scenarios as tables of Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benches.python.measure import table
from benches.python.scenarios.verdict import expired, goodput, success

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benches.python.scenarios.carry import Row
    from benches.python.scenarios.plan import Capacities

HEAD = ["asked/s", "ok/s", "ok", "refused", "p50 ms", "p99 ms", "p99.9 ms", "greatest ms"]
COST = ["CPU µs/request", "CPU of the server", "of the load", "rows/batch", "lock wait µs/batch", "MiB", "sockets"]


def told(rows: Sequence[Row], capacities: Capacities) -> str:
    """All of it: those within the capacity, those beyond, what they cost, and what was aimed at."""
    within = [row for row in rows if row.scenario.within]
    beyond = [row for row in rows if not row.scenario.within]
    seen = ", ".join(f"{rate:,.0f} at {count:,}" for count, rate in capacities.by_connections.items())
    beside = f"{capacities.device:,.0f} at 1,000 of the model that takes 2 ms a batch, `device`"
    parts = [f"Capacity, requests/s in the closed loop by connections: {seen}; {beside}."]
    if within:
        parts += ["**Within capacity**", _latencies(within)]
    if beyond:
        parts += ["**Beyond it**; latencies count from the moment that a request was due", _latencies(beyond)]
    parts += ["**What they cost the server**", _costs(rows), "**Aims**", aimed(rows)]
    return "\n\n".join(parts)


def _latencies(rows: Sequence[Row]) -> str:
    made = []
    for row in rows:
        report, rate = row.report, row.scenario.load.rate
        times = [f"{report[name] * 1e3:,.2f}" for name in ("p50", "p99", "p999", "max")]
        turned_away = report["refused"] + expired(report)
        counts = [f"{success(report):.3%}", f"{turned_away / max(1, report['planned']):.1%}" if turned_away else "0"]
        made.append([row.scenario.name, f"{rate:,.0f}" if rate else "", f"{goodput(report):,.0f}", *counts, *times])
    return table(["scenario", *HEAD], made)


def _costs(rows: Sequence[Row]) -> str:
    made = [
        [
            row.scenario.name,
            f"{row.cpu_us:.1f}",
            f"{row.busy:.0%}",
            f"{row.report['generator_busy']:.0%}",
            f"{row.inside.get('rows_per_batch', 0):.1f}",
            f"{row.inside.get('lock_wait_us_per_batch', 0):.1f}",
            f"{row.most.memory:.0f}",
            f"{row.most.sockets:,}",
        ]
        for row in rows
    ]
    return table(["scenario", *COST], made)


def aimed(rows: Sequence[Row]) -> str:
    """Every aim that was missed; how many were met."""
    all_aims = [(row.scenario.name, aim) for row in rows for aim in row.aims]
    missed = [(name, aim) for name, aim in all_aims if not aim.met]
    lines = [f"{len(all_aims) - len(missed)} of {len(all_aims)} aims were met."]
    lines += [f"- missed: {name}: {aim.what}, and it was {aim.reached}" for name, aim in missed]
    return "\n".join(lines)


def ledger(rows: Sequence[Row]) -> str:
    """One sentence on all requests, and every discrepancy."""
    counts = {name: sum(row.report[name] for row in rows) for name in ("planned", "ok", "refused", "failed")}
    late, left = sum(expired(row.report) for row in rows), sum(row.report["unfinished"] for row in rows)
    whole = (
        f"{counts['planned']:,} requests: {counts['ok']:,} answered, {counts['refused']:,} refused with `Retry-After`, "
        f"{late:,} told that their time was over, {counts['failed']:,} lost, {left:,} without an answer."
    )
    lines = [whole]
    lines += [f"- {row.scenario.name}: {problem}" for row in rows for problem in row.problems]
    return "\n".join(lines)
