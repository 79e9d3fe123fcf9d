"""What a client is put through, in its own process; every function gives the figures of one table's cell."""

from __future__ import annotations

import asyncio
import gc
import http.client
import importlib
import itertools
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from benches.python.client.clients import Setup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PAGE = os.sysconf("SC_PAGE_SIZE")
CLOCK_TICK = os.sysconf("SC_CLK_TCK")
SETTLES_IN = 0.3
SERVER: list[int] = []
"""The server's processes."""
Figures = dict[str, Any]


async def run(client: Any, load: dict[str, Any]) -> Figures:
    """The load that `load["kind"]` names, with the rest for its arguments."""
    arguments = dict(load)
    kind = KINDS[arguments.pop("kind")]
    setup = Setup(**arguments.pop("setup"))
    return await kind(client, setup, **arguments)


async def closed(
    client: Any, setup: Setup, *, tasks: int, seconds: float, warm: float, method: str = "get", fresh: bool = False
) -> Figures:
    """So many tasks, each of which asks again as soon as it was answered; `fresh`: with a new client each time."""
    async with client(setup) as shared:
        ask = getattr(shared, method)

        async def alone() -> None:
            async with client(setup) as mine:
                await getattr(mine, method)()

        wanted = alone if fresh else ask
        await _loop_closed(wanted, tasks, warm)
        return await _measured(lambda: _loop_closed(wanted, tasks, seconds))


async def _loop_closed(ask: Callable[[], Awaitable[None]], tasks: int, seconds: float) -> list[float]:
    clock = time.perf_counter
    until = clock() + seconds
    took: list[float] = []

    async def one() -> None:
        while (began := clock()) < until:
            await ask()
            took.append(clock() - began)

    await asyncio.gather(*(one() for _ in range(tasks)))
    return took


async def _measured(work: Callable[[], Awaitable[list[float]]]) -> Figures:
    before = _moment()
    took = await work()
    return {**_rates(len(took), before, _moment()), **_percentiles(took)}


def _moment() -> tuple[float, float, float]:
    """The time, and the CPU time of this process and of the server, in seconds."""
    server = 0.0
    for number in SERVER:
        with open(f"/proc/{number}/stat", encoding="ascii") as file:  # noqa: PTH123 - between two loads
            fields = file.read().rsplit(")", 1)[1].split()
        server += (int(fields[11]) + int(fields[12])) / CLOCK_TICK
    return time.perf_counter(), time.process_time(), server


def _rates(requests: int, before: tuple[float, ...], after: tuple[float, ...]) -> Figures:
    lasted, spent, server = (late - early for early, late in zip(before, after, strict=True))
    return {
        "requests": requests,
        "cpu_us": spent / requests * 1e6,
        "requests_per_second": requests / lasted,
        "cpus": spent / lasted,
        "server_cpu_us": server / requests * 1e6,
        "server_cpus": server / lasted,
    }


def _percentiles(took: list[float]) -> Figures:
    took.sort()
    return {f"p{part}_us": took[min(len(took) - 1, len(took) * part // 100)] * 1e6 for part in (50, 99)}


async def many(client: Any, setup: Setup, *, count: int, seconds: float, warm: float) -> Figures:
    """So many at once, and again, each lot as one call."""
    async with client(setup) as shared:

        async def lots(length: float) -> list[float]:
            took = []
            until = time.perf_counter() + length
            while (began := time.perf_counter()) < until:
                await shared.many(count)
                took.append(time.perf_counter() - began)
            return took

        await lots(warm)
        figures = await _measured(lambda: lots(seconds))
    # Of a lot, that was; a request is wanted.
    each = {"requests": count, "requests_per_second": count, "cpu_us": 1 / count, "server_cpu_us": 1 / count}
    return {name: value * each.get(name, 1) for name, value in figures.items()}


async def queued(client: Any, setup: Setup, *, tasks: int, requests: int) -> Figures:
    """`tasks` outstanding at every moment before few connections; measured from one lap on, over so many requests.

    In a closed loop the numbers given at the start come back in order where the queue is fair; `overtaken` is the
    greatest difference between the place of a request when it asked and its place when it was answered.
    """
    numbers = itertools.count()
    order: list[int] = []
    took: list[float] = []
    marks: list[tuple[float, ...]] = []
    last = tasks + requests
    accepted, _ = _server_counts(setup)
    async with client(setup) as shared:
        clock, ask = time.perf_counter, shared.get

        async def one() -> None:
            while len(marks) < 2:
                number, began = next(numbers), clock()
                await ask()
                took.append(clock() - began)
                order.append(number)
                if len(order) == tasks or len(order) == last:
                    marks.append(_moment())

        await asyncio.gather(*(one() for _ in range(tasks)))
    # Not every client has closed its sockets when it says so, and the next load's are counted.
    await asyncio.sleep(SETTLES_IN)
    overtaken = [abs(number - place) for place, number in enumerate(order[:last])]
    return {
        **_rates(requests, *marks),
        **_percentiles(took[tasks:last]),
        "overtaken": max(overtaken),
        "connections": _server_counts(setup)[0] - accepted - 1,
    }


async def reused(client: Any, setup: Setup, *, tasks: int, each: int) -> Figures:
    """So many tasks and so many requests of each, on one client; how many connections the server saw."""
    async with client(setup) as shared:
        accepted, served = _server_counts(setup)

        async def one() -> list[float]:
            took = []
            for _ in range(each):
                began = time.perf_counter()
                await shared.get()
                took.append(time.perf_counter() - began)
            return took

        async def all_of_them() -> list[float]:
            return list(itertools.chain(*await asyncio.gather(*(one() for _ in range(tasks)))))

        figures = await _measured(all_of_them)
        stats = shared.stats() if hasattr(shared, "stats") else ""
        accepted_after, served_after = _server_counts(setup)
    # The second look at the server is a connection and a request of its own.
    connections, requests = accepted_after - accepted - 1, served_after - served - 1
    return {**figures, "connections": connections, "reuse": 1 - connections / requests, "stats": stats}


async def memory(client: Any, setup: Setup, *, connections: int) -> Figures:
    """Resident memory by the step: the client made and warm on one connection, then all of them open at once."""
    for module in client.modules:
        importlib.import_module(module)
    _server_counts(setup)
    await asyncio.gather(*(asyncio.sleep(0.01) for _ in range(connections)))
    before = _resident_kib()
    quick = replace(setup, path="/data")
    async with client(quick) as first:
        await first.get()
    one = _resident_kib()
    async with client(setup) as shared:
        # The path is slow: every request is under way before the first is answered, so each has a connection.
        await asyncio.gather(*(shared.get() for _ in range(connections)))
        open_now = _server_active(setup) - 1
        full = _resident_kib()
    return {"before_kib": before, "first_kib": one - before, "open_kib": full - before, "open": open_now}


def _resident_kib() -> float:
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - pathlib is memory to measure
        return int(file.read().split()[1]) * PAGE / 1024


def _status(setup: Setup) -> list[int]:
    """nginx's own count: active, accepted, handled, requests, reading, writing, waiting."""
    asked = http.client.HTTPConnection(urlsplit(setup.base).netloc, timeout=10)
    asked.request("GET", "/status", headers={"connection": "close"})
    text = asked.getresponse().read().decode()
    asked.close()
    return [int(word) for word in text.split() if word.isdigit()]


def _server_counts(setup: Setup) -> tuple[int, int]:
    found = _status(setup)
    return found[1], found[3]


def _server_active(setup: Setup) -> int:
    return _status(setup)[0]


KINDS = {"closed": closed, "many": many, "queued": queued, "reused": reused, "memory": memory}
