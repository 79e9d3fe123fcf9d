"""Which settings serve the peers best: what `servers.py` holds was chosen from this table."""

from __future__ import annotations

from dataclasses import replace

from benches.python.door.cost import packed
from benches.python.door.machine import serving
from benches.python.door.peers_beside import admit, installed
from benches.python.door.rounds import HEAD, Lane, cells, interleaved
from benches.python.door.servers import FASTAPI_BATCHED, GRANIAN, MLSERVER, MOSEC, Peer
from benches.python.door.story import Bench, Story
from benches.python.measure import table

CLIENTS = (64, 256)
SECONDS = 0.7
ROUNDS = 3


def run(bench: Bench) -> Story:
    parts, data = [], []
    for variants in _variants():
        found, notes = installed(bench, tuple(variants))
        with serving(*(peer.launch(bench.peers) for peer in found), logs=bench.logs) as servers:
            lanes: list[Lane] = []
            for peer, server in zip(found, servers, strict=True):
                admit(peer, server, lanes, notes)
            results = interleaved(lanes, CLIENTS, bench.effort(SECONDS, ROUNDS)) if lanes else {}
        rows = [[name, count, *cells(rounds)] for (name, count), rounds in results.items()]
        parts += [table(["variant", "clients", *HEAD], rows), *notes]
        data += packed(results)
    return Story("Settings of the peers", "\n\n".join(parts), data)


def _variants() -> list[list[Peer]]:
    granian = GRANIAN.waiting(0)
    return [
        [MOSEC.waiting(wait) for wait in (1, 2, 5, 10)],
        [
            *(GRANIAN.waiting(wait) for wait in (0, 1, 5)),
            _changed(granian, "st", "--runtime-mode", "st"),
            _changed(granian, "rust tasks", "--task-impl", "rust"),
        ],
        [FASTAPI_BATCHED.waiting(wait) for wait in (0, 1, 5)],
        [MLSERVER],
    ]


def _changed(peer: Peer, name: str, *options: str) -> Peer:
    return replace(peer, name=f"{peer.name} {name}", command=(*peer.command, *options))
