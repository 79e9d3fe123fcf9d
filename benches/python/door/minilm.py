"""MiniLM through the server beside the same model in a plain loop: CPU by the row over the very same batches."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from benches.python.door.machine import ROOT, SERVER_CPU, NotServing, Served, serving
from benches.python.door.rounds import Figures, counters, growth, progress, spread
from benches.python.door.servers import penstock
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
        raise NotServing(str(missing)) from missing
    texts = sentences(ROWS)
    effort = bench.effort(SECONDS)
    results: dict[int, list[Figures]] = {}
    with serving(penstock("minilm", path="minilm"), logs=bench.logs) as (door,), _loop() as loop:
        for size in SIZES:
            batches = [texts[start : start + size] for start in range(0, ROWS, size)]
            _check(door, model, batches)
            times = _times(loop, batches, effort.seconds)
            for number in range(effort.rounds):
                progress(f"batches of {size}, round {number + 1} of {effort.rounds}")
                results.setdefault(size, []).append(_round(door, loop, batches, times, served_first=number % 2 == 0))
    rows = [
        [size, *(spread([one[key] for one in rounds], digits) for _, key, digits in COLUMNS)]
        for size, rounds in results.items()
    ]
    text = table(["rows a request", *(title for title, *_ in COLUMNS)], rows)
    return Story("MiniLM", text, [{"rows": size, "rounds": rounds} for size, rounds in results.items()])


COLUMNS = (
    ("served, CPU µs/row", "served_us", 0),
    ("plain loop, CPU µs/row", "loop_us", 0),
    ("served ÷ loop", "ratio", 3),
    ("rows/batch", "rows_per_batch", 1),
)


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
    door: Served, loop: subprocess.Popen[str], batches: list[list[str]], times: int, *, served_first: bool
) -> Figures:
    rows = times * sum(map(len, batches))
    looped = 0.0 if served_first else _run_loop(loop, batches, times)
    counted, before = counters(door), door.cpu_seconds()
    report = testing.load(door.url, _bodies(batches), clients=1, requests_per_client=times * len(batches))
    time.sleep(0.05)
    served = door.cpu_seconds() - before
    assert report.ok == report.planned, f"{report.ok} of {report.planned} answered"
    if served_first:
        looped = _run_loop(loop, batches, times)
    return {
        "served_us": served / rows * 1e6,
        "loop_us": looped / rows * 1e6,
        "ratio": served / looped,
        **growth(counted, counters(door), report.ok),
    }


def _check(door: Served, model: MiniLM, batches: list[list[str]]) -> None:
    report = testing.load(door.url, _bodies(batches), clients=1, requests_per_client=len(batches), keep_answers=True)
    for index, status, answer in report.answers:
        if status != 200:
            raise NotServing(f"MiniLM answered with status {status}: {answer[:200]!r}")
        found = np.asarray(json.loads(answer)["outputs"][0]["data"], np.float32).reshape(len(batches[index]), -1)
        if not np.allclose(found, model.encode(batches[index]), atol=1e-5):
            raise NotServing("MiniLM's answers are not those of a direct call")
