"""Requests with terms of their own: keys, costs, padding, shares, deadlines, memory that runs out."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penstock
from penstock import Adaptive, Pad, batched
from penstock.errors import ConfigError, DeadlineExceeded, ItemError, ModelError, Overloaded
from tests.python.support.waiting import soon

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]


async def test_only_items_with_equal_keys_share_a_batch() -> None:
    seen: list[list[str]] = []

    @batched(key=lambda text: text[0])
    def shout(texts: list[str]) -> list[str]:
        seen.append(list(texts))
        return [text.upper() for text in texts]

    answers = await asyncio.gather(*(shout(text) for text in ["apple", "bear", "ant", "bee"]))
    assert answers == ["APPLE", "BEAR", "ANT", "BEE"]
    assert sorted(seen) == [["apple", "ant"], ["bear", "bee"]]
    assert shout.stats().reasons == {"key": 1, "tick": 1}


async def test_a_key_that_raises_or_cannot_be_hashed_refuses_the_item() -> None:
    def first(text: str) -> Any:
        return [] if text == "list" else text[0]

    @batched(key=first)
    def same(texts: list[str]) -> list[str]:
        return texts

    with pytest.raises(ItemError, match="key raised IndexError") as caught:
        await same("")
    assert isinstance(caught.value.__cause__, IndexError)
    with pytest.raises(TypeError, match="not hashable"):
        await same("list")
    assert await same("fine") == "fine"


async def test_a_batch_keeps_to_its_budget_and_short_items_fill_it_up() -> None:
    seen: list[list[int]] = []

    @batched(cost=len, max_batch_cost=10)
    def lengths(texts: list[str]) -> list[int]:
        seen.append([len(text) for text in texts])
        return [len(text) for text in texts]

    asked = [6, 7, 3, 2, 1]
    assert await asyncio.gather(*(lengths("x" * length) for length in asked)) == asked
    assert [sum(batch) for batch in seen] == [10, 9]
    assert lengths.stats().reasons["budget"] == 1
    with pytest.raises(ItemError, match="costs 11 exceeds max_batch_cost=10"):
        await lengths("x" * 11)


@pytest.mark.parametrize("answer", [-1, 2.5, None, 2**40])
async def test_a_cost_that_is_none_refuses_the_item(answer: object) -> None:
    @batched(cost=lambda _: answer)
    def same(items: Ints) -> Ints:
        return items

    with pytest.raises(ItemError, match="cost returned"):
        await same(1)


async def test_a_queue_is_bounded_in_cost() -> None:
    gate = threading.Event()

    @batched(cost="length", max_queue_cost=10, max_batch_size=1)
    def slow(texts: list[str]) -> list[str]:
        gate.wait(20)
        return texts

    running = slow("a")
    await soon(lambda: bool(slow.stats().running))
    waiting = [slow("x" * 6), slow("x" * 4)]
    with pytest.raises(Overloaded, match="max_queue_cost=10"):
        slow("b")
    gate.set()
    assert await asyncio.gather(running, *waiting) == ["a", "x" * 6, "x" * 4]


async def test_arrays_of_different_lengths_share_a_batch() -> None:
    seen: list[tuple[Any, Any, Any]] = []

    @batched(pad=Pad(value=-1, multiple=4))
    def total(x: Ints, *, mask: NDArray[np.bool_], lengths: Ints) -> Ints:
        seen.append((x.copy(), mask.copy(), lengths.copy()))
        return np.where(mask, x, 0).sum(axis=1)

    items = [np.arange(1, length + 1) for length in (3, 1, 5)]
    assert await asyncio.gather(*(total(item) for item in items)) == [6, 1, 15]
    [(x, mask, lengths)] = seen
    assert x.shape == (3, 8)
    assert x.dtype == np.int64
    assert lengths.tolist() == [3, 1, 5]
    assert mask.sum(axis=1).tolist() == [3, 1, 5]
    assert x[1].tolist() == [1, *[-1] * 7]
    stats = total.stats()
    assert stats.reasons == {"tick": 1}


@pytest.mark.parametrize("dtype", ["float16", "float32", "complex64", "uint8", "bool", "int16"])
async def test_rows_are_filled_up_in_every_data_type(dtype: str) -> None:
    @batched(pad=Pad(value=1))
    def shapes(x: NDArray[Any]) -> list[NDArray[Any]]:
        return list(x.copy())

    long, short = np.zeros((4, 2), dtype), np.zeros((1, 2), dtype)
    rows = await asyncio.gather(shapes(long), shapes(short))
    assert rows[1].dtype == np.dtype(dtype)
    expected = np.zeros((4, 2), dtype)
    expected[1:] = 1
    np.testing.assert_array_equal(rows[1], expected)


async def test_a_padded_batch_that_raises_is_run_again_with_the_masks_of_its_parts() -> None:
    @batched(pad=True)
    def mean(x: Ints, lengths: Ints) -> NDArray[np.float64]:
        if (x == 13).any():
            raise ValueError("unlucky")
        return x.sum(axis=1) / lengths

    items = [[1], [2, 4], [13, 1, 1], [3, 3, 3]]
    results = await asyncio.gather(*(mean(np.array(item)) for item in items), return_exceptions=True)
    assert results[:2] == [1.0, 3.0]
    assert results[3] == 3.0
    assert isinstance(results[2], ModelError)


async def test_tenants_get_their_shares() -> None:
    gate = threading.Event()
    order: list[str] = []

    @batched(weights={"gold": 3.0}, max_batch_size=4)
    def note(names: list[str]) -> list[str]:
        gate.wait(20)
        order.extend(names)
        return names

    first = note("first")
    await soon(lambda: bool(note.stats().running))
    crowd = [note.options(tenant="crowd")("crowd") for _ in range(12)]
    gold = [note.options(tenant="gold")("gold") for _ in range(12)]
    gate.set()
    await asyncio.gather(first, *crowd, *gold)
    assert order[1:9].count("gold") == 6


async def test_low_priorities_age() -> None:
    gate = threading.Event()
    order: list[str] = []

    @batched(aging=0.01, max_batch_size=1)
    def note(names: list[str]) -> list[str]:
        gate.wait(20)
        order.extend(names)
        return names

    first = note("first")
    await soon(lambda: bool(note.stats().running))
    low = note.options(priority="low")("low")
    await asyncio.sleep(0.05)
    high = note.options(priority="high")("high")
    gate.set()
    await asyncio.gather(first, low, high)
    assert order == ["first", "low", "high"]


async def test_the_earliest_deadline_goes_first() -> None:
    gate = threading.Event()
    order: list[str] = []

    @batched(max_batch_size=1)
    def note(names: list[str]) -> list[str]:
        gate.wait(20)
        order.extend(names)
        return names

    first = note("first")
    await soon(lambda: bool(note.stats().running))
    rest = [note.options(timeout=timeout)(f"{timeout}") for timeout in (30.0, 10.0, 20.0)]
    gate.set()
    await asyncio.gather(first, *rest)
    assert order == ["first", "10.0", "20.0", "30.0"]


async def test_an_expired_request_never_reaches_the_function() -> None:
    gate = threading.Event()
    seen: list[str] = []

    @batched(max_batch_size=1)
    def note(names: list[str]) -> list[str]:
        gate.wait(20)
        seen.extend(names)
        return names

    first = note("first")
    await soon(lambda: bool(note.stats().running))
    late = note.options(timeout=0.02)("late")
    with pytest.raises(DeadlineExceeded):
        await late
    gate.set()
    await first
    await note("last")
    assert seen == ["first", "last"]


async def test_a_hopeless_request_is_refused_at_once_with_the_time_to_wait() -> None:
    release = threading.Semaphore(0)

    @batched(max_batch_size=1)
    def slow(items: Ints) -> Ints:
        release.acquire(timeout=0.05)
        return items

    await asyncio.gather(*(slow(number) for number in range(4)))
    waiting = [slow(number) for number in range(8)]
    with pytest.raises(Overloaded, match="after the deadline") as caught:
        slow.options(timeout=0.001)(9)
    assert caught.value.retry_after is not None
    assert 0.01 < caught.value.retry_after < 10
    await asyncio.gather(*waiting)
    assert slow.stats().rejected == 1


class _OutOfMemoryError(RuntimeError):
    """As PyTorch calls its own."""


_OutOfMemoryError.__name__ = "OutOfMemoryError"


@pytest.mark.parametrize(
    "error",
    [MemoryError, lambda: _OutOfMemoryError("CUDA"), lambda: RuntimeError("CUDA out of memory. Tried to allocate")],
)
async def test_memory_that_runs_out_halves_the_batches_and_fails_nobody(error: Callable[[], Exception]) -> None:
    sizes: list[int] = []

    @batched(max_batch_size=32)
    def hungry(x: Ints) -> Ints:
        sizes.append(len(x))
        if len(x) > 10:
            raise error()
        return x * 2

    assert await asyncio.gather(*(hungry(number) for number in range(32))) == [number * 2 for number in range(32)]
    assert sizes[0] == 32
    assert await asyncio.gather(*(hungry(number) for number in range(32))) == [number * 2 for number in range(32)]
    # Nothing that is known not to fit is tried again.
    assert max(sizes[-4:]) <= 10


async def test_poison_is_found_in_a_logarithm_of_rounds_and_fails_alone() -> None:
    calls: list[int] = []

    @batched(max_batch_size=32)
    def strict(x: Ints) -> Ints:
        calls.append(len(x))
        if (x == 7).any():
            raise ValueError("seven")
        return x

    results = await asyncio.gather(*(strict(number) for number in range(32)), return_exceptions=True)
    assert [result for number, result in enumerate(results) if number != 7] == [n for n in range(32) if n != 7]
    assert isinstance(results[7], ModelError)
    assert isinstance(results[7].__cause__, ValueError)
    # A half whose other half has no fault is not run whole to see it fail.
    assert len(calls) <= 1 + 2 * 5
    assert sum(calls) < 32 * 3


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_batch_cost": 5}, "need cost="),
        ({"cost": "size"}, "cost must be"),
        ({"cost": len, "pad": True}, "exclude each other"),
        ({"cost": len, "max_batch_cost": 0}, "max_batch_cost"),
        ({"cost": len, "max_queue_cost": True}, "max_queue_cost"),
        ({"key": "name"}, "key must be"),
        ({"pad": 3}, "pad must be"),
        ({"preferred_batch_sizes": (8, 500)}, "500"),
        ({"preferred_batch_sizes": 8}, "tuple"),
        ({"aging": 0}, "aging"),
        ({"weights": {"a": 0}}, "'a'"),
        ({"weights": {3: 1.0}}, "tenant is a string"),
        ({"weights": [("a", 1)]}, "mapping"),
        ({"max_batch_size": Adaptive(smallest=1, largest=4), "preferred_batch_sizes": (5,)}, "5"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        penstock.BatchPolicy(**settings)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Adaptive(smallest=0),
        lambda: Adaptive(smallest=9, largest=8),
        lambda: Adaptive(target=0.0),
        lambda: Adaptive(target=float("nan")),
        lambda: Pad(multiple=0),
        lambda: Pad(value="zero"),  # type: ignore[arg-type]
    ],
)
def test_adaptive_and_pad_refuse_what_cannot_be(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigError):
        make()


async def test_an_adaptive_cap_is_learned() -> None:
    @batched(max_batch_size=Adaptive(smallest=2, largest=64, target=1.0))
    def quick(x: Ints) -> Ints:
        return x

    for _ in range(40):
        await asyncio.gather(*(quick(number) for number in range(64)))
    assert quick.stats().max_batch_size > 8
