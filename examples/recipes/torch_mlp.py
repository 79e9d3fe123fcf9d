"""A PyTorch module whose weights are safetensors; in a model directory this file is `mlp-torch/1/model.py`.

For a module of yours replace `Network`. A checkpoint as `torch.save` writes it is a pickle: `torch.load(path,
weights_only=True)` reads tensors out of it and refuses the rest; convert it once, with `safetensors.torch.save_file`.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch

import penstock

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Types that NumPy does not have, and the integers that stand for their bits. An older PyTorch lacks some of them.
AS_BITS = {"bfloat16": (np.int16, "bfloat16"), "float8_e4m3fn": (np.uint8, "float8_e4m3fn")}

# PyTorch would start a thread for each core, for every worker, beside those of the server.
torch.set_num_threads(1)

# A tensor cannot say that it is read-only, so PyTorch warns of every array that is. For the whole process, because
# `warnings.catch_warnings` is not made for loads that run side by side in threads.
warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)


class Network(torch.nn.Module):  # type: ignore[misc]
    """64 to 128 to 8, with a rectifier between."""

    def __init__(self) -> None:
        """Make the layers; their weights come from the file."""
        super().__init__()
        self.hidden = torch.nn.Linear(64, 128)
        self.out = torch.nn.Linear(128, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores, [n, 8], for rows, [n, 64]."""
        return self.out(torch.relu(self.hidden(x)))


def tensor_of(array: NDArray[np.generic]) -> torch.Tensor:
    """Return a tensor over the memory of the array, bit for bit; it keeps that memory alive.

    Never write to it: where the memory is a mapped file, that ends the process.
    """
    if array.dtype.name not in AS_BITS:
        return torch.from_numpy(array)
    bits, name = AS_BITS[array.dtype.name]
    return torch.from_numpy(array.view(bits)).view(getattr(torch, name))


@penstock.model(
    "mlp-torch",
    inputs={"x": ("float32", [64])},
    outputs={"y": ("float32", [8])},
    max_batch_size=100,
    size="64KiB",  # Penstock counts arrays, and does not see into tensors of PyTorch's
)
class TorchMlp:
    """`relu(x @ W1 + b1) @ W2 + b2`."""

    def load(self, ctx: penstock.LoadContext) -> None:
        """Read the weights that lie beside this file."""
        weights = ctx.safetensors("model.safetensors")
        self._network = Network()
        # Copies. From PyTorch 2.1 on, `with torch.device("meta")` around the line above and `assign=True` here do not.
        self._network.load_state_dict({name: tensor_of(array) for name, array in weights.items()})
        self._network.eval()

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores, float32 [n, 8], for rows, float32 [n, 64]."""
        scores: NDArray[np.float32] = self._network(torch.from_numpy(x)).numpy()
        return scores
