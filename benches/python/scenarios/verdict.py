"""Whether every request was accounted for, and whether the aims were reached: pure functions over reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benches.python.scenarios.plan import ERROR_RATE, KEPT, KEPT_REFUSING, P50_MS, P99_MS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benches.python.scenarios.load import Report
    from benches.python.scenarios.plan import Scenario

EXPIRED = 504
OUTCOMES = ("ok", "overloaded", "expired")


@dataclass(frozen=True)
class Aim:
    """One aim: what it is, what was reached, and whether that will do."""

    what: str
    reached: str
    met: bool


def expired(report: Report) -> int:
    """Answers that said that the time of their request was over."""
    return int(report["statuses"].get(str(EXPIRED), 0))


def discrepancies(scenario: Scenario, report: Report, counted: Mapping[str, float]) -> list[str]:
    """What does not add up; nothing where every request got its one right answer or one typed error.

    `counted` is how many requests of each outcome the server itself counted meanwhile.
    """
    answered, ok, refused, late = report["answered"], report["ok"], report["refused"], expired(report)
    found = []
    if report["failed"]:
        found.append(f"{report['failed']:,} requests were lost: {report['errors']}")
    if report["unfinished"]:
        hung = report["sent"] - answered - report["failed"]
        found.append(f"{report['unfinished']:,} requests got no answer in time, {hung:,} of them sent")
    if ok + refused + late != answered:
        found.append(f"{answered - ok - refused - late:,} answers are no typed refusal: statuses {report['statuses']}")
    if report["wrong"] != answered - ok:
        found.append(f"{report['wrong'] - (answered - ok):,} answers are wrong, the first: {report['first_wrong']}")
    if scenario.within and refused + late:
        found.append(f"{refused + late:,} requests were refused within the capacity")
    told = answered + report["warmup_answered"]
    seen = round(sum(counted.get(name, 0.0) for name in counted))
    if seen != told:
        found.append(f"the server counted {seen:,} requests, and {told:,} were answered: {dict(counted)}")
    return found


def success(report: Report) -> float:
    """The part of all requests that got what they asked for."""
    return float(report["ok"] / report["planned"]) if report["planned"] else 0.0


def goodput(report: Report) -> float:
    """Right answers a second."""
    return float(report["ok"] / report["seconds"]) if report["seconds"] else 0.0


def aims(scenario: Scenario, report: Report) -> list[Aim]:
    """What the scenario is to reach."""
    made = []
    if scenario.within:
        errors = 1 - success(report)
        made.append(Aim(f"errors ≤ {ERROR_RATE:.1%}", f"{errors:.3%}", errors <= ERROR_RATE))
    if scenario.within and scenario.fast:
        p50, p99 = report["p50"] * 1e3, report["p99"] * 1e3
        made.append(Aim(f"p50 < {P50_MS:g} ms", f"{p50:.2f} ms", p50 < P50_MS))
        made.append(Aim(f"p99 < {P99_MS:g} ms", f"{p99:.2f} ms", p99 < P99_MS))
    if not scenario.within:
        least = KEPT_REFUSING if report["refused"] or expired(report) else KEPT
        kept = goodput(report) / min(scenario.capacity, scenario.load.rate or scenario.capacity)
        made.append(Aim(f"right answers: {least:.0%} of its capacity", f"{kept:.0%}", kept >= least))
    return made
