"""Items that are no arrays: numbers, text, objects, and structures of them."""

from __future__ import annotations

import asyncio
import enum
import gc
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

from penstock import batched
from penstock.errors import ItemError
from tests.python.support.arrays import DTYPES, same, sample
from tests.python.support.waiting import Gate, soon

if TYPE_CHECKING:
    from tests.python.support.scripts import Script


class Point(NamedTuple):
    x: Any
    y: Any


class Colour(enum.IntEnum):
    RED = 1
    BLUE = 2


class Thing:
    pass


async def gathered(*items: Any) -> tuple[list[Any], list[Any]]:
    """What the function was given, batch by batch, and what came back."""
    batches: list[Any] = []

    def f(x: Any) -> Any:
        batches.append(x)
        return x

    rows = await asyncio.gather(*map(batched(f), items))
    return batches, rows


NUMBERS = {
    "int64": [0, -1, 2**63 - 1, -(2**63)],
    "float64": [0.5, -0.0, float("inf"), 5e-324],
    "bool": [True, False, True],
    "complex128": [1 + 2j, complex(-0.0, float("inf"))],
}


@pytest.mark.parametrize("dtype", NUMBERS)
async def test_pythons_numbers_become_an_array_of_their_width(dtype: str) -> None:
    batches, rows = await gathered(*NUMBERS[dtype])
    assert len(batches) == 1
    assert same(batches[0], np.array(NUMBERS[dtype], dtype))
    assert [type(row) for row in rows] == [np.dtype(dtype).type] * len(rows)


@pytest.mark.parametrize("dtype", DTYPES)
async def test_numpys_scalars_become_an_array_of_their_type(dtype: str) -> None:
    items = list(sample(dtype, (4,)))
    batches, rows = await gathered(*items)
    assert len(batches) == 1
    assert same(batches[0], np.array(items, dtype))
    assert all(same(row, item) for row, item in zip(rows, items, strict=True))


async def test_scalars_that_only_numpy_can_stack_become_an_array() -> None:
    items = [np.datetime64("2026-01-01", "s"), np.datetime64("2027-01-01", "s")]
    batches, rows = await gathered(*items)
    assert batches[0].dtype == np.dtype("datetime64[s]")
    assert rows == items


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**400])
async def test_an_integer_beyond_int64_is_an_item_error(number: int) -> None:
    f = batched(lambda x: x)
    with pytest.raises(ItemError, match="int64"):
        await f(number)
    assert await f(1) == 1


async def test_numbers_of_different_types_never_meet() -> None:
    batches, rows = await gathered(1, 1.0, True, 1 + 0j, np.float32(1), np.int8(1), 2, 2.0, False)
    assert len(batches) == 6
    assert [str(row.dtype) for row in rows] == [
        "int64", "float64", "bool", "complex128", "float32", "int8", "int64", "float64", "bool",
    ]  # fmt: skip


OBJECTS = {
    "text": ["a", "", "\N{SNOWMAN}\0"],
    "numpy text": [np.str_("a"), np.str_("bc")],
    "bytes": [b"a", b"", b"\0"],
    "nothing": [None, None],
    "lists": [[1, 2], [3], []],
    "sets": [{1}, frozenset()],
    "things": [Thing(), Thing()],
    "enumerations": [Colour.RED, Colour.BLUE],
    "empty tuples": [(), ()],
    "empty dicts": [{}, {}],
    "dicts by number": [{1: 2}, {3: 4}],
    "classes": [Thing, int],
    "functions": [len, gathered],
    "a bit of all": ["a", b"b", None, [1], {2}, Colour.RED, Thing(), range(3), slice(1)],
}


@pytest.mark.parametrize("kind", OBJECTS)
async def test_everything_else_comes_as_a_list_of_the_very_objects(kind: str) -> None:
    items = OBJECTS[kind]
    batches, rows = await gathered(*items)
    assert len(batches) == 1
    assert type(batches[0]) is list
    assert all(got is item for got, item in zip(batches[0], items, strict=True))
    assert all(row is item for row, item in zip(rows, items, strict=True))


async def test_tuples_are_gathered_by_part() -> None:
    batches, rows = await gathered(*((np.full(2, number), number, str(number)) for number in range(3)))
    ((arrays, numbers, names),) = batches
    assert arrays.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert numbers.tolist() == [0, 1, 2]
    assert names == ["0", "1", "2"]
    assert [(row[0].tolist(), row[1], row[2]) for row in rows] == [([n, n], n, str(n)) for n in range(3)]


async def test_named_tuples_keep_their_class() -> None:
    batches, rows = await gathered(*(Point(number, "p") for number in range(3)))
    assert type(batches[0]) is Point
    assert batches[0].x.tolist() == [0, 1, 2]
    assert rows == [Point(0, "p"), Point(1, "p"), Point(2, "p")]
    assert {type(row) for row in rows} == {Point}


async def test_a_named_tuple_and_a_plain_one_never_meet() -> None:
    batches, _ = await gathered(Point(1, 2), (1, 2))
    assert [type(batch) for batch in batches] == [Point, tuple]


