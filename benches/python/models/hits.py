"""What a hit costs from Python, alone and while three other models are being loaded."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import penstock
from benches.python.measure import spread, table
from benches.python.models.story import Rounds, Story

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HITS = 100_000
SLOW = ("slow0", "slow1", "slow2")


class Empty:
    """A block that does nothing, entered and left as a model is: what Python itself costs."""

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


async def async_blocks(make: Callable[[], Any], count: int) -> None:
    for _ in range(count):
        async with make():
            pass


async def blocks(make: Callable[[], Any], count: int) -> None:
    for _ in range(count):
        with make():
            pass


async def leases(make: Callable[[], Any], count: int) -> None:
    for _ in range(count):
        (await make()).release()


def measured(way: Callable[..., Awaitable[None]], make: Callable[[], Any], count: int) -> float:
    """Microseconds for one."""

    async def main() -> float:
        await way(make, count // 10)
        began = time.perf_counter()
        await way(make, count)
        return (time.perf_counter() - began) / count * 1e6

    return asyncio.run(main())


def run(rounds: Rounds) -> Story:
    count = HITS // (20 if rounds.quick else 1)
    gate = threading.Event()
    with penstock.ModelCache(memory="1GiB") as cache:
        cache.loader("resident")(lambda _ctx: ["model"])
        for name in SLOW:
            # A load that reads a file, or waits for a device, leaves the interpreter to others.
            cache.loader(name, timeout=3600)(lambda _ctx: gate.wait())
        cache.preload("resident").wait()
        ways: dict[str, tuple[Callable[..., Awaitable[None]], Callable[[], Any]]] = {
            "an empty `async with`": (async_blocks, Empty),
            "`async with cache.acquire(...)`": (async_blocks, lambda: cache.acquire("resident")),
            "`with cache.acquire(...)`": (blocks, lambda: cache.acquire("resident")),
            "`await cache.acquire(...)`": (leases, lambda: cache.acquire("resident")),
            "with a session": (async_blocks, lambda: cache.acquire("resident", session="user")),
        }
        found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in ways}
        for _ in range(rounds.count):
            for name, (way, make) in ways.items():
                found[name][0].append(measured(way, make, count))
            loading = cache.preload(*SLOW)
            while cache.stats().loading < len(SLOW):
                time.sleep(0.01)
            for name, (way, make) in ways.items():
                found[name][1].append(measured(way, make, count))
            gate.set()
            loading.wait()
            gate.clear()
            for name in SLOW:
                cache.unload(name).wait()
        assert cache.stats().misses == 0
    rows = [(name, spread(alone), spread(busy)) for name, (alone, busy) in found.items()]
    text = table(("microseconds", "alone", "while three models load"), rows)
    return Story("A hit", text, {name: {"alone": alone, "loading": busy} for name, (alone, busy) in found.items()})
