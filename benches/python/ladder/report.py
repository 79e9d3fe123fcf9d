"""The tables of the ladder: medians of the rounds, and ratios of visits of the same round."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from benches.python.door.rounds import spread
from benches.python.ladder.questions import MIXED
from benches.python.ladder.rungs import ADDED, ALL, ALL_BUT, BASELINE, NOTES, PARTS, RUNGS, THREE
from benches.python.measure import table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benches.python.ladder.visits import Results, Visit

    Figure = Callable[[Visit], float]

AIM = 2.05
REDUCTIONS: tuple[tuple[str, Figure, float, str], ...] = (
    ("p99", lambda visit: visit.many["p99_ms"], 80, "-80 %"),
    ("p99 at the same rate", lambda visit: visit.paced.get("p99_ms", 1.0), 80, "-80 %"),
    ("peak memory", lambda visit: visit.start["peak_mib"], 35, "-35 %"),
    ("CPU of the server", lambda visit: visit.many["server_us"], 25, "-25 %"),
    ("CPU of the client", lambda visit: visit.many["client_us"], 0, ""),
    ("connections", lambda visit: visit.many["connections"], 40, "-40 to -60 %"),
)
"""What is less with all four: title, figure, per cent by which it was to be less, and the notes' words."""

PACED: tuple[Figure, ...] = (lambda visit: visit.paced["p50_ms"], lambda visit: visit.paced["p99_ms"])
STEPS = ("baseline", "+ pool", "+ batch", "+ stream", "+ load")
TAKEN_AWAY = {"pool": ALL_BUT[0], "batch": ALL_BUT[1], "stream": ALL_BUT[2], "load": THREE}

OF_STREAMS = ("first token ms", "the same, one client")
DETAILS: tuple[tuple[str, Figure, int], ...] = (
    ("p50 ms", lambda visit: visit.many["p50_ms"], 2),
    ("p95", lambda visit: visit.many["p95_ms"], 2),
    ("p99", lambda visit: visit.many["p99_ms"], 2),
    ("p99.9", lambda visit: _tail(visit.many, "p999_ms", 1000), 2),
    ("max", lambda visit: visit.many["max_ms"], 2),
    ("first token ms", lambda visit: visit.many.get("first_ms", math.nan), 2),
    ("the same, one client", lambda visit: visit.one.get("first_ms", math.nan), 2),
    ("one client p50 ms", lambda visit: visit.one["p50_ms"], 2),
    ("p99", lambda visit: _tail(visit.one, "p99_ms", 100), 2),
    ("CPU µs, server", lambda visit: visit.many["server_us"], 0),
    ("client", lambda visit: visit.many["client_us"], 0),
    ("peak MiB", lambda visit: visit.start["peak_mib"], 0),
    ("of that, load", lambda visit: visit.start["grown_mib"], 1),
    ("connections/1,000", lambda visit: visit.many["accepted"], 0),
    ("reuse %", lambda visit: 100 * visit.many["reuse"], 1),
    ("rows/batch", lambda visit: visit.many["rows_per_batch"], 1),
    ("hits %", lambda visit: 100 * visit.many["hit_rate"], 1),
    ("ready s", lambda visit: visit.start["ready_s"], 1),
    ("first answer ms", lambda visit: visit.start["cold_ms"], 0),
)
"""Columns of a workload's own table; those of streams are left out where there are none."""


def rate(visit: Visit) -> float:
    """Requests a second of all clients."""
    return visit.many["requests_per_second"]


def lone_rate(visit: Visit) -> float:
    """Requests a second of one client."""
    return visit.one["requests_per_second"]


def ratios(above: Sequence[Visit], below: Sequence[Visit], figure: Figure) -> list[float]:
    """Round by round."""
    return [figure(one) / max(figure(other), 1e-9) for one, other in zip(above, below, strict=True)]


