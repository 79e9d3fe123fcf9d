"""Carries a scenario out: its load, and what it took of the server meanwhile."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from benches.python.door.rounds import counters, growth, progress
from benches.python.door.servers import penstock
from benches.python.scenarios.load import Load, Report, send
from benches.python.scenarios.plan import CONNECTIONS, DEVICE, MANY, QUEUE, QUICK, Capacities, Scenario
from benches.python.scenarios.processes import Held, Watched
from benches.python.scenarios.verdict import Aim, aims, discrepancies
from benches.python.streaming.servers import cpu_of

if TYPE_CHECKING:
    from benches.python.door.machine import Launch, Served

CAPACITY_ROUNDS = 3
CAPACITY_SECONDS = 2.0
SETTLES_IN = 5.0
LOOKS_EVERY = 0.1
TOLD = re.compile(r'^penstock_requests_total\{model="\w+",outcome="(\w+)"\} (\S+)', re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """A scenario and what came of it.

    Attributes:
        scenario: what was to be done.
        report: what the load generator saw.
        cpu_us: CPU of the server for each answer.
        busy: the server's CPU while the load lasted, as a part of one.
        inside: batches and lock waits, by the server's own counters.
        most: the most that the server held meanwhile.
        problems: what does not add up.
        aims: what was reached.
    """

    scenario: Scenario
    report: Report
    cpu_us: float
    busy: float
    inside: dict[str, float]
    most: Held
    problems: list[str]
    aims: list[Aim]


def launches() -> list[Launch]:
    """The server as it comes, and one whose queue is short."""
    plain = penstock(f"mlp,{DEVICE}")
    bounded = replace(plain, name="penstock bounded", command=(*plain.command, "--max-queue", str(QUEUE)))
    return [plain, bounded]


def capacities(server: Served, *, quick: bool) -> Capacities:
    """What the closed loop gets out of the server, at each number of connections: the median of some runs."""
    rounds, seconds = (1, CAPACITY_SECONDS * QUICK) if quick else (CAPACITY_ROUNDS, CAPACITY_SECONDS)

    def reached(connections: int, model: str = "mlp") -> float:
        progress(f"capacity of {model} at {connections} connections")
        load = Load(connections, seconds=seconds, warmup=seconds / 4, model=model)
        return float(median(send(server, load)["requests_per_second"] for _ in range(rounds)))

    return Capacities({connections: reached(connections) for connections in CONNECTIONS}, reached(MANY, DEVICE))


def outcomes(server: Served) -> dict[str, float]:
    """Requests that the server itself has counted, by their outcome."""
    found: dict[str, float] = {}
    for outcome, count in TOLD.findall(server.get("/metrics")):
        found[outcome] = found.get(outcome, 0.0) + float(count)
    return found


def _counted(server: Served, before: dict[str, float], answered: int) -> dict[str, float]:
    """What the server counted since: it counts an answer when it has been written, so the last ones come late."""
    until = time.monotonic() + SETTLES_IN
    while True:
        since = {outcome: count - before.get(outcome, 0.0) for outcome, count in outcomes(server).items()}
        found = {outcome: count for outcome, count in since.items() if count}
        if sum(found.values()) == answered or time.monotonic() > until:
            return found
        time.sleep(LOOKS_EVERY)


def carried_out(scenario: Scenario, server: Served) -> Row:
    """Sends the load of one scenario and looks at the server meanwhile."""
    cpu = cpu_of(server)
    told, before, spent = outcomes(server), counters(server), cpu()
    with Watched(server.process.pid) as watched:
        report = send(server, scenario.load)
    spent, took = cpu() - spent, report["seconds"] + scenario.load.warmup
    answered = report["answered"] + report["warmup_answered"]
    counted = _counted(server, told, answered)
    after = counters(server)
    return Row(
        scenario,
        report,
        spent / max(1, answered) * 1e6,
        spent / took if took else 0.0,
        growth(before, after, answered),
        watched.most,
        discrepancies(scenario, report, counted),
        aims(scenario, report),
    )


def packed(row: Row) -> dict[str, Any]:
    """For JSON."""
    scenario, load = row.scenario, row.scenario.load
    return {
        "name": scenario.name,
        "server": scenario.server,
        "connections": load.connections,
        "rate": load.rate,
        "capacity": scenario.capacity,
        "share": scenario.share,
        "within": scenario.within,
        "report": row.report,
        "server_cpu_us_per_request": row.cpu_us,
        "server_busy": row.busy,
        **row.inside,
        "most": vars(row.most),
        "problems": row.problems,
        "aims": [vars(aim) for aim in row.aims],
    }
