"""Answers that are read while they arrive."""

from __future__ import annotations

import asyncio
import gzip
import threading
from typing import TYPE_CHECKING

import pytest

from penstock import AsyncClient, Client, Pool, Timeout
from penstock.errors import ConfigError, IdleTimeout, ReadFailed, RemoteError, StreamClosed, StreamInterrupted
from tests.python.support.http_server import HttpServer
from tests.python.support.waiting import PATIENCE, soon, until

if TYPE_CHECKING:
    from tests.python.support.http_server import Peer

CHUNKED = {"Transfer-Encoding": "chunked"}
ONE = Pool(min_size=0, max_size=1)


class Dripping:
    """Sends a piece each time that it is asked to."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces
        self.asked = threading.Semaphore(0)
        self.ended = threading.Event()

    def __call__(self, peer: Peer) -> None:
        for request in peer:
            if request.target != "/drip":
                peer.echo(request)
                continue
            peer.answer(headers=CHUNKED, length=False)
            for piece in self.pieces:
                while not self.asked.acquire(timeout=0.05):
                    if peer.sees_end(0):
                        self.ended.set()
                        return
                peer.chunk(piece)
            peer.chunk(b"")


async def test_chunks_come_as_they_arrive() -> None:
    drip = Dripping([b"one", b"two", b"three"])
    with HttpServer(drip) as server:
        async with AsyncClient(server.url, pool=ONE) as client:
            async with client.stream("GET", "/drip") as answer:
                assert (answer.status_code, answer.headers["transfer-encoding"]) == (200, "chunked")
                assert repr(answer) == "<AsyncStream [200 OK]>"
                chunks = answer.chunks()
                for piece in drip.pieces:
                    drip.asked.release()
                    assert await asyncio.wait_for(anext(chunks), PATIENCE) == piece
                for _ in range(2):
                    with pytest.raises(StopAsyncIteration):
                        await anext(chunks)
            # It was read to its end, so its connection serves on.
            assert (await client.get("/")).reused
            assert server.connections == 1


def test_chunks_come_as_they_arrive_when_blocking() -> None:
    drip = Dripping([b"one", b"two", b"three"])
    with HttpServer(drip) as server, Client(server.url, pool=ONE) as client:
        with client.stream("GET", "/drip") as answer:
            chunks = answer.chunks()
            for piece in drip.pieces:
                drip.asked.release()
                assert next(chunks) == piece
            assert list(chunks) == []
        assert client.get("/").reused


async def test_leaving_early_tells_the_server() -> None:
    drip = Dripping([b"x"] * 1000)
    with HttpServer(drip) as server:
        async with AsyncClient(server.url, pool=ONE) as client:
            async with client.stream("GET", "/drip") as answer:
                drip.asked.release()
                async for chunk in answer.chunks():
                    assert chunk == b"x"
                    break
            assert await asyncio.to_thread(drip.ended.wait, PATIENCE)
            assert (await client.get("/")).status_code == 200
            assert client.stats().total.outstanding == 0


def test_leaving_early_tells_the_server_when_blocking() -> None:
    drip = Dripping([b"x"] * 1000)
    with HttpServer(drip) as server, Client(server.url, pool=ONE) as client:
        with pytest.raises(ZeroDivisionError), client.stream("GET", "/drip"):
            raise ZeroDivisionError
        assert drip.ended.wait(PATIENCE)
        assert client.get("/").status_code == 200


async def test_cancelling_tells_the_server() -> None:
    drip = Dripping([b"x"] * 1000)
    with HttpServer(drip) as server:
        async with AsyncClient(server.url) as client:
            reading = asyncio.Event()

            async def read() -> None:
                async with client.stream("GET", "/drip") as answer:
                    reading.set()
                    async for _ in answer.chunks():
                        pass

            task = asyncio.create_task(read())
            await asyncio.wait_for(reading.wait(), PATIENCE)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(drip.ended.wait, PATIENCE)


async def test_a_stream_that_is_forgotten_is_ended() -> None:
    drip = Dripping([b"x"] * 1000)
    with HttpServer(drip) as server:
        async with AsyncClient(server.url) as client:
            answer = client.stream("GET", "/drip")
            await answer.__aenter__()
            del answer
            assert await asyncio.to_thread(drip.ended.wait, PATIENCE)


async def test_cancelling_whoever_waits_for_a_chunk_loses_none() -> None:
    drip = Dripping([b"a", b"b", b"c", b"d"])
    with HttpServer(drip) as server:
        async with AsyncClient(server.url) as client, client.stream("GET", "/drip") as answer:
            chunks = answer.chunks()
            got = []
            for _ in range(4):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(chunks), 0.05)
                drip.asked.release()
                got.append(await asyncio.wait_for(anext(chunks), PATIENCE))
            assert b"".join(got) == b"abcd"
            assert await answer.read() == b""


async def test_a_large_body_comes_in_pieces_of_64_kib_at_most() -> None:
    body = bytes(range(256)) * 20_000

    def behave(peer: Peer) -> None:
        for _ in peer:
            peer.answer(body)

    with HttpServer(behave) as server:
        async with AsyncClient(server.url) as client, client.stream("GET", "/") as answer:
            pieces = [piece async for piece in answer.aiter_bytes()]
        with Client(server.url) as blocking, blocking.stream("GET", "/") as answers:
            assert b"".join(answers.iter_bytes()) == body
    assert b"".join(pieces) == body
    assert max(map(len, pieces)) <= 65_536
    assert all(pieces)


async def test_packed_streams_are_unpacked() -> None:
    body = b"hello " * 100_000
    packed = gzip.compress(body)

    def behave(peer: Peer) -> None:
        for _ in peer:
            peer.answer(headers={**CHUNKED, "Content-Encoding": "gzip"}, length=False)
            for start in range(0, len(packed), 100):
                peer.chunk(packed[start : start + 100])
            peer.chunk(b"")

    with HttpServer(behave) as server:
        async with AsyncClient(server.url) as client, client.stream("GET", "/") as answer:
            pieces = [piece async for piece in answer.chunks()]
    assert b"".join(pieces) == body
    assert max(map(len, pieces)) <= 65_536


async def test_read_and_raise() -> None:
    def behave(peer: Peer) -> None:
        for _ in peer:
            peer.answer("bad ä", status="400 Bad Request")

    with HttpServer(behave) as server:
        async with AsyncClient(server.url) as client, client.stream("GET", "/") as answer:
            with pytest.raises(RemoteError, match=r"^400 Bad Request for url [^ ]*$"):
                answer.raise_for_status()
            with pytest.raises(StreamClosed):
                _ = answer.content
            assert await answer.read() == "bad ä".encode()
            assert await answer.aread() == answer.content == "bad ä".encode()
            assert answer.text == "bad ä"
            with pytest.raises(RemoteError, match="bad ä") as caught:
                answer.raise_for_status()
            assert (caught.value.status, caught.value.body) == (400, "bad ä".encode())


async def test_a_stream_is_entered_once_and_read_inside() -> None:
    with HttpServer() as server:
        async with AsyncClient(server.url) as client:
            answer = client.stream("GET", "/")
            assert repr(answer) == "<AsyncStream not entered>"
            with pytest.raises(StreamClosed):
                _ = answer.status_code
            with pytest.raises(StreamClosed):
                await anext(answer.chunks())
            async with answer:
                pass
            assert answer.closed
            assert answer.status_code == 200
            with pytest.raises(StreamClosed):
                await answer.read()
            with pytest.raises(ConfigError):
                await answer.__aenter__()
            await answer.aclose()
        with Client(server.url) as blocking:
            stream = blocking.stream("GET", "/")
            with stream:
                assert stream.status_code == 200
            with pytest.raises(StreamClosed):
                stream.read()
            with pytest.raises(ConfigError), stream:
                pass
            stream.close()


async def test_closing_tells_whoever_waits() -> None:
    drip = Dripping([b"x"] * 1000)
    with HttpServer(drip) as server:
        async with AsyncClient(server.url) as client, client.stream("GET", "/drip") as answer:
            waiting = asyncio.create_task(answer.read())
            await asyncio.sleep(0.1)
            await answer.aclose()
            with pytest.raises(StreamClosed):
                await asyncio.wait_for(waiting, PATIENCE)
        assert await asyncio.to_thread(drip.ended.wait, PATIENCE)


def cut(peer: Peer) -> None:
    for _ in peer:
        peer.answer(headers=CHUNKED, length=False)
        peer.chunk(b"some")
        return


async def test_a_stream_that_is_cut_is_an_error_after_what_came() -> None:
    with HttpServer(cut) as server:
        async with AsyncClient(server.url) as client, client.stream("GET", "/") as answer:
            chunks = answer.chunks()
            assert await anext(chunks) == b"some"
            with pytest.raises(StreamInterrupted) as caught:
                await anext(chunks)
            assert isinstance(caught.value.__cause__, ReadFailed)
        with Client(server.url) as blocking, blocking.stream("GET", "/") as stream:
            pieces = stream.chunks()
            assert next(pieces) == b"some"
            with pytest.raises(StreamInterrupted):
                next(pieces)


async def test_a_stream_that_stops_is_an_error() -> None:
    drip = Dripping([b"a", b"b"])
    with HttpServer(drip) as server:
        async with (
            AsyncClient(server.url, timeout=Timeout(idle=0.3)) as client,
            client.stream("GET", "/drip") as answer,
        ):
            chunks = answer.chunks()
            drip.asked.release()
            assert await anext(chunks) == b"a"
            with pytest.raises(IdleTimeout):
                await anext(chunks)
        assert await asyncio.to_thread(drip.ended.wait, PATIENCE)


async def test_a_slow_reader_is_no_idle_server_and_holds_the_server_back() -> None:
    sent = 0

    def behave(peer: Peer) -> None:
        nonlocal sent
        for _ in peer:
            peer.answer(headers=CHUNKED, length=False)
            for _ in range(1000):
                peer.chunk(bytes(65_536))
                sent += 1
            peer.chunk(b"")

    with HttpServer(behave) as server:
        async with AsyncClient(server.url, timeout=Timeout(idle=0.3)) as client, client.stream("GET", "/") as answer:
            before = -1
            while before != sent:
                before = sent
                await asyncio.sleep(0.5)
            # What the kernel holds, and what the client does: far from the 64 MiB that there are.
            assert sent < 600
            total = 0
            async for chunk in answer.chunks():
                total += len(chunk)
            assert total == 1000 * 65_536


async def test_many_streams_at_once() -> None:
    def behave(peer: Peer) -> None:
        for request in peer:
            peer.answer(headers=CHUNKED, length=False)
            for number in range(20):
                peer.chunk(f"{request.target}:{number};".encode())
            peer.chunk(b"")

    with HttpServer(behave) as server:
        async with AsyncClient(server.url, pool=Pool(max_size=10)) as client:

            async def one(number: int) -> bytes:
                async with client.stream("GET", f"/{number}") as answer:
                    return await answer.read()

            bodies = await asyncio.wait_for(asyncio.gather(*map(one, range(100))), PATIENCE * 2)
            assert bodies == ["".join(f"/{n}:{k};" for k in range(20)).encode() for n in range(100)]
            assert server.most <= 10
            await soon(lambda: client.stats().total.outstanding == 0)


def test_a_stream_holds_its_connection_until_its_end() -> None:
    drip = Dripping([b"x"])
    with HttpServer(drip) as server, Client(server.url, pool=ONE) as client:
        with client.stream("GET", "/drip"):
            assert client.stats().total.outstanding == 1
        until(lambda: client.stats().total.outstanding == 0)
