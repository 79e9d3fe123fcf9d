"""CPU time a request of the network as an ONNX graph, beside bare hyper that echoes the same POST, and NumPy's."""

from __future__ import annotations

from benches.python.door.cost import packed
from benches.python.door.machine import serving, take_the_load_cpu
from benches.python.door.rounds import HEAD, Lane, cells, disturbance, interleaved, ratios, spread
from benches.python.door.servers import HYPER_DIALECT, PENSTOCK_BINARY, PENSTOCK_DIALECT, Absent, bare_hyper, penstock
from benches.python.door.story import Bench, Story
from benches.python.door.workload import check
from benches.python.measure import table

CLIENTS = (1, 64, 256)
SECONDS = 1.5
FLOOR = "bare hyper echo"
OURS = ("NumPy, JSON", "ONNX, JSON", "ONNX, binary")


def run(bench: Bench) -> Story:
    if not bench.hyper.is_file():
        raise Absent(f"there is no {bench.hyper}: cargo build --release --no-default-features --example hyper_hello")
    take_the_load_cpu()
    launches = (
        bare_hyper(bench.hyper),
        penstock("mlp", name="penstock NumPy"),
        penstock("mlp_onnx", name="penstock ONNX", path="mlp_onnx"),
    )
    with serving(*launches, logs=bench.logs) as (hyper, numpys, graph):
        lanes = [
            Lane(FLOOR, hyper, HYPER_DIALECT),
            Lane(OURS[0], numpys, PENSTOCK_DIALECT),
            Lane(OURS[1], graph, PENSTOCK_DIALECT),
            Lane(OURS[2], graph, PENSTOCK_BINARY),
        ]
        for lane in lanes:
            check(lane.server, lane.dialect)
        results = interleaved(lanes, CLIENTS, bench.effort(SECONDS))
    rows = [[name, count, *cells(rounds)] for (name, count), rounds in results.items()]
    beside = [
        [count, *(spread(ratios(results[name, count], results[FLOOR, count]), 2) for name in OURS)] for count in CLIENTS
    ]
    text = [
        "Server on CPU 0, load on CPU 1.",
        table(["server", "clients", *HEAD], rows),
        "CPU a request over bare hyper's, round by round:",
        table(["clients", *OURS], beside),
        disturbance(results),
    ]
    return Story("The network as a graph, through the HTTP door", "\n\n".join(text), packed(results))
