"""HTTP and gRPC at once for one model: whether their rows meet in batches, or each door fills batches of its own."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from benches.python.door.machine import busy_cpu_seconds, serving
from benches.python.door.rounds import Figures, counters, disturbance, growth, progress, spread
from benches.python.door.servers import penstock
from benches.python.door.story import Story
from benches.python.door.workload import check as check_http
from benches.python.door.workload import send
from benches.python.grpc.clients import INFER
from benches.python.grpc.workload import HTTP, PACKED, network
from benches.python.measure import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benches.python.door.machine import Served
    from benches.python.door.story import Bench
    from benches.python.door.workload import Dialect
    from penstock.testing import LoadReport

CLIENTS = 64
SECONDS = 1.2
PROBE = 100
ENDLESS = 1_000_000
LOADS = ("HTTP", "gRPC", "both")
Results = dict[tuple[str, int], list[Figures]]


def run(bench: Bench, _only: Sequence[str] | None) -> Story:
    effort = bench.effort(SECONDS)
    results: Results = {}
    with serving(penstock(), logs=bench.logs) as (server,):
        doors = {"HTTP": (server.url, HTTP), "gRPC": (f"grpc://127.0.0.1:{server.port}{INFER}", network(PACKED))}
        check_http(server, HTTP)
        probes = [send(*door, clients=CLIENTS, requests_per_client=PROBE) for door in doors.values()]
        calm = min(probe.requests_per_second for probe in probes) / 2
        for loop in ("closed", "open"):
            for number in range(effort.rounds):
                progress(f"{loop} loop, round {number + 1} of {effort.rounds}")
                for name in LOADS:
                    asked = [doors[name]] if name in doors else list(doors.values())
                    figures = _visit(server, asked, effort.seconds, calm if loop == "open" else None)
                    results.setdefault((f"{loop} loop, {name}", CLIENTS), []).append(figures)
    rows = [[name, *_cells(rounds)] for (name, _), rounds in results.items()]
    head = ["load", "requests/s", "rows/batch", "errors"]
    parts = [table(head, rows), _compared(results), disturbance(results)]
    data = [{"load": name, "rounds": rounds} for (name, _), rounds in results.items()]
    return Story(f"Both doors of one model at once, {CLIENTS} out in all", "\n\n".join(parts), data)


def _visit(server: Served, doors: Sequence[tuple[str, Dialect]], seconds: float, rate: float | None) -> Figures:
    """The doors share the load: each has its part of the clients, or of half the rate that they can take."""
    part = len(doors)

    def one(door: tuple[str, Dialect]) -> LoadReport:
        if rate is None:
            # Ended by the clock: one door that is done before the other would leave it half of the load.
            return send(*door, clients=CLIENTS // part, requests_per_client=ENDLESS, deadline=seconds)
        return send(*door, clients=CLIENTS // part, rate=rate / part, duration=seconds)

    before, busy, began = counters(server), server.cpu_seconds(), time.monotonic()
    others = busy_cpu_seconds() - time.process_time()
    with ThreadPoolExecutor(part) as threads:
        reports = list(threads.map(one, doors))
    took, spent = time.monotonic() - began, server.cpu_seconds() - busy
    others = busy_cpu_seconds() - time.process_time() - others - spent
    ok = sum(report.ok for report in reports)
    grown = growth(before, counters(server), ok)
    return {
        **grown,
        "others_cpus": max(0.0, others) / took,
        "cpu_us": spent / max(1, ok) * 1e6,
        "requests_per_second": ok / took,
        "errors": float(sum(report.answered - report.ok + report.failed for report in reports)),
    }


def _cells(rounds: Sequence[Figures]) -> list[str]:
    return [
        spread([one["requests_per_second"] for one in rounds], 0),
        spread([one["rows_per_batch"] for one in rounds], 2),
        f"{sum(one['errors'] for one in rounds):,.0f}",
    ]


def _compared(results: Results) -> str:
    """The mean batch of both over that of each door alone, in the same round."""
    rows = []
    for loop in ("closed", "open"):
        both = results[f"{loop} loop, both", CLIENTS]
        for name in ("HTTP", "gRPC"):
            alone = results[f"{loop} loop, {name}", CLIENTS]
            values = [one["rows_per_batch"] / other["rows_per_batch"] for one, other in zip(both, alone, strict=True)]
            rows.append([f"{loop} loop", f"both ÷ {name} alone", spread(values, 3)])
        # In the closed loop the doors alone differ, for their load comes in other bursts.
        alone = zip(results[f"{loop} loop, HTTP", CLIENTS], results[f"{loop} loop, gRPC", CLIENTS], strict=True)
        middles = [(http["rows_per_batch"] + grpc["rows_per_batch"]) / 2 for http, grpc in alone]
        values = [one["rows_per_batch"] / middle for one, middle in zip(both, middles, strict=True)]
        rows.append([f"{loop} loop", "both ÷ the mean of the two alone", spread(values, 3)])
    return "Rows a batch, round by round:\n\n" + table(["load", "", "ratio"], rows)
