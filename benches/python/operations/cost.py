"""A server with every feature of operations on beside one with all of them off, request by request.

On: an access record of each request as JSON, a request id for each, spans of OpenTelemetry at the default ratio, and a
scrape each second. Off: none of these.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from benches.python.door.machine import Launch, serving
from benches.python.door.rounds import progress, spread
from benches.python.door.servers import PENSTOCK_DIALECT
from benches.python.door.story import Bench, Story
from benches.python.door.workload import check, send
from benches.python.measure import paired_ratio, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benches.python.door.machine import Served

APP = Path(__file__).with_name("app.py")
CLIENTS = 64
SECONDS = 4.0
A_SECOND = 60_000
"""Requests that are sent for each second that a visit is to take: enough that ticks of the CPU clock do not count."""
OFF = {"PENSTOCK_TRACING": "off", "PENSTOCK_ACCESS_LOG": "off"}
ON = {
    "PENSTOCK_BENCH_TRACED": "1",
    "PENSTOCK_TRACING": "auto",
    "PENSTOCK_ACCESS_LOG": "on",
    "PENSTOCK_LOG_FORMAT": "json",
}
ONE_BY_ONE = {
    "access log": {**OFF, "PENSTOCK_ACCESS_LOG": "on", "PENSTOCK_LOG_FORMAT": "json"},
    "traces, 1 in 100": {**OFF, "PENSTOCK_TRACING": "auto", "PENSTOCK_BENCH_TRACED": "1"},
    "traces, all": {
        **OFF,
        "PENSTOCK_TRACING": "auto",
        "PENSTOCK_BENCH_TRACED": "1",
        "PENSTOCK_TRACE_RATIO": "1",
        "PENSTOCK_TRACE_LIMIT": "1000000",
    },
}


def launch(name: str, environment: dict[str, str]) -> Launch:
    """The door as `penstock serve` starts it, with these settings."""
    command = (sys.executable, "-m", "penstock", "serve", str(APP), "--port", "{port}")
    return Launch(name, command, "/v2/models/mlp/infer", environment, ready="/v2/health/ready")


def run(bench: Bench) -> Story:
    effort = bench.effort(SECONDS)
    data: dict[str, list[tuple[float, float]]] = {}
    for name, environment in {"all of it": ON, **ONE_BY_ONE}.items():
        with serving(launch("off", OFF), launch(f"on-{name}", environment), logs=bench.logs) as (off, on):
            for server in (off, on):
                check(server, PENSTOCK_DIALECT)
            pairs = []
            for number in range(effort.rounds):
                progress(f"{name}, round {number + 1} of {effort.rounds}")
                order = (off, on) if number % 2 else (on, off)
                cost = {}
                for server in order:
                    watched = scraped(server) if server is on and name == "all of it" else contextlib.nullcontext()
                    with watched:
                        cost[server.name] = cpu_of(server, effort.seconds)
                pairs.append((cost[off.name], cost[on.name]))
            data[name] = pairs
    return Story("What operations cost", told(data), data)


def cpu_of(server: Served, seconds: float) -> float:
    """Microseconds of CPU a request, of 64 clients that each have one under way."""
    before = server.cpu_seconds()
    each = max(50, round(seconds * A_SECOND / CLIENTS))
    report = send(server.url, PENSTOCK_DIALECT, clients=CLIENTS, requests_per_client=each, deadline=seconds * 10 + 30)
    return (server.cpu_seconds() - before) / max(1, report.answered) * 1e6


@contextlib.contextmanager
def scraped(server: Served) -> Iterator[None]:
    over = threading.Event()

    def scrape() -> None:
        while not over.wait(1.0):
            with urllib.request.urlopen(f"{server.base}/metrics", timeout=10) as answer:
                answer.read()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def told(data: dict[str, list[tuple[float, float]]]) -> str:
    rows = []
    for name, pairs in data.items():
        off, on = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        rows.append([name, spread(off), spread(on), str(paired_ratio(on, off))])
    head = ["on", "CPU a request off, µs", "on, µs", "ratio, paired, with 95 %"]
    return f"{CLIENTS} clients, one row of 64 float32 each, as JSON.\n\n" + table(head, rows)
