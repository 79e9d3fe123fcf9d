"""Writing ONNX graphs by hand: nodes in their order, constants by name. Needs the package `onnx`."""

from __future__ import annotations

import tempfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OPSET: Final = 20
IR_VERSION: Final = 10
"""The one that came with opset 20: onnxruntime reads it from 1.18 on."""

FOLDER: Final = Path(__file__).resolve().parents[1] / "target" / "examples"
"""Where the examples keep the graphs that they write."""


class Graph:
    """An ONNX graph that is being written: nodes in their order, and constants by name."""

    def __init__(self) -> None:
        onnx = import_module("onnx")
        self._helper = onnx.helper
        self._types = onnx.TensorProto
        self._of_array = onnx.numpy_helper.from_array
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def constant(self, name: str, value: object, dtype: type = np.float32) -> str:
        """A tensor of the file; gives its name."""
        self._constants[name] = self._of_array(np.array(value, dtype, order="C"), name)
        return name

    def __call__(self, operator: str, *inputs: str, out: str, **attributes: object) -> str:
        """A node of one output; gives the output's name."""
        self._nodes.append(self._helper.make_node(operator, inputs, [out], name=out, **attributes))
        return out

    def model(
        self, name: str, inputs: Mapping[str, tuple[str, Sequence[object]]], output: tuple[str, Sequence[object]]
    ) -> Any:
        """The graph as a model: inputs are element type and axes by name, the one output is float32."""
        info = self._helper.make_tensor_value_info
        taken = [info(given, getattr(self._types, elements), axes) for given, (elements, axes) in inputs.items()]
        graph = self._helper.make_graph(
            self._nodes, name, taken, [info(output[0], self._types.FLOAT, output[1])], list(self._constants.values())
        )
        return self._helper.make_model(
            graph,
            producer_name="penstock.examples",
            ir_version=IR_VERSION,
            opset_imports=[self._helper.make_opsetid("", OPSET)],
        )


def save(model: Any, path: Path) -> None:
    """Write a model to `path`: whole or not at all, whoever reads it meanwhile.

    Raises whatever `onnx.checker` has against it.
    """
    onnx = import_module("onnx")
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(model.SerializeToString(deterministic=True))
            file.close()
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink()
            raise
