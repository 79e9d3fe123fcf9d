"""The client: CPU time of a unary call beside other clients of gRPC, over one channel and over more."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benches.python.client.visits import LOOPS, SERVER_CPU, Cell, Lane, Results, packed, rounds_of
from benches.python.door.machine import Launch, serving
from benches.python.door.rounds import disturbance, ratios, spread
from benches.python.door.servers import Absent, install
from benches.python.door.story import Story
from benches.python.measure import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benches.python.door.story import Bench

HERE = Path(__file__).resolve().parent
WORKER = "benches.python.grpc.worker"
CLIENTS = ("penstock", "grpcio.aio", "tritonclient.grpc.aio")
CHANNELS = (1, 4, 16)
AT_ONCE = 64
SECONDS = 0.5
WARM = 0.2
CALLS = {"unary": "256 bytes, unary", "infer": "ModelInfer, 64 floats"}
DETAIL = (
    ("CPU µs/call", "cpu_us", 1),
    ("calls/s", "requests_per_second", 0),
    ("p50 µs", "p50_us", 0),
    ("p99 µs", "p99_us", 0),
    ("server CPU µs", "server_cpu_us", 1),
    ("server busy", "server_cpus", 2),
)


def run(bench: Bench, only: Sequence[str] | None) -> Story:
    found, notes = lanes(bench, only or CLIENTS)
    effort = bench.effort(SECONDS)
    with serving(echo(bench, SERVER_CPU), logs=bench.logs) as (server,):
        made = [cell(call, channels, server.port, effort.seconds) for call in CALLS for channels in CHANNELS]
        results, failures = rounds_of(found, made, server, effort, worker=WORKER)
    parts = [_summary(found, results), _best(found, results), _detail(results), disturbance(results)]
    expected = [note for note in failures if "it has no such call" not in note]
    return Story(f"The client: a call, {AT_ONCE} at once", "\n\n".join([*parts, *notes, *expected]), packed(results))


def echo(bench: Bench, cpus: str = "0") -> Launch:
    """Bare tonic on one thread."""
    return Launch("bare tonic", (str(bench.hyper), "{port}"), "", cpus=cpus, scheme="grpc")


def lanes(bench: Bench, clients: Sequence[str]) -> tuple[list[Lane], list[str]]:
    """The clients that can be had here on every loop, and why others cannot."""
    found: list[Lane] = []
    theirs, notes = None, []
    try:
        theirs = str(install(bench.peers, "grpc", HERE / "peers.txt") / "python")
    except Absent as reason:
        notes.append(f"The peers are left out: {reason}.")
    for client in clients:
        python = sys.executable if client == "penstock" else theirs
        if python is not None:
            found += [Lane(client, loop, python) for loop in LOOPS]
    return found, notes


def _name(call: str, channels: int) -> str:
    return f"{CALLS[call]}, {channels} channel{'s' if channels > 1 else ''}"


def cell(call: str, channels: int, port: int, seconds: float) -> Cell:
    setup = {"port": port, "channels": channels}
    load = {"setup": setup, "tasks": AT_ONCE, "seconds": seconds, "warm": WARM, "method": call}
    return Cell(_name(call, channels), load)


def _summary(found: Sequence[Lane], results: Results) -> str:
    rows = []
    for lane in found:
        for call, words in CALLS.items():
            cells = [results.get((lane.name, _name(call, channels))) for channels in CHANNELS]
            if any(cells):
                texts = [spread([one["cpu_us"] for one in rounds]) if rounds else "" for rounds in cells]
                version = next(str(rounds[0]["version"]) for rounds in cells if rounds)
                rows.append([words, lane.client, version, lane.loop, *texts])
    head = ["call", "client", "version", "loop", *(f"{count} ch.: CPU µs/call" for count in CHANNELS)]
    return table(head, sorted(rows, key=lambda row: row[0]))


def _best(found: Sequence[Lane], results: Results) -> str:
    """Every client at its best number of channels, round by round: over Penstock's least of the same loop and round."""
    rows = []
    for lane in found:
        for call, words in CALLS.items():
            theirs, ours = (least(results, name, call) for name in (lane.name, f"penstock on {lane.loop}"))
            if lane.client != "penstock" and theirs and len(theirs) == len(ours):
                rows.append([words, lane.client, lane.loop, spread(ratios(theirs, ours), 2)])
    if not rows:
        return "There is nothing to compare with Penstock."
    return "Its least ÷ Penstock's least, of any number of channels:\n\n" + table(
        ["call", "client", "loop", "CPU ÷ Penstock's"], sorted(rows, key=lambda row: row[0])
    )


def least(results: Results, name: str, call: str) -> list[dict[str, float]]:
    """The cell with the least CPU of each round."""
    cells = [results.get((name, _name(call, channels))) for channels in CHANNELS]
    rounds = zip(*(cell for cell in cells if cell), strict=False)
    return [min(together, key=lambda figures: figures["cpu_us"]) for together in rounds]


def _detail(results: Results) -> str:
    rows = []
    for (name, load), rounds in sorted(results.items(), key=lambda item: item[0][1]):
        texts = [spread([figures[key] for figures in rounds], digits) for _, key, digits in DETAIL]
        rows.append([load, name, *texts])
    return "In full:\n\n" + table(["load", "client", *(title for title, *_ in DETAIL)], rows)
