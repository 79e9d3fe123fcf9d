"""What a function may return, and what it may not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

from penstock import batched
from penstock.errors import ItemError, OutputError
from tests.python.support.arrays import DTYPES, same, sample
from tests.python.support.tensors import Tensor
from tests.python.support.waiting import outcomes

if TYPE_CHECKING:
    from collections.abc import Callable


class Scores(NamedTuple):
    best: Any
    names: Any


async def answers(fn: Callable[[np.ndarray], Any], count: int = 4) -> list[Any]:
    return await outcomes(map(batched(fn), range(count)))


@pytest.mark.parametrize("dtype", DTYPES)
async def test_rows_of_an_array_are_arrays_of_its_type(dtype: str) -> None:
    table = sample(dtype, (4, 2, 3))
    rows = await answers(lambda x: table[: len(x)])
    assert all(same(row, table[number]) for number, row in enumerate(rows))


async def test_elements_of_a_flat_array_are_numpys_scalars() -> None:
    rows = await answers(lambda x: x.astype(np.float32))
    assert [type(row) for row in rows] == [np.float32] * 4
    assert rows == [0, 1, 2, 3]


async def test_a_list_gives_its_very_objects() -> None:
    things = [object(), "text", None, np.arange(3)]
    rows = await answers(lambda x: list(things))
    assert rows[:3] == things[:3]
    assert rows[0] is things[0]
    assert rows[3].tolist() == [0, 1, 2]


async def test_a_dict_of_columns_is_a_dict_for_each() -> None:
    rows = await answers(lambda x: {"double": x * 2, "name": [f"n{number}" for number in x], 3: x})
    assert rows == [{"double": 2 * n, "name": f"n{n}", 3: n} for n in range(4)]


async def test_a_tuple_of_columns_is_a_tuple_for_each() -> None:
    assert await answers(lambda x: (x * 2, [str(n) for n in x])) == [(2 * n, str(n)) for n in range(4)]


async def test_a_named_tuple_of_columns_is_one_for_each() -> None:
    rows = await answers(lambda x: Scores(x * 2, [str(n) for n in x]))
    assert {type(row) for row in rows} == {Scores}
    assert rows[3] == Scores(6, "3")


async def test_columns_nest() -> None:
    rows = await answers(lambda x: {"a": {"b": x, "c": (x, {"d": x + 1})}, "e": Scores(x, {"f": list(x)})})
    assert rows[2] == {"a": {"b": 2, "c": (2, {"d": 3})}, "e": Scores(2, {"f": 2})}


async def test_rows_of_a_dlpack_tensor_are_arrays() -> None:
    table = sample("float32", (4, 3))
    rows = await answers(lambda x: Tensor(table))
    assert all(same(row, table[number]) for number, row in enumerate(rows))


async def test_a_dlpack_tensor_can_be_a_column() -> None:
    rows = await answers(lambda x: {"t": Tensor(np.stack([x, x], 1)), "u": (Tensor(x),)})
    assert [(row["t"].tolist(), row["u"]) for row in rows] == [([n, n], (n,)) for n in range(4)]


async def test_object_and_text_arrays_are_rows_too() -> None:
    rows = await answers(lambda x: np.array([None, "a", [1], object], object))
    assert rows == [None, "a", [1], object]
    assert await answers(lambda x: np.array(["a", "bc", "", "d"])) == ["a", "bc", "", "d"]


async def test_a_masked_array_keeps_its_mask() -> None:
    mask = [[True, False]] * 4
    rows = await answers(lambda x: np.ma.masked_array(np.ones((4, 2)), mask=mask))
    assert [row.mask.tolist() for row in rows] == mask


async def test_a_list_subclass_and_a_dict_subclass_are_rows() -> None:
    from collections import OrderedDict, UserList

    class Rows(list):
        pass

    assert await answers(Rows) == [0, 1, 2, 3]
    assert await answers(lambda x: OrderedDict(y=x)) == [{"y": n} for n in range(4)]
    assert all(isinstance(row, OutputError) for row in await answers(UserList))


async def test_an_empty_row_is_a_row() -> None:
    assert [row.shape for row in await answers(lambda x: np.empty((4, 0)))] == [(0,)] * 4


async def test_rows_of_a_fortran_or_reversed_array_are_right() -> None:
    table = np.asfortranarray(sample("int32", (4, 3)))
    for result in (table, table[::-1], table[:, ::-1], np.ascontiguousarray(table.T).T):
        rows = await answers(lambda x, result=result: result)
        assert all(same(row, result[number]) for number, row in enumerate(rows))


WRONG: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "nothing": (lambda x: None, r"returned None for a batch of 4.*expected"),
    "a short list": (lambda x: list(x)[1:], r"list of 3.*batch of 4"),
    "a long list": (lambda x: [*x, 1], r"list of 5.*batch of 4"),
    "an empty list": (lambda x: [], r"list of 0.*batch of 4"),
    "a short array": (lambda x: x[1:], r"shape \[3\].*batch of 4"),
    "a long array": (lambda x: np.zeros((5, 2)), r"shape \[5, 2\].*4 rows"),
    "a transposed array": (lambda x: np.zeros((2, 4)), r"shape \[2, 4\].*first axis"),
    "an array without axes": (lambda x: np.array(1.0), r"shape \[\].*batch of 4"),
    "a number": (lambda x: 1.0, "float.*batch of 4"),
    "a numpy number": (lambda x: x.sum(), "batch of 4"),
    "text": (lambda x: "abcd", "str.*batch of 4"),
    "bytes": (lambda x: b"abcd", "bytes.*batch of 4"),
    "a generator": (lambda x: (n for n in x), "generator.*batch of 4"),
    "an iterator": (iter, "iterator.*batch of 4"),
    "a set": (lambda x: {1, 2, 3, 4}, "set.*batch of 4"),
    "an object": (lambda x: object(), "object.*batch of 4"),
    "a short column": (lambda x: {"a": x, "b": x[1:]}, "'b'.*batch of 4"),
    "a column of nothing": (lambda x: {"a": None}, "'a'.*None"),
    "a short part": (lambda x: (x, list(x)[1:]), r"output 1.*list of 3"),
    "a tuple of rows": (lambda x: tuple(range(4)), r"output 0.*return a list"),
    "an exception class": (lambda x: ItemError, "batch of 4"),
    "an item error for all": (lambda x: ItemError("no"), "ItemError.*batch of 4"),
}


@pytest.mark.parametrize("workers", [1, "inline"])
@pytest.mark.parametrize("kind", WRONG)
async def test_a_wrong_result_is_an_output_error_for_each_and_the_batcher_goes_on(
    kind: str, workers: int | str
) -> None:
    wrong, words = WRONG[kind]
    calls = []

    def f(x: np.ndarray) -> Any:
        calls.append(len(x))
        return wrong(x) if len(calls) == 1 else x

    batcher = batched(f, workers=workers)
    errors = await outcomes(map(batcher, range(4)))
    assert [type(error) for error in errors] == [OutputError] * 4
    assert len({id(error) for error in errors}) == 4
    for error in errors:
        with pytest.raises(OutputError, match=words):
            raise error
    assert calls == [4], "a wrong return value is no request's fault: nothing to isolate"
    assert batcher.stats().failed == 4
    assert await batcher(7) == 7


@pytest.mark.parametrize("empty", [(), {}], ids=repr)
async def test_a_result_without_columns_is_an_output_error(empty: object) -> None:
    errors = await answers(lambda x: empty)
    assert [type(error) for error in errors] == [OutputError] * 4


async def test_an_object_that_lies_about_dlpack_fails_its_batch_only() -> None:
    class Liar:
        def __dlpack__(self, **options: Any) -> Any:
            raise RuntimeError("I lied")

        def __dlpack_device__(self) -> tuple[int, int]:
            return (1, 0)

    results = [Liar(), [5]]
    f = batched(lambda x: results.pop(0))
    (error,) = await outcomes([f(1)])
    assert isinstance(error, Exception)
    assert "I lied" in f"{error} {error.__cause__}"
    assert await f(1) == 5


async def test_a_coroutine_from_a_plain_function_is_an_output_error() -> None:
    async def inner(x: np.ndarray) -> np.ndarray:
        return x

    made = []

    def f(x: np.ndarray) -> Any:
        made.append(inner(x))
        return made[-1]

    (error,) = await outcomes([batched(f)(1)])
    made[0].close()
    assert isinstance(error, OutputError)
    assert "coroutine" in str(error)


async def test_an_await_that_is_never_made_loses_nothing_for_others() -> None:
    f = batched(lambda x: x)
    kept = [f(number) for number in range(10)]
    del kept[::2]
    assert await asyncio.gather(*kept) == [1, 3, 5, 7, 9]
