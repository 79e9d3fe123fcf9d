"""Who owns the memory: what a function keeps, changes or uses again never changes a result, and no row pins a batch."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penstock import batched

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.python.support.scripts import Script

SIZES = pytest.mark.parametrize("size", [3, 4096], ids=["small", "large"])  # below and above what is shared
WORKERS = pytest.mark.parametrize("workers", [1, "inline"])


@SIZES
@WORKERS
@pytest.mark.parametrize("view", ["itself", "view", "reversed twice", "list of rows", "dict", "nested"])
async def test_a_function_that_returns_its_input_and_keeps_it_sees_right_data_for_ever(
    view: str, size: int, workers: int | str
) -> None:
    kept: list[tuple[np.ndarray, Any]] = []
    shapes: dict[str, Callable[[np.ndarray], Any]] = {
        "itself": lambda x: x,
        "view": lambda x: x[:, :],
        "reversed twice": lambda x: x[:, ::-1][:, ::-1],
        "list of rows": list,
        "dict": lambda x: {"y": x},
        "nested": lambda x: ({"y": x[:]}, x),
    }

    def f(x: np.ndarray) -> Any:
        out = shapes[view](x)
        kept.append((x, out))
        return out

    batcher = batched(f, workers=workers)
    rows: list[Any] = []
    for turn in range(20):
        items = [np.full(size, turn * 10 + number, np.float32) for number in range(4)]
        rows += await asyncio.gather(*map(batcher, items))
    assert len(kept) == 20
    for turn, (x, _) in enumerate(kept):
        assert x[:, 0].tolist() == [turn * 10 + number for number in range(4)]
        assert (x == x[:, :1]).all()
    for number, row in enumerate(rows):
        array = row["y"] if view == "dict" else row[0]["y"] if view == "nested" else row
        assert array.shape == (size,)
        assert (array == number // 4 * 10 + number % 4).all()


@SIZES
async def test_a_reversed_view_of_the_input_gives_reversed_rows(size: int) -> None:
    f = batched(lambda x: x[::-1])
    rows = await asyncio.gather(*(f(np.full(size, number)) for number in range(4)))
    assert [row[0] for row in rows] == [3, 2, 1, 0]


def reuse_slice(out: np.ndarray, count: int) -> Any:
    return out[:count]


def reuse_list(out: np.ndarray, count: int) -> Any:
    return list(out[:count])


def reuse_dict(out: np.ndarray, count: int) -> Any:
    return {"y": out[:count]}


def reuse_tuple(out: np.ndarray, count: int) -> Any:
    return (out[:count], list(out[:count]))


def reuse_list_of_dicts(out: np.ndarray, count: int) -> Any:
    return [{"y": row} for row in out[:count]]


def reuse_list_of_tuples(out: np.ndarray, count: int) -> Any:
    return [(row, 1) for row in out[:count]]


REUSES = [reuse_slice, reuse_list, reuse_dict, reuse_tuple, reuse_list_of_dicts, reuse_list_of_tuples]


@SIZES
@WORKERS
@pytest.mark.parametrize("reuse", REUSES, ids=lambda reuse: reuse.__name__.removeprefix("reuse_").replace("_", " "))
async def test_a_function_that_uses_one_output_buffer_again_gives_everyone_the_right_answer(
    reuse: Callable[[np.ndarray, int], Any], size: int, workers: int | str
) -> None:
    out = np.empty((10, size), np.float32)

    def f(x: np.ndarray) -> Any:
        out[:] = -1
        out[: len(x)] = x * 2
        return reuse(out, len(x))

    batcher = batched(f, workers=workers, max_batch_size=10)
    rows = []
    for turn in range(10):
        rows += await asyncio.gather(*(batcher(np.full(size, turn * 4 + n, np.float32)) for n in range(4)))
    for number, row in enumerate(rows):
        part = row["y"] if isinstance(row, dict) else row[0] if isinstance(row, tuple) else row
        assert (part == number * 2).all()


async def test_a_whole_buffer_returned_again_and_again_gives_everyone_the_right_answer() -> None:
    out = np.empty((2, 3))

    def f(x: np.ndarray) -> np.ndarray:
        np.multiply(x, 2, out=out)
        return out

    batcher = batched(f)
    rows = []
    for turn in range(10):
        rows += await asyncio.gather(batcher(np.full(3, turn)), batcher(np.full(3, -turn)))
    assert [row[0] for row in rows[::2]] == [2 * turn for turn in range(10)]
    assert [row[0] for row in rows[1::2]] == [-2 * turn for turn in range(10)]


async def test_one_row_buffer_in_a_list_is_copied_for_everyone() -> None:
    out = np.empty(3)

    def f(x: np.ndarray) -> list:
        out[:] = x[0]
        return [out] * len(x)

    batcher = batched(f)
    first = await batcher(np.full(3, 1.0))
    second, third = await asyncio.gather(batcher(np.full(3, 2.0)), batcher(np.full(3, 2.0)))
    assert first.tolist() == [1, 1, 1]
    second[:] = 7
    assert third.tolist() == [2, 2, 2]


async def test_records_in_a_buffer_that_is_used_again_are_right() -> None:
    out = np.zeros(10, [("a", "f8"), ("b", "i4")])

    def f(x: np.ndarray) -> np.ndarray:
        out["a"][: len(x)] = x
        return out[: len(x)]

    batcher = batched(f)
    rows = [await batcher(float(number)) for number in range(5)]
    assert [row["a"] for row in rows] == [0, 1, 2, 3, 4]


async def test_arrays_inside_an_object_array_that_is_used_again_are_right() -> None:
    buffer = np.zeros((4, 2))
    out = np.empty(4, object)

    def f(x: np.ndarray) -> np.ndarray:
        buffer[: len(x)] = x[:, None]
        for number in range(len(x)):
            out[number] = buffer[number]
        return out[: len(x)]

    batcher = batched(f)
    rows = [await batcher(float(number)) for number in range(5)]
    assert [row.tolist() for row in rows] == [[n, n] for n in range(5)]


@SIZES
@WORKERS
async def test_changing_the_input_in_place_changes_no_callers_item(size: int, workers: int | str) -> None:
    def f(x: np.ndarray) -> np.ndarray:
        x *= 2
        return x

    batcher = batched(f, workers=workers)
    items = [np.full(size, number) for number in range(5)]
    rows = await asyncio.gather(*map(batcher, items))
    assert [row[0] for row in rows] == [0, 2, 4, 6, 8]
    assert [item[0] for item in items] == [0, 1, 2, 3, 4]


@SIZES
async def test_changing_one_result_changes_no_other(size: int) -> None:
    batcher = batched(lambda x: x)
    items = [np.full(size, number) for number in range(5)]
    rows = await asyncio.gather(*map(batcher, items))
    rows[2][:] = -1
    assert [row[0] for row in rows] == [0, 1, -1, 3, 4]
    assert items[2][0] == 2


@pytest.mark.parametrize("keep_alive", [False, True])
async def test_rows_outlive_their_batcher(keep_alive: bool) -> None:
    batcher = batched(lambda x: x)
    rows = await asyncio.gather(*(batcher(np.full(5, number)) for number in range(3)))
    if not keep_alive:
        batcher.close()
        del batcher
    gc.collect()
    waste = [np.full(5, 99) for _ in range(1000)]
    assert [row.tolist() for row in rows] == [[n] * 5 for n in range(3)]
    assert waste


RETURNS = {
    "the batch": "x",
    "a new array": "x + 1",
    "a list of views": "list(x)",
    "a dict": "{'y': x}",
    "a tuple": "(x, [None] * len(x))",
    "a list of dicts of views": "[{'y': row} for row in x]",
    "a list of tuples of views": "[(row, 1) for row in x]",
    "an object array of views": "np.array([*x, None], object)[:-1]",
}


@pytest.mark.parametrize("kind", RETURNS)
def test_one_kept_row_does_not_pin_its_batch(kind: str, script: Script) -> None:
    # A process of its own: what other tests hold or let go of would be counted too.
    done = script.run(f"""
import gc
from pathlib import Path

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20

item = np.ones(1 << 18, np.float32)  # 1 MiB
batcher = batched(lambda x: {RETURNS[kind]})

async def one_row():
    return (await asyncio.gather(*(batcher(item) for _ in range(32))))[3]

before = resident()
kept = [asyncio.run(one_row()) for _ in range(6)]
gc.collect()
print(resident() - before, len(kept), batcher.stats().batches)
""")
    assert (done.code, done.err) == (0, "")
    grown, rows, batches = map(int, done.out[0].split())
    assert (rows, batches) == (6, 6)
    # All pinned would be 192 MiB; the batcher itself may keep 64 MiB to use again.
    assert grown < 128, f"{grown} MiB stay for 6 rows of 1 MiB"
