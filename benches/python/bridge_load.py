"""The Python half of benches/bridge.rs: 1,000 tasks that await answers through either bridge."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from contenders import MAX_BATCH, WIDTH, double
from measure import facts, paired_ratio, spread, table, write_json

import penstock

if TYPE_CHECKING:
    from collections.abc import Callable

AWAITERS = 1_000
ROUNDS = 30
LIMIT = 10.0


def _loops() -> dict[str, asyncio.AbstractEventLoop]:
    loops: dict[str, asyncio.AbstractEventLoop] = {"asyncio": asyncio.new_event_loop()}
    try:
        import uvloop
    except ImportError:
        print("left out: uvloop is not installed")
    else:
        loops["uvloop"] = uvloop.new_event_loop()
    return loops


class Load:
    """Awaits answers on every loop.

    The stock bridge gives back what it is given, through a future that is ready. Penstock does more in the
    same await: it gathers a row of float32[64], runs a function on a worker thread, and hands out a row.
    """

    def __init__(self, stock_answer: Callable[[Any], Any]) -> None:
        self._loops = _loops()
        self._batcher: penstock.Batcher[Any] = penstock.Batcher(double, max_batch_size=MAX_BATCH)
        self._calls: dict[str, Callable[[Any], Any]] = {"stock": stock_answer, "penstock": self._batcher}
        noise = np.random.default_rng(0).random((AWAITERS, WIDTH), np.float32)
        self._rows = [row.copy() for row in noise]
        for loop in self._loops.values():
            loop.run_until_complete(self._check())

    @property
    def loops(self) -> list[str]:
        """The names of the loops."""
        return list(self._loops)

    @property
    def awaiters(self) -> int:
        """Tasks that await at once."""
        return AWAITERS

    def seconds(self, loop: str, bridge: str, calls: int) -> float:
        """Seconds until each of the tasks has awaited so many answers."""
        return self._loops[loop].run_until_complete(self._burst(self._calls[bridge], calls))

    def compare(self) -> None:
        """Lets the bridges take turns and prints how many times as long the stock bridge takes."""
        times: dict[str, dict[str, list[float]]] = {}
        for loop in self._loops:
            turns: dict[str, list[float]] = {bridge: [] for bridge in self._calls}
            for number in range(ROUNDS):
                for bridge in sorted(turns, reverse=bool(number % 2)):
                    # As much time for the one as for the other: the stock bridge is far slower.
                    calls = 1 if bridge == "stock" else 10
                    seconds = self.seconds(loop, bridge, calls)
                    turns[bridge].append(seconds / (calls * AWAITERS) * 1e6)
            times[loop] = turns
        ratios = {loop: paired_ratio(turns["stock"], turns["penstock"]) for loop, turns in times.items()}
        verdicts = {
            loop: "met" if ratio.low >= LIMIT else "missed" if ratio.high < LIMIT else "open"
            for loop, ratio in ratios.items()
        }
        rows = [
            (loop, spread(turns["stock"]), spread(turns["penstock"]), ratios[loop], verdicts[loop])
            for loop, turns in times.items()
        ]
        head = ["loop", "stock bridge", "penstock worker", "stock / penstock", f"at least {LIMIT:g}"]
        page = (
            f"Microseconds an await, {AWAITERS:,} awaiters, median (least-greatest) of {ROUNDS} interleaved rounds; "
            f"the ratio with its 95 % interval:\n\n{table(head, rows)}"
        )
        print(f"\n{page}", flush=True)
        report = {"facts": facts(), "rounds": ROUNDS, "times_us": times, "ratios": ratios, "verdicts": verdicts}
        if path := os.environ.get("PENSTOCK_BENCH_JSON"):
            write_json(Path(path), report)
            Path(path).with_suffix(".md").write_text(page + "\n", encoding="utf-8")

    def close(self) -> None:
        """Ends the loops and the batcher."""
        self._batcher.close()
        for loop in self._loops.values():
            loop.close()

    async def _check(self) -> None:
        stock = await asyncio.gather(*map(self._calls["stock"], self._rows))
        np.testing.assert_array_equal(np.stack(stock), np.stack(self._rows))
        ours = await asyncio.gather(*map(self._calls["penstock"], self._rows))
        np.testing.assert_array_equal(np.stack(ours), double(np.stack(self._rows)))

    async def _burst(self, call: Callable[[Any], Any], calls: int) -> float:
        async def caller(row: Any) -> None:
            for _ in range(calls):
                await call(row)

        tasks = [asyncio.ensure_future(caller(row)) for row in self._rows]
        gc.collect()
        start = time.perf_counter()
        await asyncio.wait(tasks)
        return time.perf_counter() - start
