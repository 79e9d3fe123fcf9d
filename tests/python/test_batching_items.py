"""Arrays as items: every type of element and every layout arrives bit for bit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penstock import batched
from penstock.errors import ItemError, PenstockError
from tests.python.support.arrays import DTYPES, LAYOUTS, same, sample
from tests.python.support.tensors import OnGpu, Tensor
from tests.python.support.waiting import outcomes

if TYPE_CHECKING:
    from pathlib import Path


class Recorder:
    """The identity, which remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[Any] = []

    def __call__(self, x: Any) -> Any:
        self.batches.append(x.copy() if isinstance(x, np.ndarray) else x)
        return x

    @property
    def only(self) -> Any:
        (batch,) = self.batches
        return batch


@pytest.fixture
def record() -> Recorder:
    return Recorder()


@pytest.mark.parametrize("dtype", DTYPES)
async def test_arrays_of_each_dtype_are_gathered_into_one_array(dtype: str, record: Recorder) -> None:
    f = batched(record)
    items = [sample(dtype, (2, 3), seed) for seed in range(5)]
    rows = await asyncio.gather(*map(f, items))
    assert all(same(row, item) for row, item in zip(rows, items, strict=True))
    assert record.only.shape == (5, 2, 3)
    assert record.only.dtype == dtype
    assert same(record.only, np.stack(items))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "bool", "complex128"])
