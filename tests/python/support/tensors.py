"""A tensor of another library, as far as a batcher can tell: it speaks DLPack and is no NumPy array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


class Tensor:
    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


class OnGpu:
    """A tensor that this machine cannot read."""

    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("the tensor is on a gpu")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)