async def test_dicts_are_gathered_by_key_whatever_their_order() -> None:
    batches, rows = await gathered({"a": 1, "b": "x"}, {"b": "y", "a": 2})
    (batch,) = batches
    assert batch["a"].tolist() == [1, 2]
    assert batch["b"] == ["x", "y"]
    assert rows == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]


async def test_dicts_with_other_keys_or_other_types_never_meet() -> None:
    batches, rows = await gathered({"a": 1}, {"b": 1}, {"a": 1.5}, {"a": 2}, {"a": 1, "b": 1})
    assert len(batches) == 4
    assert rows == [{"a": 1}, {"b": 1}, {"a": 1.5}, {"a": 2}, {"a": 1, "b": 1}]


async def test_structures_nest() -> None:
    items = [{"p": Point((number, [number]), {"deep": np.full(2, number)}), "q": None} for number in range(3)]
    batches, _ = await gathered(*items)
    (batch,) = batches
    assert batch["p"].x[0].tolist() == [0, 1, 2]
    assert batch["p"].x[1] == [[0], [1], [2]]
    assert batch["p"].y["deep"].tolist() == [[0, 0], [1, 1], [2, 2]]
    assert batch["q"] == [None, None, None]


async def test_several_arguments_are_several_columns() -> None:
    seen = []

    def f(x: np.ndarray, y: list, z: tuple) -> np.ndarray:
        seen.append((x.shape, y, z[0].tolist()))
        return x.sum(1) + z[0]

    batcher = batched(f)
    rows = await asyncio.gather(*(batcher(np.full(2, number), "y", (number,)) for number in range(3)))
    assert rows == [0, 3, 6]
    assert seen == [((3, 2), ["y"] * 3, [0, 1, 2])]


async def test_calls_with_another_number_of_arguments_never_meet() -> None:
    counts = []

    def f(*columns: np.ndarray) -> np.ndarray:
        counts.append(len(columns))
        return sum(columns)

    batcher = batched(f)
    assert await asyncio.gather(batcher(1), batcher(1, 2), batcher(1, 2, 3), batcher(5)) == [1, 3, 6, 5]
    assert sorted(counts) == [1, 2, 3]


async def test_a_tuple_is_not_the_same_as_two_arguments() -> None:
    def f(*columns: Any) -> list:
        return [len(columns)]

    batcher = batched(f)
    assert await asyncio.gather(batcher((1, 2)), batcher(1, 2)) == [1, 2]


async def test_a_call_without_an_item_is_a_type_error() -> None:
    f = batched(lambda x: x)
    for call in (f, f.call, f.options(priority="high")):
        with pytest.raises(TypeError, match="positional"):
            call()
        with pytest.raises(TypeError, match="positional"):
            call(x=1)
    assert await f(1) == 1


async def test_an_answered_item_and_its_result_are_let_go_of() -> None:
    def f(things: list) -> list:
        return [Thing() for _ in things]

    batcher = batched(f)
    item = Thing()
    result = await batcher(item)
    traces = [weakref.ref(item), weakref.ref(result)]
    del item, result

    def gone() -> bool:
        gc.collect()
        return all(trace() is None for trace in traces)

    await soon(gone)


async def test_a_cancelled_a_refused_and_a_failed_item_are_let_go_of(gate: Gate) -> None:
    def f(things: list, number: np.ndarray) -> np.ndarray:
        gate.run(number)
        if (number == 3).any():
            raise ValueError("three")
        return number

    batcher = batched(f, max_queue=2)
    blocker = batcher(Thing(), 0)
    await gate.is_entered()
    items = [Thing(), Thing(), Thing()]
    cancelled, failed = batcher(items[0], 1), batcher(items[1], 3)
    with pytest.raises(Exception, match="max_queue"):
        batcher(items[2], 4)
    cancelled.cancel()
    gate.open()
    await blocker
    with pytest.raises(Exception, match="three"):
        await failed
    traces = list(map(weakref.ref, items))
    del items, cancelled, failed

    def gone() -> bool:
        gc.collect()
        return all(trace() is None for trace in traces)

    await soon(gone)


ENDLESS = {
    "a dict in itself": "item = {}; item['a'] = item",
    "a tuple of a dict of it": "inner = {}; item = (inner,); inner['a'] = item",
    "very deep tuples": "item = ()\nfor _ in range(100_000): item = (item, 1)",
    "very deep dicts": "item = 1\nfor _ in range(100_000): item = {'a': item}",
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_structure_without_an_end_is_refused_and_the_process_lives(kind: str, script: Script) -> None:
    done = script.run(f"""
f = batched(lambda x: x)
{ENDLESS[kind]}
try:
    f.call(item)
except (penstock.ItemError, RecursionError) as error:
    print("refused")
print(f.call("next"))
os._exit(0)  # dropping so deep a structure is Python's own affair
""")
    assert (done.code, done.out) == (0, ["refused", "next"]), done.err[-2000:]
