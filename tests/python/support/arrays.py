"""Arrays of every kind that a caller may bring, and what it means to be the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

DTYPES = [
    "bool",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    "float16",
    "float32",
    "float64",
    "complex64",
    "complex128",
]


def sample(dtype: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Arbitrary bits, so that a cast cannot go unseen; booleans are 0 or 1."""
    chance = np.random.default_rng(seed)
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    data = chance.integers(0, 256, count, np.uint8)
    if dtype == "bool":
        data &= 1
    return data.view(dtype).reshape(shape)


def same(left: object, right: object) -> bool:
    """Equal bit for bit, with the same type of element and the same shape."""
    a, b = np.asarray(left), np.asarray(right)
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    # Records may have padding, whose bytes mean nothing.
    return repr(a.tolist()) == repr(b.tolist()) if a.dtype.names else a.tobytes() == b.tobytes()


def _readonly(array: np.ndarray) -> np.ndarray:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "fortran": np.asfortranarray,
    "transposed": lambda array: array.T,
    "strided": lambda array: array[:, ::2],
    "backwards": lambda array: array[::-1],
    "backwards and strided": lambda array: array[::-2, ::-1],
    "read-only": _readonly,
    "broadcast": lambda array: np.broadcast_to(array[0], (3, array.shape[1])),
    "a column": lambda array: array[:, 1],
    "an element": lambda array: array[1, 1, ...],
    "no rows": lambda array: array[:0],
    "no columns": lambda array: array[:, :0],
    "unaligned": lambda array: np.frombuffer(b"x" + array.tobytes(), np.uint8)[1:].view(array.dtype),
    "five axes": lambda array: array[None, :, None, :, None],
}
