"""What a request costs from within the process, beside the same over loopback: `python -m benches.python.inside`.

CPU time of the whole process for each request, 64 at a time, of interleaved rounds; the median of them. The model
copies its rows, so that nothing is measured but the way to it and back.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

import penstock
from penstock import _native

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

AT_A_TIME = 64


@penstock.model("copy", inputs={"x": ("float32", [64])}, outputs={"y": ("float32", [64])}, max_batch_size=64)
def copy(x: np.ndarray) -> np.ndarray:
    """Gives its rows back."""
    return x.copy()


class Answering:
    """A thread that answers futures in bursts: what asyncio itself costs."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[asyncio.Future[int]] = []
        self._come = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    async def ask(self) -> int:
        future = self._loop.create_future()
        self._waiting.append(future)
        self._come.set()
        return await future

    def _run(self) -> None:
        while True:
            self._come.wait()
            self._come.clear()
            taken, self._waiting = self._waiting, []
            self._loop.call_soon_threadsafe(_settle, taken)


def _settle(futures: list[asyncio.Future[int]]) -> None:
    for future in futures:
        future.set_result(1)


async def round_of(ask: Callable[[], Awaitable[Any]], requests: int) -> tuple[float, float]:
    """CPU microseconds and wall microseconds for each request."""

    async def caller() -> None:
        for _ in range(requests // AT_A_TIME):
            await ask()

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(AT_A_TIME)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return 1e6 * cpu / requests, 1e6 * wall / requests


async def main(requests: int, rounds: int) -> None:
    x = {"x": np.ones((1, 64), np.float32)}
    async with penstock.Pipeline(copy) as pipeline:
        server = await asyncio.to_thread(pipeline.serve, port=0)
        async with penstock.AsyncClient(server.url) as client:
            future = Answering(asyncio.get_running_loop())
            ways: dict[str, Callable[[], Awaitable[Any]]] = {
                "inside": lambda: pipeline.infer("copy", x),
                "loopback": lambda: client.infer("copy", x),
                "future": future.ask,
            }
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
            for ask in ways.values():
                await round_of(ask, requests // 4)
            for _ in range(rounds):
                for name, ask in ways.items():
                    found[name].append(await round_of(ask, requests))
            before, counted = _native.lock_acquisitions(), pipeline.stats().models["copy"]
            await round_of(ways["inside"], requests)
            taken, after = _native.lock_acquisitions() - before, pipeline.stats().models["copy"]
    for name, times in found.items():
        cpu, wall = (statistics.median(each) for each in zip(*times, strict=True))
        print(f"{name:>9}: {cpu:6.1f} us of CPU a request (median of {rounds}), {wall:6.1f} us of wall")
    batches = after.batches - counted.batches
    print(f"{requests:,} requests inside: {batches:,} batches, {taken:,} acquisitions of the lock")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    asyncio.run(main(options.requests // AT_A_TIME * AT_A_TIME, options.rounds))
