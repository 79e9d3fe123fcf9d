"""The published description (`/openapi.json`): schemathesis tries every path of a live server by it.

What a server answers has to stand there: each status, content type, header and body; what does not fit it has to be
refused; and what fits it, as far as it can say that, has to be accepted.
"""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

import penstock
from tests.interop.support.openapi import for_one_server, narrowed, tried
from tests.python.support.security import HASH, KEY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

SEED = "11"
pytestmark = pytest.mark.timeout(400)


@penstock.model("double", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
def double(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return x * np.float32(2)


@penstock.model("count", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
def count(x: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    for factor in (1, 2):
        yield x * np.float32(factor)


@penstock.model("words", task="generate")
def words(request: penstock.GenerateRequest) -> Iterator[str]:
    for word in request.text.split()[:5]:
        yield word + " "


@penstock.model("vectors", task="embed")
def vectors(texts: list[str]) -> NDArray[np.float32]:
    return np.array([[len(text), 0.5] for text in texts], np.float32)


@pytest.fixture(scope="module")
def server() -> Iterator[penstock.Server]:
    with penstock.Server([double, count, words, vectors], port=0, max_in_flight=64) as server:
        yield server


def published(url: str) -> Any:
    with urllib.request.urlopen(f"{url}/openapi.json", timeout=30) as answer:
        return json.load(answer)


NUMBERS = {
    "type": "array",
    "minItems": 2,
    "maxItems": 2,
    "items": {"type": "number", "maximum": 1e30, "minimum": -1e30},
}
OF_MODELS = {"": "double", "/ready": "double", "/infer": "double", "/generate": "words", "/generate_stream": "words"}
NAMES = {
    f"/v2/models/{{name}}{version}{rest}": name
    for version in ("", "/versions/{version}")
    for rest, name in OF_MODELS.items()
}
# One row of two numbers, as `double` takes it; and which models are for texts.
SCHEMAS: dict[str, dict[str, Any]] = {
    "InferRequest": {
        "outputs": {"type": "array", "maxItems": 1, "items": {"$ref": "#/components/schemas/WantedOutput"}},
        "inputs": {"type": "array", "minItems": 1, "maxItems": 1, "items": {"$ref": "#/components/schemas/InferInput"}},
    },
    "InferInput": {
        "name": {"enum": ["x"]},
        "datatype": {"enum": ["FP32"]},
        "shape": {"enum": [[1, 2]]},
        "data": NUMBERS,
        "parameters": {"type": "null"},
    },
    "WantedOutput": {"name": {"enum": ["y"]}},
    "CompletionRequest": {"model": {"enum": ["words"]}},
    "ChatRequest": {"model": {"enum": ["words"]}},
    "EmbeddingRequest": {"model": {"enum": ["vectors"]}},
}


def of_models(published: Any) -> Any:
    """The description of a server that has just those models."""
    description = narrowed(published, NAMES, SCHEMAS)
    description["components"]["schemas"]["InferInput"]["required"].append("data")
    for path, item in description["paths"].items():
        operation = item.get("post")
        if path.endswith("/infer"):  # of JSON alone
            operation["parameters"] = [one for one in operation["parameters"] if not one["$ref"].endswith("Length")]
            del operation["requestBody"]["content"]["application/octet-stream"]
        if path.endswith("/generate_stream"):
            schema = {"$ref": "#/components/schemas/GenerateRequest"}
            operation["requestBody"]["content"]["application/json"]["schema"] = schema
    return description


def test_the_description_is_valid(server: penstock.Server) -> None:
    OpenAPIV31SpecValidator(published(server.url)).validate()


def test_schemathesis_finds_nothing(server: penstock.Server, tmp_path: Path) -> None:
    description = for_one_server(published(server.url))
    left_out = ["--exclude-checks", "positive_data_acceptance"]  # what a model takes, it cannot say
    out = tried(description, server.url, tmp_path, "--seed", SEED, *left_out, examples=10)
    assert "No issues found" in out, out


def test_schemathesis_finds_nothing_in_depth(server: penstock.Server, tmp_path: Path) -> None:
    """With names of models that are there, and tensors that fit."""
    description = of_models(for_one_server(published(server.url)))
    # Rules between fields are excused by a check of our own.
    left_out = ["--exclude-checks", "positive_data_acceptance", "--phases", "coverage,fuzzing"]
    out = tried(description, server.url, tmp_path, "--seed", SEED, *left_out, examples=20, NARROWED="1")
    assert "No issues found" in out, out


def test_what_is_behind_keys_is_said_to_be(tmp_path: Path) -> None:
    """With a key everything is as it was, and without one it is 401: a server with keys is no other server."""
    with penstock.Server([double, words], port=0, api_keys={"team": HASH}) as server:
        description = for_one_server(published(server.url))
        description["security"] = [{"bearer": []}, {"key": []}]
        flags = ["--seed", SEED, "-H", f"Authorization: Bearer {KEY}", "--phases", "fuzzing"]
        left_out = ["--exclude-checks", "positive_data_acceptance"]
        out = tried(description, server.url, tmp_path, *flags, *left_out, examples=5)
    assert "No issues found" in out, out
