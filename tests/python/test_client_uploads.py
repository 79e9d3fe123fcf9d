"""Bodies of requests that are made while they are sent."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import queue
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penstock
from penstock import AsyncClient, Client, Pool
from penstock.errors import ConfigError
from tests.python.support.http_server import HttpServer
from tests.python.support.waiting import PATIENCE, soon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.python.support.http_server import Peer

LONG = bytes(range(256)) * 8000


class Slow:
    """Reads the body of a request chunk by chunk, and tells of each."""

    def __init__(self) -> None:
        self.chunks: queue.Queue[bytes | None] = queue.Queue()

    def __call__(self, peer: Peer) -> None:
        while (request := peer.request(body=False)) is not None:
            if request.header("transfer-encoding") != "chunked":
                peer.answer("next")
                continue
            while chunk := peer.read_chunk():
                self.chunks.put(chunk)
            self.chunks.put(chunk)
            if chunk is None:
                return
            peer.answer("done")


async def test_a_piece_is_sent_before_the_next_is_made() -> None:
    slow = Slow()

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(5):
            yield b"piece %d" % number
            assert await asyncio.to_thread(slow.chunks.get, True, PATIENCE) == b"piece %d" % number

    with HttpServer(slow) as server:
        async with AsyncClient(server.url) as client:
            answer = await asyncio.wait_for(client.post("/", content=pieces()), PATIENCE)
            assert answer.text == "done"
            assert (await client.get("/")).reused


def test_a_piece_is_sent_before_the_next_is_made_when_blocking() -> None:
    slow = Slow()
    here = threading.get_ident()

    def pieces() -> Iterator[bytes]:
        for number in range(5):
            assert threading.get_ident() == here
            yield b"piece %d" % number
            assert slow.chunks.get(timeout=PATIENCE) == b"piece %d" % number

    with HttpServer(slow) as server, Client(server.url) as client:
        assert client.post("/", content=pieces()).text == "done"
        assert client.get("/").reused


class Short:
    """A file of another kind: it only reads."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(min(size, 1000))


@contextlib.contextmanager
def source(kind: str, folder: Path) -> Iterator[Any]:
    path = folder / "body"
    path.write_bytes(b"head" + LONG)
    with path.open("rb") as file:
        file.read(4)
        yield {
            "file": file,
            "memory": io.BytesIO(LONG),
            "reader": Short(LONG),
            "iterator": iter([LONG[:10], b"", memoryview(LONG)[10:]]),
            "generator": (LONG[start : start + 999] for start in range(0, len(LONG), 999)),
            "list": [LONG[:5], LONG[5:]],
        }[kind]


@pytest.mark.parametrize("kind", ["file", "memory", "reader", "iterator", "generator", "list"])
async def test_whatever_gives_bytes_is_a_body(kind: str, tmp_path: Path) -> None:
    with HttpServer() as server:
        async with AsyncClient(server.url) as client:
            with source(kind, tmp_path) as content:
                told = (await client.post("/", content=content)).json()
            assert told["body"].encode("latin-1") == LONG
            framing = dict(told["headers"])
            if kind in ("reader", "iterator", "generator"):
                assert framing["transfer-encoding"] == "chunked"
                assert "content-length" not in framing
            else:
                assert framing["content-length"] == str(len(LONG))
            with source(kind, tmp_path) as content:
                async with client.stream("PUT", "/", content=content) as s:
                    assert json.loads(await s.read())["body"].encode("latin-1") == LONG
        with Client(server.url) as blocking:
            with source(kind, tmp_path) as content:
                assert blocking.post("/", content=content).json()["body"].encode("latin-1") == LONG
            with source(kind, tmp_path) as content, blocking.stream("PUT", "/", content=content) as t:
                assert json.loads(t.read())["body"].encode("latin-1") == LONG


async def test_an_asynchronous_iterator_is_for_the_asynchronous_client() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"

    with HttpServer() as server, Client(server.url) as client, pytest.raises(ConfigError, match="AsyncClient"):
        client.post("/", content=pieces())  # type: ignore[arg-type]


async def test_a_length_that_is_stated_is_kept_to() -> None:
    with HttpServer() as server:
        async with AsyncClient(server.url) as client:
            stated = {"Content-Length": "6"}
            told = (await client.post("/", content=iter([b"abc", b"def"]), headers=stated)).json()
            assert dict(told["headers"])["content-length"] == "6"
            assert told["body"] == "abcdef"
            with pytest.raises(ConfigError, match="has 3 bytes, not the 6"):
                await asyncio.wait_for(client.post("/", content=iter([b"abc"]), headers=stated), PATIENCE)
            with pytest.raises(ConfigError, match="more than the 6"):
                await asyncio.wait_for(client.post("/", content=iter([b"abcdefg"]), headers=stated), PATIENCE)
            assert (await client.get("/")).status_code == 200
            assert client.stats().total.outstanding == 0


async def test_what_an_iterator_raises_ends_the_request() -> None:
    slow = Slow()

    def breaking() -> Iterator[bytes]:
        yield b"one"
        raise ZeroDivisionError("no more")

    async def breaking_later() -> AsyncIterator[bytes]:
        yield b"one"
        await soon(lambda: not slow.chunks.empty())  # of those that broke at once perhaps nothing was sent
        raise ZeroDivisionError("no more")

    with HttpServer(slow) as server:
        async with AsyncClient(server.url) as client:
            for content in (breaking(), breaking_later()):
                with pytest.raises(ZeroDivisionError):
                    await asyncio.wait_for(client.post("/", content=content), PATIENCE)  # type: ignore[arg-type]
            with pytest.raises(ZeroDivisionError):
                await client.stream("POST", "/", content=breaking()).__aenter__()
            await soon(lambda: client.stats().total.outstanding == 0)
        with Client(server.url) as blocking:
            with pytest.raises(ZeroDivisionError):
                blocking.post("/", content=breaking())
            with pytest.raises(ConfigError, match="binary mode"):
                blocking.post("/", content=io.StringIO("text"))  # type: ignore[arg-type]
            assert blocking.get("/").text == "next"
        # The server sees that it is not whole.
        while slow.chunks.get(timeout=PATIENCE) is not None:
            pass


