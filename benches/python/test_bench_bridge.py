"""What an await costs: submitting, waiting and waking, on every loop, from one thread and from several."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from contenders import WIDTH, double

import penstock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Waves
    from pytest_benchmark.fixture import BenchmarkFixture

THREADS = 4


@pytest.fixture(params=[1, "inline"], ids=["worker", "inline"])
def batcher(request: pytest.FixtureRequest) -> Iterator[penstock.Batcher[Any]]:
    with penstock.Batcher(double, max_batch_size=100, workers=request.param) as made:
        yield made


@pytest.fixture
def on_worker() -> Iterator[penstock.Batcher[Any]]:
    with penstock.Batcher(double, max_batch_size=100) as made:
        yield made


def rows(count: int) -> list[Any]:
    return [np.full(WIDTH, number, np.float32) for number in range(count)]


async def all_at_once(batcher: penstock.Batcher[Any], items: list[Any]) -> list[Any]:
    return await asyncio.gather(*map(batcher, items))


@pytest.mark.usefixtures("both_loops")
@pytest.mark.parametrize("awaiters", [1, 100, 1_000])
def test_submit_and_await(awaiters: int, batcher: penstock.Batcher[Any], waves: Waves) -> None:
    items = rows(awaiters)
    np.testing.assert_array_equal(waves.once(all_at_once(batcher, items)), np.stack(items) * 2)
    waves.run(batcher, items, calls=100 if awaiters == 1 else 10)


def test_bare_futures(both_loops: str, waves: Waves) -> None:
    """The floor: what the loop itself takes for 1,000 futures that `call_soon` answers."""
    assert both_loops

    def call(item: Any) -> asyncio.Future[Any]:
        future = waves.loop.create_future()
        waves.loop.call_soon(future.set_result, item)
        return future

    waves.run(call, rows(1_000))


def test_call_from_a_thread(batcher: penstock.Batcher[Any], benchmark: BenchmarkFixture) -> None:
    item = rows(2)[1]
    np.testing.assert_array_equal(benchmark(batcher.call, item), item * 2)


def test_run_in_executor(waves: Waves) -> None:
    """What a lone await of a worker thread costs without Penstock."""
    item = rows(1)[0]
    waves.run(lambda row: waves.loop.run_in_executor(None, double, row), [item], calls=100)
    waves.once(waves.loop.shutdown_default_executor())


def test_loops_in_several_threads(on_worker: penstock.Batcher[Any], benchmark: BenchmarkFixture) -> None:
    items = rows(100)

    async def several() -> None:
        for _ in range(10):
            await all_at_once(on_worker, items)

    def together() -> None:
        threads = [threading.Thread(target=lambda: asyncio.run(several())) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    benchmark.extra_info["awaits"] = THREADS * len(items) * 10
    before = on_worker.stats().requests
    benchmark(together)
    assert (on_worker.stats().requests - before) % (THREADS * len(items) * 10) == 0


def test_cancel(on_worker: penstock.Batcher[Any], waves: Waves) -> None:
    """100 requests that leave before the function sees them."""
    items = rows(100)

    async def submit_and_leave() -> None:
        futures = [on_worker(item) for item in items[:-1]]
        for future in futures:
            future.cancel()
        await on_worker(items[-1])

    waves.measure(submit_and_leave, len(items))
    assert on_worker.stats().abandoned > 0


def test_timeout(on_worker: penstock.Batcher[Any], waves: Waves) -> None:
    """The price of a deadline that is kept."""
    waves.run(on_worker.options(timeout=60), rows(1_000))
