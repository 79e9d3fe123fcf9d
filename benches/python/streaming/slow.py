"""Readers that do not read: whether those who share a batch with them notice. And what streams take of memory."""

from __future__ import annotations

import re
import threading
import time
from collections import defaultdict
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Self

import numpy as np

from benches.python.door.machine import serving
from benches.python.door.rounds import progress, spread
from benches.python.door.story import Bench, Story
from benches.python.measure import table
from benches.python.streaming.ask import Flow
from benches.python.streaming.pour import pour
from benches.python.streaming.servers import cpu_of, penstock

if TYPE_CHECKING:
    from types import TracebackType

    from benches.python.door.machine import Served

STREAMS = 1000
SLOW = 0.1
FLOW = Flow(burst=1, pause_ms=50, tokens=300, bytes=1024)
# Large tokens: the kernel takes megabytes for each of them before anybody has to wait for its reader.
UNREAD = Flow(burst=1, pause_ms=50, tokens=2048, bytes=65_536)
# Tokens until those are all at rest; what comes before is not counted.
SETTLED = 150
FOUR_KIB = Flow(burst=1, pause_ms=20, tokens=100, bytes=4096)
LARGE = Flow(burst=64, pause_ms=1, tokens=25_600, bytes=4096)
LOOK = 0.01


def run(bench: Bench) -> Story:
    streams = 50 if bench.quick else STREAMS
    flow, settled = (replace(FLOW, tokens=20), 0) if bench.quick else (FLOW, SETTLED)
    results: dict[str, list[float]] = defaultdict(list)
    rested: dict[str, list[float]] = defaultdict(list)
    with serving(penstock(), logs=bench.logs) as (server,):
        for number in range(1 if bench.quick else min(3, bench.rounds)):
            for name, slow in (("all read", 0), ("a tenth do not", int(streams * SLOW))):
                progress(f"slow readers, round {number + 1}: {name}")
                before = _pauses(server)
                seen = pour(server.port, flow, streams - slow, cpu_of(server), (UNREAD, slow), after=settled)
                rested[name].append(_pauses(server) - before)
                results[name].append(float(np.percentile(seen.gaps, 99)) * 1e3)
    memory = [_memory(bench, *one) for one in (("200 streams of 4 KiB tokens", FOUR_KIB, 200), ("100 MB", LARGE, 1))]
    rows = [[name, spread(values, 2), spread(rested[name], 0)] for name, values in results.items()]
    ratio = [late / early for early, late in zip(results["all read"], results["a tenth do not"], strict=True)]
    parts = [
        f"{streams:,} streams of one batch, a token of 1 KiB every {FLOW.pause_ms} ms:",
        table(["readers", "gap p99 ms of those who read", "pauses"], rows),
        f"With ÷ without: {median(ratio):.3f}.",
        table(["streams", "MiB above idle, at most"], memory),
    ]
    data = {"gap_p99_ms": dict(results), "pauses": dict(rested), "memory_mib": dict(memory)}
    return Story("Slow readers, and memory", "\n\n".join(parts), data)


def _pauses(server: Served) -> float:
    """How often a stream had to wait for its reader."""
    found = re.findall(r"^penstock_stream_pauses_total(?:\{[^}]*\})? (\S+)", server.get("/metrics"), re.MULTILINE)
    return sum(map(float, found))


def _memory(bench: Bench, name: str, flow: Flow, streams: int) -> list[str]:
    if bench.quick:
        flow, streams = replace(flow, tokens=64), min(streams, 20)
    # A server of its own, which has had one request: what it takes once, it does not take for every stream.
    with serving(replace(penstock(), name=f"penstock {name}"), logs=bench.logs) as (server,):
        pour(server.port, replace(flow, tokens=flow.burst), 1, cpu_of(server))
        progress(f"memory: {name}")
        with Resident(server) as resident:
            pour(server.port, flow, streams, cpu_of(server))
    return [name, f"{resident.above_kib / 1024:.1f}"]


class Resident:
    """The most that a server has in memory while the block runs, above what it had before."""

    def __init__(self, server: Served) -> None:
        self._server = server
        self._ended = threading.Event()
        self._idle = server.rss_kib()
        self.above_kib = 0.0

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.is_set():
            self.above_kib = max(self.above_kib, self._server.rss_kib() - self._idle)
            time.sleep(LOOK)
