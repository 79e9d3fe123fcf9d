"""The door: CPU time of a call, beside bare tonic that echoes the same message and beside other Python servers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from benches.python.door.cost import Results, packed
from benches.python.door.machine import Launch, NotServing, serving
from benches.python.door.rounds import HEAD, Lane, cells, disturbance, interleaved, ratios, spread
from benches.python.door.servers import MLSERVER, Absent, install, penstock
from benches.python.door.story import Story
from benches.python.grpc.client import echo
from benches.python.grpc.clients import ECHO, INFER
from benches.python.grpc.workload import PACKED, check, mirrored, network
from benches.python.grpc.workload import echo as echoed
from benches.python.grpc.workload import mirror as mirrors
from benches.python.measure import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benches.python.door.story import Bench

HERE = Path(__file__).resolve().parent
CLIENTS = 64
SECONDS = 1.2
BARE, DECODED = "bare tonic echo", "tonic, prost decodes and encodes"
PENSTOCK = "penstock"
GRPCIO, MLSERVER_LANE = "grpcio.aio echo", "MLServer"
SHAPES = {"4 connections": PACKED, "64 connections": 1}


def run(bench: Bench, _only: Sequence[str] | None) -> Story:
    launches: dict[str, Launch] = {
        BARE: replace(echo(bench), path=ECHO),
        DECODED: replace(echo(bench), name=DECODED, path=INFER),
        PENSTOCK: grpc_door(),
    }
    notes = _peers(bench, launches)
    results: Results = {}
    with serving(*launches.values(), logs=bench.logs) as servers:
        served = dict(zip(launches, servers, strict=True))
        for shape, streams in SHAPES.items():
            lanes = []
            for name, server in served.items():
                dialect = {BARE: echoed, GRPCIO: echoed, DECODED: mirrors}.get(name, network)(streams)
                try:
                    check(server, dialect, mirrored() if name == DECODED else None)
                except NotServing as reason:
                    notes.append(f"{name} is left out ({shape}): {reason}.")
                else:
                    lanes.append(Lane(name, server, dialect))
            found = interleaved(lanes, [CLIENTS], bench.effort(SECONDS))
            results.update({(f"{name}, {shape}", clients): rounds for (name, clients), rounds in found.items()})
    rows = [[name, *cells(rounds)] for (name, _), rounds in results.items()]
    parts = [table(["server", *HEAD], rows), _compared(results), _ceiling(results), disturbance(results)]
    parts += dict.fromkeys(notes)
    return Story(f"The door: MLP, {CLIENTS} at once", "\n\n".join(parts), packed(results))


def grpc_door() -> Launch:
    """`penstock serve` with everything at its default, asked over gRPC."""
    return replace(penstock(), path=INFER, scheme="grpc")


def _peers(bench: Bench, launches: dict[str, Launch]) -> list[str]:
    """Adds the peers that can be had here, and says why the others cannot."""
    notes = []
    try:
        python = install(bench.peers, "grpc", HERE / "peers.txt") / "python"
        command = (str(python), str(HERE / "peers/echo_server.py"), "{port}")
        launches[GRPCIO] = Launch(GRPCIO, command, ECHO, scheme="grpc")
    except Absent as reason:
        notes.append(f"{GRPCIO} is left out: {reason}.")
    try:
        launch = MLSERVER.launch(bench.peers)
        environment = {**launch.environment, "MLSERVER_GRPC_PORT": "{port}", "MLSERVER_HTTP_PORT": "{spare}"}
        asked = {"path": INFER, "environment": environment, "scheme": "grpc"}
        launches[MLSERVER_LANE] = replace(launch, name="MLServer gRPC", **asked)
    except Absent as reason:
        notes.append(f"{MLSERVER_LANE} is left out: {reason}.")
    return notes


def _ceiling(results: Results) -> str:
    """Where the load generator has no time left, the rate is its own, and servers that keep up look alike in it."""
    busy = {name: spread([100 * one["load_cpus"] for one in rounds], 0) for (name, _), rounds in results.items()}
    return "The load generator's CPU, %:\n\n" + table(["server", "busy"], busy.items())


def _compared(results: Results) -> str:
    """Penstock's CPU a call over the floors', and the others' over Penstock's, of the same round."""
    rows = []
    for shape in SHAPES:
        ours = results.get((f"{PENSTOCK}, {shape}", CLIENTS))
        for name in (BARE, DECODED, GRPCIO, MLSERVER_LANE):
            theirs = results.get((f"{name}, {shape}", CLIENTS))
            if ours and theirs:
                floor = name in (BARE, DECODED)
                pair = (ours, theirs) if floor else (theirs, ours)
                rows.append([f"penstock ÷ {name}" if floor else f"{name} ÷ penstock", shape, spread(ratios(*pair), 2)])
    if not rows:
        return "There is nothing to compare."
    return "CPU a call, round by round:\n\n" + table(["", "load", "ratio"], rows)
