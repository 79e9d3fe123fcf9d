"""The ladder as a page: from figures to Markdown, into the marked block of a guide, and to its chart."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from benches.python.ladder import chart, report
from benches.python.ladder.questions import MIXED
from benches.python.ladder.rungs import ALL
from benches.python.ladder.visits import LEAST, LEAST_PACED, Visit
from benches.python.measure import described, table
from benches.python.scenarios.page import marks, put

if TYPE_CHECKING:
    from pathlib import Path

    from benches.python.ladder.visits import Results

QUICK = ("mlp", "byte-lm", MIXED)
"""What `--quick` looks at: every model is somewhere in it."""
BEGIN, END = marks("ladder")
CHART = "ladder.svg"


def read(path: Path) -> dict[str, Any]:
    """Figures that an earlier run left."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def text(found: dict[str, Any]) -> str:
    """All of it, as Markdown."""
    results, effort, configuration = results_of(found), found["effort"], found["configuration"]
    commands = "\n".join(f"{name + ':':<14} {command}" for name, command in configuration["commands"].items())
    parts = [
        f"{described(found['facts'])}.",
        f"{_effort(effort, found['seconds'])} {report.disturbance(results)}",
        "### What differs",
        table(["rung", "the server", "the client, `penstock.AsyncClient`"], configuration["rungs"]),
        f"Everything else is the same:\n\n```text\n{commands}\n```",
        report.tables(results),
        *_pairs(found["pairs"], results),
    ]
    return "\n\n".join(parts)


def _effort(effort: dict[str, Any], seconds: float) -> str:
    return (
        f"{effort['rounds']} rounds, interleaved; {effort['one']:g} s of one client, {effort['many']:g} s of 100, as "
        f"long at the same rate, and longer until {LEAST} and {LEAST_PACED} requests are asked; a trace of "
        f"{effort['trace']:,} requests; {seconds:,.0f} s in all. Every answer was checked."
    )


def _pairs(pairs: list[dict[str, Any]], results: Results) -> list[str]:
    parts = [f"### {pair['title']}\n\n{pair['table']}" for pair in pairs]
    if "byte-lm" in results:
        parts += ["### Batching and streaming: memory", report.stream_memory(results["byte-lm"])]
    if visits := results.get(MIXED, {}).get(ALL.name):
        hits = 100 * report.median(visits, lambda visit: visit.many["hit_rate"])
        parts.append(f"Of the requests of the mixed trace, {hits:.1f} % found their model loaded, with all four.")
    return parts


def results_of(found: dict[str, Any]) -> Results:
    """The visits, as they were before they became JSON."""
    return {
        name: {rung: [Visit(**visit) for visit in visits] for rung, visits in rungs.items()}
        for name, rungs in found["results"].items()
    }


def draw(path: Path, found: dict[str, Any]) -> bool:
    """Writes the chart; false where the rungs that it shows were left out."""
    drawn = chart.drawn(results_of(found))
    if drawn is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(drawn, encoding="utf-8")
    return drawn is not None


def write(page: Path, found: dict[str, Any]) -> None:
    """Puts figures and chart where the guide has them.

    Raises:
        ValueError: where the guide has no marked block.
    """
    shown = ""
    if draw(page.parent / "images" / CHART, found):
        shown = f"![{chart.TITLE}](images/{CHART})\n\n"
    put(page, "ladder", f"{shown}{text(found)}")
