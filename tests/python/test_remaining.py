"""How much time is left, asked inside a function."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import numpy as np
import pytest

import penstock
from penstock import Batcher, Processes, Server, batched, model
from penstock.errors import DeadlineExceeded
from penstock.testing import TestClient

PROCESS = Processes(1)


def asks(x: np.ndarray) -> list[float | None]:
    return [penstock.remaining()] * len(x)


async def asks_later(x: np.ndarray) -> list[float | None]:
    await asyncio.sleep(0)
    return [penstock.remaining()] * len(x)


@pytest.mark.parametrize(
    ("function", "workers"),
    [(asks, 1), (asks, 2), (asks, "inline"), (asks_later, 1), (asks, PROCESS), (asks_later, PROCESS)],
)
async def test_a_function_sees_the_time_that_its_batch_has_left(function: Any, workers: Any) -> None:
    with Batcher(function, workers=workers) as f:
        assert penstock.remaining() is None
        assert await f(1) is None
        left = await f.options(timeout=20)(1)
        assert left is not None
        assert 0 < left <= 20
        assert await f(1) is None, "the time of one batch is not that of the next"
        assert penstock.remaining() is None
        blocking = await asyncio.get_running_loop().run_in_executor(None, f.options(timeout=10).call, 1)
        assert blocking is not None
        assert blocking <= 10


async def test_the_earliest_deadline_of_a_batch_counts() -> None:
    with batched(asks) as f:
        answers = await asyncio.gather(f(1), f.options(timeout=30)(2), f.options(timeout=20)(3))
    assert len(set(answers)) == 1
    assert answers[0] is not None
    assert answers[0] <= 20


async def test_time_goes_on_inside_a_function() -> None:
    def waits(x: np.ndarray) -> list[tuple[float | None, ...]]:
        first = penstock.remaining()
        time.sleep(0.05)
        second = penstock.remaining()
        time.sleep(0.3)
        return [(first, second, penstock.remaining())] * len(x)

    seen: list[Any] = []
    with batched(lambda x: [seen.append(row) for row in waits(x)]) as f, pytest.raises(DeadlineExceeded):
        await f.options(timeout=0.2)(1)
    ((first, second, third),) = seen
    assert first >= second + 0.05
    assert third == 0.0, "a deadline that has passed leaves no time"


async def test_a_function_inside_another_has_a_time_of_its_own() -> None:
    inner = Batcher(asks, workers="inline")

    def outer(x: np.ndarray) -> list[Any]:
        before = penstock.remaining()
        return [(before, inner.call(1), penstock.remaining())] * len(x)

    with batched(outer) as f:
        before, inside, after = await f.options(timeout=20)(1)
    assert inside is None
    assert before is not None
    assert after is not None
    assert after <= before
    inner.close()


async def test_a_thread_that_a_function_starts_is_outside() -> None:
    def starts(x: np.ndarray) -> list[Any]:
        seen: list[Any] = []
        thread = threading.Thread(target=lambda: seen.append(penstock.remaining()))
        thread.start()
        thread.join()
        return seen * len(x)

    with batched(starts) as f:
        assert await f.options(timeout=20)(1) is None


@model("left", inputs={"x": ("float32", [1])}, outputs={"y": ("float64", [])})
def left(x: Any) -> Any:
    remaining = penstock.remaining()
    return np.full(len(x), -1.0 if remaining is None else remaining)


@model("left_async", inputs={"x": ("float32", [1])}, outputs={"y": ("float64", [])}, workers=2)
async def left_async(x: Any) -> Any:
    await asyncio.sleep(0)
    return left(x)


@model("left_process", inputs={"x": ("float32", [1])}, outputs={"y": ("float64", [])}, workers=PROCESS)
def left_process(x: Any) -> Any:
    return left(x)


@pytest.mark.parametrize("name", ["left", "left_async", "left_process"])
def test_a_served_model_sees_the_time_that_its_clients_gave(name: str) -> None:
    x = np.ones((2, 1), np.float32)
    with Server([left, left_async, left_process], port=0) as server:
        for url, default in ((server.url, -1.0), (server.grpc_url, 600.0)):
            # What a client gives by default, it says over gRPC only.
            with penstock.Client(url) as client:
                assert client.infer(name, {"x": x})["y"] == pytest.approx(default, abs=30)
                given = client.infer(name, {"x": x}, timeout=20)["y"]
                assert ((given > 0) & (given <= 20)).all()
    with TestClient(Server(left)) as client:
        assert (client.infer("left", {"x": x})["y"] == -1).all()
