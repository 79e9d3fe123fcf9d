"""What worker processes are worth for a function that holds the interpreter lock: 2 ms of pure Python a batch.

    python benches/python/processes.py [--rounds 3] [--json FILE]

One thread, one process and two processes answer the same closed loop of the load generator, in turns; each also beside
a Python thread of the server that does nothing but compute. Figures are answers a second, the median of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import penstock
from penstock import Processes, Server, model, testing

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 0.002
BATCH = 8
CLIENTS = 48
REQUESTS = 100
PROBE = 20_000
STEPS = "PENSTOCK_BENCH_STEPS"
X = {"x": ("float32", [4])}
Y = {"y": ("float32", [4])}
BODY = testing.infer_body({"x": ("FP32", [1, 4], [1.0, 2.0, 3.0, 4.0])})


def count_to(number: int) -> int:
    total = 0
    for one in range(number):
        total += one & 3
    return total


def steps() -> int:
    """How far this machine counts in 2 ms, at its best."""
    best = min(timed(lambda: count_to(PROBE)) for _ in range(50))
    return int(PROBE * SECONDS / best)


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class Held:
    """A model that holds the lock for 2 ms, however many rows it has."""

    def load(self, _ctx: penstock.LoadContext) -> None:
        self.steps = int(os.environ[STEPS])

    def predict(self, x: Any) -> Any:
        count_to(self.steps)
        return x


@model("thread", inputs=X, outputs=Y, max_batch_size=BATCH)
class Thread(Held):
    pass


@model("process", inputs=X, outputs=Y, max_batch_size=BATCH, workers=Processes(1))
class Process(Held):
    pass


@model("processes", inputs=X, outputs=Y, max_batch_size=BATCH, workers=Processes(2))
class TwoProcesses(Held):
    pass


def spin(stop: threading.Event) -> None:
    while not stop.is_set():
        count_to(PROBE)


def answers(server: Server, name: str, *, spinning: bool) -> float:
    stop = threading.Event()
    spinner = threading.Thread(target=spin, args=(stop,), daemon=True)
    if spinning:
        spinner.start()
    try:
        url = f"{server.url}/v2/models/{name}/infer"
        report = testing.load(url, [BODY], clients=CLIENTS, requests_per_client=REQUESTS)
    finally:
        stop.set()
        if spinning:
            spinner.join()
    assert report.failed == 0, report
    return report.ok / report.seconds


def measured(rounds: int) -> dict[str, float]:
    cases = [(name, spinning) for spinning in (False, True) for name in ("thread", "process", "processes")]
    # The same work for all of them: processes inherit it.
    os.environ[STEPS] = str(steps())
    found: dict[tuple[str, bool], list[float]] = {case: [] for case in cases}
    with Server([Thread, Process, TwoProcesses], port=0) as server:
        for name, spinning in cases[:3]:
            answers(server, name, spinning=spinning)
        for _ in range(rounds):
            for name, spinning in cases:
                found[name, spinning].append(answers(server, name, spinning=spinning))
    return {
        f"{name}{', beside a spinning thread' if spinning else ''}": statistics.median(rates)
        for (name, spinning), rates in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rates = measured(options.rounds)
    beside = ", beside a spinning thread"
    rates["two processes / one thread"] = rates["processes"] / rates["thread"]
    for name in ("thread", "process", "processes"):
        rates[f"{name}: lost to the spinning thread"] = 1 - rates[name + beside] / rates[name]
    for name, rate in rates.items():
        print(f"{name:45} {rate:10.2f}")
    if options.json:
        options.json.write_text(json.dumps(rates, indent=1))


if __name__ == "__main__":
    main()
