"""bfloat16, which NumPy has from the package `ml_dtypes`: real arrays through a real server."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import penstock
from penstock import Server, model, testing

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
X = {"x": ("bfloat16", [3])}
Y = {"y": ("bfloat16", [3])}


def ask(server: Server, name: str, shape: list[int], data: list[Any], datatype: str = "BF16") -> tuple[int, Any]:
    body = json.dumps(testing.infer_body({"x": (datatype, shape, data)})).encode()
    try:
        with urllib.request.urlopen(f"{server.url}/v2/models/{name}/infer", body, timeout=30) as answer:
            return answer.status, json.load(answer)["outputs"][0]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)["error"]


def test_a_model_gets_and_gives_bfloat16() -> None:
    seen: list[tuple[Any, tuple[int, ...], bool]] = []

    @model("double", inputs=X, outputs=Y)
    def double(x: Any) -> Any:
        seen.append((x.dtype, x.shape, bool(x.flags.writeable and x.flags.aligned)))
        x += x
        return x

    values = [0.1, 1.0, -1.0e38, 1e-40, -0.0, 255.5]
    expected = np.array(values, BFLOAT16) + np.array(values, BFLOAT16)
    with Server([double], port=0) as server:
        status, output = ask(server, "double", [2, 3], values)
        with urllib.request.urlopen(f"{server.url}/v2/models/double", timeout=30) as answer:
            assert json.load(answer)["inputs"][0]["datatype"] == "BF16"
    assert (status, output["datatype"], output["shape"]) == (200, "BF16", [2, 3])
    assert np.array_equal(np.array(output["data"], np.float32).astype(BFLOAT16), expected)
    assert seen == [(BFLOAT16, (2, 3), True)]


def test_every_bfloat16_comes_back_bit_for_bit() -> None:
    @model("same", inputs={"x": ("bfloat16", [-1])}, outputs={"y": ("bfloat16", [-1])})
    def same(x: Any) -> Any:
        return np.ascontiguousarray(x[:, ::-1])[:, ::-1]

    every = np.arange(1 << 16, dtype=np.uint16).view(BFLOAT16)
    finite = every[np.isfinite(every.astype(np.float32))]
    with Server([same], port=0) as server:
        status, output = ask(server, "same", [1, len(finite)], finite.astype(np.float64).tolist())
    assert status == 200
    back = np.array(output["data"], np.float64).astype(BFLOAT16)
    assert np.array_equal(back.view(np.uint16), finite.view(np.uint16))


def test_nothing_is_cast_to_or_from_bfloat16() -> None:
    @model("singles", inputs=X, outputs=Y)
    def singles(x: Any) -> Any:
        return x.astype(np.float32)

    @model("halves", inputs={"x": ("float16", [3])}, outputs={"y": ("float16", [3])})
    def halves(x: Any) -> Any:
        return x.astype(BFLOAT16)

    @model("bits", inputs=X, outputs=Y)
    def bits(x: Any) -> Any:
        return x.view(np.uint16)

    with Server([singles, halves, bits], port=0) as server:
        status, error = ask(server, "singles", [1, 3], [1, 2, 3])
        assert status == 500
        assert "float32" in error
        assert "bfloat16" in error
        assert ask(server, "halves", [1, 3], [1, 2, 3], "FP16")[0] == 500
        assert ask(server, "bits", [1, 3], [1, 2, 3])[0] == 500
        assert ask(server, "singles", [1, 3], [1, 2, 3], "FP16")[0] == 400
        assert ask(server, "singles", [1, 3], [1, 2, 3.4e38])[0] == 400


def test_rows_of_a_list_become_bfloat16_where_they_are() -> None:
    @model("rows", inputs=X, outputs=Y)
    def rows(x: Any) -> list[Any]:
        return [penstock.ItemError("negative") if row[0] < 0 else row for row in x]

    with Server([rows], port=0) as server:
        assert ask(server, "rows", [1, 3], [1, 2, 3])[1]["data"] == [1.0, 2.0, 3.0]
        assert ask(server, "rows", [1, 3], [-1, 2, 3]) == (400, "negative")


def test_a_list_of_plain_numbers_becomes_what_was_declared() -> None:
    @model("plain", inputs={"x": ("float32", [])}, outputs={"y": ("bfloat16", [])})
    def plain(x: Any) -> list[float]:
        return [float(value) for value in x]

    with Server([plain], port=0) as server:
        status, output = ask(server, "plain", [2], [0.1, 1], "FP32")
    assert (status, output["datatype"], output["data"]) == (200, "BF16", [0.100097656, 1.0])


async def test_a_batched_function_gathers_bfloat16() -> None:
    @penstock.batched(max_batch_size=4)
    def same(x: np.ndarray) -> np.ndarray:
        assert x.dtype == BFLOAT16
        assert x.flags.c_contiguous
        return x * x.dtype.type(2)

    row = await same(np.array([1, 2.5], BFLOAT16))
    assert (row.dtype, row.tolist()) == (BFLOAT16, [2.0, 5.0])
    same.close()


def test_other_types_of_ml_dtypes_are_gathered_by_numpy() -> None:
    @penstock.batched(max_batch_size=4)
    def same(x: np.ndarray) -> np.ndarray:
        return x

    row = same.call(np.array([1, 2.5], ml_dtypes.float8_e4m3fn))
    assert (row.dtype, row.astype(np.float32).tolist()) == (np.dtype(ml_dtypes.float8_e4m3fn), [1.0, 2.5])
    same.close()


WITHOUT = """
import sys
sys.modules["ml_dtypes"] = None  # as where it is not installed
import penstock
for tensors in ({"inputs": {"x": ("bfloat16", [])}, "outputs": {"y": ("int8", [])}},
                {"inputs": {"x": ("int8", [])}, "outputs": {"y": ("bfloat16", [])}}):
    try:
        penstock.model("m", **tensors)
    except penstock.errors.ConfigError as error:
        print(error)
penstock.model("m", inputs={"x": ("int8", [])}, outputs={"y": ("int8", [])})
print("ml_dtypes" in sys.modules and sys.modules["ml_dtypes"])
"""


def test_without_the_package_a_declaration_is_refused_with_the_way_out() -> None:
    result = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=60, check=True)
    first, second, rest = result.stdout.splitlines()
    assert "pip install ml_dtypes" in first
    assert "inputs" in first
    assert "pip install ml_dtypes" in second
    assert "outputs" in second
    assert rest == "None"


def test_a_declaration_without_bfloat16_does_not_import_the_package() -> None:
    code = (
        "import sys, penstock\n"
        "penstock.model('m', inputs={'x': ('float16', [])}, outputs={'y': ('float32', [])})\n"
        "assert 'ml_dtypes' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)


@pytest.mark.parametrize("name", ["BFloat16", "bf16", "BF16"])
def test_bfloat16_has_one_name(name: str) -> None:
    server = Server([model("m", inputs={"x": (name, [])}, outputs=Y)(lambda x: x)], port=0)
    with pytest.raises(penstock.errors.ConfigError, match=name):
        server.start()
