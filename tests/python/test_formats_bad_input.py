"""Bad weights and graphs in a server: who asks is told what is wrong, and everybody else is served."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

import penstock
from penstock import Server, testing
from tests.python.support.bad_files import BAD_INDEXES, BAD_WEIGHTS, GOOD, INDEX, SHARD
from tests.python.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np

X = {"x": ("float32", [2])}
Y = {"y": ("float32", [2])}

WEIGHTS_SAY = {
    "empty": "it has 0 bytes, less than the 8 of a header's length: it is truncated",
    "length_cut_off": "it has 3 bytes, less than the 8",
    "header_beyond_the_file": "its header has 1048576 bytes, and only 2 follow: it is truncated",
    "header_of_more_than_100_mb": "its header has 100000001 bytes, more than 100000000",
    "header_length_of_all_ones": "its header has 18446744073709551615 bytes, more than 100000000",
    "header_is_no_json": "its header does not begin with '{' and end with '}'",
    "header_is_a_list": "its header does not begin with '{'",
    "header_is_no_text": "its header is not UTF-8",
    "blank_before_the_header": "its header does not begin with '{'",
    "duplicate_key": "its header has the key 'w' twice",
    "duplicate_key_within": "duplicate field `dtype`",
    "truncated": "its tensors end at byte 8, and it has 7: it is truncated",
    "longer_than_it_says": "its tensors end at byte 8, and it has 9: the rest belongs to none",
    "overlap": "tensor 'w' begins at byte 4, within another that ends at 8",
    "hole": "bytes 4 to 8, in front of tensor 'w', belong to none",
    "hole_at_the_start": "bytes 0 to 4, in front of tensor 'w', belong to none",
    "backwards": "tensor 'w' ends at byte 0, before it begins at 8",
    "shape_overflows": "the size of tensor 'w' overflows",
    "shape_overflows_to_what_is_there": "the size of tensor 'w' overflows",
    "shape_of_another_size": "tensor 'w', [3] of F32, has 8 bytes and needs 12",
    "negative_axis": "tensor 'w': invalid value: integer `-2`",
    "unknown_type": "tensor 'w': the format has no type 'F33'",
    "a_pickle": "its header has 278201472 bytes, more than 100000000",
}
INDEXES_SAY = {
    "no_json": "UnsafeFormat: .*the index cannot be read: EOF while parsing",
    "no_weight_map": "UnsafeFormat: .*missing field `weight_map`",
    "up_and_out": r"PathEscape: .*the index names the file '\.\./model.safetensors', which is no plain name",
    "absolute": "PathEscape: .*which is no plain name in its own directory",
    "in_a_folder": "PathEscape: .*'shards/model.safetensors', which is no plain name",
    "by_backslash": "PathEscape: .*which is no plain name in its own directory",
    "null_byte": "PathEscape: .*which is no plain name in its own directory",
    "no_such_shard": "gone.safetensors.* cannot be read: no such file",
    "another_kind_of_file": "UnsafeFormat: .*'model.py', which does not end in .safetensors",
    "no_such_tensor": "UnsafeFormat: .*it does not hold tensor 'missing', which the index says it does",
    "duplicate_tensor": "UnsafeFormat: .*the key 'w' stands twice",
}


def shift(name: str, file: Path) -> Any:
    """A model that adds the tensor `w` of a file."""

    class Shift:
        def load(self, ctx: penstock.LoadContext) -> None:
            self.w = ctx.safetensors(file)["w"]

        def predict(self, x: np.ndarray) -> np.ndarray:
            return x + self.w

    return penstock.model(name, inputs=X, outputs=Y)(Shift)


def ask(server: Server, name: str) -> tuple[int, Any]:
    """The status, and the first output's data or the error."""
    body = json.dumps(testing.infer_body({"x": ("FP32", [1, 2], [1, 1])})).encode()
    try:
        with urllib.request.urlopen(f"{server.url}/v2/models/{name}/infer", body, timeout=PATIENCE) as answer:
            return answer.status, json.load(answer)["outputs"][0]["data"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)["error"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of one good model and of all bad ones."""
    folder = tmp_path_factory.mktemp("weights")
    (folder / "good.safetensors").write_bytes(GOOD)
    models = [shift("good", folder / "good.safetensors")]
    for name, content in BAD_WEIGHTS.items():
        path = folder / f"{name}.safetensors"
        path.write_bytes(content)
        models.append(shift(f"weights-{name}", path))
    for name, index in BAD_INDEXES.items():
        shards = folder / name
        shards.mkdir()
        (shards / SHARD).write_bytes(GOOD)
        (shards / INDEX).write_bytes(index(shards))
        models.append(shift(f"index-{name}", shards))
    with Server(models, port=0, preload=["good"]) as server:
        yield server


def reason(server: Server, name: str) -> str:
    """Why a model is not ready, as the index has it."""
    with penstock.Client(server.url) as client:
        (row,) = [row for row in client.repository_index() if row["name"] == name]
    assert row["state"] == "UNAVAILABLE"
    return str(row["reason"])


@pytest.fixture(autouse=True)
def _the_good_one_is_served(server: Server) -> Iterator[None]:
    yield
    assert ask(server, "good") == (200, [2, 3])


@pytest.mark.parametrize(("name", "words"), WEIGHTS_SAY.items())
def test_bad_weights_are_refused_and_say_why(server: Server, name: str, words: str) -> None:
    status, error = ask(server, f"weights-{name}")
    assert status == 503
    assert re.search(f"failed to load: UnsafeFormat: '.*/{name}.safetensors': .*{re.escape(words)}", error)
    assert words in reason(server, f"weights-{name}")


@pytest.mark.parametrize(("name", "pattern"), INDEXES_SAY.items())
def test_bad_indexes_are_refused_and_say_why(server: Server, name: str, pattern: str) -> None:
    status, error = ask(server, f"index-{name}")
    assert status == 503
    assert re.search(pattern, error)
    assert re.search(pattern, reason(server, f"index-{name}"))


def test_every_bad_file_is_asked_for() -> None:
    assert WEIGHTS_SAY.keys() == BAD_WEIGHTS.keys()
    assert INDEXES_SAY.keys() == BAD_INDEXES.keys()
