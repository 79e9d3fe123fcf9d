"""Inference over the Open Inference Protocol: against Penstock's own server, and against scripted ones."""

from __future__ import annotations

import asyncio
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penstock import AsyncClient, Client, ItemError, Server, Timeout, model
from penstock.errors import ConfigError, DeadlineExceeded, ProtocolError, RemoteError
from tests.python.support.arrays import same, sample
from tests.python.support.http_server import HttpServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.python.support.http_server import Peer

NUMBERS = ["bool", "float16", "float32", "float64"]
NUMBERS += [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
KINDS: dict[str, tuple[str, list[int]]] = {
    **{name: (name, [3]) for name in NUMBERS},
    "text": ("string", [2]),
    "raw": ("bytes", [2]),
}


@model("double", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])}, version="3")
def double(x: Any) -> Any:
    return x * np.float32(2)


@model("mirror", inputs=KINDS, outputs=KINDS)
def mirror(*tensors: Any) -> dict[str, Any]:
    return dict(zip(KINDS, tensors, strict=True))


@model("picky", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
def picky(x: Any) -> Any:
    return [ItemError("not this one")] * len(x)


@model("slow", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
def slow(x: Any) -> Any:
    time.sleep(1.0)
    return x


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server([double, mirror, picky, slow], port=0) as server:
        yield server


X = {"x": np.array([[1, 2], [3, 4]], np.float32)}
FORMS: list[bool | None] = [None, True, False]


@pytest.mark.parametrize("binary", FORMS)
async def test_a_model_answers(server: Server, binary: bool | None) -> None:
    async with AsyncClient(server.url) as client:
        result = await client.infer("double", X, request_id="r7", binary=binary)
        assert same(result["y"], X["x"] * 2)
        assert (list(result), len(result), "y" in result) == (["y"], 1, True)
        assert (result.id, result.model_name, result.model_version) == ("r7", "double", "3")
        assert set(result.timing) == {"queue", "slot", "gather", "model", "scatter", "encode"}
        assert all(0 <= seconds < 30 for seconds in result.timing.values())
        assert repr(result) == "<InferResult of 'double': y: float32[2, 2]>"
        assert same((await client.infer("double", X, version="3", outputs=["y"]))["y"], X["x"] * 2)
        rows = await asyncio.gather(*(client.infer("double", {"x": X["x"] + n}) for n in range(50)))
        assert all(same(row["y"], (X["x"] + n) * 2) for n, row in enumerate(rows))
    with Client(server.url) as blocking:
        assert same(blocking.infer("double", X, binary=binary)["y"], X["x"] * 2)


async def test_those_who_come_together_ask_once_what_the_server_takes(server: Server) -> None:
    async with AsyncClient(server.url) as client:
        results = await asyncio.gather(*(client.infer("double", X) for _ in range(20)))
        assert all(same(result["y"], X["x"] * 2) for result in results)
        assert client.stats().total.acquired == 21


@pytest.mark.parametrize("binary", FORMS)
def test_tensors_of_every_kind(server: Server, binary: bool | None) -> None:
    inputs: dict[str, Any] = {name: sample(name, (4, 3), seed) for seed, name in enumerate(NUMBERS)}
    if binary is False:
        # What JSON cannot say is another test's matter.
        for name in ("float16", "float32", "float64"):
            inputs[name] = np.arange(12).reshape(4, 3).astype(name)
    inputs["text"] = np.array([["ä", ""]] * 4, object)
    inputs["raw"] = np.array([[b"a", b"bc"]] * 4, object)
    with Client(server.url) as client:
        outputs = client.infer("mirror", inputs, binary=binary)
    for name in NUMBERS:
        assert same(outputs[name], inputs[name]), name
    assert outputs["text"].tolist() == [["ä".encode(), b""]] * 4
    assert outputs["raw"].tolist() == [[b"a", b"bc"]] * 4


def test_the_server_is_asked_once_what_it_takes(server: Server) -> None:
    def behave(peer: Peer) -> None:
        for request in peer:
            if request.target == "/v2":
                extensions = peer.server.extensions  # type: ignore[attr-defined]
                peer.answer(json.dumps({"name": "s", "version": "1", "extensions": extensions}))
            else:
                tensor = {"name": "y", "datatype": "FP32", "shape": [1], "data": [1.5]}
                peer.answer(json.dumps({"model_name": "m", "outputs": [tensor]}))

    for extensions, header in (([], None), (["binary_tensor_data"], "inference-header-content-length")):
        with HttpServer(behave) as scripted, Client(scripted.url) as client:
            scripted.extensions = extensions  # type: ignore[attr-defined]
            for _ in range(3):
                result = client.infer("m", {"x": np.ones(1, np.float32)})
                assert result["y"].tolist() == [1.5]
                assert (result.id, result.model_version, result.timing) == (None, None, {})
            assert [request.target for request in scripted.requests].count("/v2") == 1
            sent = scripted.requests[-1]
            assert (sent.header("inference-header-content-length") is not None) == (header is not None)
            assert sent.header("x-request-timeout") is None


def test_a_server_that_cannot_say_what_it_takes_gets_json() -> None:
    def behave(peer: Peer) -> None:
        for request in peer:
            if request.target == "/v2":
                peer.answer("what?", status="404 Not Found")
            else:
                json.loads(request.body)
                peer.answer('{"outputs": []}')

    with HttpServer(behave) as scripted, Client(scripted.url) as client:
        assert dict(client.infer("m", {"x": np.ones(1)})) == {}


def test_an_answer_that_says_null_for_what_is_not_there() -> None:
    """As KServe's server does."""
    said = {"name": "y", "shape": [1], "datatype": "FP32", "data": [2.5], "parameters": None}

    def behave(peer: Peer) -> None:
        for _ in peer:
            peer.answer(json.dumps({"id": None, "parameters": None, "outputs": [said]}))

    with HttpServer(behave) as scripted, Client(scripted.url) as client:
        assert client.infer("m", {"x": np.ones(1)}, binary=False)["y"].tolist() == [2.5]


def test_names_are_quoted() -> None:
    def behave(peer: Peer) -> None:
        for _ in peer:
            peer.answer('{"outputs": []}')

    with HttpServer(behave) as scripted, Client(scripted.url + "/base") as client:
        client.infer("a/b c", {}, version="1/2", binary=False)
        assert scripted.requests[-1].target == "/base/v2/models/a%2Fb%20c/versions/1%2F2/infer"


async def test_the_server_speaks_in_errors(server: Server) -> None:
    async with AsyncClient(server.url) as client:
        with pytest.raises(RemoteError, match="not this one") as caught:
            await client.infer("picky", X)
        assert caught.value.status == 400
        with pytest.raises(RemoteError, match="nothing") as caught:
            await client.infer("nothing", X)
        assert caught.value.status == 404
        assert b"error" in caught.value.body
        with pytest.raises(RemoteError, match="shape"):
            await client.infer("double", {"x": np.ones((2, 3), np.float32)})


def test_a_request_whose_time_has_passed_leaves_the_queue(server: Server) -> None:
    with Client(server.url) as client, ThreadPoolExecutor(1) as threads:
        before = server.stats().models["slow"]
        running = threads.submit(client.infer, "slow", X)
        while server.stats().models["slow"].batches == before.batches:
            time.sleep(0.001)
        with pytest.raises(DeadlineExceeded):
            client.infer("slow", X, timeout=0.1)
        assert same(running.result(30)["y"], X["x"])
        answer = client.post("/v2/models/slow/infer", json={}, headers={"x-request-timeout": "soon"})
        assert (answer.status_code, "x-request-timeout" in answer.text) == (400, True)
        client.infer("slow", X)
        # Its two rows were found to be late, and no batch held them.
        after = server.stats().models["slow"]
        assert (after.requests - before.requests, after.expired - before.expired) == (4, 2)


def test_a_time_that_is_named_is_told(server: Server) -> None:
    def behave(peer: Peer) -> None:
        for _ in peer:
            peer.answer('{"outputs": []}')

    with HttpServer(behave) as scripted, Client(scripted.url) as client:
        for timeout in (5, 5.0, Timeout(total=5)):
            client.infer("m", {}, timeout=timeout)
            told = scripted.requests[-1].header("x-request-timeout")
            assert told is not None
            assert re.fullmatch(r"\d+\.\d+", told)
            assert 4 < float(told) <= 5
        client.infer("m", {}, timeout=None)
        assert scripted.requests[-1].header("x-request-timeout") is None
        with pytest.raises(ConfigError):
            client.infer("m", {}, timeout=-1)
    with Client(server.url) as client, pytest.raises((DeadlineExceeded, RemoteError)):
        client.infer("slow", X, timeout=0.2)


@pytest.mark.parametrize(
    "body",
    ["", "[]", "{}", '{"outputs": 7}', '{"outputs": [{"name": "y"}]}', "\xff", '{"outputs": ["y"]}'],
)
def test_an_answer_of_another_protocol(body: str) -> None:
    def behave(peer: Peer) -> None:
        for _ in peer:
            peer.answer(body.encode("latin-1"))

    with (
        HttpServer(behave) as scripted,
        Client(scripted.url) as client,
        pytest.raises(ProtocolError, match="open inference protocol"),
    ):
        client.infer("m", {}, binary=False)


def test_what_cannot_be_asked(server: Server) -> None:
    with Client(server.url) as client:
        with pytest.raises(ConfigError, match="datatype"):
            client.infer("double", {"x": np.ones(2, complex)})
        with pytest.raises(ConfigError, match="mapping"):
            client.infer("double", [1, 2])  # type: ignore[arg-type]


def test_timing_is_read_with_care() -> None:
    header = 'queue;dur=1.5, cache;desc="a;b", db;dur="2"; desc=x, bad;dur=x, total;DUR=3'

    def behave(peer: Peer) -> None:
        for _ in peer:
            peer.answer('{"outputs": []}', headers={"Server-Timing": header})

    with HttpServer(behave) as scripted, Client(scripted.url) as client:
        timing = client.infer("m", {}, binary=False).timing
    assert timing == pytest.approx({"queue": 0.0015, "db": 0.002, "total": 0.003})
