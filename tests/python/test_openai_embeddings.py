"""`/v1/models` and `/v1/embeddings`: models of `task="embed"` in the words of OpenAI's API."""

from __future__ import annotations

import base64
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penstock
from penstock import errors
from penstock.testing import TestClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SEEN: list[int] = []


@penstock.model("lengths", task="embed", outputs={"vector": ("float32", [3])}, max_batch_size=16)
def lengths(texts: list[str]) -> NDArray[np.float32]:
    SEEN.append(len(texts))
    if "fail" in texts:
        raise ValueError("it fails")
    return np.array([[len(text), 0.1, -1.0] for text in texts], np.float32)


@penstock.model("open", task="embed")
class Open:
    def predict(self, texts: list[str]) -> NDArray[np.float32]:
        return np.ones((len(texts), 2), np.float32)


@penstock.model("tensors", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
def tensors(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return x


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(penstock.Server([lengths, Open, tensors], max_body=100_000)) as client:
        yield client


def embed(client: TestClient, **body: Any) -> Any:
    return client.post("/v1/embeddings", json={"model": "lengths", **body})


def test_texts_become_vectors(client: TestClient) -> None:
    one = embed(client, input="four").raise_for_status().json()
    assert one["data"] == [{"object": "embedding", "index": 0, "embedding": [4.0, 0.1, -1.0]}]
    assert (one["object"], one["model"], one["usage"]) == ("list", "lengths", {"prompt_tokens": 0, "total_tokens": 0})
    several = embed(client, input=["", "zwölf", "水"], encoding_format="base64", user="u").raise_for_status().json()
    rows = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in several["data"]]
    assert np.array_equal(rows, np.array([[0, 0.1, -1], [5, 0.1, -1], [1, 0.1, -1]], np.float32))
    assert client.post("/v1/embeddings", json={"model": "open", "input": "x"}).json()["data"][0]["embedding"] == [1, 1]


def test_the_same_model_answers_the_open_inference_protocol(client: TestClient) -> None:
    assert np.array_equal(client.infer("lengths", {"text": ["ab"]})["vector"], np.array([[2, 0.1, -1]], np.float32))


def test_requests_share_batches(client: TestClient) -> None:
    before = len(SEEN)
    gate = threading.Barrier(8)

    def ask() -> None:
        gate.wait(10)
        embed(client, input=["a", "b"]).raise_for_status()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum(SEEN[before:]) == 16


def test_the_answer_says_where_its_time_went(client: TestClient) -> None:
    assert "model;dur=" in embed(client, input="x").headers["server-timing"]


@pytest.mark.parametrize(
    ("body", "parameter", "code", "words"),
    [
        ({"model": "lengths"}, "input", "missing_required_parameter", "input is missing"),
        ({"model": "lengths", "input": []}, "input", "invalid_value", "empty list"),
        ({"model": "lengths", "input": [1, 2]}, "input", "unsupported_parameter", "tokens"),
        ({"model": "lengths", "input": "x", "dimensions": 2}, "dimensions", "unsupported_parameter", "have 3"),
        ({"model": "open", "input": "x", "dimensions": 2}, "dimensions", "unsupported_parameter", "no length"),
        ({"model": "lengths", "input": "x", "encoding_format": "x"}, "encoding_format", "invalid_value", "base64"),
        ({"model": "lengths", "input": "x", "task": "query"}, "task", "unknown_parameter", "no parameter"),
        ({"model": "tensors", "input": "x"}, "model", "unsupported_model", "not for embeddings"),
        ({"input": "x"}, "model", "missing_required_parameter", "model is missing"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    client: TestClient, body: dict[str, Any], parameter: str, code: str, words: str
) -> None:
    answer = client.post("/v1/embeddings", json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["code"], error["type"]) == (parameter, code, "invalid_request_error")
    assert words in error["message"]
    with pytest.raises(errors.ItemError, match=words):
        answer.raise_for_status()


def test_a_length_that_the_model_has_is_no_other(client: TestClient) -> None:
    assert embed(client, input="x", dimensions=3).status_code == 200


def test_every_failure_under_v1_is_worded_as_openai_words_it(client: TestClient) -> None:
    missing = client.post("/v1/embeddings", json={"model": "other", "input": "x"})
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")
    failed = embed(client, input="fail")
    assert (failed.status_code, failed.json()["error"]["type"]) == (500, "server_error")
    for method, path, status in [
        ("GET", "/v1/embeddings", 405),
        ("POST", "/v1/responses", 404),
        ("GET", "/v1/models/other", 404),
        ("GET", "/v1/models/tensors", 404),
    ]:
        answer = client.request(method, path)
        assert answer.status_code == status, path
        assert answer.json()["error"]["type"] == "invalid_request_error"
    large = client.post("/v1/embeddings", content=b" " * 200_000)
    assert (large.status_code, large.json()["error"]["type"]) == (413, "invalid_request_error")
    late = client.request("POST", "/v1/embeddings", content=b"{}", headers={"x-request-timeout": "soon"})
    assert "x-request-timeout" in late.json()["error"]["message"]
    broken = client.post("/v1/embeddings", content=b"{")
    assert "no request" in broken.json()["error"]["message"]


def test_models_of_texts_are_listed(client: TestClient) -> None:
    listed = client.get("/v1/models").json()
    assert (listed["object"], [model["id"] for model in listed["data"]]) == ("list", ["lengths", "open"])
    assert client.get("/v1/models/open").json() == listed["data"][1]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"task": "embeds"}, "task must be"),
        ({"task": "embed", "inputs": {"x": ("float32", [])}}, "takes one input"),
        ({"task": "embed", "outputs": {"x": ("float64", [3])}}, "gives one"),
        ({"task": "embed", "batched": True}, "batched=True is for"),
        ({"task": "generate", "inputs": {"x": ("string", [])}}, "neither inputs nor outputs"),
        ({"task": "generate", "max_batch_size": 3}, "one request at a time"),
        ({"task": "generate", "workers": penstock.Processes(1)}, "give it threads"),
        ({"task": "generate", "batched": True}, "is no generator"),
        ({}, "inputs must be a dict"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.ConfigError, match=words):
        penstock.model("m", **settings)(lambda _: "")
