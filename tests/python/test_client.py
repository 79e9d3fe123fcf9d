"""The in-process test client: the whole path of a request, no socket."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import penstock
from penstock import ItemError, Server, errors, model, testing
from penstock.errors import (
    Closed,
    ConfigError,
    LoadFailed,
    ModelError,
    ModelNotFound,
    OutputError,
    Overloaded,
    RemoteError,
)
from penstock.testing import TestClient
from tests.python.support.arrays import same
from tests.python.support.waiting import PATIENCE, Gate, soon, until

X = {"x": ("float32", [2])}
Y = {"y": ("float32", [2])}
ONE = np.array([[1, 2]], np.float32)

NUMBERS = ["bool", "float16", "bfloat16", "float32", "float64"]
NUMBERS += [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]


@model("double", inputs=X, outputs=Y, version="3")
def double(x: Any) -> Any:
    return x * np.float32(2)


def sockets() -> set[str]:
    """This process's sockets that have an address on a network."""
    tables = [Path(f"/proc/self/net/tcp{family}").read_text().splitlines()[1:] for family in ("", "6")]
    inodes = {line.split()[9] for table in tables for line in table}
    links = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            links.add(str(link.readlink()))
        except FileNotFoundError:
            continue
    return {link for link in links if link.startswith("socket:[") and link[8:-1] in inodes}


def test_no_port_is_opened_and_the_models_are_loaded_and_closed() -> None:
    seen: list[str] = []

    @model("counted", inputs=X, outputs=Y)
    class Counted:
        def load(self, ctx: penstock.LoadContext) -> None:
            seen.append("load")

        def predict(self, x: Any) -> Any:
            return x

        def close(self) -> None:
            seen.append("close")

    before = sockets()
    server = Server(Counted)
    with TestClient(server) as client:
        assert seen == ["load"]
        assert same(client.infer("counted", {"x": ONE})["y"], ONE)
        assert sockets() == before
        assert server.stats().models["counted"].requests == 1
        with pytest.raises(Closed, match="listens nowhere"):
            _ = server.url
    assert seen == ["load", "close"]
    with pytest.raises(Closed):
        TestClient(server).__enter__()
    with pytest.raises(Closed):
        TestClient(Server(double)).get("/v2")


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("elements", NUMBERS)
def test_numbers_of_every_datatype_go_there_and_back(elements: str, binary: bool) -> None:
    @model("same", inputs={"x": (elements, [-1, 3])}, outputs={"y": (elements, [-1, 3])})
    def unchanged(x: Any) -> Any:
        return x

    dtype = np.dtype(ml_dtypes.bfloat16 if elements == "bfloat16" else elements)
    extremes = [0, 1]
    if dtype.kind in "iu":
        extremes += [np.iinfo(dtype).min, np.iinfo(dtype).max]
    elif dtype.kind != "b":
        info = ml_dtypes.finfo(dtype)
        extremes += [float(info.max), float(info.min), float(info.smallest_normal), 0.1]
    sent = np.resize(np.array(extremes, dtype), (4, 2, 3))
    with TestClient(Server(unchanged)) as client:
        assert same(client.infer("same", {"x": sent}, binary=binary)["y"], sent)
        other = sent.astype(sent.dtype.newbyteorder(">")) if elements not in ("bool", "bfloat16") else sent
        assert same(client.infer("same", {"x": other[::2, :, ::-1]}, binary=binary)["y"], sent[::2, :, ::-1])
        assert same(client.infer("same", {"x": sent[:, :0]}, binary=binary)["y"], sent[:, :0])


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_texts_come_back_as_they_are_declared(binary: bool) -> None:
    @model(
        "texts",
        inputs={"s": ("string", [-1]), "b": ("bytes", [])},
        outputs={"s": ("string", [-1]), "b": ("bytes", [])},
    )
    def texts(s: Any, b: Any) -> Any:
        return {"s": s, "b": b}

    with TestClient(Server(texts)) as client:
        rows = [["a", "", "zwölf\0"], ["b", "日本", " "]]
        outputs = client.infer("texts", {"s": rows, "b": [b"x", b""]}, binary=binary)
        assert (outputs["s"].tolist(), outputs["b"].tolist()) == (rows, [b"x", b""])
        assert outputs["s"].shape == (2, 3)
        arrays = {"s": np.array(rows), "b": np.array([b"x", b"yz"])}
        assert client.infer("texts", arrays, binary=binary)["b"].tolist() == [b"x", b"yz"]


