"""`await f(x)` through Penstock, through good plain-Python batchers, and through the package `batched`.

All contenders live in one process and take turns, in another order each round; every pair is compared round
by round. Wall time is that of the whole measurement. CPU time is the process's (`time.process_time_ns`): user
and system time of every thread, the worker's included. Both are divided by the number of awaits.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from contenders import (
    WIDTH,
    Contender,
    bare_future,
    bare_future_and_function,
    batched_peers,
    double,
    ours,
    ours_without_function,
    plain,
)
from measure import Ratio, described, facts, paired_ratio, spread, table, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

AWAITERS = 1_000
WARM_UP = 2

PAIRS = {
    AWAITERS: [
        ("penstock worker", "plain worker", 1.0),
        ("penstock inline", "plain inline", 1.0),
        ("penstock worker", "batched worker", 0.2),
        ("penstock inline", "batched inline", 0.2),
    ],
    1: [
        ("penstock inline", "bare future", 1.5),
        ("penstock inline", "bare future + function", None),
        ("penstock inline, no function", "bare future", None),
        ("penstock inline", "plain inline", None),
        ("penstock worker", "plain worker", None),
    ],
}
"""Who is divided by whom, and what the quotient may be at most: `None` where it is reported as it is."""


@dataclass
class Times:
    """Microseconds an await, one number a round."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


@dataclass
class Scene:
    """All contenders on one event loop, with so many tasks that await at once."""

    loop: str
    awaiters: int
    times: dict[str, Times]

    def pairs(self) -> list[dict[str, Any]]:
        """The comparisons whose contenders both took part."""
        found = []
        for one, other, limit in PAIRS[self.awaiters]:
            if one in self.times and other in self.times:
                above, below = self.times[one], self.times[other]
                wall, cpu = paired_ratio(above.wall, below.wall), paired_ratio(above.cpu, below.cpu)
                found.append(
                    {
                        "loop": self.loop,
                        "awaiters": self.awaiters,
                        "pair": f"{one} / {other}",
                        "limit": limit,
                        "wall": wall,
                        "cpu": cpu,
                        "verdict": f"{verdict(wall, limit)}, {verdict(cpu, limit)}",
                    }
                )
        return found


def verdict(ratio: Ratio, limit: float | None) -> str:
    """What the interval says; a limit inside it is a question left open."""
    if limit is None or limit == 1.0:
        return "faster" if ratio.high < 1.0 else "slower" if ratio.low > 1.0 else "no difference"
    return "met" if ratio.high <= limit else "missed" if ratio.low > limit else "open"


async def many(contender: Contender, rows: list[Any]) -> tuple[float, float]:
    """As many tasks as rows, each awaiting its row again and again."""

    async def caller(row: Any) -> None:
        for _ in range(contender.calls):
            await contender.call(row)

    tasks = [asyncio.ensure_future(caller(row)) for row in rows]
    gc.collect()
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    await asyncio.wait(tasks)
    elapsed = _per_await(wall, cpu, len(rows) * contender.calls)
    for task in tasks:
        task.result()
    return elapsed


async def alone(contender: Contender, rows: list[Any]) -> tuple[float, float]:
    """One task, one await at a time; a worker thread's round trip is long, so there are fewer of them."""
    row = rows[0]
    count = 500 if contender.name.endswith("worker") else 2_000
    gc.collect()
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    for _ in range(count):
        await contender.call(row)
    return _per_await(wall, cpu, count)


def _per_await(wall: int, cpu: int, awaits: int) -> tuple[float, float]:
    return (time.perf_counter_ns() - wall) / awaits / 1e3, (time.process_time_ns() - cpu) / awaits / 1e3


async def check(contender: Contender, rows: list[Any]) -> None:
    """Fast and wrong would be no contest."""
    if contender.answers:
        answers = await asyncio.gather(*map(contender.call, rows))
        np.testing.assert_array_equal(np.stack(answers), double(np.stack(rows)), err_msg=contender.name)
        await contender.rest()


