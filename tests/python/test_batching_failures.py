"""A function that raises: who is told, what they are told, and that nobody else suffers."""

from __future__ import annotations

import asyncio
import pickle
import threading
import traceback
from typing import Any

import numpy as np
import pytest

from penstock import batched
from penstock.errors import ItemError, ModelError, PenstockError
from tests.python.support.waiting import outcomes

POISON = frozenset({3, 50, 97})
WORKERS = pytest.mark.parametrize("workers", [1, "inline"])


class Stop(BaseException):
    """What no `except Exception` catches."""


class Choosy:
    """Doubles a batch, unless there is poison in it."""

    def __init__(self, error: type[BaseException] = ValueError) -> None:
        self.calls: list[list[float]] = []
        self.error = error

    def __call__(self, x: np.ndarray) -> np.ndarray:
        self.calls.append(x.tolist())
        if POISON & set(x.tolist()):
            raise self.error("poison")
        return x * 2


@WORKERS
async def test_only_the_guilty_fail_and_few_calls_find_them(workers: int | str) -> None:
    choosy = Choosy()
    f = batched(choosy, max_batch_size=100, workers=workers)
    results = await outcomes(map(f, range(100)))
    for number, result in enumerate(results):
        if number in POISON:
            assert type(result) is ModelError
            assert isinstance(result.__cause__, ValueError)
        else:
            assert result == number * 2
    assert choosy.calls[0] == list(range(100))
    # Halving: at most two calls on each of seven levels for each of the guilty.
    assert len(choosy.calls) <= 1 + 2 * 7 * len(POISON)
    stats = f.stats()
    assert (stats.requests, stats.batches, stats.failed) == (100, 1, 3)
    assert stats.reruns == len(choosy.calls) - 1


@WORKERS
async def test_on_error_fail_calls_once_and_fails_all(workers: int | str) -> None:
    choosy = Choosy()
    f = batched(choosy, on_error="fail", workers=workers)
    results = await outcomes(map(f, range(10)))
    assert [type(result) for result in results] == [ModelError] * 10
    assert len(choosy.calls) == 1
    assert (f.stats().failed, f.stats().reruns) == (10, 0)
    assert await f(4) == 8


async def test_a_function_that_always_fails_fails_everyone_within_bounds() -> None:
    calls = []

    def f(x: np.ndarray) -> np.ndarray:
        calls.append(len(x))
        raise KeyError("never")

    results = await outcomes(map(batched(f), range(64)))
    assert [type(result) for result in results] == [ModelError] * 64
    assert len(calls) <= 2 * 64


@pytest.mark.parametrize("item", [1.0, np.ones(3), np.ones(50_000), (1.0, np.ones(2)), {"a": 1.0}])
@WORKERS
async def test_isolation_repeats_the_callers_items_and_not_what_the_function_made_of_them(
    item: Any, workers: int | str
) -> None:
    def columns(x: Any) -> list[np.ndarray]:
        return list(x) if isinstance(x, tuple) else list(x.values()) if isinstance(x, dict) else [x]

    seen = []

    def f(x: Any) -> Any:
        for column in columns(x):
            np.multiply(column, 2, out=column)  # before it looks
        seen.append(len(columns(x)[0]))
        if len(columns(x)[0]) > 2:
            raise ValueError("too many for me")
        return x

    batcher = batched(f, workers=workers)
    for result in await outcomes(batcher(item) for _ in range(8)):
        for got, sent in zip(columns(result), columns(item), strict=True):
            assert np.array_equal(got, np.asarray(sent) * 2), "an item was changed more than once"
    assert max(seen) == 8


async def test_isolation_repeats_the_objects_even_where_the_function_emptied_its_list() -> None:
    def f(names: list[str]) -> list[str]:
        out = []
        while names:
            out.append(names.pop(0).upper())
        if "D" in out:
            raise ValueError("no d today")
        return out

    results = await outcomes(map(batched(f), "abcdefgh"))
    assert isinstance(results.pop(3), ModelError)
    assert results == list("ABCEFGH")


