"""Writes the tiny graphs that the tests beside it open: `python tests/onnx/make.py`, which needs the package onnx."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

GRAPHS = Path(__file__).parent / "graphs"

TYPES = {
    "bool": TensorProto.BOOL,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "uint16": TensorProto.UINT16,
    "uint32": TensorProto.UINT32,
    "uint64": TensorProto.UINT64,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "string": TensorProto.STRING,
}

Axes = "list[str | int | None] | None"


def tensor(name: str, kind: int = TensorProto.FLOAT, axes: Axes = ("n", 3)) -> onnx.ValueInfoProto:
    """One input or output."""
    return helper.make_tensor_value_info(name, kind, axes)


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: tuple[onnx.TensorProto, ...] = (),
    opset: int = 17,
) -> onnx.ModelProto:
    """A whole model of one graph."""
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def doubles(axes: Axes = ("n", 3), out: Axes = ("n", 3)) -> onnx.ModelProto:
    """`y = x + x`."""
    return model([helper.make_node("Add", ["x", "x"], ["y"])], [tensor("x", axes=axes)], [tensor("y", axes=out)])


def identities() -> onnx.ModelProto:
    """An output like each input, of every type."""
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in TYPES]
    inputs = [tensor(name, kind, ["n", 2]) for name, kind in TYPES.items()]
    outputs = [tensor(f"{name}_out", kind, ["n", 2]) for name, kind in TYPES.items()]
    return model(nodes, inputs, outputs)


def lookup() -> onnx.ModelProto:
    """Rows of a table of four by their number: any other number is refused."""
    table = numpy_helper.from_array(np.arange(8, dtype=np.float32).reshape(4, 2), "table")
    nodes = [helper.make_node("Gather", ["table", "id"], ["row"])]
    return model(nodes, [tensor("id", TensorProto.INT64, ["n"])], [tensor("row", axes=["n", 2])], (table,))


def pair() -> onnx.ModelProto:
    """Two inputs, two outputs, an open axis: `sum = a + b`, `length = [k, ...]`."""
    one = numpy_helper.from_array(np.array([1], dtype=np.int64), "one")
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("ReduceSum", ["mask", "one"], ["length"], keepdims=0),
        helper.make_node("Cast", ["a"], ["ones"], to=TensorProto.INT64),
        helper.make_node("Mul", ["ones", "zero"], ["zeros"]),
        helper.make_node("Add", ["zeros", "one"], ["mask"]),
    ]
    order = [nodes[0], nodes[2], nodes[3], nodes[4], nodes[1]]
    zero = numpy_helper.from_array(np.array([0], dtype=np.int64), "zero")
    inputs = [tensor("a", axes=["n", "k"]), tensor("b", axes=["n", "k"])]
    outputs = [tensor("sum", axes=["n", "k"]), tensor("length", TensorProto.INT64, ["n"])]
    return model(order, inputs, outputs, (one, zero))


def stacked() -> onnx.ModelProto:
    """Gives every row twice: not what it declares."""
    return model([helper.make_node("Concat", ["x", "x"], ["y"], axis=0)], [tensor("x")], [tensor("y")])


def sequence() -> onnx.ModelProto:
    """An output that is a sequence, and one that is none."""
    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["parts"], axis=1),
        helper.make_node("Identity", ["x"], ["y"]),
    ]
    parts = helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, None)
    return model(nodes, [tensor("x")], [parts, tensor("y")])


def scalar() -> onnx.ModelProto:
    """An input without axes."""
    nodes = [helper.make_node("Add", ["x", "k"], ["y"])]
    return model(nodes, [tensor("x"), tensor("k", axes=[])], [tensor("y")])


def unshaped() -> onnx.ModelProto:
    """An output whose axes are not said."""
    return model([helper.make_node("Identity", ["x"], ["y"])], [tensor("x")], [tensor("y", axes=None)])


def weights_in(location: str, *, sparse: bool = False, nested: bool = False) -> onnx.ModelProto:
    """`y = x * w`, where the weights `w` lie in another file."""
    weight = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location)
    weight.external_data.add(key="offset", value="0")
    weight.external_data.add(key="length", value="12")
    multiply = helper.make_node("Mul", ["x", "w"], ["y"])
    if nested:
        # In a branch of a graph inside of the graph.
        constant = helper.make_node("Constant", [], ["w"], value=weight)
        branch = helper.make_graph([constant], "branch", [], [tensor("w", axes=[3])])
        yes = numpy_helper.from_array(np.array(True), "yes")
        choose = helper.make_node("If", ["yes"], ["w"], then_branch=branch, else_branch=branch)
        return model([choose, multiply], [tensor("x")], [tensor("y")], (yes,))
    made = model([multiply], [tensor("x")], [tensor("y")], () if sparse else (weight,))
    if sparse:
        made.graph.sparse_initializer.add(values=weight, dims=[3])
    return made


def main() -> None:
    """Writes them all."""
    GRAPHS.mkdir(exist_ok=True)
    unknown = model([helper.make_node("Unheard", ["x"], ["y"])], [tensor("x")], [tensor("y")])
    graphs = {
        "doubles": doubles(),
        "identities": identities(),
        "lookup": lookup(),
        "pair": pair(),
        "stacked": stacked(),
        "sequence": sequence(),
        "scalar": scalar(),
        "unshaped": unshaped(),
        "fixed_one": doubles([1, 3], [1, 3]),
        "fixed_eight": doubles([8, 3], [8, 3]),
        "fixed_output": doubles(out=[1, 3]),
        "unknown_operator": unknown,
        "unknown_opset": model([helper.make_node("Add", ["x", "x"], ["y"])], [tensor("x")], [tensor("y")], opset=99),
        "external": weights_in("weights.bin"),
        "external_dotted": weights_in("./weights.bin"),
        "external_in_folder": weights_in("folder/weights.bin"),
        "escape": weights_in("../weights.bin"),
        "escape_absolute": weights_in("/etc/passwd"),
        "escape_sparse": weights_in("../weights.bin", sparse=True),
        "escape_nested": weights_in("../weights.bin", nested=True),
        "escape_address": weights_in("*/_ORT_MEM_ADDR_/*"),
    }
    for name, made in graphs.items():
        (GRAPHS / f"{name}.onnx").write_bytes(made.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
