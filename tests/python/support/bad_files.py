"""Files that must be refused, each bad in one way, and small ones that are good. No library would write them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHARD = "model-00001-of-00001.safetensors"
INDEX = "model.safetensors.index.json"


def safetensors(header: bytes | dict[str, Any], data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(begin: int, end: int, shape: list[int] | None = None, dtype: str = "F32") -> dict[str, Any]:
    """What a header says of a tensor; its axes follow from its bytes unless they are given."""
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


W = np.array([1, 2], np.float32)
GOOD = safetensors({"w": entry(0, 8)}, W.tobytes())
FIRST, SECOND = (json.dumps({"w": entry(begin, begin + 8)})[1:-1] for begin in (0, 8))

BAD_WEIGHTS: dict[str, bytes] = {
    "empty": b"",
    "length_cut_off": b"\x08\0\0",
    "header_beyond_the_file": (1 << 20).to_bytes(8, "little") + b"{}",
    "header_of_more_than_100_mb": (100_000_001).to_bytes(8, "little") + b"{}",
    "header_length_of_all_ones": b"\xff" * 8 + b"{}",
    "header_is_no_json": safetensors(b'{"w": '),
    "header_is_a_list": safetensors(b"[]"),
    "header_is_no_text": safetensors(b'{"\xff": 1}'),
    "blank_before_the_header": safetensors(b" {}"),
    "duplicate_key": safetensors(f"{{{FIRST}, {SECOND}}}".encode(), bytes(16)),
    "duplicate_key_within": safetensors(
        b'{"w": {"dtype": "F32", "dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}'
    ),
    "truncated": GOOD[:-1],
    "longer_than_it_says": GOOD + b"\0",
    "overlap": safetensors({"v": entry(0, 8), "w": entry(4, 12)}, bytes(12)),
    "hole": safetensors({"v": entry(0, 4), "w": entry(8, 16)}, bytes(16)),
    "hole_at_the_start": safetensors({"w": entry(4, 12)}, bytes(12)),
    "backwards": safetensors({"w": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}, bytes(8)),
    "shape_overflows": safetensors({"w": entry(0, 8, [1 << 62, 1 << 62])}, bytes(8)),
    "shape_overflows_to_what_is_there": safetensors({"w": entry(0, 8, [(1 << 62) + 2])}, bytes(8)),
    "shape_of_another_size": safetensors({"w": entry(0, 8, [3])}, bytes(8)),
    "negative_axis": safetensors({"w": entry(0, 8, [-2])}, bytes(8)),
    "unknown_type": safetensors({"w": entry(0, 8, dtype="F33")}, bytes(8)),
    "a_pickle": b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c\x05posix\x8c\x06system\x93.",
}
"""By what is wrong with them."""


def graph(*nodes: Any, rows: int | str = "n", opset: int = 17, domain: str = "") -> bytes:
    """An ONNX model from x to y, both float32 [rows, 2]."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, 2]) for name in "xy")
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model = helper.make_model(helper.make_graph(list(nodes), "small", [x], [y]), opset_imports=opsets, ir_version=8)
    return bytes(model.SerializeToString())


DOUBLE = helper.make_node("Add", ["x", "x"], ["y"])
GOOD_GRAPH = graph(DOUBLE)


def outside(location: str) -> bytes:
    """A graph whose weights lie in another file."""
    model = onnx.load_from_string(graph(helper.make_node("Add", ["x", "w"], ["y"])))
    weights = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": "0", "length": "8"}.items():
        weights.external_data.add(key=key, value=value)
    model.graph.initializer.append(weights)
    return bytes(model.SerializeToString())


BAD_GRAPHS: dict[str, bytes] = {
    "empty": b"",
    "garbage": bytes(range(256)) * 16,
    "truncated": GOOD_GRAPH[:-20],
    "unknown_operator": graph(helper.make_node("Levitate", ["x"], ["y"])),
    "unknown_domain": graph(helper.make_node("Add", ["x", "x"], ["y"], domain="org.nobody"), domain="org.nobody"),
    "opset_of_the_future": graph(DOUBLE, opset=999),
    "batch_fixed_at_one": graph(DOUBLE, rows=1),
    "weights_outside": outside("../../secret/weights.bin"),
    "weights_at_an_absolute_path": outside("/etc/passwd"),
    "weights_missing": outside("weights.bin"),
}
"""By what is wrong with them."""


BAD_INDEXES: dict[str, Callable[[Path], bytes]] = {
    "no_json": lambda _: b"{",
    "no_weight_map": lambda _: b'{"metadata": {}}',
    "up_and_out": lambda _: index("../model.safetensors"),
    "absolute": lambda folder: index(str(folder.parent / "model.safetensors")),
    "in_a_folder": lambda _: index("shards/model.safetensors"),
    "by_backslash": lambda _: index("..\\model.safetensors"),
    "null_byte": lambda _: index("model.safetensors\0"),
    "no_such_shard": lambda _: index("gone.safetensors"),
    "another_kind_of_file": lambda _: index("model.py"),
    "no_such_tensor": lambda _: index(SHARD, "missing"),
    "duplicate_tensor": lambda _: f'{{"weight_map": {{"w": "{SHARD}", "w": "{SHARD}"}}}}'.encode(),
}
"""By what is wrong with them; each lies beside a good shard, given the folder it lies in."""


def index(shard: str, *more: str) -> bytes:
    return json.dumps({"metadata": {}, "weight_map": dict.fromkeys(["w", *more], shard)}).encode()
