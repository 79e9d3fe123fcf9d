"""CPU time a request of the door, JSON and binary, beside bare hyper that echoes the same POST."""

from __future__ import annotations

from benches.python.door.machine import serving
from benches.python.door.rounds import HEAD, Figures, Lane, cells, disturbance, interleaved, ratios, spread
from benches.python.door.servers import (
    HYPER_DIALECT,
    PENSTOCK_BINARY,
    PENSTOCK_DIALECT,
    bare_hyper,
    binary_is_left_out,
    penstock,
)
from benches.python.door.story import Bench, Story
from benches.python.door.workload import check
from benches.python.measure import table

CLIENTS = (1, 64, 256)
SECONDS = 1.5
Results = dict[tuple[str, int], list[Figures]]


def run(bench: Bench) -> Story:
    notes = []
    with serving(bare_hyper(bench.hyper), penstock(), logs=bench.logs) as (hyper, door):
        lanes = [Lane("bare hyper echo", hyper, HYPER_DIALECT), Lane("penstock JSON", door, PENSTOCK_DIALECT)]
        left_out = binary_is_left_out(door)
        if left_out is None:
            lanes.append(Lane("penstock binary", door, PENSTOCK_BINARY))
        else:
            notes.append(f"Binary tensors are left out: {left_out}.")
        for lane in lanes:
            check(lane.server, lane.dialect)
        results = interleaved(lanes, CLIENTS, bench.effort(SECONDS))
    rows = [[name, count, *cells(rounds)] for (name, count), rounds in results.items()]
    text = "\n\n".join([table(["server", "clients", *HEAD], rows), _compared(results), disturbance(results), *notes])
    return Story("Cost of a request", text, packed(results))


def _compared(results: Results) -> str:
    """CPU a request over bare hyper's of the same round; binary over JSON likewise."""
    rows = []
    for count in CLIENTS:
        floor = results["bare hyper echo", count]
        json = results["penstock JSON", count]
        row = [count, spread(ratios(json, floor), 2)]
        binary = results.get(("penstock binary", count))
        row += ["", ""] if binary is None else [spread(ratios(binary, floor), 2), spread(ratios(binary, json), 2)]
        one_a_batch = [figures["locks_per_request"] * figures["rows_per_batch"] for figures in json]
        rows.append([*row, spread(one_a_batch, 3)])
    head = ["clients", "JSON ÷ hyper", "binary ÷ hyper", "binary ÷ JSON", "locks/request x rows/batch"]
    return "CPU a request, round by round:\n\n" + table(head, rows)


def packed(results: Results) -> list[dict[str, object]]:
    """For JSON."""
    return [{"server": name, "clients": count, "rounds": rounds} for (name, count), rounds in results.items()]