async def test_the_iterator_waits_for_a_server_that_takes_nothing() -> None:
    go_on = threading.Event()
    made = 0

    def behave(peer: Peer) -> None:
        while peer.request(body=False) is not None:
            assert go_on.wait(PATIENCE)
            while peer.read_chunk():
                pass
            peer.answer("done")

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal made
        for _ in range(1000):
            made += 1
            yield bytes(65_536)

    with HttpServer(behave) as server:
        async with AsyncClient(server.url) as client:
            sending = asyncio.create_task(client.post("/", content=pieces()))
            before = -1
            while before != made or made == 0:
                before = made
                await asyncio.sleep(0.3)
            # What the kernel holds, and what the client does: far from the 64 MB that there are.
            assert made < 600
            go_on.set()
            assert (await asyncio.wait_for(sending, PATIENCE)).text == "done"
            assert made == 1000


async def test_an_answer_that_comes_early_ends_the_making() -> None:
    def behave(peer: Peer) -> None:
        while peer.request(body=False) is not None:
            peer.answer("too large", status="413 Content Too Large", headers={"Connection": "close"})
            peer.sees_end()
            return

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1000)
            await asyncio.sleep(0)

    def endless_too() -> Iterator[bytes]:
        while True:
            yield bytes(1000)

    with HttpServer(behave) as server:
        async with AsyncClient(server.url) as client:
            for content in (endless(), endless_too()):
                answer = await asyncio.wait_for(client.post("/", content=content), PATIENCE)  # type: ignore[arg-type]
                assert answer.status_code == 413
        with Client(server.url) as blocking:
            assert blocking.post("/", content=endless_too()).status_code == 413


async def test_both_directions_go_on_at_once() -> None:
    """What was sent decides what comes, and that what is sent next."""

    def behave(peer: Peer) -> None:
        while peer.request(body=False) is not None:
            peer.answer(headers={"Transfer-Encoding": "chunked"}, length=False)
            while chunk := peer.read_chunk():
                peer.chunk(chunk.upper())
            peer.chunk(b"")

    said: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def pieces() -> AsyncIterator[bytes]:
        while (piece := await said.get()) is not None:
            yield piece

    with HttpServer(behave) as server:
        async with AsyncClient(server.url, pool=Pool(min_size=0, max_size=1)) as client:
            async with client.stream("POST", "/", content=pieces()) as s:
                for word in (b"one", b"two", b"three"):
                    said.put_nowait(word)
                    assert await asyncio.wait_for(s.read(100), PATIENCE) == word.upper()
                said.put_nowait(None)
                assert await asyncio.wait_for(s.read(), PATIENCE) == b""
            assert client.stats().streams_cancelled == 0
            # One who leaves ends the making, too.
            async with client.stream("POST", "/", content=pieces()) as s:
                said.put_nowait(b"one")
                assert await asyncio.wait_for(s.read(100), PATIENCE) == b"ONE"
            await soon(lambda: len(asyncio.all_tasks()) == 1)
            assert client.stats().streams_cancelled == 1


async def test_a_redirect_cannot_ask_for_it_again() -> None:
    def behave(peer: Peer) -> None:
        for request in peer:
            status = "307 Temporary Redirect" if request.target == "/keep" else "303 See Other"
            if request.target == "/there":
                peer.echo(request)
            else:
                peer.answer(status=status, headers={"Location": "/there"})

    with HttpServer(behave) as server:
        async with AsyncClient(server.url, follow_redirects=True) as client:
            assert (await client.post("/see", content=iter([b"a"]))).json()["method"] == "GET"
            with pytest.raises(ConfigError, match="asks for the body again"):
                await client.post("/keep", content=iter([b"a"]))
            assert (await client.post("/keep", content=b"a")).json()["body"] == "a"


def test_many_requests_are_sent_whole() -> None:
    with HttpServer() as server, Client(server.url) as client:
        requests = [{"method": "POST", "url": "/", "content": iter([b"%d" % number, b"!"])} for number in range(3)]
        answers = client.request_many(requests)
        assert [answer.json()["body"] for answer in answers] == ["0!", "1!", "2!"]


@pytest.mark.parametrize("length", [True, False])
async def test_it_goes_over_http2(length: bool) -> None:
    @penstock.model("total", inputs={"x": ("float32", [-1])}, outputs={"y": ("float32", [1])})
    def total(x: Any) -> Any:
        return x.sum(axis=1, keepdims=True)

    values = np.arange(60_000, dtype=np.float32) % 7
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, values.size], "data": values.tolist()}
    body = json.dumps({"inputs": [tensor]}).encode()

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), 10_000):
            yield body[start : start + 10_000]

    headers = {"content-type": "application/json", **({"content-length": str(len(body))} if length else {})}
    with penstock.Server(total, port=0) as server:
        async with AsyncClient(server.url, http2="always") as client:
            answer = await client.post("/v2/models/total/infer", content=pieces(), headers=headers)
            assert answer.http_version == "HTTP/2"
            assert answer.json()["outputs"][0]["data"] == [float(values.sum())]
            with pytest.raises(ZeroDivisionError):
                await client.post("/v2/models/total/infer", content=(1 // 0 for _ in "x"), headers=headers)  # type: ignore[arg-type]
            await soon(lambda: client.stats().total.outstanding == 0)