def test_what_json_cannot_carry() -> None:
    @model("raw", inputs={"b": ("bytes", [])}, outputs={"b": ("bytes", []), "n": ("float64", [])})
    def raw(b: Any) -> Any:
        return {"b": [b"\xff"] * len(b), "n": np.full(len(b), np.inf)}

    with TestClient(Server(raw)) as client:
        found = client.infer("raw", {"b": [b"\xff\0"]})
        assert (found["b"].tolist(), found["n"].tolist()) == ([b"\xff"], [np.inf])
        with pytest.raises(ConfigError, match=r"'b' holds bytes that are not utf-8"):
            client.infer("raw", {"b": [b"\xff"]}, binary=False)
        with pytest.raises(OutputError, match=r"'b' holds bytes that are not utf-8"):
            client.infer("raw", {"b": ["a"]}, binary=False)
        assert np.isnan(client.infer("raw", {"b": ["a"]}, outputs=["n"], binary=False)["n"]).all()


def test_lists_become_what_is_declared_and_arrays_stay_what_they_are() -> None:
    with TestClient(Server(double)) as client:
        assert same(client.infer("double", {"x": [[1, 2]]})["y"], ONE * 2)
        with pytest.raises(ItemError, match="FP64"):
            client.infer("double", {"x": ONE.astype(np.float64)})
        with pytest.raises(ConfigError, match="'x': the protocol has no datatype for complex64"):
            client.infer("double", {"x": ONE.astype(np.complex64)})
        with pytest.raises(ConfigError, match="'x' holds a dict"):
            client.infer("double", {"x": np.array([{}], object)})


def test_versions_ids_and_wanted_outputs() -> None:
    @model("two", inputs=X, outputs={"a": X["x"], "b": X["x"]}, version="7")
    def two(x: Any) -> Any:
        return {"a": x, "b": -x}

    with TestClient(Server([two, double])) as client:
        assert list(client.infer("two", {"x": ONE}, outputs=["b"], version="7", request_id="r1")) == ["b"]
        with pytest.raises(ModelNotFound, match="version"):
            client.infer("two", {"x": ONE}, version="8")
        with pytest.raises(ItemError, match="'c'"):
            client.infer("two", {"x": ONE}, outputs=["c"])
        with pytest.raises(ModelNotFound, match="a%2Fb"):
            client.infer("a/b", {"x": [[1.0, 2.0]]})


@pytest.mark.parametrize(
    ("returned", "kind", "words"),
    [
        (lambda x: x[0, 5], ModelError, "IndexError"),
        (lambda x: x[:, :1], OutputError, "shape"),
        (lambda x: [ItemError("not this one")] * len(x), ItemError, "not this one"),
    ],
)
def test_failures_are_the_errors_that_they_were(returned: Any, kind: type[Exception], words: str) -> None:
    with TestClient(Server(model("fails", inputs=X, outputs=Y)(returned))) as client:
        with pytest.raises(kind, match=words) as failure:
            client.infer("fails", {"x": ONE})
        assert type(failure.value) is kind


def test_a_full_queue_says_when_to_come_again(gate: Gate) -> None:
    @model("gated", inputs={"x": ("float32", [])}, outputs={"y": ("float32", [])}, max_queue=1, max_batch_size=1)
    def gated(x: Any) -> Any:
        return gate.run(x)

    server = Server(gated)
    with TestClient(server) as client, ThreadPoolExecutor() as threads:
        row = {"x": np.zeros(1, np.float32)}
        first = threads.submit(client.infer, "gated", row)
        until(gate.entered.is_set)
        second = threads.submit(client.infer, "gated", row)
        until(lambda: server.stats().models["gated"].queued == 1)
        with pytest.raises(Overloaded, match="max_queue") as failure:
            client.infer("gated", row)
        assert failure.value.retry_after is not None
        gate.open()
        first.result(PATIENCE)
        second.result(PATIENCE)


def test_answers_of_http_alone_are_remote_errors() -> None:
    with TestClient(Server(double, max_body=100)) as client:
        for answer, status, words in (
            (client.get("/nowhere"), 404, "nothing at this path"),
            (client.get("/v2/models/double/infer"), 405, "POST"),
            (client.post("/v2/models/double/infer", content=b" " * 101), 413, "max_body"),
        ):
            assert answer.status_code == status
            with pytest.raises(RemoteError, match=words) as failure:
                answer.raise_for_status()
            assert (failure.value.status, failure.value.body) == (status, answer.content)


def test_a_response_is_read_as_in_other_clients() -> None:
    with TestClient(Server(double)) as client:
        body = testing.infer_body({"x": ("FP32", [1, 2], [1, 2])}, request_id="ä")
        answer = client.post("/v2/models/double/infer", json=body)
        assert answer.raise_for_status() is answer
        assert (answer.json()["id"], answer.json()["model_version"]) == ("ä", "3")
        assert json.loads(answer.text) == json.loads(answer.content) == answer.json()
        assert answer.headers["Content-Type"] == answer.headers["content-type"] == "application/json"
        assert "Server-Timing" in answer.headers
        assert "x-none" not in answer.headers
        assert len(answer.headers) == len(list(answer.headers))
        assert client.request("HEAD", "/v2").status_code == 200
        assert client.post("/v2/models/double/infer", content=json.dumps(body)).status_code == 200
        with pytest.raises(AttributeError):
            answer.status_code = 500  # type: ignore[misc]  # it is frozen