def median(visits: Sequence[Visit], figure: Figure) -> float:
    """Of the rounds; not a number where that is so in one of them."""
    values = [figure(visit) for visit in visits]
    return math.nan if any(map(math.isnan, values)) else statistics.median(values)


def _tail(phase: Mapping[str, float], name: str, least: int) -> float:
    """A latency that one in `least` requests exceeds; not a number where there were fewer."""
    return phase[name] if phase["requests"] >= least else math.nan


def tables(results: Results) -> str:
    """Everything about the rungs, as Markdown."""
    parts = ["### Throughput, 100 clients", _throughput(results, rate)]
    parts += ["### Throughput, one client", _throughput(results, lone_rate)]
    if paced := {name: rungs for name, rungs in results.items() if name != MIXED}:
        parts += ["### At the same rate", _paced(paced)]
    if whole := {name: rungs for name, rungs in results.items() if _has(rungs, ADDED)}:
        parts += ["### One by one", _steps(whole)]
    if pairs := {name: rungs for name, rungs in results.items() if _has(rungs, (BASELINE, ALL))}:
        parts += ["### All four against the baseline", _reductions(pairs), *_verdicts(pairs)]
    if whole := {name: rungs for name, rungs in results.items() if _has(rungs, RUNGS)}:
        parts += ["### What each brings, and what is missing without it", _each(whole)]
    for name, rungs in results.items():
        parts += [f"### {name[0].upper()}{name[1:]}, 100 clients", _details(rungs)]
    return "\n\n".join(parts)


def _has(rungs: Mapping[str, Sequence[Visit]], wanted: Sequence[object]) -> bool:
    return all(getattr(rung, "name", "") in rungs for rung in wanted)


def _throughput(results: Results, figure: Figure) -> str:
    names = list(next(iter(results.values())))
    rows = []
    for rung in names:
        cells = []
        for rungs in results.values():
            cell = f"{median(rungs[rung], figure):,.0f}"
            if BASELINE.name in rungs and rung != BASELINE.name:
                cell += f" ({statistics.median(ratios(rungs[rung], rungs[BASELINE.name], figure)):.2f})"
            cells.append(cell)
        rows.append([rung, *cells])
    note = "Requests a second; in brackets how many times the baseline's of the same round."
    return f"{note}\n\n{table(['', *results], rows)}"


def _paced(results: Results) -> str:
    rates = ", ".join(
        f"{name} {median(next(iter(rungs.values())), lambda visit: visit.paced['rate']):,.0f}"
        for name, rungs in results.items()
    )
    rows = [
        [rung, *(" / ".join(f"{median(rungs[rung], figure):,.2f}" for figure in PACED) for rungs in results.values())]
        for rung in next(iter(results.values()))
    ]
    note = f"p50 / p99 in ms, at random moments, 80 % as many as the baseline took; requests a second: {rates}."
    return f"{note}\n\n{table(['', *results], rows)}"


def _steps(results: Results) -> str:
    rows = [["the notes", *(f"{NOTES[at] / NOTES[0]:.2f}" for at in range(len(STEPS))), f"{NOTES[-1] / NOTES[0]:.2f}"]]
    for name, rungs in results.items():
        base = rungs[BASELINE.name]
        cells = [spread(ratios(rungs[rung.name], base, rate), 2) for rung in ADDED[1:]]
        rows.append([name, "1.00", *cells, cells[-1]])
    note = (
        f"Requests a second of 100 clients as multiples of the baseline's. The notes: "
        f"{', '.join(f'{each:,}' for each in NOTES)}."
    )
    return f"{note}\n\n{table(['', *STEPS, 'all four'], rows)}"