async def test_every_waiter_has_an_exception_of_its_own_with_the_users_as_its_cause() -> None:
    boom = RuntimeError("boom")

    def f(x: np.ndarray) -> np.ndarray:
        raise boom

    errors = await outcomes(map(batched(f, on_error="fail"), range(5)))
    assert [type(error) for error in errors] == [ModelError] * 5
    assert len({id(error) for error in errors}) == 5
    assert all(error.__cause__ is boom for error in errors)
    assert all("RuntimeError" in str(error) and "boom" in str(error) for error in errors)
    assert "raise boom" in "".join(traceback.format_exception(errors[0]))


async def test_tracebacks_are_not_shared() -> None:
    f = batched(Choosy(), on_error="fail")
    futures = [f(number) for number in sorted(POISON)]

    async def deep(future: asyncio.Future, depth: int) -> None:
        if depth:
            await deep(future, depth - 1)
        await future

    lengths = []
    for depth, future in enumerate(futures):
        try:
            await deep(future, depth * 5)
        except ModelError as error:
            lengths.append(len(traceback.extract_tb(error.__traceback__)))
    assert lengths[1] - lengths[0] == lengths[2] - lengths[1] == 5


@WORKERS
@pytest.mark.parametrize(
    "kind", [StopIteration, StopAsyncIteration, GeneratorExit, RecursionError, MemoryError, Stop, OSError]
)
async def test_whatever_is_raised_reaches_the_waiter_and_the_batcher_goes_on(
    kind: type[BaseException], workers: int | str
) -> None:
    f = batched(Choosy(kind), workers=workers)
    (error,) = await outcomes([f(3)])
    assert type(error) is ModelError
    assert type(error.__cause__) is kind
    assert await f(4) == 8


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
async def test_a_worker_that_wants_to_exit_or_is_interrupted_goes_on(kind: type[BaseException]) -> None:
    f = batched(Choosy(kind))
    results = await outcomes(map(f, [3, 50]))
    assert [type(error) for error in results] == [ModelError] * 2
    assert all(type(error.__cause__) is kind for error in results)
    assert await f(4) == 8
    assert len({thread.name for thread in threading.enumerate() if "Choosy" in thread.name}) <= 1


@WORKERS
async def test_a_function_that_raises_cancelled_error_answers_and_goes_on(workers: int | str) -> None:
    f = batched(Choosy(asyncio.CancelledError), workers=workers)
    (error,) = await outcomes([f(3)])
    assert isinstance(error, (ModelError, asyncio.CancelledError))
    assert await f(4) == 8


@WORKERS
async def test_an_exception_that_cannot_be_shown_reaches_the_waiter(workers: int | str) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("cannot say")

    f = batched(Choosy(Mute), workers=workers)
    (error,) = await outcomes([f(3)])
    assert isinstance(error.__cause__, Mute)
    assert await f(4) == 8


async def test_an_item_error_as_a_value_fails_that_request_alone() -> None:
    def f(x: np.ndarray) -> list:
        return [ItemError(f"no {number}") if number % 3 == 0 else number for number in x.tolist()]

    calls = batched(f)
    results = await outcomes(map(calls, range(10)))
    for number, result in enumerate(results):
        if number % 3 == 0:
            assert type(result) is ItemError
            assert str(result) == f"no {number}"
            assert result.__cause__ is None
        else:
            assert result == number
    assert (calls.stats().failed, calls.stats().reruns) == (4, 0)


@pytest.mark.parametrize("shape", ["dict", "tuple", "object array", "nested"])
async def test_an_item_error_in_a_column_fails_its_request(shape: str) -> None:
    def f(x: np.ndarray) -> Any:
        column = [ItemError("no") if number == 1 else number for number in x.tolist()]
        return {
            "dict": {"a": x, "b": column},
            "tuple": (x, column),
            "object array": np.array(column, object),
            "nested": {"a": {"b": (x, column)}},
        }[shape]

    results = await outcomes(map(batched(f), range(3)))
    assert [isinstance(result, ItemError) for result in results] == [False, True, False]


