"""HTTP and gRPC at once for one model: whether their rows meet in batches, or each door fills batches of its own.

The first model takes 2 ms a batch, whatever its size, so that batches are what waited meanwhile. Those of the second,
a network of a few microseconds, are what one read of a socket brought: the doors alone differ there, for 64 calls over
four connections come in other bursts than 64 requests over as many.
"""

from __future__ import annotations

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from benches.python.door.machine import busy_cpu_seconds, serving
from benches.python.door.rounds import Figures, counters, disturbance, growth, progress, spread
from benches.python.door.servers import penstock
from benches.python.door.story import Story
from benches.python.door.workload import send
from benches.python.grpc.clients import INFER
from benches.python.grpc.workload import HTTP, PACKED, messages, network
from benches.python.measure import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benches.python.door.machine import Served
    from benches.python.door.story import Bench
    from benches.python.door.workload import Dialect
    from penstock.testing import LoadReport

CLIENTS = 64
SECONDS = 1.2
ENDLESS = 1_000_000
MODELS = {"device": "2 ms a batch", "mlp": "MLP"}
LOOPS = ("closed", "open")
LOADS = ("HTTP", "gRPC", "both")
RATE = 8000.0
Results = dict[tuple[str, int], list[Figures]]


def run(bench: Bench, _only: Sequence[str] | None) -> Story:
    effort = bench.effort(SECONDS)
    results: Results = {}
    with serving(penstock(",".join(MODELS)), logs=bench.logs) as (server,):
        for model, about in MODELS.items():
            by_http = f"{server.base}/v2/models/{model}/infer"
            by_grpc = replace(network(PACKED), bodies=messages(model))
            doors = {"HTTP": (by_http, HTTP), "gRPC": (f"grpc://127.0.0.1:{server.port}{INFER}", by_grpc)}
            for loop in LOOPS:
                for number in range(effort.rounds):
                    progress(f"{model}, {loop} loop, round {number + 1} of {effort.rounds}")
                    for name in LOADS:
                        asked = [doors[name]] if name in doors else list(doors.values())
                        figures = _visit(server, asked, effort.seconds, RATE if loop == "open" else None)
                        results.setdefault((f"{about}, {loop} loop, {name}", CLIENTS), []).append(figures)
    rows = [[name, *_cells(rounds)] for (name, _), rounds in results.items()]
    head = ["load", "requests/s", "rows/batch", "errors"]
    parts = [table(head, rows), _compared(results), disturbance(results)]
    data = [{"load": name, "rounds": rounds} for (name, _), rounds in results.items()]
    return Story(f"Both doors of one model at once, {CLIENTS} out in all", "\n\n".join(parts), data)


def _visit(server: Served, doors: Sequence[tuple[str, Dialect]], seconds: float, rate: float | None) -> Figures:
    """The doors share the load: each has its part of the clients, or of the rate."""
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
    for about, loop in itertools.product(MODELS.values(), LOOPS):
        both, http, grpc = (_sizes(results, f"{about}, {loop} loop, {name}") for name in ("both", "HTTP", "gRPC"))
        means = [(one + other) / 2 for one, other in zip(http, grpc, strict=True)]
        compared = {"HTTP alone": http, "gRPC alone": grpc, "the mean of the two alone": means}
        for name, alone in compared.items():
            values = [one / other for one, other in zip(both, alone, strict=True)]
            rows.append([about, f"{loop} loop", f"both ÷ {name}", spread(values, 3)])
    return "Rows a batch, round by round:\n\n" + table(["model", "load", "", "ratio"], rows)


def _sizes(results: Results, name: str) -> list[float]:
    """The mean batch of every round."""
    return [figures["rows_per_batch"] for figures in results[name, CLIENTS]]
