"""A server at 200 % load that nobody looks at, and with its dashboard open and its metrics scraped each second.

What the page asks of the server is asked by a thread: a browser beside the load generator takes CPU from it, and the
server would seem slower than it is. `--chromium` opens a real one all the same, for a machine with cores to spare.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import urllib.request
from typing import TYPE_CHECKING

from benches.python.door.machine import serving
from benches.python.door.rounds import progress, spread
from benches.python.door.servers import PENSTOCK_DIALECT, penstock
from benches.python.door.story import Bench, Story
from benches.python.door.workload import check, send
from benches.python.measure import table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benches.python.door.machine import Served

CHROMIUM = "PENSTOCK_BENCH_CHROMIUM"
CLIENTS = 256
SECONDS = 6.0
WARM = 200
OVERLOAD = 2.0
SETTLES = 2.0
Figures = dict[str, float]


def run(bench: Bench) -> Story:
    effort = bench.effort(SECONDS)
    with serving(penstock(), logs=bench.logs) as (server,), contextlib.ExitStack() as stack:
        check(server, PENSTOCK_DIALECT)
        capacity = send(server.url, PENSTOCK_DIALECT, clients=64, requests_per_client=WARM).requests_per_second
        rate = OVERLOAD * capacity
        look = stack.enter_context(looking())
        rounds: list[tuple[Figures, Figures]] = []
        for number in range(effort.rounds):
            progress(f"round {number + 1} of {effort.rounds}")
            pair: dict[bool, Figures] = {}
            for watched in (bool(number % 2), not number % 2):
                with look(server) if watched else contextlib.nullcontext():
                    time.sleep(0 if bench.quick else SETTLES)
                    pair[watched] = visit(server, rate, effort.seconds)
            rounds.append((pair[False], pair[True]))
    return Story("Watched at 200 % load", told(rounds, capacity, rate), [{"quiet": a, "watched": b} for a, b in rounds])


def visit(server: Served, rate: float, seconds: float) -> Figures:
    """So many requests a second, whatever the server does."""
    before = server.cpu_seconds()
    report = send(
        server.url, PENSTOCK_DIALECT, clients=CLIENTS, rate=rate, duration=seconds, deadline=10 * seconds + 10
    )
    cpu = server.cpu_seconds() - before
    return {
        "answered_per_second": report.ok / report.seconds,
        "cpu_us": cpu / max(1, report.answered) * 1e6,
        "p50_ms": report.p50 * 1e3,
        "p99_ms": report.p99 * 1e3,
        "not_ok": float(report.planned - report.ok) / max(1, report.planned),
    }


def told(rounds: list[tuple[Figures, Figures]], capacity: float, rate: float) -> str:
    rows = []
    for key, name in (
        ("answered_per_second", "answers a second"),
        ("cpu_us", "CPU a request, µs"),
        ("p50_ms", "p50, ms"),
        ("p99_ms", "p99, ms"),
    ):
        quiet, watched = [a[key] for a, _ in rounds], [b[key] for _, b in rounds]
        ratios = [b / a for a, b in zip(quiet, watched, strict=True) if a]
        rows.append([name, spread(quiet), spread(watched), spread(ratios, 3)])
    eyes = "a real Chromium" if has_chromium() else "requests as the page sends them"
    head = ["", "nobody looks", "dashboard open, scraped each second", "ratio, round by round"]
    return f"Capacity {capacity:,.0f} requests a second, offered {rate:,.0f}; the dashboard is {eyes}.\n\n" + table(
        head, rows
    )


def has_chromium() -> bool:
    return CHROMIUM in os.environ


@contextlib.contextmanager
def looking() -> Iterator[Looking]:
    """Who looks: a browser that is there all the time, with or without a page."""
    if not has_chromium():
        yield Looking(None)
        return
    from tests.interop.support.chromium import chromium

    with chromium() as browser:
        yield Looking(browser)


class Looking:
    """Opens the dashboard of a server, and scrapes it, for as long as it is held."""

    def __init__(self, browser: object | None) -> None:
        self._browser = browser

    @contextlib.contextmanager
    def __call__(self, server: Served) -> Iterator[None]:
        over = threading.Event()
        scrapes = [threading.Thread(target=scrape, args=(server, over))]
        visit = None
        if self._browser is None:
            scrapes.append(threading.Thread(target=scrape, args=(server, over, ("/v2/health/ready", "/v2"))))
        else:
            from tests.interop.support.chromium import Sync, Visit

            assert isinstance(self._browser, Sync)
            visit = Visit(self._browser, f"{server.base}/dashboard")
        for thread in scrapes:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in scrapes:
                thread.join()
            if visit is not None:
                visit.close()


def scrape(server: Served, over: threading.Event, seldom: tuple[str, ...] = ()) -> None:
    """Reads the metrics once a second, and what is asked `seldom` every fifth time."""
    times = 0
    while not over.wait(1.0):
        for path in ("/metrics", *(() if times % 5 else seldom)):
            with urllib.request.urlopen(server.base + path, timeout=30) as answer:
                answer.read()
        times += 1
