"""Models of a directory, served: what their code finds, also in processes of its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save

import penstock
from penstock import Client, ModelDirectory, Server
from tests.python.support.directories import MODEL, write, write_model

if TYPE_CHECKING:
    from pathlib import Path

ONES = {"x": np.ones((1, 2), np.float32)}

IN_PROCESSES = """
import os
from . import helper
import numpy as np
import penstock

@penstock.model(
    "far",
    inputs={"x": ("float32", [-1])},
    outputs={"y": ("float32", [2]), "process": ("int64", []), "version": ("string", [])},
)
class Far:
    def load(self, ctx):
        self.by = np.float32((ctx.directory / "by.txt").read_text())
        self.version = ctx.version

    def predict(self, x, *, lengths):
        y = np.stack([x.sum(1), lengths * self.by], 1).astype(np.float32)
        return {"y": y, "process": np.full(len(x), os.getpid()), "version": [self.version] * len(x)}
"""


def found(root: Path, reference: str, **settings: Any) -> Any:
    scan = ModelDirectory(root, **{"allow_python": True, "settle": 0, **settings}).scan()
    assert not scan.skipped
    return scan.found[reference].model


def test_a_model_finds_its_files(tmp_path: Path) -> None:
    write_model(tmp_path, version=3, by=4)
    with Server([found(tmp_path, "times@3")], port=0) as server, Client(server.url) as client:
        assert client.infer("times", ONES)["y"].tolist() == [[4.0, 4.0]]
        assert server.names == ["times"]


def test_processes_import_it_with_what_its_settings_say(tmp_path: Path) -> None:
    folder = tmp_path / "far" / "5"
    write(folder / "model.py", IN_PROCESSES)
    write(folder / "helper.py")
    write(folder / "by.txt", "3")
    write(folder / "model.toml", "workers = { processes = 1 }\n[batching]\npad = true")
    with Server([found(tmp_path, "far@5")], port=0) as server, Client(server.url) as client:
        answer = client.infer("far", ONES)
        assert answer["y"].tolist() == [[2.0, 6.0]]
        assert answer["process"].tolist() != [os.getpid()]
        assert answer["version"].tolist() == [b"5"]


WEIGHTS = """
import numpy as np
import penstock

@penstock.model("weighed", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
class Weighed:
    def load(self, ctx):
        self.by = ctx.safetensors("weights.safetensors")["by"]

    def predict(self, x):
        return x * self.by
"""


def test_weights_lie_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "weighed" / "1"
    write(folder / "model.py", WEIGHTS)
    write(folder / "weights.safetensors", save({"by": np.array([2, 3], np.float32)}))
    with Server([found(tmp_path, "weighed@1")], port=0) as server, Client(server.url) as client:
        assert client.infer("weighed", ONES)["y"].tolist() == [[2.0, 3.0]]


@pytest.mark.parametrize("missing", [1, 8, 100])
def test_weights_that_are_half_there_keep_a_version_from_being_served(tmp_path: Path, missing: int) -> None:
    folder = tmp_path / "weighed" / "1"
    write(folder / "model.py", WEIGHTS)
    whole = save({"by": np.zeros(100, np.float32)})
    write(folder / "weights.safetensors", whole[:-missing])
    models = ModelDirectory(tmp_path, allow_python=True, settle=0)
    scan = models.scan()
    assert not scan.found
    assert scan.skipped["weighed/1"].startswith("UnsafeFormat: ")
    assert "weights.safetensors" in scan.skipped["weighed/1"]
    write(folder / "weights.safetensors", whole)
    assert list(models.scan().found) == ["weighed@1"]


def test_shards_that_name_what_is_not_theirs(tmp_path: Path) -> None:
    folder = tmp_path / "weighed" / "1"
    write(folder / "model.py", WEIGHTS)
    write(tmp_path / "secret.safetensors", save({"by": np.zeros(2, np.float32)}))
    write(folder / "model.safetensors.index.json", '{"weight_map": {"by": "../../secret.safetensors"}}')
    scan = ModelDirectory(tmp_path, allow_python=True, settle=0).scan()
    assert not scan.found
    assert scan.skipped["weighed/1"].startswith(("PathEscape: ", "UnsafeFormat: "))


def test_what_is_declared_elsewhere_keeps_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two versions of one class are two models."""
    write(tmp_path / "elsewhere.py", MODEL.format(name="times"))
    monkeypatch.syspath_prepend(tmp_path)
    for version in (1, 2):
        folder = tmp_path / "models" / "times" / str(version)
        write(folder / "model.py", "from elsewhere import Times")
        write(folder / "by.txt", str(version))
    scan = ModelDirectory(tmp_path / "models", allow_python=True, settle=0, versions="all").scan()
    models = [each.model for each in scan.found.values()]
    with Server(models, port=0) as server, Client(server.url) as client:
        for version in (1, 2):
            assert client.infer("times", ONES, version=str(version))["y"].tolist() == [[version, version]]
    assert penstock.models.spec_of(__import__("elsewhere").Times).version == "1"
