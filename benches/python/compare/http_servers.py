"""One row a request over HTTP: Penstock's door and every other server, with the same network and the same rows."""

from __future__ import annotations

import time
from importlib import metadata
from typing import TYPE_CHECKING

from benches.python.compare.outcome import Measure, Outcome
from benches.python.compare.servers import EVERY, binary, launches, started
from benches.python.compare.versions import of_peer
from benches.python.door.machine import NotServing
from benches.python.door.peers_beside import waits
from benches.python.door.rounds import Figures, Lane, disturbance, interleaved, visit
from benches.python.door.servers import PENSTOCK_BINARY, PENSTOCK_DIALECT, penstock
from benches.python.door.workload import check, send

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from benches.python.door.machine import Launch, Served
    from benches.python.door.rounds import Effort
    from benches.python.door.servers import Peer
    from benches.python.door.story import Bench
    from benches.python.door.workload import Dialect

CLIENTS = (1, 64, 256)
QUICK = 64
SECONDS = 0.9
LEAST = 2
"""Of each client: Ray answers some hundred requests a second, and 256 clients are to be answered twice."""
WAKES_IN = 0.1
WARM = {"clients": 16, "requests_per_client": 4, "deadline": 30.0}
"""What everybody is asked before a visit: what fell due while a server stood still is no part of what is measured."""
OURS = "Penstock"
MEASURES = (
    Measure("requests_per_second", "requests/s", least=False),
    Measure("cpu_us", "CPU µs/request", 1),
    Measure("p50_us", "p50 µs"),
    Measure("p99_us", "p99 µs"),
    Measure("errors", "errors", compared=False),
)
ABOUT = (
    "A NumPy network of 64 floats in and 8 out, one row a request, keep-alive, one Rust load generator on the other "
    "CPU; every server, with all its processes, has one CPU to itself: those that are not visited stand still. The "
    "answers of all of them were compared with a direct call's before."
)


def run(bench: Bench, only: tuple[str, ...] = ()) -> Outcome:
    """JSON, from one client, from 64 and from 256."""
    outcome = Outcome("HTTP servers, JSON", ABOUT, OURS, MEASURES)
    return beside(bench, outcome, (penstock(), PENSTOCK_DIALECT), EVERY, CLIENTS, only=only)


def run_binary(bench: Bench, only: tuple[str, ...] = ()) -> Outcome:
    """Tensors as bytes, where they are taken."""
    about = (
        "As above, with tensors as bytes. Penstock and KServe speak the Open Inference Protocol; for the others, an "
        "application was written that takes and gives nothing but the floats."
    )
    outcome = Outcome("HTTP servers, binary", about, OURS, MEASURES)
    return beside(bench, outcome, (penstock(), PENSTOCK_BINARY), binary(), (64,), only=only)


def beside(
    bench: Bench,
    outcome: Outcome,
    ours: tuple[Launch, Dialect],
    peers: Sequence[Peer],
    clients: Iterable[int],
    *,
    seconds: float = SECONDS,
    checked: Callable[[Served, Dialect], None] = check,
    only: tuple[str, ...] = (),
) -> Outcome:
    """Fills the outcome with rounds of our server and of all peers that can be had, start and answer right.

    `only`: words, one of which a peer's name must have in it, where there are any.

    Raises:
        NotServing: where our own server does not start, or answers wrong.
    """
    wanted = [peer for peer in peers if not only or any(word.lower() in peer.name.lower() for word in only)]
    by_name = {peer.name: peer for peer in wanted}
    found = launches(bench, wanted, outcome.notes)
    door, dialect = ours
    with started([door, *found], bench.logs, outcome.notes) as servers:
        lanes = []
        for name, server in servers.items():
            lane = Lane(OURS, server, dialect) if name == door.name else Lane(name, server, by_name[name].dialect)
            try:
                checked(server, lane.dialect)
            except NotServing as reason:
                server.freeze()
                outcome.notes.append(f"{lane.name} is left out: {reason}.")
            else:
                lanes.append(lane)
        if all(lane.name != OURS for lane in lanes):
            raise NotServing("; ".join(outcome.notes))
        results = _one_at_a_time(lanes, (QUICK,) if bench.quick else clients, bench.effort(seconds))
    outcome.settings = {OURS: _ours()}
    outcome.settings |= {peer.name: _described(bench, peer) for peer in wanted if peer.name in servers}
    for (name, count), rounds in results.items():
        outcome.add(f"{count} client{'s' if count > 1 else ''}", name, rounds)
    outcome.notes.append(disturbance(results))
    return outcome


def _one_at_a_time(
    lanes: Sequence[Lane], clients: Iterable[int], effort: Effort
) -> dict[tuple[str, int], list[Figures]]:
    """Interleaved rounds in which only the server that is visited runs."""

    def visiting(lane: Lane, count: int, seconds: float, rate: float | None) -> Figures:
        lane.server.thaw()
        try:
            time.sleep(WAKES_IN)
            send(lane.server.url, lane.dialect, **WARM)
            return visit(lane, count, seconds, rate, LEAST)
        finally:
            lane.server.freeze()

    for lane in lanes:
        lane.server.freeze()
    return interleaved(lanes, clients, effort, visiting)


def _ours() -> str:
    return f"{metadata.version('penstock')}; `penstock serve`, everything at its default, metrics and Server-Timing on"


def _described(bench: Bench, peer: Peer) -> str:
    return f"{of_peer(bench.peers, peer.home)}; {peer.settings}{waits(peer)}"
