"""Which settings serve these peers best: what `servers.py` holds was chosen from this table."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from benches.python.compare.http_servers import MEASURES, OURS, beside
from benches.python.compare.outcome import Outcome
from benches.python.compare.servers import BENTOML, KSERVE, KSERVE_FIRST, LITSERVE, RAY
from benches.python.door.servers import PENSTOCK_DIALECT, penstock

if TYPE_CHECKING:
    from benches.python.door.servers import Peer
    from benches.python.door.story import Bench

ABOUT = "Variants of peers, as the servers of JSON are measured."


def run(bench: Bench, only: tuple[str, ...] = ()) -> Outcome:
    """64 clients and 256."""
    outcome = Outcome("Settings of peers", ABOUT, OURS, MEASURES)
    return beside(bench, outcome, (penstock(), PENSTOCK_DIALECT), _variants(), (64, 256), only=only)


def _variants() -> tuple[Peer, ...]:
    """The waits of those that wait for a batch; more of what can be chosen."""
    return (
        *(LITSERVE.waiting(wait) for wait in (1, 5, 20)),
        _told(LITSERVE.waiting(5), "fast queue", PEER_FAST_QUEUE="1"),
        BENTOML,
        *(_told(BENTOML, f"within {limit} ms", PEER_WITHIN_MS=limit) for limit in ("100", "1000")),
        *(RAY.waiting(wait) for wait in (1, 5, 20)),
        _told(RAY, "for throughput", RAY_SERVE_THROUGHPUT_OPTIMIZED="1"),
        KSERVE,
        KSERVE_FIRST,
    )


def _told(peer: Peer, name: str, **environment: str) -> Peer:
    return replace(peer, name=f"{peer.name} {name}", environment=(*peer.environment, *environment.items()))