async def take_turns(
    loop: str,
    contenders: list[Contender],
    rows: list[Any],
    rounds: int,
    measure: Callable[[Contender, list[Any]], Coroutine[Any, Any, tuple[float, float]]],
) -> Scene:
    """Measures every contender once a round. The order rotates and reverses: nobody always follows one."""
    times = {contender.name: Times() for contender in contenders}
    for contender in contenders:
        await check(contender, rows)
    for number in range(-WARM_UP, rounds):
        shift = number % len(contenders)
        order = contenders[shift:] + contenders[:shift]
        for contender in reversed(order) if number % 2 else order:
            wall, cpu = await measure(contender, rows)
            await contender.rest()
            if number >= 0:
                times[contender.name].wall.append(wall)
                times[contender.name].cpu.append(cpu)
    return Scene(loop, AWAITERS if measure is many else 1, times)


async def scenes(loop: str, rounds: int) -> list[Scene]:
    """What is measured on one event loop."""
    noise = np.random.default_rng(0).random((AWAITERS, WIDTH), np.float32)
    rows = [row.copy() for row in noise]
    both = [make(workers) for workers in ("worker", "inline") for make in (plain, ours)]
    crowd = [bare_future(), *both, *batched_peers()]
    lone = [bare_future(), bare_future_and_function(), *both, ours_without_function()]
    found = [
        await take_turns(loop, crowd, rows, rounds, many),
        await take_turns(loop, lone, rows, rounds, alone),
    ]
    for contender in (*crowd, *lone):
        contender.close()
    return found


def measured(rounds: int) -> list[Scene]:
    """Every scene on every event loop that is here."""
    found = asyncio.run(scenes("asyncio", rounds))
    try:
        import uvloop
    except ImportError:
        print("left out: uvloop is not installed\n")
        return found
    return found + uvloop.run(scenes("uvloop", rounds))


def report(found: list[Scene], pairs: list[dict[str, Any]], rounds: int) -> str:
    """The tables."""
    times = [
        (scene.loop, f"{scene.awaiters:,}", name, spread(times.wall), spread(times.cpu))
        for scene in found
        for name, times in scene.times.items()
    ]
    ratios = [
        (
            pair["loop"],
            f"{pair['awaiters']:,}",
            pair["pair"],
            "" if pair["limit"] is None else f"≤ {pair['limit']:g}",
            *(pair["wall"], pair["cpu"], pair["verdict"]),
        )
        for pair in pairs
    ]
    return "\n\n".join(
        [
            f"Microseconds an await, median (least-greatest) of {rounds} interleaved rounds:",
            table(["loop", "awaiters", "contender", "wall", "CPU"], times),
            "Ratios of pairs with 95 % intervals; below 1, Penstock is faster. Verdicts on wall and CPU time:",
            table(["loop", "awaiters", "pair", "limit", "wall", "CPU", "verdicts"], ratios),
        ]
    )


def main() -> int:
    """Prints the tables and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="measurements of each contender (default 40)")
    parser.add_argument("--quick", action="store_true", help="5 rounds: a smoke test, no result")
    parser.add_argument("--json", type=Path, help="where to write everything that was measured")
    arguments = parser.parse_args()
    rounds = 5 if arguments.quick else arguments.rounds

    machine = facts()
    print(f"{described(machine)}\n")
    found = measured(rounds)
    pairs = [pair for scene in found for pair in scene.pairs()]
    print(report(found, pairs, rounds))
    write_json(
        arguments.json,
        {
            "facts": machine,
            "rounds": rounds,
            "unit": "µs an await; CPU is user and system time of all threads of the process",
            "scenes": [
                {"loop": scene.loop, "awaiters": scene.awaiters, "contender": name, **asdict(times)}
                for scene in found
                for name, times in scene.times.items()
            ],
            "pairs": pairs,
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
