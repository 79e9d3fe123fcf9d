"""Arbitrary arrays through the identity come back equal bit for bit."""

from __future__ import annotations

import asyncio

import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock import Batcher, batched
from tests.python.support.arrays import same

PATIENT = settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow])

PLAIN = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="="),
    hnp.unsigned_integer_dtypes(endianness="="),
    hnp.floating_dtypes(endianness="=", sizes=(16, 32, 64)),
    hnp.complex_number_dtypes(endianness="=", sizes=(64, 128)),
)
BY_NUMPY = st.one_of(
    hnp.datetime64_dtypes(endianness="="),
    hnp.timedelta64_dtypes(endianness="="),
    hnp.unicode_string_dtypes(endianness="=", max_len=5),
    hnp.byte_string_dtypes(endianness="=", max_len=5),
)


def arrays(least_axes: int = 0) -> st.SearchStrategy[np.ndarray]:
    shapes = hnp.array_shapes(min_dims=least_axes, max_dims=4, min_side=0, max_side=4)
    plain = hnp.arrays(PLAIN, shapes)
    # NumPy's own scalars of text forget their width: only arrays with axes come back as arrays.
    shaped = hnp.arrays(BY_NUMPY, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=3))
    return st.one_of(plain, shaped)


def view(array: np.ndarray, how: int) -> np.ndarray:
    """The same numbers in another layout, or some of them."""
    if array.ndim == 0:
        return array
    return [array, array.T, array[::-1], array[..., ::2], np.asfortranarray(array)][how]


IDENTITY: Batcher = batched(lambda x: x)
LISTED: Batcher = batched(list)
INLINE: Batcher = batched(lambda x: x, workers="inline")


@PATIENT
@given(arrays(), st.integers(0, 4), st.sampled_from([IDENTITY, LISTED, INLINE]))
def test_one_array_comes_back_bit_for_bit(array: np.ndarray, how: int, f: Batcher) -> None:
    item = view(array, how)
    assert same(f.call(item), item)


@PATIENT
@given(st.lists(st.tuples(arrays(), st.integers(0, 4)), max_size=12), st.sampled_from([IDENTITY, INLINE]))
def test_arrays_sent_together_come_back_bit_for_bit(items: list[tuple[np.ndarray, int]], f: Batcher) -> None:
    views = [view(array, how) for array, how in items]

    async def main() -> list[np.ndarray]:
        return await asyncio.gather(*map(f, views))

    for row, item in zip(asyncio.run(main()), views, strict=True):
        assert same(row, item)


LEAVES = st.one_of(arrays(1), st.integers(-(2**63), 2**63 - 1), st.floats(), st.booleans(), st.text(), st.none())
STRUCTURES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner), st.tuples(inner, inner), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


def alike(left: object, right: object) -> bool:
    if isinstance(right, dict):
        return left.keys() == right.keys() and all(alike(left[key], right[key]) for key in right)
    if isinstance(right, tuple):
        return len(left) == len(right) and all(map(alike, left, right))
    return left == right if isinstance(right, str) or right is None else same(left, right)


@PATIENT
@given(st.lists(STRUCTURES, min_size=1, max_size=6))
def test_structures_sent_together_come_back_alike(items: list[object]) -> None:
    async def main() -> list[object]:
        return await asyncio.gather(*map(IDENTITY, items))

    for row, item in zip(asyncio.run(main()), items, strict=True):
        assert alike(row, item)