async def test_arrays_of_each_layout_arrive_bit_for_bit(layout: str, dtype: str, record: Recorder) -> None:
    f = batched(record)
    items = [LAYOUTS[layout](sample(dtype, (3, 4), seed)) for seed in range(3)]
    expected = np.stack(items)
    rows = await asyncio.gather(*map(f, items))
    assert same(record.only, expected)
    assert all(same(row, item) for row, item in zip(rows, items, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
async def test_arrays_without_axes_make_an_array_with_one(dtype: str, record: Recorder) -> None:
    f = batched(record)
    items = [sample(dtype, (), seed) for seed in range(3)]
    rows = await asyncio.gather(*map(f, items))
    assert same(record.only, np.stack(items))
    assert all(same(row, item) for row, item in zip(rows, items, strict=True))


RECORD = np.dtype([("name", "U4"), ("at", "f8", (2,)), ("count", "u2")])
ALIGNED = np.dtype([("flag", "u1"), ("value", "f8")], align=True)
BY_NUMPY = {
    "big endian": np.array([1.5, -2.0, 3.25], ">f8"),
    "big endian integers": np.array([[1, 2], [3, 4]], ">i2"),
    "dates": np.array(["2026-01-01", "1969-12-31", "NaT"], "datetime64[D]"),
    "times": np.array([1, -1, 10**15], "datetime64[ns]"),
    "durations": np.array([5, -5, 0], "timedelta64[ms]"),
    "text": np.array(["a", "", "længd"], "U7"),
    "octets": np.array([b"a", b"bc\0d"], "S5"),
    "records": np.array([("ab", (1, 2), 3), ("c", (4, 5), 6)], RECORD),
    "aligned records": np.array([(1, 2.5), (3, 4.5)], ALIGNED),
    "void": np.array([b"\0\1\2", b"\3\4\5"], "V3"),
    "long double": np.array([1, 2], np.longdouble),
}


@pytest.mark.parametrize("kind", BY_NUMPY)
async def test_arrays_that_only_numpy_can_stack_arrive_as_one_array(kind: str, record: Recorder) -> None:
    f = batched(record)
    item = BY_NUMPY[kind]
    items = [item, item[::-1], item.copy()]
    rows = await asyncio.gather(*map(f, items))
    assert isinstance(record.only, np.ndarray)
    assert record.only.dtype == item.dtype, "nothing is ever cast"
    assert record.only.shape == (3, *item.shape)
    assert all(same(row, item) for row, item in zip(rows, items, strict=True))


@pytest.mark.parametrize("kind", BY_NUMPY)
async def test_such_arrays_without_axes_work_too(kind: str, record: Recorder) -> None:
    f = batched(record)
    items = [np.array(element, BY_NUMPY[kind].dtype) for element in BY_NUMPY[kind].reshape(-1)]
    rows = await asyncio.gather(*map(f, items))
    assert record.only.shape == (len(items),)
    assert record.only.dtype == items[0].dtype, "nothing is ever cast"
    assert repr(record.only.tolist()) == repr([item.tolist() for item in items])
    assert [repr(row) for row in rows] == [repr(item[()]) for item in items]


async def test_object_arrays_keep_their_very_objects(record: Recorder) -> None:
    f = batched(record)
    thing, other = object(), {"a": 1}
    items = [np.array([thing, other], object), np.array([other, thing], object)]
    rows = await asyncio.gather(*map(f, items))
    assert record.only.shape == (2, 2)
    assert rows[0][0] is thing
    assert rows[1][0] is other


async def test_text_and_records_of_different_widths_are_not_mixed(record: Recorder) -> None:
    f = batched(record)
    items = [np.array(["ab"], "U2"), np.array(["abcd"], "U4"), np.array([b"ab"], "S2"), np.array(["cd"], "U2")]
    rows = await asyncio.gather(*map(f, items))
    assert all(same(row, item) for row, item in zip(rows, items, strict=True))
    assert sorted(str(batch.dtype) for batch in record.batches) == ["<U2", "<U4", "|S2"]


async def test_memory_maps_are_gathered_as_arrays(tmp_path: Path, record: Recorder) -> None:
    (tmp_path / "rows").write_bytes(sample("float32", (4, 3)).tobytes())
    mapped = np.memmap(tmp_path / "rows", np.float32, "r", shape=(4, 3))
    f = batched(record)
    rows = await asyncio.gather(*map(f, mapped))
    assert type(record.only) is np.ndarray
    assert all(same(row, item) for row, item in zip(rows, mapped, strict=True))


async def test_subclasses_of_arrays_come_as_a_list_of_themselves(record: Recorder) -> None:
    class Tagged(np.ndarray):
        pass

    masked = [np.ma.masked_array([1, 2, number], mask=[False, True, False]) for number in range(3)]
    tagged = [np.arange(3).view(Tagged) for _ in range(2)]
    f = batched(record)
    rows = await asyncio.gather(*map(f, masked + tagged))
    assert all(isinstance(batch, list) for batch in record.batches)
    assert all(row.mask.tolist() == [False, True, False] for row in rows[:3])
    assert [type(row) for row in rows[3:]] == [Tagged, Tagged]


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
async def test_matrices_come_as_a_list_of_matrices(record: Recorder) -> None:
    f = batched(record)
    rows = await asyncio.gather(*(f(np.matrix([[number, 2]])) for number in range(3)))
    assert isinstance(record.only, list)
    assert [type(row) for row in rows] == [np.matrix] * 3
    assert [row.tolist() for row in rows] == [[[0, 2]], [[1, 2]], [[2, 2]]]


@pytest.mark.parametrize("dtype", DTYPES)
async def test_dlpack_tensors_are_gathered_into_an_array(dtype: str, record: Recorder) -> None:
    f = batched(record)
    items = [sample(dtype, (2, 3), seed) for seed in range(3)]
    rows = await asyncio.gather(*(f(Tensor(item)) for item in items))
    assert same(record.only, np.stack(items))
    assert all(same(row, item) for row, item in zip(rows, items, strict=True))


async def test_dlpack_tensors_share_batches_with_arrays_whatever_their_layout(record: Recorder) -> None:
    f = batched(record)
    item = sample("float32", (4, 6))
    rows = await asyncio.gather(f(Tensor(item[::2, ::-1].T)), f(item[::2, ::-1].T))
    assert len(record.batches) == 1
    assert same(rows[0], rows[1])


async def test_a_tensor_that_cannot_be_read_is_an_item_error_that_says_why(record: Recorder) -> None:
    f = batched(record)
    with pytest.raises(ItemError, match="gpu") as caught:
        await f(OnGpu())
    assert isinstance(caught.value.__cause__, BufferError)
    assert await f("next") == "next"


async def test_an_array_with_as_many_axes_as_numpy_has_is_refused_or_works(record: Recorder) -> None:
    f = batched(record)
    item = np.zeros((1,) * 64, np.float32)
    (outcome,) = await outcomes([f(item)])
    assert same(outcome, item) or isinstance(outcome, PenstockError)
    assert await f("next") == "next"


ITEMS = {
    "array": lambda: np.arange(4.0),
    "strided": lambda: np.arange(8.0)[::2],
    "backwards": lambda: np.arange(4.0)[::-1],
    "big endian": lambda: np.arange(4.0).astype(">f8"),
    "records": lambda: np.array([(1, 2.5), (3, 4.5)], ALIGNED),
    "objects": lambda: np.array([1, "a"], object),
}


@pytest.mark.parametrize("wrap", ["bare", "tuple", "dict", "tensor"])
@pytest.mark.parametrize("kind", ITEMS)
async def test_changing_an_item_after_the_call_changes_no_result(kind: str, wrap: str) -> None:
    if wrap == "tensor" and kind in ("big endian", "records", "objects"):
        pytest.skip("DLPack has no such elements")
    item = ITEMS[kind]()
    before = item.copy()
    wrapped = {"bare": item, "tuple": (item, 1), "dict": {"a": item}, "tensor": Tensor(item)}[wrap]
    f = batched(lambda x: x)
    future = f(wrapped)
    item[...] = item[0] if kind != "objects" else None
    if wrap == "dict":
        wrapped["a"] = wrapped["b"] = None
    row = await future
    row = row["a"] if wrap == "dict" else row[0] if wrap == "tuple" else row
    assert row.tolist() == before.tolist()
