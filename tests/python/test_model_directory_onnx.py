"""ONNX graphs in a directory of models: with model.toml, with Triton's config.pbtxt, and what is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper

from penstock import Client, ModelDirectory, Server
from penstock.models import ModelSpec, spec_of
from tests.python.support import graphs
from tests.python.support.directories import write

if TYPE_CHECKING:
    from pathlib import Path

    from penstock.repository import Scan

ONES = {"x": np.ones((1, 4), np.float32)}

CONFIG = """
name: "scaled"
platform: "onnxruntime_onnx"
max_batch_size: 16
input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]
instance_group [ { count: 2 kind: KIND_CPU } ]
dynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 500 }
"""


def scaled(root: Path, version: int = 1, factor: float = 2.0, name: str = "scaled") -> Path:
    folder = root / name / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    return graphs.scaled(folder / "model.onnx", factor)


def scan(root: Path, **settings: Any) -> Scan:
    return ModelDirectory(root, **{"settle": 0, **settings}).scan()


def spec(root: Path, reference: str = "scaled@1") -> ModelSpec:
    looked = scan(root)
    assert not looked.skipped
    found = spec_of(looked.found[reference].model)
    assert found is not None
    return found


def refused(root: Path) -> str:
    looked = scan(root)
    assert not looked.found
    (why,) = looked.skipped.values()
    return why


def test_a_graph_needs_nothing_beside_it(tmp_path: Path) -> None:
    scaled(tmp_path, 1)
    scaled(tmp_path, 2, 3.0)
    models = ModelDirectory(tmp_path, settle=0)
    with Server([models], port=0) as server, Client(server.url) as client:
        assert client.infer("scaled", ONES)["y"].tolist() == [[3.0] * 4]
        scaled(tmp_path, 3, 5.0)
        assert server.poll().added == ("scaled@3",)
        assert client.infer("scaled", ONES)["y"].tolist() == [[5.0] * 4]
        scaled(tmp_path, 3, 7.0)
        assert server.poll().changed == ("scaled@3",)
        assert client.infer("scaled", ONES)["y"].tolist() == [[7.0] * 4]
        assert server.stats().models


def test_a_graph_that_becomes_garbage_goes_on_as_it_was(tmp_path: Path) -> None:
    path = scaled(tmp_path)
    models = ModelDirectory(tmp_path, settle=0)
    with Server([models], port=0) as server, Client(server.url) as client:
        write(path, b"no graph")
        changes = server.poll()
        assert not changes
        assert changes.skipped["scaled/1"].startswith("UnsafeFormat: ")
        assert client.infer("scaled", ONES)["y"].tolist() == [[2.0] * 4]
        (row,) = client.repository_index()
        assert (row["state"], row["reason"]) == ("READY", changes.skipped["scaled/1"])


def test_what_model_toml_says(tmp_path: Path) -> None:
    scaled(tmp_path)
    write(
        tmp_path / "scaled" / "model.toml",
        """
        workers = 2
        threads = 1
        providers = ["CPUExecutionProvider"]
        optimization = "basic"
        warmup = 4
        size = "1MiB"
        load_timeout = 9
        [batching]
        max_batch_size = 8
        [inputs]
        x = { type = "float32", shape = [4] }
        """,
    )
    declared = spec(tmp_path)
    assert (declared.workers, declared.size, declared.load_timeout) == (2, 1 << 20, 9.0)
    assert declared.policy.max_batch_size == 8
    assert declared.warmup is not None
    with Server([ModelDirectory(tmp_path, settle=0)], port=0) as server, Client(server.url) as client:
        assert client.infer("scaled", ONES)["y"].tolist() == [[2.0] * 4]


def test_what_triton_says(tmp_path: Path) -> None:
    scaled(tmp_path)
    write(tmp_path / "scaled" / "config.pbtxt", CONFIG)
    declared = spec(tmp_path)
    assert declared.workers == 2
    policy = declared.policy
    assert (policy.max_batch_size, policy.preferred_batch_sizes) == (16, (4,))
    assert (policy.dispatch, policy.max_wait) == ("window", 0.0005)
    write(tmp_path / "scaled" / "model.toml", "workers = 1\n[batching]\ndispatch = 'tick'")
    declared = spec(tmp_path)
    assert (declared.workers, declared.policy.dispatch, declared.policy.max_batch_size) == (1, "tick", 16)
    with Server([ModelDirectory(tmp_path, settle=0)], port=0) as server, Client(server.url) as client:
        assert client.infer("scaled", ONES)["y"].tolist() == [[2.0] * 4]


def test_what_triton_says_and_is_not_done_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scaled(tmp_path)
    write(tmp_path / "scaled" / "config.pbtxt", CONFIG + "response_cache { enable: true }")
    models = ModelDirectory(tmp_path, settle=0)
    for _ in range(2):
        found = models.scan().found["scaled@1"]
        assert found.warnings == ("scaled/config.pbtxt: response_cache is ignored",)
    assert caplog.text.count("response_cache is ignored") == 1


def test_a_file_by_another_name(tmp_path: Path) -> None:
    path = scaled(tmp_path)
    path.rename(path.with_name("net.onnx"))
    assert "none of model.onnx" in refused(tmp_path)
    write(tmp_path / "scaled" / "config.pbtxt", 'default_model_filename: "net.onnx"')
    assert spec(tmp_path).name == "scaled"


def test_a_model_that_triton_would_not_batch(tmp_path: Path) -> None:
    scaled(tmp_path)
    write(tmp_path / "scaled" / "config.pbtxt", 'input { name: "x" data_type: TYPE_FP32 dims: [ -1, 4 ] }')
    assert "max_batch_size is 0, so Triton would not batch" in refused(tmp_path)
    write(tmp_path / "scaled" / "model.toml", "[batching]\nmax_batch_size = 4")
    assert spec(tmp_path).policy.max_batch_size == 4


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ("requires = 'a'", "ConfigError: requires is no setting of an ONNX model; it has arena, batching, "),
        ("method = 'f'", "ConfigError: method is no setting of an ONNX model"),
        ("workers = { processes = 2 }", "ConfigError: workers of an ONNX model are threads"),
        ("inputs = ['z']", "ConfigError: "),
        ("inputs = { x = { type = 'int64', shape = [4] } }", "ConfigError: "),
        ("inputs = { x = { type = 'float32', shape = [5] } }", "ConfigError: "),
        ("outputs = ['z']", "ConfigError: "),
        (f"sha256 = '{'0' * 64}'", "ChecksumMismatch: "),
        ("[batching]\nmax_batch_size = 2\nmin_batch_size = 3", "ConfigError: batching: "),
    ],
)
def test_settings_that_do_not_fit(tmp_path: Path, settings: str, why: str) -> None:
    scaled(tmp_path)
    scaled(tmp_path, name="good")
    write(tmp_path / "scaled" / "model.toml", settings)
    looked = scan(tmp_path)
    assert list(looked.found) == ["good@1"]
    assert looked.skipped["scaled/1"].startswith(why)


def test_a_fixed_batch(tmp_path: Path) -> None:
    folder = tmp_path / "fixed" / "1"
    folder.mkdir(parents=True)
    axes = (TensorProto.FLOAT, [1, 4])
    graphs.write(folder / "model.onnx", [helper.make_node("Neg", ["x"], ["y"])], {"x": axes}, {"y": axes})
    assert "fixed batch of 1" in refused(tmp_path)
    write(folder / "model.toml", "row_by_row = true")
    with Server([ModelDirectory(tmp_path, settle=0)], port=0) as server, Client(server.url) as client:
        assert client.infer("fixed", {"x": np.ones((3, 4), np.float32)})["y"].tolist() == [[-1.0] * 4] * 3


def test_garbage(tmp_path: Path) -> None:
    scaled(tmp_path, name="good")
    write(tmp_path / "scaled" / "1" / "model.onnx", b"\x08\x0agarbage" * 100)
    looked = scan(tmp_path)
    assert list(looked.found) == ["good@1"]
    assert looked.skipped["scaled/1"].startswith("UnsafeFormat: ")


def test_an_operator_that_there_is_not_keeps_only_itself_away(tmp_path: Path) -> None:
    scaled(tmp_path, name="good")
    path = scaled(tmp_path, name="odd")
    write(path, path.read_bytes().replace(b"Mul", b"Mux"))
    with Server([ModelDirectory(tmp_path, settle=0)], port=0) as server, Client(server.url) as client:
        assert client.infer("good", ONES)["y"].tolist() == [[2.0] * 4]
        states = {row["name"]: (row["state"], row["reason"]) for row in client.repository_index()}
        assert states["good"][0] == "READY"
        assert states["odd"][0] != "READY"
        assert "Mux" in states["odd"][1]
