"""Bad files in a model directory that is served: nothing is made of them, the index says why, and all others go on."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import pytest

import penstock
from penstock import Server
from tests.python.support.bad_files import BAD_GRAPHS, BAD_INDEXES, BAD_WEIGHTS, GOOD, GOOD_GRAPH, INDEX, SHARD
from tests.python.test_formats_bad_input import INDEXES_SAY, WEIGHTS_SAY, ask

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODEL_PY = """
import penstock


@penstock.model("{name}", inputs={{"x": ("float32", [2])}}, outputs={{"y": ("float32", [2])}}, load_retries=0)
class Shift:
    def load(self, ctx):
        self.w = ctx.safetensors("{file}")["w"]

    def predict(self, x):
        return x + self.w
"""
GRAPHS_SAY = {
    "empty": (404, "UnsafeFormat: .*model.onnx' is empty, not an onnx model"),
    "garbage": (404, "UnsafeFormat: .*model.onnx' is no onnx model"),
    "truncated": (404, "UnsafeFormat: .*model.onnx' is no onnx model, or was cut off"),
    "batch_fixed_at_one": (404, "ConfigError: .*input 'x' has a fixed batch of 1: .*row_by_row"),
    "weights_outside": (404, "PathEscape: .*keeps weights in '../../secret/weights.bin'"),
    "weights_at_an_absolute_path": (404, "PathEscape: .*keeps weights in '/etc/passwd'"),
    "weights_missing": (404, "LoadFailed: .*weights.bin' cannot be read"),
    # What these say is in order. Whether the library knows all of it comes out when they are loaded.
    "unknown_operator": (503, "Levitate"),
    "unknown_domain": (503, "org.nobody"),
    "opset_of_the_future": (503, "opset"),
}
GOOD_ONES = {"good-weights": [2, 3], "good-shards": [2, 3], "good-graph": [2, 2]}


def place(directory: Path, name: str, files: dict[str, bytes]) -> Path:
    folder = directory / name / "1"
    folder.mkdir(parents=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    return folder


def program(name: str, file: str = "model.safetensors") -> bytes:
    return MODEL_PY.format(name=name, file=file).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of a directory in which three models are good, and all others are not."""
    directory = tmp_path_factory.mktemp("models")
    (directory / "good-graph" / "1").mkdir(parents=True)
    (directory / "good-graph" / "1" / "model.onnx").write_bytes(GOOD_GRAPH)
    place(directory, "good-weights", {"model.py": program("good-weights"), "model.safetensors": GOOD})
    shards = {"model.py": program("good-shards", INDEX), SHARD: GOOD}
    place(directory, "good-shards", shards | {INDEX: json.dumps({"weight_map": {"w": SHARD}}).encode()})
    for name, content in BAD_WEIGHTS.items():
        place(directory, f"weights-{name}", {"model.py": program(f"weights-{name}"), "model.safetensors": content})
    for name, content in BAD_GRAPHS.items():
        place(directory, f"graph-{name}", {"model.onnx": content})
    for name, index in BAD_INDEXES.items():
        folder = place(directory, f"index-{name}", {"model.py": program(f"index-{name}", INDEX), SHARD: GOOD})
        (folder / INDEX).write_bytes(index(folder))
    with Server([penstock.ModelDirectory(directory, allow_python=True, settle=0)], port=0, preload=[]) as server:
        yield server


@pytest.fixture(scope="module")
def reasons(server: Server) -> dict[str, str]:
    """Why models are not served, by name."""
    with penstock.Client(server.url) as client:
        return {row["name"]: row["reason"] for row in client.repository_index()}


@pytest.fixture(autouse=True)
def _the_good_ones_are_served(server: Server) -> Iterator[None]:
    yield
    answers = {name: ask(server, name) for name in GOOD_ONES}
    assert answers == {name: (200, answer) for name, answer in GOOD_ONES.items()}


@pytest.mark.parametrize(("name", "words"), WEIGHTS_SAY.items())
def test_bad_weights_are_not_taken_up(server: Server, reasons: dict[str, str], name: str, words: str) -> None:
    assert ask(server, f"weights-{name}")[0] == 404
    assert words in reasons[f"weights-{name}"]


@pytest.mark.parametrize(("name", "pattern"), INDEXES_SAY.items())
def test_bad_indexes_are_not_taken_up(server: Server, reasons: dict[str, str], name: str, pattern: str) -> None:
    assert ask(server, f"index-{name}")[0] == 404
    assert re.search(pattern, reasons[f"index-{name}"])


@pytest.mark.parametrize("name", BAD_GRAPHS)
def test_bad_graphs_are_refused(server: Server, reasons: dict[str, str], name: str) -> None:
    wanted, pattern = GRAPHS_SAY[name]
    status, error = ask(server, f"graph-{name}")
    assert status == wanted, error
    said = reasons[f"graph-{name}"] if wanted == 404 else error
    assert re.search(pattern, said), said


def test_weights_that_go_bad_leave_the_old_ones_in_place(tmp_path: Path) -> None:
    folder = place(tmp_path, "shift", {"model.py": program("shift"), "model.safetensors": GOOD})
    with Server([penstock.ModelDirectory(tmp_path, allow_python=True, settle=0)], port=0) as server:
        assert ask(server, "shift") == (200, [2, 3])
        os.truncate(folder / "model.safetensors", len(GOOD) - 4)
        changes = server.poll()
        assert "truncated" in changes.skipped["shift/1"]
        assert ask(server, "shift") == (200, [2, 3])
        (folder / "model.safetensors").write_bytes(GOOD[:-4] + GOOD[-8:-4])
        assert server.poll().changed
        assert ask(server, "shift") == (200, [2, 2])
