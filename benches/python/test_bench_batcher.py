"""What a batch costs: items of every kind, long maps, requests that fail, and a batcher that begins."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from contenders import WIDTH, double

import penstock

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Waves
    from pytest_benchmark.fixture import BenchmarkFixture

WORKERS = pytest.mark.parametrize("workers", [1, "inline"], ids=["worker", "inline"])


@dataclass(frozen=True)
class Kind:
    """Items of one kind, a function over a batch of them, and the same over one."""

    items: list[Any]
    batch: Callable[[Any], Any]
    one: Callable[[Any], Any]


def _arrays(count: int, *shape: int) -> list[Any]:
    return [np.full(shape, number % 7, np.float32) for number in range(count)]


def _pairs(count: int) -> list[Any]:
    return [{"left": row, "right": row + 1} for row in _arrays(count, WIDTH)]


KINDS = {
    "float32[64] x 100": Kind(_arrays(100, WIDTH), double, double),
    # The function looks at little of an image: what is measured is to gather 9.6 MB into one batch.
    "float32[3,224,224] x 16": Kind(_arrays(16, 3, 224, 224), lambda x: x[:, 0, 0, :8], lambda x: x[0, 0, :8]),
    "str x 100": Kind([f"sentence {number}" for number in range(100)], lambda xs: list(map(len, xs)), len),
    "dict of two arrays x 100": Kind(_pairs(100), lambda x: x["left"] + x["right"], lambda x: x["left"] + x["right"]),
}


@WORKERS
@pytest.mark.parametrize("kind", KINDS)
def test_items(kind: str, workers: Any, waves: Waves) -> None:
    case = KINDS[kind]

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*map(batcher, case.items))

    with penstock.Batcher(case.batch, max_batch_size=100, workers=workers) as batcher:
        for answer, item in zip(waves.once(all_at_once()), case.items, strict=True):
            np.testing.assert_array_equal(answer, case.one(item))
        waves.run(batcher, case.items)


@pytest.mark.usefixtures("both_loops")
@WORKERS
def test_map_of_10_000(workers: Any, waves: Waves) -> None:
    items = _arrays(10_000, WIDTH)
    with penstock.Batcher(double, max_batch_size=100, workers=workers) as batcher:
        answers = waves.once(batcher.map(items))
        np.testing.assert_array_equal(answers, np.stack(items) * 2)
        waves.measure(lambda: batcher.map(items), len(items))


def _refuses_negatives(x: Any) -> Any:
    if (x < 0).any():
        raise ValueError("negative")
    return double(x)


@WORKERS
def test_one_poisoned_of_100(workers: Any, waves: Waves) -> None:
    """The function raises, and is called again with halves until the guilty one is alone."""
    items = _arrays(100, WIDTH)
    items[37] = items[37] - 100

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*map(batcher, items), return_exceptions=True)

    with penstock.Batcher(_refuses_negatives, max_batch_size=100, workers=workers) as batcher:
        failed = [number for number, answer in enumerate(waves.once(all_at_once())) if isinstance(answer, Exception)]
        assert failed == [37]
        waves.measure(all_at_once, len(items))


def test_one_item_error_of_100(waves: Waves) -> None:
    """The function names the guilty one itself: nothing is called again."""

    def names_the_guilty(x: Any) -> list[Any]:
        return [penstock.ItemError("negative") if row[0] < 0 else row for row in x]

    items = _arrays(100, WIDTH)
    items[37] = items[37] - 100

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*map(batcher, items), return_exceptions=True)

    with penstock.Batcher(names_the_guilty, max_batch_size=100) as batcher:
        failed = [number for number, answer in enumerate(waves.once(all_at_once())) if isinstance(answer, Exception)]
        assert failed == [37]
        waves.measure(all_at_once, len(items))


@WORKERS
def test_open_and_close(workers: Any, benchmark: BenchmarkFixture) -> None:
    benchmark(lambda: penstock.Batcher(double, workers=workers).close())


@WORKERS
def test_open_answer_and_close(workers: Any, waves: Waves) -> None:
    """To the first answer: threads start, and the loop gets its port."""
    item = _arrays(1, WIDTH)[0]

    async def first_answer() -> None:
        async with penstock.Batcher(double, workers=workers) as batcher:
            await batcher(item)

    waves.measure(first_answer, 1)
