"""Which load the scenarios are, and what they aim at."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benches.python.scenarios.load import Load

SECONDS = 5.0
SUSTAINED_SECONDS = 15.0
WARMUP = 0.5
QUICK = 0.08
"""Of the seconds, where it is only to be seen whether it runs."""

WITHIN = 0.8
"""What is at most this part of the capacity counts as within it: random arrivals come in bunches."""

SHARES = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.5, 2.0)
"""Of the capacity at `FEW` connections."""

ASKED_SHARES = (0.5, 0.8, 1.0, 2.0)
"""Those that are scenarios by themselves; the others lie between for the chart."""

FEW, MANY = 100, 1000
P50_MS, P99_MS = 3.0, 10.0
ERROR_RATE = 0.001
QUEUE = 200
"""Rows that may wait in the bounded server: two batches."""

WORTH_MS = 20
"""What a request of a scenario is worth, whose caller does not wait longer."""

KEPT = 0.8
"""What an overloaded server that refuses nobody must still answer, of its capacity."""

KEPT_REFUSING = 0.5
"""Likewise one that refuses: most of its requests, and the clients come back at once."""


@dataclass(frozen=True)
class Scenario:
    """One load on one server.

    Attributes:
        name: as in the tables.
        load: what is sent.
        capacity: requests a second that the server has been seen to answer at so many connections.
        server: `plain` as `penstock serve` starts it, or `bounded`: with a queue of `QUEUE` rows.
        fast: its latencies are to stay within `P50_MS` and `P99_MS`.
        share: of the capacity, where it is one of `SHARES`.
    """

    name: str
    load: Load
    capacity: float
    server: str = "plain"
    fast: bool = False
    share: float | None = None

    @property
    def within(self) -> bool:
        """Whether it lies within the capacity; the closed loop always does, for it waits."""
        return self.load.rate is None or self.load.rate <= WITHIN * self.capacity * (1 + 1e-9)


@dataclass(frozen=True)
class Capacities:
    """Requests a second in the closed loop, by the number of connections; `device` is of the model `DEVICE` at `MANY`.

    The network costs less than reading and writing its requests: those that are too many wait in their sockets, and no
    queue grows. `DEVICE` is the same network on a device that takes 2 ms a batch, and so the narrowest place itself.
    """

    by_connections: dict[int, float]
    device: float

    def at(self, connections: int) -> float:
        return self.by_connections[connections]


AT_MOST = 4
"""So many seconds' worth of a server's work may fall due for each second of a scenario."""

CONNECTIONS = (FEW, 300, 500, MANY)
"""At which the capacity is measured."""


DEVICE = "device"


def scenarios(capacities: Capacities, *, quick: bool) -> list[Scenario]:
    """All of them, in the order of their running."""
    part = QUICK if quick else 1.0

    def steady(name: str, connections: int, each: float, seconds: float = SECONDS) -> Scenario:
        return _steady(name, Load(connections, rate=connections * each), capacities.at(connections), seconds * part)

    def shared(share: float) -> Scenario:
        capacity = capacities.at(FEW)
        made = _steady(
            f"{share:.0%} of capacity".replace("%", " %"), Load(FEW, share * capacity), capacity, SECONDS * part
        )
        return replace(made, share=share)

    def device(name: str, rate: float, server: str, headers: dict[str, str] | None = None) -> Scenario:
        load = Load(MANY, rate=rate, model=DEVICE, headers=headers or {})
        return replace(_steady(f"{name}, {DEVICE}", load, capacities.device, SECONDS * part), server=server)

    queue, worth = f"a queue of {QUEUE}", f"{WORTH_MS} ms each"
    return [
        steady("100 connections x 10/s", FEW, 10),
        steady("300 connections x 50/s, sustained", 300, 50, SUSTAINED_SECONDS),
        steady("500 connections x 100/s", 500, 100),
        *map(shared, ASKED_SHARES if quick else SHARES),
        steady("1,000 connections, 50 % of capacity", MANY, 0.5 * capacities.at(MANY) / MANY),
        Scenario(f"{FEW} clients x 50 requests, closed loop", Load(FEW, requests=FEW * 50), capacities.at(FEW)),
        Scenario(f"{MANY:,} requests at once", Load(MANY, requests=MANY), capacities.at(MANY)),
        steady("1,000 connections x 500/s", MANY, 500),
        steady("100 connections x 10/s, right after", FEW, 10),
        device(f"1,000 connections x 500/s, {worth}", MANY * 500, "plain", {"X-Request-Timeout": f"{WORTH_MS / 1e3}"}),
        device(f"1,000 connections x 500/s, {queue}", MANY * 500, "bounded"),
        device(f"200 % of capacity, 1,000 connections, {queue}", 2 * capacities.device, "bounded"),
        device(f"10 % of capacity right after, {queue}", 0.1 * capacities.device, "bounded"),
    ]


def _steady(name: str, load: Load, capacity: float, seconds: float) -> Scenario:
    """So many seconds of it, fewer where what falls due beyond the capacity would take too long to be answered."""
    assert load.rate is not None
    seconds = min(seconds, seconds * AT_MOST * capacity / load.rate)
    drains_in = 3 * seconds * load.rate / capacity
    warmup = WARMUP if load.rate <= capacity else 0.0
    load = replace(load, seconds=seconds, drains_in=drains_in, warmup=min(warmup, seconds))
    return Scenario(name, load, capacity, fast=load.connections == FEW)
