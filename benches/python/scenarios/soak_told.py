"""The soak in words: what stayed flat, what it cost, and what failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benches.python.measure import table
from benches.python.scenarios.judge import A_LINE, LEAST_SAMPLES, trend
from benches.python.scenarios.sampling import BOUNDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benches.python.scenarios.judge import Trend
    from benches.python.scenarios.sampling import Sample


def trends(samples: Sequence[Sample], *, judged: bool) -> list[Trend]:
    """One for each thing that must stay flat; where nothing is judged, of as few samples as there are."""
    least = LEAST_SAMPLES if judged else A_LINE
    times = [one["seconds"] for one in samples]
    return [trend(bound, times, [one[key] for one in samples], least) for key, bound in BOUNDS.items()]


def failures(run: dict[str, Any], found: Sequence[Trend]) -> list[str]:
    """What makes the run fail: each names what grows, or what went wrong."""
    report, company = run["report"], run["company"]
    said = [str(one) for one in found if not one.flat] if run["judged"] else []
    if report["failed"] or report["unfinished"] or report["wrong"]:
        lost, left, wrong = report["failed"], report["unfinished"], report["wrong"]
        said.append(f"{lost:,} requests were lost ({report['errors']}), {left:,} unanswered, {wrong:,} wrong")
        if wrong:
            said.append(f"statuses {report['statuses']}; the first wrong answer: {report['first_wrong']}")
    said += [f"the Python client: {mistake}" for mistake in company["wrong"]]
    return said


def told(run: dict[str, Any], found: Sequence[Trend]) -> str:
    """All of it."""
    report, company, samples = run["report"], run["company"], run["samples"]
    sentences = [_load(run), _company(company, samples), _pauses(run)]
    rows = [
        [
            one.bound.what,
            f"{one.begin:,.1f}",
            f"{one.end:,.1f}",
            f"{one.a_minute:+,.2f}",
            f"{one.allowed / one.seconds * 60:,.2f}",
            "yes" if one.flat else "no",
        ]
        for one in found
    ]
    second_half = f"over the last {found[0].seconds / 60:.1f} minutes"
    held = table([second_half, "from", "to", "a minute", "flat up to", "flat"], rows)
    times = ["p50", "p90", "p99", "p999", "p9999", "max"]
    spread = table(
        ["latency, ms", "p50", "p90", "p99", "p99.9", "p99.99", "greatest"],
        [["of all requests", *(f"{report[name] * 1e3:,.2f}" for name in times)]],
    )
    return "\n\n".join([*sentences, spread, held, _verdict(run, found)])


def _verdict(run: dict[str, Any], found: Sequence[Trend]) -> str:
    if not run["judged"]:
        return "Too short for a verdict: caches and the allocator have not filled."
    return "Everything stays flat." if all(one.flat for one in found) else "**Something grows.**"


def _load(run: dict[str, Any]) -> str:
    report = run["report"]
    asked = f"{run['connections']} connections, {run['rate']:,.0f} requests/s in all"
    if run["rate"] < run["asked"]:
        asked += (
            f" (half of the capacity of {run['capacity']:,.0f}/s, for {run['asked']:,.0f}/s is more than it allows)"
        )
    else:
        asked += f" (capacity: {run['capacity']:,.0f}/s)"
    return (
        f"{asked}, for {run['seconds'] / 60:.1f} minutes: {report['planned']:,} requests, "
        f"{report['ok']:,} right answers, {report['failed']:,} lost, "
        f"{report['wrong']:,} wrong, {report['unfinished']:,} unanswered."
    )


def _company(company: dict[str, Any], samples: Sequence[Sample]) -> str:
    grew = {name: samples[-1][name] - samples[0][name] for name in ("loads", "evictions")}
    return (
        f"Beside it {company['streams']:,} streams of {company['tokens']:,} tokens in all, {company['left']:,} "
        f"more that were left in their middle, {company['swaps']:,} requests for models that take turns in memory "
        f"({grew['loads']:,.0f} loads, {grew['evictions']:,.0f} evictions), and {company['probes']:,} requests of a "
        f"Python client whose numbers were compared; {len(company['wrong'])} mistakes."
    )


def _pauses(run: dict[str, Any]) -> str:
    first, last = run["samples"][0], run["samples"][-1]
    grew = {name: last[name] - first[name] for name in last if name in first}
    seconds, locks = grew["seconds"], max(1.0, grew["locks"])
    return (
        f"The server used {grew['cpu'] / seconds:.0%} of its CPU. The interpreter lock was taken {grew['locks']:,.0f} "
        f"times and waited for {grew['lock_wait'] / locks * 1e6:.1f} µs each time, {grew['lock_wait']:.2f} s in all. "
        f"The garbage collector paused it {grew['collections']:,.0f} times, for "
        f"{grew['collection_seconds'] * 1e3:,.1f} ms in all, "
        f"and never for longer than {run['longest_collection_ms']:g} ms."
    )