def _reductions(results: Results) -> str:
    rows = []
    for name, rungs in results.items():
        base, everything = rungs[BASELINE.name], rungs[ALL.name]
        cells = [spread(ratios(everything, base, rate), 2)]
        for title, figure, _, _ in REDUCTIONS:
            if name == MIXED and "rate" in title:
                cells.append("")
                continue
            changes = [100 * (ratio - 1) for ratio in ratios(everything, base, figure)]
            cells.append(_percent(changes))
        rows.append([name, *cells])
    rows.append(["the notes", f"{AIM:.2f}", *(words for _, _, _, words in REDUCTIONS)])
    head = ["100 clients", "requests/s, times", *(title for title, *_ in REDUCTIONS)]
    return table(head, rows)


def _percent(changes: Sequence[float]) -> str:
    shown = [f"{change:+.0f}" for change in (statistics.median(changes), min(changes), max(changes))]
    return f"{shown[0]} % ({shown[1]} to {shown[2]})" if len(changes) > 1 else f"{shown[0]} %"


def _verdicts(results: Results) -> list[str]:
    """Which of the aims were reached where, in sentences."""
    said = []
    faster = {
        name: statistics.median(ratios(rungs[ALL.name], rungs[BASELINE.name], rate)) for name, rungs in results.items()
    }
    said.append(_sentence(f"{AIM} times the requests a second", {name: ratio >= AIM for name, ratio in faster.items()}))
    for title, figure, percent, _ in REDUCTIONS:
        if percent:
            reached = {
                name: statistics.median(ratios(rungs[ALL.name], rungs[BASELINE.name], figure)) <= 1 - percent / 100
                for name, rungs in results.items()
                if not (name == MIXED and "rate" in title)
            }
            said.append(_sentence(f"{percent} % less, {title}", reached))
    return ["\n".join(f"- {sentence}" for sentence in said)]


def _sentence(what: str, reached: Mapping[str, bool]) -> str:
    yes = [name for name, good in reached.items() if good]
    no = [name for name, good in reached.items() if not good]
    if not no:
        return f"**{what}**: reached everywhere."
    if not yes:
        return f"**{what}**: reached nowhere."
    return f"**{what}**: reached by {', '.join(yes)}; not by {', '.join(no)}."


def _each(results: Results) -> str:
    rows = []
    for part in PARTS:
        cells = []
        for rungs in results.values():
            alone = statistics.median(ratios(rungs[f"{part} alone"], rungs[BASELINE.name], rate))
            last = statistics.median(ratios(rungs[ALL.name], rungs[TAKEN_AWAY[part].name], rate))
            cells.append(f"{alone:.2f}, {last:.2f}")
        rows.append([part, *cells])
    note = "Times the requests a second of 100 clients: alone over the baseline, and all four over all but it."
    return f"{note}\n\n{table(['', *results], rows)}"


def _details(rungs: Mapping[str, Sequence[Visit]]) -> str:
    streams = any("first_ms" in visit.many for visits in rungs.values() for visit in visits)
    columns = [
        column for column in DETAILS if streams or ("first token" not in column[0] and "the same" not in column[0])
    ]
    rows = [
        [rung, *(_cell(median(visits, figure), digits) for _, figure, digits in columns)]
        for rung, visits in rungs.items()
    ]
    return table(["", *(title for title, *_ in columns)], rows)


def _cell(value: float, digits: int) -> str:
    """Empty where there was nothing to measure."""
    return "" if math.isnan(value) else f"{value:,.{digits}f}"


def stream_memory(rungs: Mapping[str, Sequence[Visit]]) -> str:
    """What texts for all clients at a time add to the server's memory."""
    rows = [[name, spread([visit.start["grown_mib"] for visit in visits])] for name, visits in rungs.items()]
    return table(["byte-lm, 100 texts at a time", "MiB at most beyond the server that has answered once"], rows)


def disturbance(results: Results) -> str:
    """How quiet the machine was."""
    seen = [
        100 * phase["others_cpus"]
        for rungs in results.values()
        for visits in rungs.values()
        for visit in visits
        for phase in (visit.one, visit.many)
    ]
    return (
        f"Others than server and client took {spread(seen)} % of a CPU, by phase: of a busy machine, believe nothing."
    )
