"""One Python thread that spins in the server's process: what is left of a graph's throughput, and of NumPy's.

The server may use both CPUs, one of which the load has, too. Beside it the same thread in a process of its own: it
takes as much of the CPUs, but nothing of the interpreter lock.
"""

from __future__ import annotations

from collections import defaultdict

from benches.python.door.machine import serving, take_the_load_cpu
from benches.python.door.rounds import Figures, Lane, progress, spread, visit
from benches.python.door.servers import PENSTOCK_DIALECT, penstock
from benches.python.door.spinner import ALONE, CLIENTS, COLUMNS, ELSEWHERE, kept, spinning, title
from benches.python.door.story import Bench, Story
from benches.python.door.workload import check
from benches.python.measure import table

SECONDS = 1.0
KINDS = (ALONE, ELSEWHERE, title(5.0), title(0.1))
MODELS = {"NumPy": "mlp", "ONNX": "mlp_onnx"}


def run(bench: Bench) -> Story:
    take_the_load_cpu()
    effort = bench.effort(SECONDS)
    launches = [
        penstock(f"{model},control", name=f"penstock {kind}", path=model, cpus="0,1") for kind, model in MODELS.items()
    ]
    results: dict[tuple[str, str], list[Figures]] = defaultdict(list)
    with serving(*launches, logs=bench.logs) as servers:
        lanes = [Lane(kind, server, PENSTOCK_DIALECT) for kind, server in zip(MODELS, servers, strict=True)]
        for lane in lanes:
            check(lane.server, lane.dialect)
        for number in range(effort.rounds):
            progress(f"round {number + 1} of {effort.rounds}")
            for kind in KINDS:
                for lane in lanes:
                    with spinning(lane.server, kind, "0,1"):
                        results[lane.name, kind].append(visit(lane, CLIENTS, effort.seconds))
    rows = []
    for (name, kind), rounds in results.items():
        found = [spread([one[key] for one in rounds], digits) for _, key, digits in COLUMNS]
        rows.append([name, kind, *found, *(kept(results[name, other], rounds) for other in (ALONE, ELSEWHERE))])
    rows.sort(key=lambda row: list(MODELS).index(str(row[0])))
    head = ["model", "spinner", *(name for name, *_ in COLUMNS), "of no spinner, %", "of one elsewhere, %"]
    data = [{"model": name, "spinner": kind, "rounds": rounds} for (name, kind), rounds in results.items()]
    text = f"{CLIENTS} clients; the server may use both CPUs.\n\n" + table(head, rows)
    return Story("A graph beside a Python thread that spins in its process", text, data)
