"""What may share a call: items of one shape and type, with equal keyword arguments, and nothing else."""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from penstock import batched
from tests.python.support.arrays import DTYPES, same, sample

Pair = namedtuple("Pair", "left right")  # noqa: PYI024  a plain one is what is tested


async def test_mixed_shapes_and_types_sent_together_are_neither_mixed_nor_cast() -> None:
    seen = []

    def f(x: np.ndarray) -> np.ndarray:
        seen.append((x.dtype, x.shape[1:]))
        return x

    batcher = batched(f)
    shapes = [(), (1,), (2,), (1, 2), (2, 1), (0,), (3, 0), (0, 3)]
    items = [sample(dtype, shape, seed) for dtype in DTYPES for shape in shapes for seed in range(3)]
    random.Random(3).shuffle(items)
    rows = await asyncio.gather(*map(batcher, items))
    assert all(same(row, item) for row, item in zip(rows, items, strict=True))
    assert len(seen) == len(set(seen)) == len(DTYPES) * len(shapes)


async def test_an_odd_shape_fails_alone_where_the_function_cannot_take_it() -> None:
    weights = np.ones((3, 2))
    f = batched(lambda x: x @ weights)
    results = await asyncio.gather(f(np.ones(3)), f(np.ones(4)), f(np.ones(3)), return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["ndarray", "ModelError", "ndarray"]


async def test_many_shapes_one_after_another_all_work() -> None:
    f = batched(lambda x: x + 1)
    for _ in range(2):
        for size in range(200):
            assert (await f(np.zeros(size))).tolist() == [1.0] * size


class Keywords:
    """Answers every item with the keyword arguments that its batch had."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: Any, **keywords: Any) -> list[Any]:
        self.calls += 1
        return [keywords] * len(x)


async def split(values: list[Any]) -> tuple[int, list[Any]]:
    keywords = Keywords()
    f = batched(keywords)
    rows = await asyncio.gather(*(f(0, k=value) for value in values))
    return keywords.calls, [row["k"] for row in rows]


async def test_equal_keyword_arguments_share_a_batch_whatever_their_order() -> None:
    keywords = Keywords()
    f = batched(keywords)
    rows = await asyncio.gather(f(1, a=1, b="x"), f(2, b="x", a=1), f(3, a=1, b="x"))
    assert rows == [{"a": 1, "b": "x"}] * 3
    assert keywords.calls == 1


async def test_other_names_and_no_names_split_a_batch() -> None:
    keywords = Keywords()
    f = batched(keywords)
    rows = await asyncio.gather(f(1), f(1, a=1), f(1, b=1), f(1, a=1, b=1), f(2, a=1))
    assert rows == [{}, {"a": 1}, {"b": 1}, {"a": 1, "b": 1}, {"a": 1}]
    assert keywords.calls == 4


APART = [
    [1, 2],
    [1, True, 1.0, 1 + 0j],
    [0, False],
    [0.0, -0.0],
    ["a", b"a"],
    [None, False],
    [(1, 2), (1, 2.0)],
    [(1, (True,)), (1, (1,))],
    [(0.0,), (-0.0,)],
    [np.float32(1), np.float64(1), 1.0],
    [Decimal(1), 1],
    [complex(0.0, 0.0), complex(0.0, -0.0), complex(-0.0, 0.0)],
    [np.float64(0.0), np.float64(-0.0)],
    [Pair(1, 2), Pair(True, 2), Pair(1.0, 2)],
    [Pair(0.0, 1), (0.0, 1), Pair(-0.0, 1)],
    [frozenset({1}), frozenset({True}), frozenset({1.0})],
]


@pytest.mark.parametrize("values", APART, ids=lambda values: " and ".join(map(repr, values)))
async def test_values_that_are_equal_and_not_the_same_are_told_apart(values: list[Any]) -> None:
    calls, rows = await split(values * 3)
    assert [repr(row) for row in rows] == [repr(value) for value in values * 3]
    assert [type(row) for row in rows] == [type(value) for value in values * 3]
    assert calls == len(values)


async def test_nan_equals_itself_as_a_keyword_argument() -> None:
    calls, rows = await split([float("nan"), float("nan"), math.nan, math.inf, -math.inf])
    assert calls == 3
    assert all(math.isnan(row) for row in rows[:3])
    assert rows[3:] == [math.inf, -math.inf]


@pytest.mark.parametrize("value", [[1], {"a": 1}, {1}, np.zeros(3), ([1],)], ids=repr)
async def test_an_unhashable_keyword_argument_is_a_type_error_that_names_it(value: object) -> None:
    keywords = Keywords()
    f = batched(keywords)
    with pytest.raises(TypeError, match="culprit"):
        await f(1, fine=1, culprit=value)
    with pytest.raises(TypeError, match="culprit"):
        f.options(priority="high").call(1, culprit=value)
    assert await f(1, fine=1) == {"fine": 1}
    assert keywords.calls == 1


async def test_a_function_may_change_the_keyword_arguments_that_it_is_given() -> None:
    def f(x: np.ndarray, **keywords: Any) -> list:
        keywords["seen"] = True
        return [dict(keywords)] * len(x)

    batcher = batched(f)
    first = await batcher(1, a=1)
    second = await batcher(2, a=1)
    assert first == second == {"a": 1, "seen": True}


async def test_a_keyword_argument_with_a_default_is_left_to_the_function() -> None:
    def f(x: np.ndarray, *, factor: int = 7) -> np.ndarray:
        return x * factor

    batcher = batched(f)
    assert await asyncio.gather(batcher(1), batcher(1, factor=2), batcher(2)) == [7, 2, 14]


async def test_a_keyword_argument_that_the_function_does_not_know_fails_its_own_callers() -> None:
    f = batched(lambda x: x)
    results = await asyncio.gather(f(1), f(1, surprise=1), return_exceptions=True)
    assert results[0] == 1
    assert isinstance(results[1].__cause__, TypeError)


async def test_thousands_of_different_keyword_arguments_keep_their_own_values() -> None:
    f = batched(Keywords())
    for start in range(0, 3000, 500):
        rows = await asyncio.gather(*(f(0, k=number, other="x") for number in range(start, start + 500)))
        assert [row["k"] for row in rows] == list(range(start, start + 500))
    assert (await f(0, k=1, other="x"))["k"] == 1


class Slow:
    """A hashable value whose hash and equality let other threads run."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __hash__(self) -> int:
        time.sleep(0.0005)
        return 7

    def __eq__(self, other: object) -> bool:
        time.sleep(0.0005)
        return isinstance(other, Slow) and other.number == self.number


def test_threads_that_bring_new_keyword_arguments_at_once_get_their_own() -> None:
    f = batched(Keywords(), workers=2)
    ready = threading.Barrier(8)

    def one(thread: int) -> list[tuple[int, int]]:
        answers = []
        for turn in range(5):
            number = thread * 100 + turn
            ready.wait()
            answers.append((number, f.call(0, k=Slow(number))["k"].number))
        return answers

    with ThreadPoolExecutor(8) as pool:
        for answers in pool.map(one, range(8)):
            assert [got for _, got in answers] == [number for number, _ in answers]


def test_a_hash_that_raises_is_the_callers_own_error() -> None:
    class Bad:
        def __hash__(self) -> int:
            raise RuntimeError("no hash today")

    f = batched(Keywords())
    with pytest.raises((TypeError, RuntimeError), match=r"bad|no hash today"):
        f.call(1, bad=Bad())
    assert f.call(1, a=1) == {"a": 1}
