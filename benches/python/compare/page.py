"""The page: what `make compare` prints, and docs/comparison.md, which it writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benches.python.compare.chart import Line, drawn
from benches.python.compare.outcome import Outcome, concessions, summary, tabled, verdicts
from benches.python.door.machine import ROOT
from benches.python.measure import described, table
from benches.python.scenarios.page import marks, put

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

GUIDE = ROOT / "docs/comparison.md"
CHART = ROOT / "docs/images/comparison.svg"
BEGIN, END = marks("comparison")
HEADLINES = {
    "servers": ("64 clients", "cpu_us", "HTTP servers, JSON: CPU a request, 64 clients"),
    "binary": ("64 clients", "cpu_us", "HTTP servers, binary: CPU a request, 64 clients"),
    "minilm": ("64 clients", "cpu_us", "HTTP servers, MiniLM: CPU a request, 64 clients"),
    "clients": ("GET, 64 at once, asyncio", "cpu_us", "HTTP clients: CPU a GET, 64 at once, asyncio"),
    "openai": ("1,024 streams, asyncio", "cpu_us", "Clients of OpenAI's API: CPU a token, asyncio"),
    "grpc": ("256 bytes, unary, asyncio", "cpu_us", "gRPC clients: CPU a call, 64 at once, asyncio"),
    "weights": ("warm", "summed_ms", "Loading weights: time until every byte was seen, warm"),
}
"""Of each story: the load and the figure that the chart shows, and what it is called there."""


ABOUT_THE_RUN = ("seconds", "day", "facts", "rounds")
"""What a report says of a story beside its figures."""


def section(outcome: Outcome, *, brief: bool = False) -> str:
    """A story as Markdown."""
    parts = [f"### {outcome.title}", outcome.about]
    if outcome.settings and not brief:
        parts.append(table(["who", "version; settings"], outcome.settings.items()))
    parts += [
        f"{summary(outcome)} In the columns ÷ stands Penstock's figure ÷ the other's.",
        tabled(outcome, brief=brief),
    ]
    conceded = concessions(outcome)
    if conceded:
        parts.append("Where a peer is as good or better, with Penstock's figure ÷ its:\n\n" + _listed(conceded))
    return "\n\n".join([*parts, *(outcome.notes if not brief else _reasons(outcome))])


def printed(report: Mapping[str, Any], wanted: Sequence[str] = ()) -> str:
    """What the command prints: the stories that were wanted, or all."""
    outcomes = outcomes_of(report)
    told = [section(one) for name, one in outcomes.items() if _is_told(name, wanted)]
    facts = dict.fromkeys(described(report["stories"][name]["facts"]) for name in outcomes if _is_told(name, wanted))
    return "\n\n".join([*facts, *told, *_left_out(report)])


def _is_told(name: str, wanted: Sequence[str]) -> bool:
    return not wanted or name in wanted


def _left_out(report: Mapping[str, Any]) -> list[str]:
    return [f"{name} is left out: {reason}." for name, reason in report["left_out"].items()]


def _listed(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _reasons(outcome: Outcome) -> list[str]:
    """What was left out, what failed, and what was answered wrong or late."""
    failed = [
        f"Errors: {name}, {load}: {wrong:,.0f}."
        for load, contenders in outcome.loads.items()
        for name, rounds in contenders.items()
        if (wrong := sum(one.get("errors", 0) for one in rounds))
    ]
    return [*failed, *(note for note in outcome.notes if "left out" in note or "failed" in note)]


def block(report: Mapping[str, Any]) -> str:
    """What stands between the marks of the guide."""
    outcomes = outcomes_of(report)
    settings = [(one.title, *each) for one in outcomes.values() for each in one.settings.items()]
    parts = [
        _machine(report),
        f"![{_alternative(outcomes)}](images/{CHART.name})",
        _honest(outcomes),
        *(section(one, brief=True) for one in outcomes.values()),
        *_left_out(report),
        "### Versions and settings",
        table(["story", "who", "version; settings"], settings),
    ]
    return "\n\n".join(parts)


def _machine(report: Mapping[str, Any]) -> str:
    """What a reader wants to know of the machine and of the run: of each run, where stories are of several."""
    runs: dict[str, list[str]] = {}
    for story in report["stories"].values():
        facts = story["facts"]
        known = {name: facts[name] for name in ("cpu", "cores", "kernel", "python", "numpy", "uvloop") if name in facts}
        run = f"{story['day']}, {described(known)}, {story['rounds']} rounds, fewer where a visit takes long."
        runs.setdefault(run, []).append(story["title"])
    if len(runs) == 1:
        return next(iter(runs))
    return _listed([f"{', '.join(titles)}: {run}" for run, titles in runs.items()])


def outcomes_of(report: Mapping[str, Any]) -> dict[str, Outcome]:
    """The stories of a report that `--json` wrote."""
    told = report["stories"].items()
    return {name: Outcome.unpacked({k: v for k, v in one.items() if k not in ABOUT_THE_RUN}) for name, one in told}


def _honest(outcomes: Mapping[str, Outcome]) -> str:
    """The paragraph on where a peer is as good or better: from the figures, whatever they are."""
    better: dict[str, set[str]] = {}
    as_good: dict[str, set[str]] = {}
    for outcome in outcomes.values():
        for _, name, _, said, _ in verdicts(outcome):
            if said != "worse":
                (better if said == "better" else as_good).setdefault(name, set()).add(outcome.title)
    parts = ["**Where a peer is as good or better.** A peer is called better where it was in every round, and as good "]
    parts.append("where rounds disagree. ")
    for found, words in ((better, "Better in something"), (as_good, "As good in something")):
        named = [f"{name} ({', '.join(sorted(stories))})" for name, stories in found.items()]
        parts.append(f"{words}: {'; '.join(named) if named else 'nobody'}. ")
    parts.append("Each such figure is listed below its table.")
    return "".join(parts)


def lines(outcomes: Mapping[str, Outcome]) -> list[Line]:
    """The rows of the chart: how many times Penstock's figure each peer's is."""
    found = []
    for story, outcome in outcomes.items():
        load, key, title = HEADLINES.get(story, ("", "", ""))
        contenders = outcome.loads.get(load, {})
        rows = []
        for name in contenders:
            times = [1 / value for value in outcome.ratios(load, name, key)]
            if times and name != outcome.ours:
                rows.append(Line(name, times, ours=name.startswith("Penstock")))
        if rows:
            found += [Line(title, []), *sorted(rows, key=lambda row: row.middle)]
    return found


def _alternative(outcomes: Mapping[str, Outcome]) -> str:
    """The chart in words."""
    said = [f"{line.label} {line.text}" for line in lines(outcomes) if line.times]
    return "How many times Penstock's cost that of others is: " + "; ".join(said).replace("`", "").replace("]", "")


def write(report: Mapping[str, Any], guide: Path = GUIDE, chart: Path = CHART) -> None:
    """Puts the figures between the marks of the guide, and draws its chart.

    Raises:
        ValueError: where the guide has no such marks.
    """
    put(guide, "comparison", block(report))
    chart.write_text(drawn(lines(outcomes_of(report))), encoding="utf-8")
