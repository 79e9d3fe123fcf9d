"""Latency of a client that is alone: one connection, one request after another."""

from __future__ import annotations

from benches.python.door.cost import packed
from benches.python.door.machine import serving
from benches.python.door.rounds import Lane, interleaved, ratios, spread
from benches.python.door.servers import HYPER_DIALECT, PENSTOCK_DIALECT, bare_hyper, penstock
from benches.python.door.story import Bench, Story
from benches.python.door.workload import check
from benches.python.measure import table

SECONDS = 2.0


def run(bench: Bench) -> Story:
    with serving(bare_hyper(bench.hyper), penstock(), logs=bench.logs) as (hyper, door):
        lanes = [Lane("bare hyper echo", hyper, HYPER_DIALECT), Lane("penstock", door, PENSTOCK_DIALECT)]
        for lane in lanes:
            check(lane.server, lane.dialect)
        results = interleaved(lanes, (1,), bench.effort(SECONDS))
    floor, door_rounds = results["bare hyper echo", 1], results["penstock", 1]
    rows = [
        [name, *(spread([figures[key] for figures in rounds]) for key in ("p50_us", "p99_us", "cpu_us"))]
        for (name, _), rounds in results.items()
    ]
    rows.append(["ratio", *(spread(ratios(door_rounds, floor, key), 2) for key in ("p50_us", "p99_us", "cpu_us"))])
    return Story("A lone client", table(["server", "p50 µs", "p99 µs", "CPU µs/request"], rows), packed(results))