def test_requests_that_are_none_are_refused() -> None:
    with TestClient(Server(double)) as client:
        for call, words in (
            (lambda: client.get("v2"), "slash"),
            (lambda: client.get("/v2 x"), "no http request"),
            (lambda: client.request("GE T", "/v2"), "no http request"),
            (lambda: client.get("/v2", headers={"a b": "c"}), "no http request"),
            (lambda: client.post("/v2", json={}, content=b""), "exclude"),
        ):
            with pytest.raises(ConfigError, match=words):
                call()


def test_requests_of_many_threads_share_batches(gate: Gate) -> None:
    sizes: list[int] = []

    @model("gated", inputs={"x": ("float32", [])}, outputs={"y": ("float32", [])})
    def gated(x: Any) -> Any:
        sizes.append(len(x))
        return gate.run(x)

    server = Server(gated)
    with TestClient(server) as client, ThreadPoolExecutor(21) as threads:
        asked = [threads.submit(client.infer, "gated", {"x": np.zeros(1, np.float32)})]
        until(gate.entered.is_set)
        rows = [np.full(1, number, np.float32) for number in range(20)]
        asked += [threads.submit(client.infer, "gated", {"x": row}) for row in rows]
        until(lambda: server.stats().models["gated"].queued == 20)
        gate.open()
        answers = [future.result(PATIENCE)["y"] for future in asked]
    assert sizes == [1, 20]
    assert [float(answer[0]) for answer in answers[1:]] == [10.0 * number for number in range(20)]


async def test_awaited_requests_share_batches_and_leave_the_loop_free(gate: Gate) -> None:
    @model("gated", inputs={"x": ("float32", [])}, outputs={"y": ("float32", [])})
    def gated(x: Any) -> Any:
        return gate.run(x)

    server = Server(gated)
    async with TestClient(server) as client:
        rows = [{"x": np.full(1, number, np.float32)} for number in range(100)]
        tasks = [asyncio.create_task(client.ainfer("gated", row)) for row in rows]
        await soon(lambda: server.stats().models["gated"].queued + len(gate.seen) == 100)  # the loop turns meanwhile
        live = await client.arequest("GET", "/v2/health/live")
        assert live.status_code == 200
        assert not any(task.done() for task in tasks)
        gate.open()
        answers = await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)
        assert [float(answer["y"][0]) for answer in answers] == [10.0 * number for number in range(100)]
        assert server.stats().models["gated"].batches < 100
    assert "closed" in repr(server)


def test_a_server_that_was_started_is_left_running() -> None:
    with Server(double, port=0) as server:
        assert same(TestClient(server).infer("double", {"x": ONE})["y"], ONE * 2)
        with TestClient(server) as client:
            assert same(client.infer("double", {"x": ONE})["y"], ONE * 2)
        assert server.ready
        assert TestClient(server).get("/v2/health/ready").status_code == 200


def test_a_model_that_fails_to_load_fails_the_entering() -> None:
    @model("broken", inputs=X, outputs=Y)
    class Broken:
        def load(self, _ctx: Any) -> None:
            raise OSError("no weights")

        def predict(self, x: Any) -> Any:
            return x

    with pytest.raises(LoadFailed, match="no weights"):
        TestClient(Server(Broken)).__enter__()


def test_leaving_answers_what_is_on_its_way() -> None:
    entered = threading.Event()

    @model("slow", inputs=X, outputs=Y)
    def slow(x: Any) -> Any:
        entered.set()
        time.sleep(0.2)
        return x

    with ThreadPoolExecutor() as threads:
        with TestClient(Server(slow)) as client:
            asked = threads.submit(client.infer, "slow", {"x": ONE})
            until(entered.is_set)
        assert same(asked.result(PATIENCE)["y"], ONE)


async def test_the_callers_context_goes_along() -> None:
    seen: ContextVar[str] = ContextVar("seen")

    class Spy(dict[str, str]):
        def items(self) -> Any:
            return [("x-seen", seen.get())]

    seen.set("here")
    async with TestClient(Server(double)) as client:
        assert (await client.arequest("GET", "/v2", headers=Spy(a="b"))).status_code == 200


def test_pytest_collects_none_of_it() -> None:
    assert not testing.TestClient.__test__
    assert not testing.TestResponse.__test__


def test_every_error_of_the_table_has_a_class_to_raise() -> None:
    for name, *_ in penstock._native.error_table():
        response = testing.TestResponse(500, testing.Headers([]), b'{"error": "no"}', name)
        with pytest.raises(getattr(errors, name), match="no"):
            response.raise_for_status()
    with pytest.raises(RemoteError, match="status 502"):
        testing.TestResponse(502, testing.Headers([]), b"<html>").raise_for_status()
