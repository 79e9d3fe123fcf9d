"""What a batcher does for callers who want nothing special."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import random
import threading

import numpy as np
import pytest

import penstock
from penstock import Batcher, BatchPolicy, BatchStats, batched
from tests.python.support.waiting import PATIENCE, Gate, soon


def double(x: np.ndarray) -> np.ndarray:
    """Twice the item."""
    return x * 2


async def test_a_thousand_awaiters_that_come_at_random_times_get_their_own_rows_in_few_batches() -> None:
    f = batched(double)
    chance = random.Random(7)

    async def one(number: int) -> np.ndarray:
        await asyncio.sleep(chance.random() * 0.05)
        return await f(np.full(4, number, np.float32))

    rows = await asyncio.gather(*(one(number) for number in range(1000)))
    for number, row in enumerate(rows):
        assert row.dtype == np.float32
        assert row.tolist() == [2.0 * number] * 4
    stats = f.stats()
    assert stats.requests == 1000
    assert stats.batches <= 500


@pytest.mark.parametrize("workers", [1, 3, "inline"])
async def test_one_burst_is_cut_into_full_batches(workers: int | str) -> None:
    f = batched(double, max_batch_size=10, workers=workers)
    assert await asyncio.gather(*(f(number) for number in range(30))) == [2 * number for number in range(30)]
    stats = f.stats()
    assert (stats.requests, stats.batches, stats.max_batch_size) == (30, 3, 10)
    assert stats.reasons == {"full": 3}


@pytest.mark.parametrize("workers", [1, "inline"])
async def test_a_lone_request_is_a_batch_of_one_at_the_end_of_its_tick(workers: int | str) -> None:
    shapes = []

    def f(x: np.ndarray) -> np.ndarray:
        shapes.append(x.shape)
        return x

    batcher = batched(f, workers=workers)
    await batcher(np.zeros((2, 3)))
    assert shapes == [(1, 2, 3)]
    assert batcher.stats().reasons == {"tick": 1}


@pytest.mark.parametrize("workers", [1, "inline"])
async def test_requests_of_one_tick_share_a_batch(workers: int | str) -> None:
    f = batched(double, workers=workers)
    assert await asyncio.gather(*(f(number) for number in range(42))) == [2 * number for number in range(42)]
    assert f.stats().reasons == {"tick": 1}


async def test_what_comes_while_the_worker_is_busy_is_one_batch(gate: Gate) -> None:
    f = batched(gate.run)
    futures = [f(0)]
    await gate.is_entered()
    for number in range(1, 6):
        futures.append(f(number))
        await asyncio.sleep(0.002)
    gate.open()
    assert await asyncio.gather(*futures) == [0, 10, 20, 30, 40, 50]
    assert gate.batches == [[0], [1, 2, 3, 4, 5]]


async def test_several_workers_run_several_batches_at_once() -> None:
    barrier = threading.Barrier(3, timeout=PATIENCE)

    def f(x: np.ndarray) -> np.ndarray:
        barrier.wait()  # passes only where three threads are inside
        return x

    batcher = batched(f, workers=3, max_batch_size=1)
    assert await asyncio.gather(*(batcher(number) for number in range(3))) == [0, 1, 2]


async def test_workers_run_in_threads_named_after_the_function() -> None:
    names = []

    def spectral(x: list) -> list:
        names.append(threading.current_thread().name)
        return x

    await batched(spectral)("x")
    assert "spectral" in names[0]
    assert names[0].startswith("penstock-")


async def test_inline_runs_in_the_thread_of_the_loop() -> None:
    threads = []

    def f(x: list) -> list:
        threads.append(threading.current_thread())
        return x

    await batched(f, workers="inline")("x")
    assert threads == [threading.current_thread()]


async def test_stats_add_up_and_follow_their_definitions() -> None:
    f = batched(double, max_batch_size=8)
    for burst in (1, 5, 20, 8):
        await asyncio.gather(*(f(number) for number in range(burst)))
    stats = f.stats()
    assert stats.requests == 34
    assert stats.batches == sum(stats.reasons.values())
    assert stats.mean_batch_size == pytest.approx(stats.requests / stats.batches)
    assert stats.efficiency == pytest.approx((stats.requests - stats.batches) / stats.requests)
    assert stats.max_batch_size == 8
    assert (stats.queued, stats.failed, stats.rejected, stats.abandoned, stats.reruns) == (0, 0, 0, 0, 0)
    assert stats.function_seconds > 0
    assert stats.lock_wait_seconds >= 0
    await soon(lambda: f.stats().running == 0)


async def test_the_interpreter_lock_is_taken_about_once_a_batch() -> None:
    f = batched(double)
    for _ in range(20):
        await asyncio.gather(*(f(number) for number in range(100)))
    stats = f.stats()
    assert stats.batches == 20
    # A worker may be woken in vain now and then; once a request would be 2,000.
    assert stats.lock_acquisitions <= 3 * stats.batches + 5


async def test_stats_show_what_waits_and_what_runs(gate: Gate) -> None:
    f = batched(gate.run)
    futures = [f(0)]
    await gate.is_entered()
    futures += [f(1), f(2)]
    stats = f.stats()
    assert (stats.running, stats.queued, stats.requests) == (1, 2, 1)
    gate.open()
    await asyncio.gather(*futures)


async def test_stats_are_frozen_and_a_table_in_a_notebook() -> None:
    f = batched(double)
    empty = f.stats()
    assert (empty.requests, empty.mean_batch_size, empty.efficiency, empty.reasons) == (0, 0.0, 0.0, {})
    await f(1)
    stats = f.stats()
    assert empty.requests == 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.requests = 7  # type: ignore[misc]
    page = stats._repr_html_()
    assert page.startswith("<table>")
    assert page.endswith("</table>")
    for field in dataclasses.fields(BatchStats):
        assert field.name.replace("_", " ") in page
    assert "tick: 1" in page


async def test_a_tenant_in_the_table_is_escaped() -> None:
    f = batched(double)
    await f.options(tenant="<script>")(1)
    page = f.stats()._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_the_repr_says_name_state_and_policy() -> None:
    f = batched(double, max_batch_size=7, workers=2)
    assert repr(f) == "<penstock.Batcher double open max_batch_size=7 dispatch='tick' workers=2>"
    f.close()
    assert "closed" in repr(f)


def test_the_repr_of_a_batched_object_without_a_name_works() -> None:
    assert "Batcher" in repr(batched(functools.partial(double)))


def test_a_batcher_keeps_name_documentation_and_plain_function() -> None:
    f = batched(double)
    assert f.fn is double
    assert (f.__name__, f.__qualname__, f.__doc__, f.__module__) == ("double", "double", "Twice the item.", __name__)
    assert f.__wrapped__ is double
    assert f.fn(np.arange(3)).tolist() == [0, 2, 4]
    assert isinstance(f, Batcher)


async def test_the_decorator_works_bare_with_keywords_and_as_a_class() -> None:
    @batched
    def bare(x: np.ndarray) -> np.ndarray:
        return x + 1

    @batched()
    def empty(x: np.ndarray) -> np.ndarray:
        return x + 2

    @batched(max_batch_size=5)
    def keywords(x: np.ndarray) -> np.ndarray:
        return x + 3

    made = Batcher(lambda x: x + 4, max_batch_size=6)
    assert await asyncio.gather(bare(0), empty(0), keywords(0), made(0)) == [1, 2, 3, 4]
    assert [f.policy.max_batch_size for f in (bare, empty, keywords, made)] == [100, 100, 5, 6]


async def test_a_policy_object_is_used_as_it_is() -> None:
    policy = BatchPolicy(max_batch_size=3)
    f = batched(double, policy=policy)
    assert f.policy is policy
    await asyncio.gather(*(f(number) for number in range(9)))
    assert f.stats().max_batch_size == 3


async def test_methods_partials_and_callable_objects_can_be_batched() -> None:
    class Model:
        factor = 5

        def predict(self, x: np.ndarray) -> np.ndarray:
            return x * self.factor

        def __call__(self, x: np.ndarray) -> np.ndarray:
            return x * -self.factor

    model = Model()
    rows = await asyncio.gather(
        batched(model.predict)(2), batched(model)(2), batched(functools.partial(np.multiply, 3))(2)
    )
    assert rows == [10, -10, 6]


async def test_a_batch_is_contiguous_writable_and_the_functions_own() -> None:
    seen = []

    def f(x: np.ndarray) -> np.ndarray:
        seen.append((x.flags.c_contiguous, x.flags.writeable, x.shape, x.dtype))
        x += 1
        return x

    batcher = batched(f)
    items = [np.full((2, 2), number, np.int16) for number in range(4)]
    rows = await asyncio.gather(*map(batcher, items))
    assert seen == [(True, True, (4, 2, 2), np.dtype(np.int16))]
    assert [row[0, 0] for row in rows] == [1, 2, 3, 4]
    assert [item[0, 0] for item in items] == [0, 1, 2, 3]


def test_the_public_names_are_there() -> None:
    for name in penstock.__all__:
        assert hasattr(penstock, name)
    assert penstock.__version__.count(".") == 2
