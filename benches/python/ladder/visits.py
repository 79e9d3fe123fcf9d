"""Visits: a rung and a workload, on a server that was started for it, and ended when it was seen."""

from __future__ import annotations

import gc
import sys
import time
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from benches.python.door.machine import Launch, busy_cpu_seconds, serving
from benches.python.door.rounds import progress, total
from benches.python.ladder.asking import Load, ask
from benches.python.ladder.questions import Call, questions
from benches.python.ladder.rungs import BASELINE, CLIENTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benches.python.door.machine import Served
    from benches.python.ladder.asking import Figures
    from benches.python.ladder.questions import Rows, Texts, Workload
    from benches.python.ladder.rungs import Rung

HERE = Path(__file__).resolve().parent
KIB = 1024.0
WARM_CLIENTS, WARM_SECONDS = 16, 0.2
"""Enough for full batches of the slow models, and soon over."""
LEAST, LEAST_PACED = 2 * CLIENTS, CLIENTS
"""Requests of a phase, however slow the model is: all of its clients ask again, and one in a hundred is a request."""
PART = 0.8
"""Of what the baseline reached in the closed loop: the rate at which all rungs are asked."""
TURN = 4
"""Rungs by which a round begins later than the one before."""
SPARSE = 10
"""One client takes each tenth request of a trace."""
COUNTERS = {
    "rows": "penstock_batch_size_sum",
    "batches": "penstock_batch_size_count",
    "accepted": "penstock_http_accepted_total",
    "hits": "penstock_models_hits_total",
    "misses": "penstock_models_misses_total",
    "joins": "penstock_models_joins_total",
    "loads": "penstock_models_load_seconds_count",
}
Results = dict[str, dict[str, list["Visit"]]]
"""Visits by the names of workload and rung, one for each round."""


@dataclass(frozen=True)
class Visit:
    """What was seen of one server.

    Attributes:
        start: its readiness, its first answer, the most memory that it had.
        one: the phase of a single client.
        many: the phase of all of them.
        paced: the phase at a rate that the baseline can take; empty for a trace.
    """

    start: Figures
    one: Figures
    many: Figures
    paced: Figures


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        rounds: visits of every rung.
        one: seconds of a single client.
        many: seconds of all of them, and of the same rate for every rung; more where a phase has too few requests.
        trace: requests of the mixed trace.
    """

    rounds: int
    one: float
    many: float
    trace: int


def launch(workload: Workload, rung: Rung) -> Launch:
    """`penstock serve`, everything but the rung's variables as at every other."""
    command = [sys.executable, "-m", "penstock", "serve", str(HERE / "app.py"), "--port", "{port}"]
    command += ["--preload", ",".join(workload.preload)]
    if workload.memory:
        command += ["--memory", workload.memory]
    environment = {"PENSTOCK_LADDER_MODELS": ",".join(workload.models), **rung.environment()}
    name = f"ladder {workload.name} {rung.name}".replace("+", "and")
    return Launch(name, tuple(command), "/", environment, ready="/v2/health/ready")


def interleaved(
    workloads: Sequence[Workload], rungs: Sequence[Rung], effort: Effort, logs: Path, results: Results
) -> None:
    """Rounds: every workload at every rung, in turning order, one right after the other.

    `results` has every visit as soon as it is over, whatever becomes of the next.

    Raises:
        NotServing: where a server did not start, or an answer was wrong.
    """
    progress("what direct calls of the models answer")
    known = questions(list(dict.fromkeys(name for workload in workloads for name in workload.models)))
    results.update({workload.name: {rung.name: [] for rung in rungs} for workload in workloads})
    for number in range(effort.rounds):
        for workload in workloads:
            progress(f"round {number + 1} of {effort.rounds}: {workload.name}")
            seen = results[workload.name]
            first = number * TURN % len(rungs)
            for rung in (*rungs[first:], *rungs[:first]):
                # In the first round the baseline is the first: the rate that it reached is known to all others.
                baseline = seen.get(BASELINE.name)
                rate = baseline[0].many["requests_per_second"] * PART if baseline else None
                seen[rung.name].append(visit(workload, rung, known, effort, logs=logs, rate=rate))


