"""A server of three models with memory for two: how fast those that are there answer while the third loads."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import penstock
from benches.python.measure import spread, table
from benches.python.models.story import Rounds, Story
from penstock.testing import load

if TYPE_CHECKING:
    from collections.abc import Iterator

BYTES = 64 << 20
"""Of each model, read from a file."""

MEMORY = BYTES * 5 // 2
RATE = 400.0
SECONDS = 8.0
WIDTH = 64


def declared(name: str, weights: Path, size: int = BYTES) -> type:
    """A model that is a file of numbers; a batch is a product with the first of them."""

    class Matrix:
        def load(self, _ctx: penstock.LoadContext) -> None:
            self.weights = np.fromfile(weights, np.float32).reshape(-1, WIDTH)

        def predict(self, x: Any) -> Any:
            return x @ self.weights[:WIDTH]

    tensors = ("float32", [WIDTH])
    return penstock.model(name, inputs={"x": tensors}, outputs={"y": tensors}, size=size, max_batch_size=64)(Matrix)


def serve(weights: Path) -> None:
    """Runs the server until its standard input ends."""
    models = [declared(name, weights) for name in "abc"]
    with (
        penstock.ModelCache(memory=MEMORY) as cache,
        penstock.Server(models, port=0, preload=["a", "b"], cache=cache) as server,
    ):
        print(server.url, flush=True)
        sys.stdin.read()
        stats = cache.stats()
        print(stats.loads, sum(stats.evictions.values()), flush=True)


@contextmanager
def server_of(weights: Path, counts: list[int]) -> Iterator[str]:
    command = [sys.executable, "-m", "benches.python.models.served", str(weights)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()
        counts[:] = map(int, process.stdout.readline().split())


def p99(url: str, seconds: float) -> float:
    """Milliseconds of the ninety-ninth of a hundred requests for `a`, which come at random moments."""
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, WIDTH], "data": [1.0] * WIDTH}]}
    report = load(f"{url}/v2/models/a/infer", [body], clients=32, rate=RATE, duration=seconds)
    assert report.failed == 0, report
    return report.p99 * 1e3


def run(rounds: Rounds) -> Story:
    seconds = 1.0 if rounds.quick else SECONDS
    calm: list[float] = []
    busy: list[float] = []
    swaps: list[float] = []
    counts: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights"
        np.ones(BYTES // 4, np.float32).tofile(weights)
        with server_of(weights, counts) as url:
            for _ in range(rounds.count):
                calm.append(p99(url, seconds))
                with swapping(url, swaps):
                    busy.append(p99(url, seconds))
    ratios = [one / other for one, other in zip(busy, calm, strict=True)]
    rows = [
        ("p99 of a resident model, alone, ms", spread(calm)),
        ("the same while another loads and evicts, ms", spread(busy)),
        ("ratio", spread(ratios)),
        ("loads a second meanwhile", f"{len(swaps) / (seconds * rounds.count):.1f}"),
    ]
    text = table(("three models, memory for two", f"{RATE:.0f} requests/s"), rows)
    text += f"\n\n{counts[0]} loads of {BYTES >> 20} MiB and {counts[1]} evictions in all."
    return Story("A server that loads and evicts", text, {"calm": calm, "busy": busy, "swaps": swaps})


@contextmanager
def swapping(url: str, swaps: list[float]) -> Iterator[None]:
    """Asks for `b` and `c` in turns: each load evicts the other, four times a second at most."""
    stop = threading.Event()

    def swap() -> None:
        x = np.ones((1, WIDTH), np.float32)
        with penstock.Client(url) as client:
            while not stop.is_set():
                for name in "cb":
                    began = time.perf_counter()
                    client.infer(name, {"x": x})
                    swaps.append(time.perf_counter() - began)
                    time.sleep(max(0.0, began + 0.25 - time.perf_counter()))

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    serve(parser.parse_args().weights)
