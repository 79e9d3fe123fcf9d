"""Many requests in one crossing."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Self

import pytest

from penstock import AsyncClient, Client, Pool
from penstock.errors import ConfigError, ReadFailed
from tests.python.support.http_server import HttpServer
from tests.python.support.waiting import PATIENCE, soon, until

if TYPE_CHECKING:
    from tests.python.support.http_server import Peer

KINDS: list[Any] = [
    "/a?b=1",
    ("POST", "/b"),
    {"url": "/c"},
    {"method": "PUT", "url": "/d", "json": {"e": 1}, "headers": {"X-A": "1"}, "params": {"f": 2}},
]
TOLD = [("GET", "/a?b=1", ""), ("POST", "/b", ""), ("GET", "/c", ""), ("PUT", "/d?f=2", '{"e":1}')]


def told(answers: list[Any]) -> list[tuple[str, str, str]]:
    return [(each["method"], each["target"], each["body"]) for each in (answer.json() for answer in answers)]


async def test_requests_of_every_kind() -> None:
    with HttpServer() as server:
        async with AsyncClient(server.url) as client:
            assert told(await client.request_many(KINDS)) == TOLD
            assert told(await client.request_many(iter(KINDS))) == TOLD
            assert await client.request_many([]) == []
        with Client(server.url) as blocking:
            assert told(blocking.request_many(KINDS)) == TOLD
            assert blocking.request_many([]) == []


async def test_thousands_keep_their_order_and_the_limit() -> None:
    with HttpServer() as server:
        async with AsyncClient(server.url, pool=Pool(max_size=8)) as client:
            answers = await client.request_many(f"/{number}" for number in range(3000))
        assert [answer.json()["target"] for answer in answers] == [f"/{number}" for number in range(3000)]
        assert server.most <= 8
        with Client(server.url, pool=Pool(max_size=8)) as blocking:
            answers = blocking.request_many([f"/{number}" for number in range(1000)])
        assert [answer.json()["target"] for answer in answers] == [f"/{number}" for number in range(1000)]


def failing(peer: Peer) -> None:
    for request in peer:
        if request.target == "/bad":
            return
        if request.target == "/never":
            assert peer.sees_end()
            return
        peer.echo(request)


URLS: list[Any] = ["/1", ("POST", "/bad"), "/2", {"method": "POST", "url": "/never", "timeout": 0.2}, "/3"]


async def test_failures_stand_in_their_places() -> None:
    names = ["Response", "ReadFailed", "Response", "DeadlineExceeded", "Response"]
    with HttpServer(failing) as server:
        async with AsyncClient(server.url) as client:
            answers = await client.request_many(URLS, return_exceptions=True)
            assert [type(answer).__name__ for answer in answers] == names
        with Client(server.url) as blocking:
            answers = blocking.request_many(URLS, return_exceptions=True)
            assert [type(answer).__name__ for answer in answers] == names


async def test_the_first_failure_cancels_the_rest() -> None:
    urls: list[Any] = [("POST", "/never"), ("POST", "/bad"), ("POST", "/never")]
    with HttpServer(failing) as server:
        async with AsyncClient(server.url) as client:
            with pytest.raises(ReadFailed):
                await asyncio.wait_for(client.request_many(urls), PATIENCE)
            await soon(lambda: server.open == 0)
        with Client(server.url) as blocking:
            with pytest.raises(ReadFailed):
                blocking.request_many(urls)
            until(lambda: server.open == 0)


@pytest.mark.parametrize("bad", [7, ("GET",), ("GET", "/", "x"), {"method": "GET"}, None, ["GET", "/"]])
async def test_what_is_no_request_is_named_and_nothing_is_sent(bad: Any) -> None:
    with HttpServer() as server:
        async with AsyncClient(server.url) as client:
            with pytest.raises(ConfigError, match="request 1"):
                await client.request_many(["/", bad], return_exceptions=True)
        with Client(server.url) as blocking:
            with pytest.raises(ConfigError, match="request 1"):
                blocking.request_many(["/", bad])
            with pytest.raises(ConfigError, match="request 1: header"):
                blocking.request_many(["/", {"url": "/", "headers": {"X": "\n"}}])
        assert server.requests == []


async def test_cancelling_cancels_all() -> None:
    with HttpServer(failing) as server:
        async with AsyncClient(server.url, pool=Pool(min_size=0, max_size=4)) as client:
            task = asyncio.create_task(client.request_many(["/never"] * 100, progress=False))
            await soon(lambda: len(server.requests) == 4)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await soon(lambda: server.open == 0)
            assert len(server.requests) == 4
            await soon(lambda: client.stats().total.waiting == 0)
            assert (await client.get("/x")).status_code == 200


class Bar:
    """What tqdm is told."""

    made: list[Bar] = []  # noqa: RUF012  one test at a time

    def __init__(self, total: int) -> None:
        self.total, self.updates = total, 0
        self.made.append(self)

    def update(self, count: int = 1) -> None:
        self.updates += count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


async def test_progress_is_shown_while_answers_come(monkeypatch: pytest.MonkeyPatch) -> None:
    import tqdm.auto

    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    Bar.made.clear()
    gate = threading.Event()

    def behave(peer: Peer) -> None:
        for request in peer:
            if request.target == "/hold":
                assert gate.wait(PATIENCE)
            peer.echo(request)

    urls = ["/x"] * 20 + ["/hold"]
    with HttpServer(behave) as server:
        async with AsyncClient(server.url) as client:
            task = asyncio.create_task(client.request_many(urls, progress=True))
            await soon(lambda: Bar.made and Bar.made[0].updates == 20)
            assert not task.done()
            gate.set()
            assert len(await task) == 21
        with Client(server.url) as blocking:
            assert len(blocking.request_many(urls, progress=True)) == 21
    assert [(bar.total, bar.updates) for bar in Bar.made] == [(21, 21), (21, 21)]
