"""The gateway in front of MLServer: over HTTP, where it takes JSON alone, and over gRPC."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penstock
from penstock import Client, RemoteModel, Server
from penstock.errors import ConfigError, DeadlineExceeded, ItemError, ModelNotFound
from tests.interop.support.mlserver import MODELS, mlserver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.interop.support.doors import Doors

HALVES: dict[str, Any] = {
    "inputs": {"x": ("float32", [4])},
    "outputs": {"lower": ("float32", [2]), "sum": ("float32", [1])},
}
MIRROR: dict[str, Any] = {
    "inputs": {"text": ("bytes", [-1]), "n": ("int64", [2])},
    "outputs": {"text": ("bytes", [-1]), "n": ("int64", [2])},
}


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with mlserver(tmp_path_factory.mktemp("mlserver")) as doors:
        yield doors


@pytest.fixture(params=["http", "grpc", "both"])
def urls(request: pytest.FixtureRequest, doors: Doors) -> list[str]:
    return list(doors) if request.param == "both" else [getattr(doors, request.param)]


def test_batches_are_computed_there(urls: list[str]) -> None:
    rows = np.arange(800, dtype=np.float32).reshape(200, 4) / 100
    remote = RemoteModel("halves", urls, **HALVES, max_batch_size=64)
    with Server(remote, port=0) as server, Client(server.url) as client, ThreadPoolExecutor(32) as threads:

        def ask(row: Any) -> Any:
            return client.infer("halves", {"x": row[np.newaxis]})

        answers = list(threads.map(ask, rows))
        np.testing.assert_allclose([answer["lower"][0] for answer in answers], rows[:, :2], rtol=1e-6)
        np.testing.assert_allclose([answer["sum"][0, 0] for answer in answers], rows[:, :2].sum(axis=1), rtol=1e-6)
        stats = server.stats().models["halves"]
        assert (stats.requests, stats.lock_acquisitions) == (200, 0)
        assert stats.batches < 200


def test_texts_come_back(urls: list[str]) -> None:
    with Server(RemoteModel("mirror", urls, **MIRROR), port=0) as server, Client(server.url) as client:
        texts = np.array([["a", "naïve 水"], ["", "b"]], object)
        answer = client.infer("mirror", {"text": texts, "n": np.arange(4).reshape(2, 2)})
        assert [[text.decode() for text in row] for row in answer["text"]] == texts.tolist()
        assert answer["n"].tolist() == [[0, 1], [2, 3]]


def test_only_the_guilty_request_fails(urls: list[str]) -> None:
    with (
        Server(RemoteModel("halves", urls, **HALVES, concurrency=1), port=0) as server,
        Client(server.url) as client,
        ThreadPoolExecutor(32) as threads,
    ):

        def ask(value: float) -> Any:
            return client.infer("halves", {"x": np.full((1, 4), value, np.float32)})["sum"][0, 0]

        values = [-1.0 if at % 16 == 5 else float(at) for at in range(64)]
        asked = [threads.submit(ask, value) for value in values]
        for value, answer in zip(values, asked, strict=True):
            if value < 0:
                with pytest.raises(ItemError, match="below zero"):
                    answer.result()
            else:
                assert answer.result() == value * 2


def test_a_time_that_is_too_short(urls: list[str]) -> None:
    with Server(RemoteModel("halves", urls, **HALVES), port=0) as server, Client(server.url) as client:
        with pytest.raises(DeadlineExceeded):
            client.infer("halves", {"x": np.full((1, 4), 2000, np.float32)}, timeout=0.2)  # it takes 2 s
        assert client.infer("halves", {"x": np.ones((1, 4), np.float32)}, timeout=30)["sum"][0, 0] == 2


def test_what_it_does_not_say_must_be_declared(doors: Doors) -> None:
    with pytest.raises(ConfigError, match="does not say what inputs"):
        RemoteModel("halves", doors.http)
    with pytest.raises(ConfigError, match="does not say"):
        RemoteModel.discover(doors.http)
    with pytest.raises(ModelNotFound):
        RemoteModel("nowhere", doors.http)


def test_its_repository_is_the_cache_of_another(doors: Doors) -> None:
    with penstock.Client(doors.http) as there:
        assert {row["name"] for row in there.repository_index()} == set(MODELS)
        remote = RemoteModel("mirror", doors.http, **MIRROR, load_retries=0)
        with Server(remote, port=0, preload=[]) as server, Client(server.url) as client:
            there.unload_model("mirror")
            inputs = {"text": np.array([["a"]], object), "n": np.ones((1, 2), np.int64)}
            try:
                with pytest.raises(penstock.PenstockError):
                    client.infer("mirror", inputs)
            finally:
                there.load_model("mirror")
            server.cache.reload("mirror").wait(30)
            assert client.infer("mirror", inputs)["n"].tolist() == [[1, 1]]
