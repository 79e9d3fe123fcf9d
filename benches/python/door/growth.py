"""From 100 to 1,000 connections: CPU a request beside hyper's own growth, errors, and memory by the connection."""

from __future__ import annotations

import contextlib
import time

from benches.python.door.client import Connection
from benches.python.door.cost import packed
from benches.python.door.machine import Served, serving
from benches.python.door.rounds import HEAD, Figures, Lane, cells, disturbance, interleaved, progress, ratios, spread
from benches.python.door.servers import HYPER_DIALECT, PENSTOCK_DIALECT, bare_hyper, penstock
from benches.python.door.story import Bench, Story
from benches.python.door.workload import OIP_JSON, check, compact
from benches.python.measure import table
from penstock import testing

FEW, MANY = 100, 1000
SECONDS = 2.0
MEMORY_ROUNDS = 5
SETTLES_IN = 1.0
KEY = compact(testing.infer_body({"x": ("FP32", [1, 1], [0.0])}))


def run(bench: Bench) -> Story:
    cost, load, _ = of_the_cost(bench)
    memory = [_memory(bench, number) for number in range(bench.effort(0, MEMORY_ROUNDS).rounds)]
    held = table(
        ["memory of the server process, fresh for each figure", "KiB"],
        [[title, spread([one[key] for one in memory])] for title, key in _MEMORY],
    )
    return Story(f"{MANY:,} connections", f"{cost}\n\n{held}", {"load": load, "memory": memory})


def of_the_cost(bench: Bench) -> tuple[str, list[dict[str, object]], list[float]]:
    """How much dearer a request is at many connections than at few; the last are the ratios to hyper's own growth."""
    with serving(bare_hyper(bench.hyper), penstock(), logs=bench.logs) as (hyper, door):
        lanes = [Lane("bare hyper echo", hyper, HYPER_DIALECT), Lane("penstock", door, PENSTOCK_DIALECT)]
        for lane in lanes:
            check(lane.server, lane.dialect)
        results = interleaved(lanes, (FEW, MANY), bench.effort(SECONDS))
    rows = [[name, count, *cells(rounds)] for (name, count), rounds in results.items()]
    grown = {lane.name: ratios(results[lane.name, MANY], results[lane.name, FEW]) for lane in lanes}
    beside = [ours / theirs for ours, theirs in zip(grown["penstock"], grown["bare hyper echo"], strict=True)]
    growth = [[name, spread(values, 3)] for name, values in grown.items()]
    growth.append(["penstock's growth ÷ hyper's", spread(beside, 3)])
    text = "\n\n".join(
        [
            table(["server", "clients", *HEAD], rows),
            table(["CPU a request", f"at {MANY:,} connections ÷ at {FEW}"], growth),
            disturbance(results),
        ]
    )
    return text, packed(results), beside


_MEMORY = (
    ("idle, before the first connection", "idle"),
    (f"grown by each of {MANY:,} requests in flight", "request"),
    (f"kept of that when all were answered and had left, a request over {MANY:,}", "kept"),
    (f"grown by each of {MANY:,} idle connections", "connection"),
    ("requests in flight that got status 200", "answered"),
)


def _memory(bench: Bench, number: int) -> Figures:
    progress(f"memory, round {number + 1}")
    with serving(penstock("gate,key,mlp", path="gate"), logs=bench.logs) as (door,):
        figures = _in_flight(door)
    with serving(penstock("gate,key,mlp", path="mlp"), logs=bench.logs) as (door,):
        return {**figures, "connection": _idle_connections(door)}


def _in_flight(door: Served) -> Figures:
    """Every request is sent whole, and none answered before all are there and the memory was read."""
    time.sleep(SETTLES_IN)
    idle = door.rss_kib()
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(Connection(door)) for _ in range(MANY)]
        for index, connection in enumerate(connections):
            connection.ask("/v2/models/gate/infer", OIP_JSON.bodies[index % len(OIP_JSON.bodies)])
        time.sleep(SETTLES_IN)
        full = door.rss_kib()
        with Connection(door) as opener:
            opener.ask("/v2/models/key/infer", KEY)
            opener.status()
        answered = sum(connection.status() == 200 for connection in connections)
    time.sleep(SETTLES_IN)
    return {
        "idle": idle,
        "request": (full - idle) / MANY,
        "kept": (door.rss_kib() - idle) / MANY,
        "answered": float(answered),
    }


def _idle_connections(door: Served) -> float:
    """Each connection has asked once, one after another, and stays."""
    time.sleep(SETTLES_IN)
    idle = door.rss_kib()
    with contextlib.ExitStack() as stack:
        for index in range(MANY):
            connection = stack.enter_context(Connection(door))
            connection.ask("/v2/models/mlp/infer", OIP_JSON.bodies[index % len(OIP_JSON.bodies)])
            connection.status()
        time.sleep(SETTLES_IN)
        return (door.rss_kib() - idle) / MANY
