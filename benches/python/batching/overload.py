"""Twice what a model can do, in the open loop, every request with a deadline."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import penstock
from benches.python.batching.story import Story
from benches.python.measure import paired_ratio, spread, table
from penstock import testing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIZE = 8
SERVICE = 0.005
DEADLINE = 0.1
CAPACITY = SIZE / SERVICE


def run(rounds: int, *, quick: bool) -> Story:
    seconds = 1.0 if quick else 5.0
    loads = {"1 x": CAPACITY, "2 x": 2 * CAPACITY, "4 x": 4 * CAPACITY}
    good: dict[str, list[float]] = {name: [] for name in loads}
    refused: dict[str, list[float]] = {name: [] for name in loads}
    late: dict[str, list[float]] = {name: [] for name in loads}
    for _ in range(rounds):
        for name, rate in loads.items():
            report = _once(rate, seconds)
            good[name].append(report.statuses.get(200, 0) / seconds)
            refused[name].append(report.statuses.get(503, 0) / report.planned * 100)
            late[name].append(report.statuses.get(504, 0) / report.planned * 100)
    rows = [[name, spread(good[name], 0), spread(refused[name], 1), spread(late[name], 1)] for name in loads]
    ratio = paired_ratio(good["2 x"], good["1 x"])
    text = table(["load", "answered in time, per second", "refused at once (503), %", "too late (504), %"], rows)
    text += (
        f"\n\nAt twice the load {ratio} of what is answered at once the load. An answer after its deadline is a 504."
    )
    title = f"A model of {SERVICE * 1e3:.0f} ms for {SIZE} rows, a deadline of {DEADLINE * 1e3:.0f} ms"
    return Story(title, text, {"good": good, "refused": refused, "late": late})


def _once(rate: float, seconds: float) -> testing.LoadReport:
    declared = {"inputs": {"x": ("float32", [8])}, "outputs": {"y": ("float32", [8])}}

    @penstock.model("fixed", max_batch_size=SIZE, **declared)
    def fixed(x: NDArray[np.float32]) -> NDArray[np.float32]:
        until = time.perf_counter() + SERVICE
        time.sleep(SERVICE * 0.9)
        while time.perf_counter() < until:
            time.sleep(0)
        return x

    with penstock.Server(fixed, port=0) as server:
        url = f"{server.url}/v2/models/fixed/infer"
        body = testing.infer_body({"x": ("FP32", [1, 8], [1.0] * 8)})
        testing.load(url, [body], clients=SIZE, requests_per_client=50)
        return testing.load(
            url, [body], clients=400, rate=rate, duration=seconds, headers={"X-Request-Timeout": str(DEADLINE)}
        )
