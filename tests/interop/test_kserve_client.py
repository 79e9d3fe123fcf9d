"""KServe's own client, over HTTP and gRPC, asks our server; over HTTP also with our transport under it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penstock
from tests.interop.support.kserve import their_client
from tests.interop.support.processes import answers
from tests.interop.support.served import DATATYPES, double, picky, place
from tests.python.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

X = np.arange(6, dtype=np.float32).reshape(3, 2)
# Its client knows no bfloat16.
TYPES: dict[str, Any] = {name.lower(): (kind, [3]) for name, kind in DATATYPES.items() if name != "BF16"}


@penstock.model("types", inputs=TYPES, outputs=TYPES)
def types(*tensors: Any) -> dict[str, Any]:
    return dict(zip(TYPES, tensors, strict=True))


@pytest.fixture(scope="module")
def server() -> Iterator[penstock.Server]:
    with penstock.Server([double, picky, types], port=0) as server:
        yield server


transports = pytest.mark.parametrize("transport", ["own", "penstock"])


@transports
def test_health(server: penstock.Server, transport: str) -> None:
    said = their_client("health", server.url, transport)
    assert said == {"live": True, "ready": True, "double": True, "nowhere": False}


def test_a_server_that_leaves() -> None:
    with penstock.Server(double, port=0, drain_delay=30) as server:
        leaving = threading.Thread(target=server.close)
        leaving.start()
        try:
            until(lambda: not answers(server.url + "/v2/health/ready"))
            assert their_client("closing", server.url) == [503, {"ready": False}]
        finally:
            server.close(drain=False)
            leaving.join()


@transports
def test_tensors(server: penstock.Server, transport: str) -> None:
    said = their_client("infer", server.url, transport)
    for answer in said["answers"]:
        assert (answer["id"], answer["model"]) == ("seven", "double")
        assert answer["outputs"] == {"y": (X * 2).ravel().tolist(), "sum": X.sum(axis=1).tolist()}
    assert said["many"] == [2.0 * n for n in range(50)]


@transports
def test_every_type(server: penstock.Server, transport: str) -> None:
    check_types(their_client("types", server.url, transport))


def check_types(said: Any) -> None:
    assert said["outputs"]["bytes"] == ["", "zwölf", "c"]
    for name, dtype in said["types"].items():
        if name != "bytes":
            assert dtype == TYPES[name][0]
            assert np.array_equal(said["outputs"][name], [0, 1, 1]), name


def test_refusals_are_in_words_that_it_shows(server: penstock.Server) -> None:
    (item, nowhere, shape) = their_client("refusals", server.url)
    assert item[0] == 400
    assert "numbers below zero are not served" in item[1]
    assert nowhere[0] == 404
    assert "'nowhere'" in nowhere[1]
    assert shape[0] == 400
    assert "input 'x'" in shape[1]


def test_calls_of_grpc(server: penstock.Server) -> None:
    said = their_client("by_grpc", place(server.grpc_url))
    assert (said["live"], said["ready"], said["double"]) == (True, True, True)
    assert said["answer"]["outputs"]["y"] == (X * 2).ravel().tolist()
    assert said["bytes"] == ["", "zwölf", "c"]
    assert {name: TYPES[name][0] for name in said["types"] if name != "bytes"} == {
        name: dtype for name, dtype in said["types"].items() if name != "bytes"
    }
    assert said["refused"] == ["INVALID_ARGUMENT", "numbers below zero are not served"]