async def test_one_item_error_in_several_rows_is_a_distinct_exception_for_each() -> None:
    refusal = ItemError("all the same")
    refusal.detail = 42  # type: ignore[attr-defined]
    f = batched(lambda x: [refusal] * len(x))
    errors = [*await outcomes(map(f, range(3))), *await outcomes(map(f, range(3)))]
    assert len({id(error) for error in errors}) == 6, "the same instance would collect the tracebacks of all"
    assert all(type(error) is ItemError and error.detail == 42 for error in errors)
    assert {str(error) for error in errors} == {"all the same"}


async def test_an_item_error_raised_for_one_item_is_its_own_and_not_wrapped() -> None:
    def f(x: np.ndarray) -> np.ndarray:
        if len(x) == 1 and x[0] == 3:
            raise ItemError("three is bad")
        if 3 in x:
            raise ValueError("somebody is bad")
        return x

    results = await outcomes(map(batched(f), range(8)))
    assert type(results[3]) is ItemError
    assert str(results[3]) == "three is bad"
    assert results[:3] + results[4:] == [0, 1, 2, 4, 5, 6, 7]


async def test_an_item_error_raised_for_a_whole_batch_is_everyones_own() -> None:
    def f(x: np.ndarray) -> np.ndarray:
        raise ItemError("none of you")

    errors = await outcomes(map(batched(f, on_error="fail"), range(4)))
    assert [type(error) for error in errors] == [ItemError] * 4
    assert len({id(error) for error in errors}) == 4


class TooLong(ItemError):
    def __init__(self, length: int, *, limit: int) -> None:
        super().__init__(f"{length} is over {limit}")
        self.length = length


async def test_a_users_own_item_error_keeps_its_class_and_attributes_in_every_row() -> None:
    refusal = TooLong(7, limit=5)
    errors = await outcomes(map(batched(lambda x: [refusal] * len(x)), range(3)))
    assert [type(error) for error in errors] == [TooLong] * 3
    assert [error.length for error in errors] == [7, 7, 7]
    assert {str(error) for error in errors} == {"7 is over 5"}
    assert len({id(error) for error in errors}) == 3


class Awkward(ItemError, StopIteration):
    """asyncio refuses to put a StopIteration into a future."""


@WORKERS
async def test_a_refusal_that_asyncio_cannot_carry_hangs_nobody(workers: int | str) -> None:
    f = batched(lambda x: [Awkward("odd") if n == 1 else n for n in x.tolist()], workers=workers)
    results = await outcomes(map(f, range(4)))
    assert [results[0], *results[2:]] == [0, 2, 3]
    assert isinstance(results[1], Exception)
    assert await f(5) == 5


async def test_a_model_error_of_the_users_own_is_its_own_cause_or_itself() -> None:
    def f(x: np.ndarray) -> np.ndarray:
        raise ModelError("mine")

    (error,) = await outcomes([batched(f)(1)])
    assert isinstance(error, ModelError)
    assert "mine" in str(error)


async def test_a_failure_can_be_pickled_for_another_process() -> None:
    (error,) = await outcomes([batched(Choosy())(3)])
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  our own
    assert type(again) is ModelError
    assert str(again) == str(error)


@WORKERS
async def test_a_failing_and_a_working_batch_side_by_side_do_not_mix(workers: int | str) -> None:
    f = batched(Choosy(), workers=workers, on_error="fail")
    results = await outcomes([f(3.0), f(4), f(50.0), f(5), f(np.float32(6))])
    assert [isinstance(result, PenstockError) for result in results] == [True, False, True, False, False]


def test_a_failure_reaches_call_as_it_reaches_await() -> None:
    f = batched(Choosy())
    with pytest.raises(ModelError, match="poison") as caught:
        f.call(3)
    assert isinstance(caught.value.__cause__, ValueError)
    assert f.call(4) == 8


async def test_an_async_function_that_raises_reaches_its_waiters() -> None:
    async def f(x: np.ndarray) -> np.ndarray:
        await asyncio.sleep(0)
        if 3 in x:
            raise ValueError("async poison")
        return x

    results = await outcomes(map(batched(f), range(6)))
    assert [isinstance(result, ModelError) for result in results] == [n == 3 for n in range(6)]
    assert isinstance(results[3].__cause__, ValueError)
