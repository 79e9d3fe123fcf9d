"""A loop of the caller's that is blocked while its requests are under way: what came in time is an answer."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import pytest

import penstock
from penstock import AsyncClient, batched
from penstock.errors import DeadlineExceeded
from tests.python.support.waiting import outcomes, soon

BLOCKED = 1.5
X = {"x": ("float32", [1])}


def _for(seconds: float) -> dict[str, Any]:
    return {"x": np.full((1, 1), seconds, np.float32)}


@penstock.model("sleeps", inputs=X, outputs={"y": ("float32", [1])}, max_batch_size=1, workers=4)
def sleeps(x: np.ndarray) -> np.ndarray:
    time.sleep(float(x[0, 0]))
    return x


@pytest.mark.parametrize("protocol", ["http", "grpc"])
async def test_answers_that_came_while_the_loop_was_blocked_are_not_late(protocol: str) -> None:
    with penstock.Server([sleeps], port=0) as server:
        async with AsyncClient(server.url if protocol == "http" else server.grpc_url) as client:
            assert (await client.infer("sleeps", _for(0)))["y"][0, 0] == 0
            asked = [asyncio.create_task(client.infer("sleeps", _for(0.02), timeout=1.0)) for _ in range(16)]
            late = asyncio.create_task(client.infer("sleeps", _for(BLOCKED * 2), timeout=0.5))
            await soon(lambda: client.stats().total.outstanding == 17)
            time.sleep(BLOCKED)  # noqa: ASYNC251  that is the fault
            assert [one["y"][0, 0] for one in await outcomes(asked)] == [np.float32(0.02)] * 16
            assert isinstance((await outcomes([late]))[0], DeadlineExceeded)
            await soon(lambda: client.stats().total.outstanding == 0)


async def test_rows_that_came_while_the_loop_was_blocked_are_not_late() -> None:
    @batched(max_batch_size=8)
    def doubles(x: np.ndarray) -> np.ndarray:
        time.sleep(0.02)
        return x * 2

    rows = [asyncio.ensure_future(doubles.options(timeout=1.0)(np.float32(number))) for number in range(32)]
    await asyncio.sleep(0)
    time.sleep(BLOCKED)  # noqa: ASYNC251  that is the fault
    assert await outcomes(rows) == [number * 2 for number in range(32)]
    doubles.close()
