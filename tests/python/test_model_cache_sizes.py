"""How many bytes a model takes: everything that Python can see, each thing once."""

from __future__ import annotations

import collections
import functools
import mmap
import tempfile
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from penstock._cache_sizes import measure

MIB = 1 << 20
WEIGHTS = np.zeros(MIB, dtype=np.uint8)


class Plain:
    def __init__(self, weights: Any) -> None:
        self.weights = weights
        self.again = weights[: MIB // 2]
        self.me = self


class Slotted:
    __slots__ = ("unset", "weights")

    def __init__(self, weights: Any) -> None:
        self.weights = weights


class Both(Slotted):
    def __init__(self, weights: Any) -> None:
        super().__init__(weights)
        self.more = [weights]


@dataclass
class Record:
    weights: Any


Named = collections.namedtuple("Named", "weights")  # noqa: PYI024  one of the forms that a model may have


class Tensor:
    """What the tensors of other libraries look like."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes


def closure(weights: Any) -> Any:
    return lambda: weights


def method(weights: Any) -> Any:
    return Slotted(weights).__init__


@pytest.mark.parametrize(
    "make",
    [
        lambda weights: weights,
        lambda weights: [weights, weights],
        lambda weights: {"a": weights, "b": weights[1:], "c": weights.reshape(2, -1)},
        lambda weights: collections.OrderedDict(a=weights),
        lambda weights: collections.defaultdict(list, a=[weights]),
        lambda weights: (weights[10:20],),
        Plain,
        Slotted,
        Both,
        Record,
        Named,
        closure,
        method,
        memoryview,
        lambda weights: functools.partial(len, weights),
        lambda weights: [threading.Lock(), "text", 3, None, np.float32(1), weights],
        lambda weights: np.array([weights, None], dtype=object),
    ],
)
def test_an_array_counts_once_wherever_it_lies(make: Any) -> None:
    found = measure(make(WEIGHTS))
    assert found.complete
    assert MIB <= found.size < MIB + 4096
    assert [size for _, size in found.buffers] == [MIB]


def test_arrays_over_one_buffer_count_as_that_buffer() -> None:
    text = bytes(MIB)
    over = [np.frombuffer(text, dtype=np.uint8, count=100), np.frombuffer(text, dtype=np.float32)]
    assert MIB <= measure(over).size < MIB + 4096
    own = bytearray(MIB)
    assert MIB <= measure(np.frombuffer(own, dtype=np.uint8)).size < MIB + 4096


def test_a_mapped_file_counts_as_long_as_it_is() -> None:
    with tempfile.TemporaryFile() as file:
        file.truncate(MIB)
        mapped = mmap.mmap(file.fileno(), MIB, access=mmap.ACCESS_READ)
        found = measure({"a": np.frombuffer(mapped, dtype=np.uint8, count=10)})
        assert (found.complete, [size for _, size in found.buffers]) == (True, [MIB])
        assert MIB <= found.size < MIB + 4096


@pytest.mark.parametrize("opaque", [object(), iter([1]), (x for x in ())])
def test_what_cannot_be_looked_into_is_said(opaque: Any) -> None:
    found = measure([opaque, WEIGHTS])
    assert not found.complete
    assert found.size >= MIB


def test_tensors_of_other_libraries_say_their_size() -> None:
    found = measure({"a": Tensor(3 * MIB), "b": Tensor(MIB)})
    assert found.complete
    assert 4 * MIB <= found.size < 4 * MIB + 4096


def test_what_belongs_to_others_is_left_out() -> None:
    encoder = {"weights": WEIGHTS}
    head = {"encoder": encoder, "own": np.zeros(1000, dtype=np.uint8)}
    assert measure(head, [encoder]).size < 4096
    assert measure({"weights": WEIGHTS[1:]}, [WEIGHTS]).size < 4096


def test_classes_modules_and_functions_of_c_are_nobodys() -> None:
    found = measure([np, Plain, len, WEIGHTS])
    assert found.complete
    assert found.size < MIB + 4096


def test_objects_that_fight_back_are_survived() -> None:
    class Hostile:
        __slots__ = ()

        @property
        def nbytes(self) -> int:
            raise RuntimeError

        def __sizeof__(self) -> int:
            raise RuntimeError

        def __getattr__(self, name: str) -> Any:
            raise RuntimeError

    assert measure([Hostile(), WEIGHTS]).size >= MIB


def test_a_model_of_too_many_objects_is_not_looked_through_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock._cache_sizes.MOST_OBJECTS", 1000)
    assert measure([[] for _ in range(900)]).complete
    assert not measure([[] for _ in range(1100)]).complete


def test_a_deep_model_needs_no_stack() -> None:
    deep: list[Any] = [WEIGHTS]
    for _ in range(100_000):
        deep = [deep]
    found = measure(deep)
    assert found.complete
    assert found.size > MIB
