"""A function in pure Python, which holds the interpreter lock: a thread beside worker processes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import penstock
from benches.python.batching.story import Story
from benches.python.measure import paired_ratio, spread, table
from penstock import testing

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

MILLISECONDS = 2.0
CLIENTS = 16
SIZE = 4
SPIN = "count = 0\nwhile True: count += 1"
DECLARED = {"inputs": {"x": ("float32", [8])}, "outputs": {"y": ("float32", [8])}, "max_batch_size": SIZE}


def burn(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Two milliseconds of this thread's CPU, whatever else runs."""
    until = time.thread_time() + MILLISECONDS / 1e3
    count = 0
    while time.thread_time() < until:
        count += 1
    return x


def light(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Microseconds of work."""
    return x * 2


@penstock.model("thread", workers=1, **DECLARED)
def thread(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return burn(x)


@penstock.model("processes", workers=penstock.Processes(2), **DECLARED)
def processes(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return burn(x)


@penstock.model("apart", workers=penstock.Processes(1), **DECLARED)
def apart(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return light(x)


@penstock.model("within", workers=1, **DECLARED)
def within(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return light(x)


def run(rounds: int, *, quick: bool) -> Story:
    seconds = 0.5 if quick else 2.0
    found: dict[str, list[float]] = {}
    with penstock.Server([thread, processes, within, apart], port=0) as server:
        for _ in range(rounds):
            for name in ("thread", "processes"):
                found.setdefault(name, []).append(_rate(server.url, name, seconds))
            for name in ("within", "apart"):
                found.setdefault(f"{name}, alone", []).append(_rate(server.url, name, seconds))
                with _spinning_process():
                    found.setdefault(f"{name}, a process spins", []).append(_rate(server.url, name, seconds))
                with _spinning_thread():
                    found.setdefault(f"{name}, a thread spins", []).append(_rate(server.url, name, seconds))
    twice = paired_ratio(found["processes"], found["thread"])
    rows = [
        ["2 ms of pure Python: one thread", spread(found["thread"], 0), "1"],
        ["2 ms of pure Python: `Processes(2)`", spread(found["processes"], 0), str(twice)],
    ]
    for name, words in (("within", "microseconds: one thread"), ("apart", "microseconds: `Processes(1)`")):
        alone = found[f"{name}, alone"]
        rows.append([f"{words}, nothing beside", spread(alone, 0), "1"])
        for what in ("a process spins", "a thread spins"):
            rate = found[f"{name}, {what}"]
            rows.append([f"{words}, {what}", spread(rate, 0), str(paired_ratio(rate, alone))])
    text = table(["a served model", "requests/s", "beside the line that says 1"], rows)
    return Story(f"Functions that hold the lock; batches of {SIZE}, {CLIENTS} clients", text, found)


def _rate(url: str, name: str, seconds: float) -> float:
    body = testing.infer_body({"x": ("FP32", [1, 8], [1.0] * 8)})
    target = f"{url}/v2/models/{name}/infer"
    testing.load(target, [body], clients=CLIENTS, requests_per_client=10)
    probe = testing.load(target, [body], clients=CLIENTS, requests_per_client=20)
    each = max(20, int(probe.requests_per_second * seconds / CLIENTS))
    report = testing.load(target, [body], clients=CLIENTS, requests_per_client=each)
    if report.ok != report.planned:
        raise AssertionError(f"{report.planned - report.ok} requests were not answered: {report.statuses}")
    return report.requests_per_second


@contextmanager
def _spinning_thread() -> Iterator[None]:
    stop = threading.Event()

    def spin() -> None:
        count = 0
        while not stop.is_set():
            for _ in range(10_000):
                count += 1

    spinner = threading.Thread(target=spin, daemon=True)
    spinner.start()
    try:
        yield
    finally:
        stop.set()
        spinner.join()


@contextmanager
def _spinning_process() -> Iterator[None]:
    spinner = subprocess.Popen([sys.executable, "-c", SPIN])
    try:
        yield
    finally:
        spinner.kill()
        spinner.wait()
