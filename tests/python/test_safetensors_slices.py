"""Parts of tensors: whatever basic index, it is what NumPy makes of it; and no more is read than needs be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.safetensors import SafetensorsFile, TensorMemory, open_safetensors
from tests.python.support.arrays import same, sample
from tests.python.support.weights import of_arrays

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHAPES = [(), (1,), (7,), (4, 3), (5, 1, 2), (2, 3, 4, 5), (0, 3), (3, 0, 2)]
ARRAYS = {f"w{at}": ("F32", sample("float32", shape, at)) for at, shape in enumerate(SHAPES)}


@pytest.fixture(scope="module", params=["read", "mmap"])
def file(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[SafetensorsFile]:
    path = tmp_path_factory.mktemp("slices") / "slices.safetensors"
    path.write_bytes(of_arrays(ARRAYS))
    with open_safetensors(path, mode=request.param) as file:
        yield file


@st.composite
def indices(draw: st.DrawFn, shape: tuple[int, ...]) -> Any:
    """A basic index of an array of this shape, most of them within it."""
    items: list[Any] = []
    for length in shape[: draw(st.integers(0, len(shape)))]:
        bounds = st.none() | st.integers(-length - 2, length + 2)
        steps = st.none() | st.integers(-3, 3).filter(bool)
        one = st.builds(slice, bounds, bounds, steps)
        items.append(draw(one if length == 0 else one | st.integers(-length, length - 1)))
    if draw(st.booleans()):
        items.insert(draw(st.integers(0, len(items))), ...)
        items[items.index(...) + 1 :] = []  # what stands behind it is for the last axes, which may be others
    for _ in range(draw(st.integers(0, 2))):
        items.insert(draw(st.integers(0, len(items))), None)
    return items[0] if len(items) == 1 and draw(st.booleans()) else tuple(items)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), at=st.integers(0, len(SHAPES) - 1))
def test_a_part_is_what_numpy_makes_of_it(file: SafetensorsFile, data: st.DataObject, at: int) -> None:
    array = ARRAYS[f"w{at}"][1]
    index = data.draw(indices(array.shape))
    wanted = array[index]
    part = file.slice(f"w{at}")[index]
    assert type(part) is type(wanted)
    assert same(part, wanted)
    if isinstance(part, np.ndarray):
        assert not part.flags.writeable


@pytest.mark.parametrize("index", [(..., 1), (..., -1, slice(1, None)), (0, ..., 2), (slice(1, 2), ..., None, 3)])
def test_dots_in_the_midst(file: SafetensorsFile, index: Any) -> None:
    assert same(file.slice("w5")[index], ARRAYS["w5"][1][index])


@pytest.mark.parametrize(
    "index",
    [
        4,
        -5,
        (0, 3),
        (..., 3),
        (0, 0, 0),
        (..., ...),
        [0],
        ([0, 1], 0),
        np.array([0]),
        np.array([True] * 4),
        True,
        "a",
        1.0,
    ],
)
def test_indices_that_cannot_be(file: SafetensorsFile, index: Any) -> None:
    with pytest.raises(IndexError):
        file.slice("w3")[index]


def test_numbers_of_numpy_are_numbers(file: SafetensorsFile) -> None:
    array = ARRAYS["w3"][1]
    assert same(file.slice("w3")[np.int64(2), np.array(1)], array[2, 1])


def test_a_tensor_without_axes_has_no_length(file: SafetensorsFile) -> None:
    with pytest.raises(TypeError, match="without axes"):
        len(file.slice("w0"))
    assert file.slice("w0")[()] == ARRAYS["w0"][1][()]
    assert repr(file.slice("w3")) == "<penstock.TensorSlice 'w3' F32 [4, 3]>"


def test_no_more_rows_are_read_than_needed(tmp_path: Path) -> None:
    path = tmp_path / "rows.safetensors"
    array = sample("float64", (1000, 64))
    path.write_bytes(of_arrays({"w": ("F64", array)}))

    def read(part: np.ndarray) -> int:
        while isinstance(part.base, np.ndarray):
            part = part.base
        assert isinstance(part.base, TensorMemory)
        return part.base.nbytes

    with open_safetensors(path, mode="read") as file:
        row = array[0].nbytes
        rows = file.slice("w")
        # Memory comes in pages.
        assert read(rows[500:503]) < 3 * row + 8192
        assert read(rows[-1]) < row + 8192
        assert read(file["w"]) >= array.nbytes
        narrow = rows[:, 3]
        assert (narrow.base, same(narrow, array[:, 3])) == (None, True), "what is left of many rows keeps them all"


def test_a_part_of_a_mapped_file_costs_nothing_to_keep(tmp_path: Path) -> None:
    path = tmp_path / "rows.safetensors"
    path.write_bytes(of_arrays({"w": ("F64", sample("float64", (1000, 64)))}))
    with open_safetensors(path, mode="mmap") as file:
        narrow = file.slice("w")[:, 3]
        assert narrow.base is not None
