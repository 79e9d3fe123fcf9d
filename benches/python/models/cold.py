"""Many who ask for one model that is not loaded: one load, and how long it takes until the last of them has it."""

from __future__ import annotations

import asyncio
import time

import penstock
from benches.python.measure import spread, table
from benches.python.models.story import Rounds, Story

CROWD = 1000
LOAD_SECONDS = 0.05


def crowd(cache: penstock.ModelCache) -> float:
    """Seconds beyond the load itself."""

    async def one() -> None:
        async with cache.acquire("model"):
            pass

    async def main() -> float:
        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(CROWD)))
        return time.perf_counter() - began - LOAD_SECONDS

    return asyncio.run(main())


def round_trip(cache: penstock.ModelCache) -> float:
    """Seconds for a load of nothing, and the unload after it."""
    began = time.perf_counter()
    with cache.acquire("nothing"):
        pass
    cache.unload("nothing").wait()
    return time.perf_counter() - began


def run(rounds: Rounds) -> Story:
    crowds: list[float] = []
    trips: list[float] = []
    with penstock.ModelCache() as cache:
        cache.loader("model")(lambda _ctx: time.sleep(LOAD_SECONDS) or ["model"])
        cache.loader("nothing")(lambda _ctx: ["model"])
        for _ in range(rounds.count):
            before = cache.stats().loads
            crowds.append(crowd(cache) * 1e3)
            assert cache.stats().loads == before + 1
            cache.unload("model").wait()
            trips += [round_trip(cache) * 1e6 for _ in range(10 if rounds.quick else 200)]
    rows = [
        (f"{CROWD} tasks that ask at once: beyond the load, until the last has it", "ms", spread(crowds)),
        ("a load of nothing, and its unload", "µs", spread(trips, 0)),
    ]
    return Story("A cold model", table(("", "unit", ""), rows), {"crowd_ms": crowds, "round_trip_us": trips})