def visit(
    workload: Workload,
    rung: Rung,
    known: Mapping[str, Rows | Texts],
    effort: Effort,
    *,
    logs: Path,
    rate: float | None = None,
) -> Visit:
    """Starts a server, asks it with one client, with all of them and at a rate, and checks every answer."""
    began = time.monotonic()
    with serving(launch(workload, rung), logs=logs) as [server]:
        start = {"ready_s": time.monotonic() - began}
        phases = Phases(server, rung, known)
        if workload.trace:
            # The server is cold: that is a part of the trace.
            phases.remember()
            many = phases.measure(iter(workload.trace), Load(CLIENTS))
            one = phases.measure(iter(workload.trace[::SPARSE]), Load(1))
            start["cold_ms"], paced = many["max_ms"], {}
        else:
            [model] = workload.models
            calls = [Call(model, index) for index in range(len(known[model]))]
            start["cold_ms"] = phases.measure(iter(calls[:1]), Load(1))["max_ms"]
            phases.remember()
            phases.measure(cycle(calls), Load(WARM_CLIENTS, min(WARM_SECONDS, effort.many)))
            one = phases.measure(cycle(calls), Load(1, effort.one))
            many = phases.measure(cycle(calls), Load(CLIENTS, effort.many, least=LEAST))
            rate = rate or many["requests_per_second"] * PART
            paced = phases.measure(cycle(calls), Load(CLIENTS, effort.many, rate, LEAST_PACED))
        return Visit({**start, **phases.memory()}, one, many, {**paced, "rate": rate or 0.0})


class Phases:
    """A server that is asked for a while, and again."""

    def __init__(self, server: Served, rung: Rung, known: Mapping[str, Rows | Texts]) -> None:
        self._server, self._rung, self._known = server, rung, known
        self._peak = self._resident = 0.0

    def remember(self) -> None:
        """What is resident now is the server's own; what is more from here on is the load's."""
        self._peak, self._resident = self._server.peak_rss_kib(), self._server.rss_kib()
        self._server.forget_peak()

    def memory(self) -> Figures:
        """The most that it ever had, and what of it came since `remember`."""
        now = self._server.peak_rss_kib()
        return {"peak_mib": max(now, self._peak) / KIB, "grown_mib": max(0.0, now - self._resident) / KIB}

    def measure(self, calls: Iterator[Call], load: Load) -> Figures:
        """What the client saw, and what was seen of the server meanwhile.

        Raises:
            NotServing: where an answer is wrong.
        """
        server = self._server
        gc.collect()
        counted, spent = counters(server), server.cpu_seconds()
        busy, own = busy_cpu_seconds(), time.process_time()
        seen = ask(server.base, self._rung, calls, self._known, load)
        cost = server.cpu_seconds() - spent
        others = busy_cpu_seconds() - busy - cost - (time.process_time() - own)
        figures = {**seen.figures(), **_server_figures(counted, counters(server), len(seen.took))}
        for model, known in self._known.items():
            if answers := [answer for answer in seen.answers if answer.call.model == model]:
                known.check(answers)
        return {**figures, "server_us": cost / len(seen.took) * 1e6, "others_cpus": max(0.0, others) / seen.seconds}


def counters(server: Served) -> Figures:
    """What the server has counted so far, over all its models."""
    text = server.get("/metrics")
    return {name: total(metric, text) for name, metric in COUNTERS.items()}


def _server_figures(before: Figures, after: Figures, requests: int) -> Figures:
    grown = {name: after[name] - before[name] for name in COUNTERS}
    asked = grown["hits"] + grown["misses"] + grown["joins"]
    return {
        # The second look at the counters is a connection of its own.
        "accepted": (grown["accepted"] - 1) / requests * 1e3,
        "rows_per_batch": grown["rows"] / max(1.0, grown["batches"]),
        "hit_rate": grown["hits"] / max(1.0, asked),
        "loads": grown["loads"],
    }
