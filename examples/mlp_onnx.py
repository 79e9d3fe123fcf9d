"""The small network of Penstock's benchmarks as an ONNX graph: `python -m examples.mlp_onnx` writes it.

The very weights of `examples.mlp`, whose function it computes. Writing it needs the package `onnx`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from examples.mlp import HIDDEN_WEIGHT, WEIGHT
from examples.onnx_graph import FOLDER, Graph, save

if TYPE_CHECKING:
    from pathlib import Path

FILE: Final = "mlp.onnx"


def written(folder: Path = FOLDER) -> Path:
    """Write the graph to a file in `folder`, and return the file."""
    path = folder / FILE
    save(graph(), path)
    return path


def graph() -> Any:
    """`relu(x @ W1) @ W2` as ONNX's `ModelProto`: "x" float32 [n, 64] to "y" float32 [n, 8]."""
    made = Graph()
    hidden = made("MatMul", "x", made.constant("hidden_weight", HIDDEN_WEIGHT), out="hidden")
    made("MatMul", made("Relu", hidden, out="positive"), made.constant("weight", WEIGHT), out="y")
    return made.model("mlp", {"x": ("FLOAT", ["batch", len(HIDDEN_WEIGHT)])}, ("y", ["batch", WEIGHT.shape[1]]))


if __name__ == "__main__":
    print(written())
