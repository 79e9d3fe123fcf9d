"""What a token costs the client: its CPU, with a thousand streams at once. The server is bare hyper."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benches.python.client.visits import CLIENT_CPU, LOOPS, SERVER_CPU
from benches.python.door.machine import ROOT, serving
from benches.python.door.rounds import progress, ratios, spread
from benches.python.door.servers import Absent, install
from benches.python.door.story import Bench, Story
from benches.python.measure import table
from benches.python.streaming.ask import Flow
from benches.python.streaming.clients import CLIENTS
from benches.python.streaming.cost import QUICK_STREAMS, STREAMS, flows
from benches.python.streaming.servers import PEERS, bare_hyper

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benches.python.door.machine import Served

WORKER = "benches.python.streaming.worker"
REFERENCE = "penstock, events"
ON_UVLOOP = (REFERENCE, "openai", "aiohttp, chunks")
# So slow that the slowest keeps up: whoever does not gets many tokens in one piece, which makes each of them cheaper.
FLOWS = {
    "paced": Flow(burst=1, pause_ms=400, tokens=16),
    "in bursts of 32": Flow(burst=32, pause_ms=4500, tokens=96),
}
PATIENCE = 240.0
Results = dict[tuple[str, str], list[dict[str, float]]]


@dataclass(frozen=True)
class Lane:
    """A client on a loop, and the Python of its environment."""

    client: str
    loop: str
    python: str

    @property
    def name(self) -> str:
        return f"{self.client}; {self.loop}"


def lanes(bench: Bench, loops: Iterable[str]) -> tuple[list[Lane], list[str]]:
    """The clients that can be had here on every loop, and why others cannot."""
    notes = []
    theirs = None
    try:
        theirs = str(install(bench.peers, "streaming-clients", PEERS / "clients.txt") / "python")
    except Absent as reason:
        notes.append(f"The other clients are left out: {reason}.")
    found = []
    for client in CLIENTS:
        python = sys.executable if client.startswith("penstock") else theirs
        if python is not None:
            found += [Lane(client, loop, python) for loop in loops if loop == "asyncio" or client in ON_UVLOOP]
    return found, notes


def run(bench: Bench) -> Story:
    found, notes = lanes(bench, LOOPS)
    count, rounds = (QUICK_STREAMS, 1) if bench.quick else (STREAMS, bench.effort(0, 3).rounds)
    results: Results = defaultdict(list)
    failed: dict[str, None] = {}
    with serving(bare_hyper(bench, SERVER_CPU), logs=bench.logs) as (server,):
        for kind, flow in flows(bench, FLOWS).items():
            for number in range(rounds):
                first = number % len(found)
                for lane in (*found[first:], *found[:first]):
                    progress(f"{kind}, round {number + 1} of {rounds}: {lane.name}")
                    figures = visit(lane, server, flow, count, flow.pause_ms)
                    if "failed" in figures:
                        failed[f"{lane.name} failed ({kind}): {figures['failed']}."] = None
                    else:
                        results[lane.name, kind].append(figures)
    text = "\n\n".join([_table(results), _compared(found, results), *notes, *failed])
    return Story(f"A token, {count:,} streams at once: the client", text, packed(results))


def visit(lane: Lane, server: Served, flow: Flow, streams: int, pause_ms: int) -> dict[str, Any]:
    """One client in a process of its own; `pause_ms` 0: one stream after the other, so many times."""
    said = json.dumps(flow.body)
    command = [lane.python, "-m", WORKER, CLIENT_CPU, lane.client, lane.loop]
    command += [server.base, str(streams), str(pause_ms), said]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done within {PATIENCE:.0f} s"}
    if done.returncode or not done.stdout:
        return {"failed": (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1][:300]}
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def _table(results: Results) -> str:
    rows = []
    for (name, kind), rounds in sorted(results.items(), key=lambda item: item[0][1], reverse=True):
        cells = [
            spread([figures[key] for figures in rounds], digits)
            for key, digits in (("cpu_us", 2), ("tokens_per_second", 0), ("first_p50_ms", 1))
        ]
        rows.append([kind, name, rounds[0]["version"], *cells])
    return table(["tokens", "client", "version", "CPU µs/token", "tokens/s", "first token p50 ms"], rows)


def _compared(found: Iterable[Lane], results: Results) -> str:
    rows = []
    for lane in found:
        for kind in sorted({kind for _, kind in results}):
            theirs, ours = results.get((lane.name, kind)), results.get((f"{REFERENCE}; {lane.loop}", kind))
            if lane.client != REFERENCE and theirs and ours and len(theirs) == len(ours):
                rows.append([kind, lane.name, spread(ratios(theirs, ours), 2)])
    if not rows:
        return "There is nothing to compare with."
    return f"CPU a token, round by round:\n\n{table(['tokens', 'client', f'÷ {REFERENCE}'], rows)}"


def packed(results: Results) -> list[dict[str, object]]:
    """For JSON."""
    return [{"client": name, "load": kind, "rounds": rounds} for (name, kind), rounds in results.items()]
