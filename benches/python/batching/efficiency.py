"""How many calls batching saves: 100 clients that wait for their answers, one function and a served model."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np

import penstock
from benches.python.batching.story import Story
from benches.python.measure import spread, table
from penstock import testing

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLIENTS = 100


def run(rounds: int, *, quick: bool) -> Story:
    each = 5 if quick else 50
    function = [asyncio.run(_function(each)) for _ in range(rounds)]
    served = [_served(each) for _ in range(rounds)]
    rows = [
        ["`@batched`, callers on one event loop", spread([share * 100 for share in function], 1)],
        ["`@model` behind HTTP, the load generator's clients", spread([share * 100 for share in served], 1)],
    ]
    text = table(["", "(requests - batches) / requests, %"], rows)
    return Story(f"{CLIENTS} clients, a function of 1 ms", text, {"function": function, "served": served})


def _millisecond(x: NDArray[np.float32]) -> NDArray[np.float32]:
    import time

    time.sleep(0.001)
    return x * 2


async def _function(each: int) -> float:
    double = penstock.batched(max_batch_size=CLIENTS)(_millisecond)
    row = np.ones(64, np.float32)

    async def client() -> None:
        for _ in range(each):
            await double(row)

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return double.stats().efficiency


def _served(each: int) -> float:
    declared = {"inputs": {"x": ("float32", [64])}, "outputs": {"y": ("float32", [64])}}
    model = penstock.model("double", max_batch_size=CLIENTS, **declared)(_millisecond)
    with penstock.Server(model, port=0) as server:
        body = testing.infer_body({"x": ("FP32", [1, 64], [1.0] * 64)})
        report = testing.load(f"{server.url}/v2/models/double/infer", [body], clients=CLIENTS, requests_per_client=each)
        if report.ok != report.planned:
            raise AssertionError(f"{report.planned - report.ok} requests were not answered")
        return server.stats().models["double"].efficiency
