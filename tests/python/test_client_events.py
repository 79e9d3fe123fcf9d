"""Server-sent events over lost connections."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from penstock import AsyncClient, Client, Retry
from penstock.errors import ConfigError, ProtocolError, RemoteError, StreamClosed, StreamError, TransportError
from tests.python.support.http_server import HttpServer, refusing_port
from tests.python.support.waiting import PATIENCE, soon

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.python.support.http_server import Peer

KIND = {"Content-Type": "text/event-stream; charset=utf-8"}
NO_MORE = b"HTTP/1.1 204 No Content\r\n\r\n"


def script(*answers: bytes | Callable[[Peer], None]) -> Callable[[Peer], None]:
    """What is answered to one request after the other, each on a connection of its own; then 204."""
    left = list(answers)

    def behave(peer: Peer) -> None:
        for _ in peer:
            answer = left.pop(0) if left else NO_MORE
            if callable(answer):
                answer(peer)
                return
            if answer is NO_MORE:
                peer.send(answer)
                continue
            peer.answer(answer, headers=KIND)

    return behave


def cut(body: bytes) -> Callable[[Peer], None]:
    def answer(peer: Peer) -> None:
        peer.answer(headers={**KIND, "Transfer-Encoding": "chunked"}, length=False)
        peer.chunk(body)

    return answer


def lost(peer: Peer) -> None:
    peer.close()


ROUNDS = (
    b"retry: 20\nid: 1\ndata: a\n\nid: 2\ndata: b\n\n",
    cut(b"data: c\n\nid: 3\ndata: never\n"),
    lost,
    b": nothing new\n\n",
    b"id: 4\ndata: d\n\nid: 5\n\n",
)


async def test_events_go_on_where_the_connection_ended() -> None:
    with HttpServer(script(*ROUNDS)) as server:
        async with AsyncClient(server.url, retry=Retry(attempts=1)) as client:
            source = client.events("/feed", last_event_id="0", headers={"X-Own": "1"})
            got = [(each.data, each.id) async for each in source]
            assert got == [("a", "1"), ("b", "2"), ("c", "2"), ("d", "4")]
            assert (source.last_event_id, source.retry, source.closed) == ("5", 0.02, True)
            asked = [request.header("last-event-id") for request in server.requests]
            assert asked == ["0", "2", "2", "2", "2", "5"]
            first = server.requests[0]
            assert (first.header("accept"), first.header("cache-control")) == ("text/event-stream", "no-store")
            assert (first.header("x-own"), first.target, first.method) == ("1", "/feed", "GET")
            with pytest.raises(StreamClosed):
                await anext(source)


def test_events_go_on_when_blocking() -> None:
    with HttpServer(script(*ROUNDS)) as server, Client(server.url, retry=Retry(attempts=1)) as client:
        source = client.events("/feed", reconnect_after=0.01)
        assert [each.data for each in source] == ["a", "b", "c", "d"]
        assert [request.header("last-event-id") for request in server.requests] == [None, "2", "2", "2", "2", "5"]
        with pytest.raises(StreamClosed):
            next(source)


@pytest.mark.parametrize("status", ["404 Not Found", "500 Internal Server Error", "201 Created"])
async def test_another_status_is_an_error(status: str) -> None:
    def behave(peer: Peer) -> None:
        for _ in peer:
            peer.answer("no such feed", status=status, headers=KIND)

    with HttpServer(behave) as server:
        async with AsyncClient(server.url) as client:
            with pytest.raises(RemoteError, match="no such feed") as caught:
                await anext(client.events("/"))
            assert caught.value.status == int(status[:3])
        with Client(server.url) as blocking, pytest.raises(RemoteError):
            next(blocking.events("/"))
        assert len(server.requests) == 2


async def test_another_content_type_is_an_error() -> None:
    def behave(peer: Peer) -> None:
        for _ in peer:
            peer.answer("data: a\n\n", headers={"Content-Type": "text/html"})

    with HttpServer(behave) as server:
        async with AsyncClient(server.url) as client:
            source = client.events("/")
            with pytest.raises(ProtocolError, match="text/html"):
                await anext(source)
            assert source.closed


async def test_attempts_are_bounded_and_an_event_begins_anew() -> None:
    url = f"http://127.0.0.1:{refusing_port()}"
    async with AsyncClient(url, retry=Retry(attempts=1)) as client:
        source = client.events("/", reconnect_after=0.01, attempts=2)
        with pytest.raises(TransportError):
            await asyncio.wait_for(anext(source), PATIENCE)
        assert source.closed
    silent = [b": silent\n\n"] * 2
    with HttpServer(script(*silent, b"data: a\n\n", *silent, b"data: b\n\n", *silent, b": more\n\n")) as server:
        async with AsyncClient(server.url) as client:
            source = client.events("/", reconnect_after=0.001, attempts=2)
            assert [(await anext(source)).data for _ in "ab"] == ["a", "b"]
            with pytest.raises(StreamError, match="3 connections in a row"):
                await anext(source)
    for wrong in ({"attempts": -1}, {"reconnect_after": -1.0}):
        with pytest.raises(ConfigError):
            client.events("/", **wrong)  # type: ignore[arg-type]


async def test_a_source_that_is_left_tells_the_server() -> None:
    with HttpServer(script(held, held, held)) as server:
        async with AsyncClient(server.url) as client:
            async with client.events("/") as source:
                assert (await anext(source)).data == "a"
                assert repr(source) == "<AsyncEventSource open, last_event_id=''>"
            await soon(lambda: server.open == 0)
            async for _ in client.events("/"):
                break
            await soon(lambda: server.open == 0)
            assert client.stats().streams_cancelled == 2


def held(peer: Peer) -> None:
    peer.answer(headers={**KIND, "Transfer-Encoding": "chunked"}, length=False)
    peer.chunk(b"data: a\n\n")
    peer.sees_end()


async def test_a_silent_source_is_given_up_only_where_that_is_wanted() -> None:
    def pinging(peer: Peer) -> None:
        peer.answer(headers={**KIND, "Transfer-Encoding": "chunked"}, length=False)
        for _ in range(10):
            peer.chunk(b": ping\n\n")
            time.sleep(0.1)
        peer.chunk(b"data: late\n\n")
        peer.sees_end()

    with HttpServer(script(pinging, held)) as server:
        async with AsyncClient(server.url, timeout=0.5) as client, client.events("/") as source:
            assert (await asyncio.wait_for(anext(source), PATIENCE)).data == "late"
