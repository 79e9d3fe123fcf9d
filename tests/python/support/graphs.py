"""Small ONNX graphs, written by the package `onnx`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Declared = tuple[int, list[object]]


def write(
    path: Path,
    nodes: Sequence[Any],
    inputs: Mapping[str, Declared],
    outputs: Mapping[str, Declared],
    constants: Mapping[str, Any] | None = None,
) -> Path:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [info(name, *declared) for name, declared in inputs.items()],
        [info(name, *declared) for name, declared in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def scaled(path: Path, factor: float = 2.0, width: int = 4) -> Path:
    """`y = x * factor`, float32 [n, width]."""
    axes: list[object] = ["n", width]
    return write(
        path,
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        {"x": (TensorProto.FLOAT, axes)},
        {"y": (TensorProto.FLOAT, axes)},
        {"factor": np.float32(factor)},
    )


def picking(path: Path) -> Path:
    """`y = (10, 20, 30)[at]`, int64 [n] to float32 [n]: an index that is not there is an error of the library's."""
    return write(
        path,
        [helper.make_node("Gather", ["table", "at"], ["y"])],
        {"at": (TensorProto.INT64, ["n"])},
        {"y": (TensorProto.FLOAT, ["n"])},
        {"table": np.array([10, 20, 30], np.float32)},
    )


def masked_sum(path: Path) -> Path:
    """`y = sum(x * mask)`, float32 [n, length] twice to float32 [n]."""
    axes: list[object] = ["n", "length"]
    return write(
        path,
        [
            helper.make_node("Mul", ["x", "mask"], ["kept"]),
            helper.make_node("ReduceSum", ["kept", "axis"], ["y"], keepdims=0),
        ],
        {"x": (TensorProto.FLOAT, axes), "mask": (TensorProto.FLOAT, axes)},
        {"y": (TensorProto.FLOAT, ["n"])},
        {"axis": np.array([1], np.int64)},
    )


def several(path: Path) -> Path:
    """`sum = a + b`, `less = a < b`, `same = text`: several inputs and outputs, of several types."""
    return write(
        path,
        [
            helper.make_node("Add", ["a", "b"], ["sum"]),
            helper.make_node("Less", ["a", "b"], ["less"]),
            helper.make_node("Identity", ["text"], ["same"]),
        ],
        {
            "a": (TensorProto.DOUBLE, ["n", 2]),
            "b": (TensorProto.DOUBLE, ["n", 2]),
            "text": (TensorProto.STRING, ["n", 1]),
        },
        {
            "sum": (TensorProto.DOUBLE, ["n", 2]),
            "less": (TensorProto.BOOL, ["n", 2]),
            "same": (TensorProto.STRING, ["n", 1]),
        },
    )


def weighty(path: Path, value: float, mebibytes: int = 1) -> Path:
    """`y = x + sum(weights) / n`, where the weights take so many MiB and are all `value`."""
    count = mebibytes << 18
    return write(
        path,
        [
            helper.make_node("ReduceMean", ["weights"], ["mean"], keepdims=0),
            helper.make_node("Add", ["x", "mean"], ["y"]),
        ],
        {"x": (TensorProto.FLOAT, ["n", 1])},
        {"y": (TensorProto.FLOAT, ["n", 1])},
        {"weights": np.full(count, value, np.float32)},
    )
