"""Clients: each in a process and an environment of its own, on asyncio and on uvloop, against a server in Rust or C."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from benches.python.client import cost, visits
from benches.python.compare.outcome import Measure, Outcome
from benches.python.door.machine import serving
from benches.python.door.rounds import Figures, disturbance, progress, turning
from benches.python.grpc import client as grpc
from benches.python.streaming import client_cost as streams
from benches.python.streaming.cost import QUICK_STREAMS, STREAMS, flows
from benches.python.streaming.servers import bare_hyper

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benches.python.door.story import Bench

OURS = "Penstock"
ROUNDS = 3
CPU = Measure("cpu_us", "CPU µs/request", 1)
HTTP = (
    Measure("requests_per_second", "requests/s", least=False),
    CPU,
    Measure("p50_us", "p50 µs"),
    Measure("p99_us", "p99 µs"),
)
GRPC = (Measure("requests_per_second", "calls/s", least=False), Measure("cpu_us", "CPU µs/call", 1), *HTTP[2:])
TOKENS = (
    Measure("cpu_us", "CPU µs/token", 2),
    Measure("tokens_per_second", "tokens/s", least=False, compared=False),
    Measure("first_p50_ms", "first token p50 ms", 1),
)
STREAMING = {"Penstock": "penstock, events and JSON", "openai": "openai"}
FLOW = "paced"


def run_http(bench: Bench) -> Outcome:
    """Our client beside other clients of HTTP/1.1, against nginx."""
    about = (
        "A GET or POST of 300 bytes whose answer is read whole and looked at; nginx on the other CPU, as many "
        "connections as requests at once. Penstock keeps its limits, time-outs, retries and counters on."
    )
    outcome = Outcome("HTTP clients", about, OURS, HTTP)
    found, notes = visits.lanes(bench, cost.CLIENTS, _loops(bench))
    effort = bench.effort(cost.SECONDS, ROUNDS)
    with serving(visits.server(bench.logs), logs=bench.logs) as (nginx,):
        every = cost.cells(nginx.base, effort.seconds)
        made = [cell for cell in every if cell.name != cost.MORE and not (bench.quick and cell.name == cost.LOTS)]
        results, failures = visits.rounds_of(found, made, nginx, effort)
    for cell in made:
        for lane in found:
            _take(outcome, f"{cell.name}, {lane.loop}", lane.client, results.get((lane.name, cell.name)))
    outcome.notes += [*notes, *failures, disturbance(results)]
    return outcome


def run_grpc(bench: Bench) -> Outcome:
    """Our client of gRPC beside others, against bare tonic: each at its best number of channels."""
    about = (
        f"{grpc.AT_ONCE} unary calls at once against bare tonic on the other CPU, over 1, 4 and 16 channels: of these, "
        "the one with the least CPU, for each client and round."
    )
    outcome = Outcome("gRPC clients", about, OURS, GRPC)
    found, notes = grpc.lanes(bench, grpc.CLIENTS)
    found = [lane for lane in found if lane.loop in _loops(bench)]
    effort = bench.effort(grpc.SECONDS, ROUNDS)
    with serving(grpc.echo(bench, visits.SERVER_CPU), logs=bench.logs) as (server,):
        made = [
            grpc.cell(call, channels, server.port, effort.seconds) for call in grpc.CALLS for channels in grpc.CHANNELS
        ]
        results, failures = visits.rounds_of(found, made, server, effort, worker=grpc.WORKER)
    for call, words in grpc.CALLS.items():
        for lane in found:
            _take(outcome, f"{words}, {lane.loop}", lane.client, grpc.least(results, lane.name, call))
    outcome.notes += [*notes, *(one for one in failures if "no such call" not in one), disturbance(results)]
    return outcome


def run_openai(bench: Bench) -> Outcome:
    """Streams of a chat, every event parsed, beside the openai package."""
    count = QUICK_STREAMS if bench.quick else STREAMS
    about = (
        f"{count:,} streamed chats at once, each token an event that is parsed, against bare hyper on the other CPU, "
        "which sends a token to each of them every 400 ms. The openai package reads by httpx2, with room for all."
    )
    outcome = Outcome("Clients of OpenAI's API", about, OURS, TOKENS)
    found, notes = streams.lanes(bench, ["asyncio"])
    names = {client: ours for ours, client in STREAMING.items()}
    pythons = {lane.client: lane.python for lane in found if lane.client in names}
    chosen = [streams.Lane(client, loop, python) for client, python in pythons.items() for loop in _loops(bench)]
    flow = flows(bench, streams.FLOWS)[FLOW]
    results: dict[streams.Lane, list[Figures]] = defaultdict(list)
    with serving(bare_hyper(bench, visits.SERVER_CPU), logs=bench.logs) as (server,):
        for number, order in turning(chosen, bench.effort(0, ROUNDS).rounds):
            for lane in order:
                progress(f"round {number + 1}: {lane.name}")
                figures = streams.visit(lane, server, flow, count, flow.pause_ms)
                if "failed" in figures:
                    notes.append(f"{lane.name} failed: {figures['failed']}.")
                else:
                    results[lane].append(figures)
    for lane, rounds in results.items():
        _take(outcome, f"{count:,} streams, {lane.loop}", names[lane.client], rounds)
    outcome.notes += dict.fromkeys(notes)
    return outcome


def _loops(bench: Bench) -> Sequence[str]:
    return visits.LOOPS[:1] if bench.quick else visits.LOOPS


def _take(outcome: Outcome, load: str, client: str, rounds: Sequence[dict[str, Any]] | None) -> None:
    """A lane's rounds without their version, which is one of the settings."""
    if rounds:
        name = OURS if client == "penstock" else client
        outcome.settings[name] = str(rounds[0].get("version", ""))
        kept: Iterable[Figures] = ({k: v for k, v in one.items() if isinstance(v, (int, float))} for one in rounds)
        outcome.add(load, name, list(kept))
