"""The small network of Penstock's benchmarks as a served model: `penstock serve examples/mlp.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import penstock

if TYPE_CHECKING:
    from numpy.typing import NDArray

_random = np.random.default_rng(0)
HIDDEN_WEIGHT = _random.standard_normal((64, 128), np.float32)
WEIGHT = _random.standard_normal((128, 8), np.float32)


@penstock.model("mlp", inputs={"x": ("float32", [64])}, outputs={"y": ("float32", [8])}, max_batch_size=100)
def mlp(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """`relu(x @ W1) @ W2`: float32 [n, 64] to float32 [n, 8]."""
    hidden: NDArray[np.float32] = x @ HIDDEN_WEIGHT
    np.maximum(hidden, 0, out=hidden)
    return hidden @ WEIGHT


models = [mlp]
