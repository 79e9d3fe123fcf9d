"""MiniLM through the server beside the same model in a plain loop: CPU by the row over the very same batches.

The plain loop is in the main thread, as a script has it; the server's model runs in a thread of its own, whose memory
glibc takes from another arena, and may give back to the kernel after every batch. So there is a second server that was
started with MALLOC_ARENA_MAX=1: where it is cheaper, that is what the difference was.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benches.python.door.machine import ROOT, SERVER_CPU, Launch, NotServing, Served, serving
from benches.python.door.rounds import Figures, counters, growth, progress, spread
from benches.python.door.servers import Absent, penstock
from benches.python.door.story import Bench, Story
from benches.python.door.workload import compact
from benches.python.measure import table
from examples.demo_subjects import sentences
from examples.minilm import MiniLM, MiniLMMissing
from penstock import testing

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZES = (32, 64)
ROWS = 384
SECONDS = 2.0
PLAIN = "plain loop"

LOOP = """
import json, sys, time
from examples.minilm import MiniLM
model = MiniLM.load()
for line in sys.stdin:
    batches, times = json.loads(line)
    before = time.process_time()
    for _ in range(times):
        for batch in batches:
            model.encode(batch)
    print(time.process_time() - before, flush=True)
"""


def run(bench: Bench) -> Story:
    try:
        model = MiniLM.load()
    except MiniLMMissing as missing:
        raise Absent(str(missing)) from missing
    texts = sentences(ROWS)
    effort = bench.effort(SECONDS)
    results: dict[tuple[int, str], list[Figures]] = defaultdict(list)
    with serving(*_launches(), logs=bench.logs) as servers, _loop() as loop:
        for size in SIZES:
            batches = [texts[start : start + size] for start in range(0, ROWS, size)]
            for server in servers:
                _check(server, model, batches)
            times = _times(loop, batches, effort.seconds)
            for number in range(effort.rounds):
                progress(f"batches of {size}, round {number + 1} of {effort.rounds}")
                for name, figures in _round(servers, loop, batches, times, number).items():
                    results[size, name].append(figures)
    rows = [
        [size, name, *(spread([one[key] for one in rounds if key in one], digits) for _, key, digits in COLUMNS)]
        for (size, name), rounds in results.items()
    ]
    text = table(["rows a request", "where", *(title for title, *_ in COLUMNS)], rows)
    data = [{"rows": size, "where": name, "rounds": rounds} for (size, name), rounds in results.items()]
    return Story("MiniLM", text, data)


COLUMNS = (
    ("CPU µs/row", "cpu_us", 0),
    ("÷ plain loop", "ratio", 3),
    ("page faults/batch", "faults", 0),
    ("rows/batch", "rows_per_batch", 1),
)


def _launches() -> list[Launch]:
    plain = penstock("minilm", path="minilm")
    one_arena = {**plain.environment, "MALLOC_ARENA_MAX": "1"}
    return [plain, replace(plain, name="penstock, MALLOC_ARENA_MAX=1", environment=one_arena)]


@contextmanager
def _loop() -> Iterator[subprocess.Popen[str]]:
    """The model in a process of its own, on the server's CPU; it works when it is asked."""
    command = ["taskset", "-c", SERVER_CPU, sys.executable, "-c", LOOP]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _run_loop(loop: subprocess.Popen[str], batches: list[list[str]], times: int) -> float:
    """CPU seconds of the plain loop."""
    assert loop.stdin is not None
    assert loop.stdout is not None
    print(json.dumps([batches, times]), file=loop.stdin, flush=True)
    return float(loop.stdout.readline())


def _times(loop: subprocess.Popen[str], batches: list[list[str]], seconds: float) -> int:
    _run_loop(loop, batches, 1)
    return max(1, round(seconds / _run_loop(loop, batches, 1)))


def _bodies(batches: list[list[str]]) -> list[bytes]:
    return [compact(testing.infer_body({"text": ("BYTES", [len(batch)], batch)})) for batch in batches]


def _round(
    servers: list[Served], loop: subprocess.Popen[str], batches: list[list[str]], times: int, number: int
) -> dict[str, Figures]:
    """Every place once, in turning order; ratios are to the plain loop of this round."""
    rows = times * sum(map(len, batches))
    calls = times * len(batches)
    figures: dict[str, Figures] = {}
    places: list[Served | None] = [None, *servers]
    first = number % len(places)
    for place in [*places[first:], *places[:first]]:
        if place is None:
            faults = _faults(loop.pid)
            seconds = _run_loop(loop, batches, times)
            figures[PLAIN] = {"cpu_us": seconds / rows * 1e6, "faults": (_faults(loop.pid) - faults) / calls}
            figures[PLAIN]["rows_per_batch"] = rows / calls
        else:
            figures[place.name] = _served(place, batches, times)
    for one in figures.values():
        one["ratio"] = one["cpu_us"] / figures[PLAIN]["cpu_us"]
    return {name: figures[name] for name in (PLAIN, *(server.name for server in servers))}


def _served(server: Served, batches: list[list[str]], times: int) -> Figures:
    rows, calls = times * sum(map(len, batches)), times * len(batches)
    faults, counted, before = _faults(server.process.pid), counters(server), server.cpu_seconds()
    report = testing.load(server.url, _bodies(batches), clients=1, requests_per_client=calls)
    time.sleep(0.05)
    spent = server.cpu_seconds() - before
    assert report.ok == report.planned, f"{report.ok} of {report.planned} answered"
    return {
        "cpu_us": spent / rows * 1e6,
        "faults": (_faults(server.process.pid) - faults) / calls,
        **growth(counted, counters(server), report.ok),
    }


def _faults(process: int) -> int:
    """Pages that the kernel gave the process so far."""
    return int(Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[7])


def _check(door: Served, model: MiniLM, batches: list[list[str]]) -> None:
    report = testing.load(door.url, _bodies(batches), clients=1, requests_per_client=len(batches), keep_answers=True)
    for index, status, answer in report.answers:
        if status != 200:
            raise NotServing(f"MiniLM answered with status {status}: {answer[:200]!r}")
        found = np.asarray(json.loads(answer)["outputs"][0]["data"], np.float32).reshape(len(batches[index]), -1)
        if not np.allclose(found, model.encode(batches[index]), atol=1e-5):
            raise NotServing("MiniLM's answers are not those of a direct call")
