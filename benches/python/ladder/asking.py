"""The load: one event loop that asks with the product's own client, in the closed loop or at a given rate."""

from __future__ import annotations

import asyncio
import math
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np

import penstock
from benches.python.door.machine import NotServing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping

    from benches.python.ladder.questions import Answer, Call, Rows, Texts
    from benches.python.ladder.rungs import Rung

Figures = dict[str, float]
Item = TypeVar("Item")
PATIENCE = 120.0
"""Seconds that a phase may take: something hangs after that."""


@dataclass
class Seen:
    """What the client saw of a phase.

    Attributes:
        seconds: from the first request to the last answer.
        cpu: seconds of CPU that this process had meanwhile.
        took: seconds of each request.
        answers: all of them.
        created: connections that were opened.
        reuse: the share of requests whose connection had carried another before.
    """

    seconds: float = 0.0
    cpu: float = 0.0
    took: list[float] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    created: int = 0
    reuse: float = 0.0

    def figures(self) -> Figures:
        """Rates and latencies."""
        count = len(self.took)
        milliseconds = np.asarray(self.took) * 1e3
        found = {
            "requests": float(count),
            "requests_per_second": count / self.seconds,
            "client_us": self.cpu / count * 1e6,
            "connections": self.created / count * 1e3,
            "reuse": self.reuse,
            "max_ms": float(milliseconds.max()),
        }
        for name, part in (("p50_ms", 50), ("p95_ms", 95), ("p99_ms", 99), ("p999_ms", 99.9)):
            found[name] = float(np.percentile(milliseconds, part))
        firsts = [answer.first * 1e3 for answer in self.answers if answer.first is not None]
        if firsts:
            found["first_ms"] = float(np.median(firsts))
        return found


@dataclass(frozen=True)
class Load:
    """How it is asked.

    Attributes:
        clients: requests that are out at a time, in the closed loop.
        seconds: no request begins later than that, but for the least.
        rate: requests a second that fall due at random moments, whatever the server does: the open loop.
        least: requests that are asked however long they take, where there are so many.
    """

    clients: int
    seconds: float = math.inf
    rate: float | None = None
    least: int = 0


def ask(url: str, rung: Rung, calls: Iterator[Call], known: Mapping[str, Rows | Texts], load: Load) -> Seen:
    """Asks until the calls are used up or the time is, and waits for the last answer.

    Raises:
        NotServing: where a request was answered with an error, or not at all.
    """
    return in_time(rung, _ask(url, rung, calls, known, load))


def in_time(rung: Rung, work: Coroutine[None, None, Item]) -> Item:
    """Runs what asks a server.

    Raises:
        NotServing: where a request was answered with an error, or not at all.
    """
    try:
        return asyncio.run(asyncio.wait_for(work, PATIENCE))
    except* (NotServing, penstock.PenstockError) as failures:
        first = failures.exceptions[0]
        raise NotServing(f"{rung.name}: {type(first).__name__}: {first}") from first
    except* TimeoutError:
        raise NotServing(f"{rung.name}: not answered within {PATIENCE:.0f} s") from None


async def _ask(url: str, rung: Rung, calls: Iterator[Call], known: Mapping[str, Rows | Texts], load: Load) -> Seen:
    seen = Seen()
    async with penstock.AsyncClient(url, pool=rung.pool()) as client:
        clock = time.perf_counter

        async def one(call: Call, due: float) -> None:
            answer = await known[call.model].ask(client, call)
            seen.took.append(clock() - due)
            seen.answers.append(answer)

        began, spent = clock(), time.process_time()
        await (_closed(one, calls, load) if load.rate is None else _paced(one, calls, load, load.rate))
        seen.seconds, seen.cpu = clock() - began, time.process_time() - spent
        total = client.stats().total
        seen.created, seen.reuse = total.created, total.reuse_rate
    return seen


async def _closed(one: Callable[[Call, float], Awaitable[None]], calls: Iterator[Call], load: Load) -> None:
    """So many tasks, each of which asks again as soon as it was answered."""
    clock = time.perf_counter
    until = clock() + load.seconds
    begun = 0

    async def again() -> None:
        nonlocal begun
        while ((asked := clock()) < until or begun < load.least) and (call := next(calls, None)) is not None:
            begun += 1
            await one(call, asked)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(load.clients):
            tasks.create_task(again())


async def _paced(
    one: Callable[[Call, float], Coroutine[None, None, None]], calls: Iterator[Call], load: Load, rate: float
) -> None:
    """At the same random moments every time; a latency counts from the moment that its request was due."""
    clock, source = time.perf_counter, random.Random(29)
    due = clock()
    until = due + load.seconds
    begun = 0
    async with asyncio.TaskGroup() as tasks:
        while (due < until or begun < load.least) and (call := next(calls, None)) is not None:
            begun += 1
            # A loop that is late has nothing to wait for: it sends all that is due.
            if (early := due - clock()) > 0:
                await asyncio.sleep(early)
            tasks.create_task(one(call, due))
            due += source.expovariate(rate)
