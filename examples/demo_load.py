"""The demo's load: the closed loop with every answer checked, and the open loop at several rates."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from examples.demo_server import OK
from examples.demo_subjects import tensor
from penstock.testing import load

if TYPE_CHECKING:
    from collections.abc import Iterable

    from examples.demo_server import Counters, ServerProcess
    from examples.demo_subjects import Subject
    from penstock.testing import LoadReport

TOLERANCE: Final = 1e-4
WARM_UP: Final = 2
DEADLINE: Final = 60.0

# A closed loop shorter than this says little about what the server can take.
CAPACITY_SECONDS: Final = 2.0

# The open loop keeps at it until a p99 means something, within reason.
ENOUGH_ANSWERS: Final = 120
LONGEST_SECONDS: Final = 4.0
OVERTIME_SECONDS: Final = 2.0
LATE: Final = 1.05


@dataclass(frozen=True, slots=True)
class Plan:
    """How much the demo does.

    Attributes:
        clients: connections.
        requests: requests of each in the closed loop.
        shares: rates of the open loop, as shares of what the closed loop reached.
        seconds: length of each open loop.
    """

    clients: int
    requests: int
    shares: tuple[float, ...]
    seconds: float


FULL: Final = Plan(clients=100, requests=50, shares=(0.1, 0.3, 0.5, 0.7, 0.85, 1.0, 1.15), seconds=2.2)
QUICK: Final = Plan(clients=10, requests=10, shares=(0.2, 0.6), seconds=0.8)


@dataclass(frozen=True, slots=True)
class Check:
    """Answers held against direct calls of the model.

    Attributes:
        checked: answers that were compared.
        wrong: those that differ, or could not be read.
        largest_difference: between any two numbers that were compared.
    """

    checked: int
    wrong: int
    largest_difference: float


@dataclass(frozen=True, slots=True)
class Closed:
    """What the closed loop found. `counters` are those of the run itself."""

    report: LoadReport
    counters: Counters
    check: Check

    @property
    def requests_per_batch(self) -> float:
        """How many requests share a call of the model."""
        return self.counters.rows / max(1, self.counters.batches)

    @property
    def locks_per_request(self) -> float:
        """How often the interpreter lock was taken for a request."""
        return self.counters.lock_acquisitions / max(1, self.report.answered)


@dataclass(frozen=True, slots=True)
class Point:
    """One open loop: what was offered, and what came back. Its report keeps no answers."""

    share: float
    rate: float
    duration: float
    report: LoadReport
    counters: Counters

    @property
    def lost(self) -> int:
        """Requests without a good answer, other than those that were merely late."""
        return self.report.failed + self.report.answered - self.report.ok

    @property
    def fell_behind(self) -> bool:
        """True where answers were still missing well after the last request was due: the longer, the worse."""
        return self.report.seconds > LATE * self.duration


@dataclass(frozen=True, slots=True)
class Measured:
    """Everything about one model under load.

    Attributes:
        subject: the model.
        closed: the closed loop whose answers were checked.
        longest: the longest closed loop, which says what the server can take.
        points: the open loops, by rate.
    """

    subject: Subject
    closed: Closed
    longest: LoadReport
    points: list[Point]

    @property
    def capacity(self) -> float:
        """Requests per second that the closed loop reached."""
        return max(1.0, self.longest.requests_per_second)

    def failures(self) -> list[str]:
        """What went wrong, for people."""
        name, check = self.subject.name, self.closed.check
        found = [f"{name}: {check.wrong:,} of {check.checked:,} answers are WRONG"] if check.wrong else []
        found += [
            f"{name}: only {report.ok:,} of {report.planned:,} requests were answered well: {report.failed:,} lost,"
            f" {report.unfinished:,} unfinished, answers by status {report.statuses}"
            for report in (self.closed.report, self.longest)
            if report.ok != report.planned
        ]
        found += [
            f"{name}: at {point.rate:,.0f} requests per second {point.lost:,} of {point.report.planned:,} failed:"
            f" {point.report.failed:,} lost, answers by status {point.report.statuses}"
            for point in self.points
            if point.lost
        ]
        return list(dict.fromkeys(found))


def measure(server: ServerProcess, subject: Subject, plan: Plan) -> Measured:
    """Put one model under load, and tell how it goes."""
    closed = _closed_loop(server, subject, plan)
    measured = Measured(subject, closed, _longest(server, subject, plan, closed.report), [])
    print(f"{subject.name}: open loop, {plan.seconds} s or more at each of {len(plan.shares)} rates")
    for share in plan.shares:
        measured.points.append(_open_loop(server, subject, plan, share, share * measured.capacity))
    return measured


def check_answers(answers: Iterable[tuple[int, int, bytes]], subject: Subject, relative: float = 0.0) -> Check:
    """Hold every answer of status 200 against what a direct call of the model said. The others have failed already.

    `relative` is a part of each number that it may be away beyond `TOLERANCE`: sums of large numbers round more.
    """
    checked = wrong = 0
    largest = 0.0
    for index, status, body in answers:
        if status != OK:
            continue
        checked += 1
        expected = subject.expected[index]
        try:
            row = tensor(json.loads(body), subject.output)
            right = row.shape == (1, *expected.shape) and np.allclose(row[0], expected, rtol=relative, atol=TOLERANCE)
        except (ValueError, KeyError, TypeError):
            wrong += 1
            continue
        wrong += not right
        if row.size == expected.size:
            largest = max(largest, float(np.max(np.abs(row.ravel() - expected))))
    return Check(checked, wrong, largest)


def _url(server: ServerProcess, subject: Subject) -> str:
    return f"{server.url}/v2/models/{subject.name}/infer"


def _closed_loop(server: ServerProcess, subject: Subject, plan: Plan) -> Closed:
    print(f"\n{subject.name}: closed loop, {plan.clients} clients x {plan.requests} requests", end="", flush=True)
    load(_url(server, subject), subject.bodies, clients=plan.clients, requests_per_client=WARM_UP, deadline=DEADLINE)
    before = server.counters(subject.name)
    report = load(
        _url(server, subject),
        subject.bodies,
        clients=plan.clients,
        requests_per_client=plan.requests,
        deadline=DEADLINE,
        keep_answers=True,
    )
    counters = server.counters(subject.name) - before
    check = check_answers(report.answers, subject)
    print(f" in {report.seconds:.2f} s: {report.requests_per_second:,.0f} requests per second")
    print(f"{subject.name}: {check.checked:,} answers checked against direct calls, {check.wrong:,} wrong,", end="")
    print(f" largest difference {check.largest_difference:.1e}")
    return Closed(report, counters, check)


def _longest(server: ServerProcess, subject: Subject, plan: Plan, report: LoadReport) -> LoadReport:
    """The closed loop once more, for longer, where it was over in a moment; else `report`."""
    if plan is not FULL or report.seconds > CAPACITY_SECONDS or not report.answered:
        return report
    requests = math.ceil(report.requests_per_second * CAPACITY_SECONDS / plan.clients)
    longer = load(
        _url(server, subject), subject.bodies, clients=plan.clients, requests_per_client=requests, deadline=DEADLINE
    )
    print(f"{subject.name}: over {longer.seconds:.1f} s of it {longer.requests_per_second:,.0f} requests per second")
    return longer


def _open_loop(server: ServerProcess, subject: Subject, plan: Plan, share: float, rate: float) -> Point:
    duration = min(LONGEST_SECONDS, max(plan.seconds, ENOUGH_ANSWERS / rate))
    before = server.counters(subject.name)
    report = load(
        _url(server, subject),
        subject.bodies,
        clients=plan.clients,
        rate=rate,
        duration=duration,
        deadline=duration + OVERTIME_SECONDS,
    )
    point = Point(share, rate, duration, report, server.counters(subject.name) - before)
    late = f", {report.unfinished:,} UNFINISHED" if report.unfinished else ""
    lost = f", {point.lost:,} FAILED" if point.lost else ""
    shown = "  ".join(f"{name} {1e3 * value:8.2f}" for name, value in _quantiles(report).items())
    print(f"  {rate:>8,.0f} per second ({share:>4.0%})  {shown}  ms{late}{lost}")
    return point


def _quantiles(report: LoadReport) -> dict[str, float]:
    return {"p50": report.p50, "p95": report.p95, "p99": report.p99}
