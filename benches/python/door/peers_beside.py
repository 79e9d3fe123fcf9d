"""The door beside other Python servers with the same network, in the same rounds."""

from __future__ import annotations

import re

from benches.python.door.cost import Results, packed
from benches.python.door.machine import NotServing, Served, serving
from benches.python.door.rounds import HEAD, Lane, cells, disturbance, interleaved, ratios, spread
from benches.python.door.servers import (
    ALL_PEERS,
    HYPER_DIALECT,
    PENSTOCK_DIALECT,
    Absent,
    Peer,
    bare_hyper,
    penstock,
)
from benches.python.door.story import Bench, Story
from benches.python.door.workload import check
from benches.python.measure import table

CLIENTS = (1, 64, 256)
SECONDS = 0.9


def run(bench: Bench) -> Story:
    found, notes = installed(bench, ALL_PEERS)
    launches = [bare_hyper(bench.hyper), penstock(), *(peer.launch(bench.peers) for peer in found)]
    with serving(*launches, logs=bench.logs) as (hyper, door, *others):
        lanes = [Lane("bare hyper echo", hyper, HYPER_DIALECT), Lane("penstock", door, PENSTOCK_DIALECT)]
        for lane in lanes:
            check(lane.server, lane.dialect)
        for peer, server in zip(found, others, strict=True):
            admit(peer, server, lanes, notes)
        results = interleaved(lanes, CLIENTS, bench.effort(SECONDS))
    settings = {peer.name: peer.settings + waits(peer) for peer in found}
    rows = [[name, settings.get(name, ""), count, *cells(rounds)] for (name, count), rounds in results.items()]
    parts = [table(["server", "settings", "clients", *HEAD], rows), _compared(results), disturbance(results), *notes]
    return Story("Beside other servers", "\n\n".join(parts), packed(results))


def installed(bench: Bench, peers: tuple[Peer, ...]) -> tuple[list[Peer], list[str]]:
    """The peers that can be had here, and why the others cannot."""
    found, notes = [], []
    for peer in peers:
        try:
            peer.launch(bench.peers)
        except Absent as reason:
            notes.append(f"{peer.name} is left out: {reason}.")
        else:
            found.append(peer)
    return found, notes


def admit(peer: Peer, server: Served, lanes: list[Lane], notes: list[str]) -> None:
    """A peer whose answers are right becomes a lane."""
    try:
        check(server, peer.dialect)
    except NotServing as reason:
        notes.append(f"{peer.name} is left out: {reason}.")
    else:
        lanes.append(Lane(peer.name, server, peer.dialect))


def waits(peer: Peer) -> str:
    """How it gathers, in words."""
    if not re.search(r"\bbatch \d", peer.settings):
        return ""
    return f", gathers for {peer.wait_ms:g} ms" if peer.wait_ms else ", gathers for one turn of the loop"


def _compared(results: Results) -> str:
    """Every server's CPU a request over Penstock's of the same round."""
    names = dict.fromkeys(name for name, _ in results)
    rows = [
        [name, *(spread(ratios(results[name, count], results["penstock", count]), 2) for count in CLIENTS)]
        for name in names
        if name != "penstock"
    ]
    return "CPU a request ÷ Penstock's, round by round:\n\n" + table(
        ["server", *(f"{count} clients" for count in CLIENTS)], rows
    )
