"""Uses an installed wheel for what it promises first: a hundred awaits become a few calls, weights become arrays.

`wheel_smoke.py onnx` runs a graph as well, where the extra `onnx` is installed; without it, a graph is refused.
"""

import asyncio
import json
import platform
import sys
import tempfile
from pathlib import Path

import numpy as np

import penstock

# `y = x + x`, for rows of two float32, in opset 17: all of it.
GRAPH = bytes.fromhex(
    "08081200 3a44 0a0e0a0178 0a0178 120179 2203416464 1206646f75626c65"
    "5a14 0a0178 120f0a0d0801 12090a0312016e0a020802 6214 0a0179 120f0a0d0801 12090a0312016e0a020802 42040a001011"
)

calls: list[int] = []


@penstock.batched(max_batch_size=32)
def double(rows: np.ndarray) -> np.ndarray:
    """A model of few words."""
    calls.append(len(rows))
    return rows * 2


async def ask() -> None:
    """A hundred callers at once."""
    items = [np.full(4, i, dtype=np.float32) for i in range(100)]
    answers = await asyncio.gather(*(double(item) for item in items))
    for item, answer in zip(items, answers, strict=True):
        np.testing.assert_array_equal(answer, item * 2)


def read_weights(folder: Path) -> None:
    """A file of one tensor, without any other package."""
    weights = np.arange(6, dtype=np.float32).reshape(2, 3)
    header = json.dumps({"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, weights.nbytes]}}).encode()
    path = folder / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + weights.tobytes())
    np.testing.assert_array_equal(penstock.load_safetensors(path)["w"], weights)


def run_graph(folder: Path, *, installed: bool) -> str:
    """A graph, on the library that the extra brings; where it is not there, the error says how to get it."""
    path = folder / "double.onnx"
    path.write_bytes(GRAPH)
    try:
        session = penstock.load_onnx(path)
    except penstock.PenstockError as error:
        if installed or 'pip install "penstock[onnx]"' not in str(error):
            raise
        return "a graph is refused"
    assert installed, "a graph was loaded without the library"
    x = np.ones((3, 2), np.float32)
    np.testing.assert_array_equal(session.run({"x": x})["y"], x + x)
    assert "onnxruntime" not in sys.modules
    return "a graph runs"


# The checkout must not stand in for the wheel.
assert penstock.__file__.startswith(sys.prefix), penstock.__file__
asyncio.run(ask())
stats = double.stats()
double.close()
assert sum(calls) == 100, calls
assert stats.batches == len(calls) < 100, (stats, calls)
with tempfile.TemporaryDirectory() as scratch:
    read_weights(Path(scratch))
    told = run_graph(Path(scratch), installed="onnx" in sys.argv[1:])
print(
    f"penstock {penstock.__version__} on Python {platform.python_version()}, "
    f"numpy {np.__version__}: 100 items in {stats.batches} batches; weights are read; {told}"
)
