"""nginx reloaded, stopped and started under load: every request ends once, no POST is sent twice, no GET is lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

import penstock
from penstock.errors import DeadlineExceeded, TransportError
from tests.interop.support.load import Load, repeated
from tests.python.support.waiting import soon

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.interop.support.load import Account
    from tests.interop.support.nginx import Nginx

HELLO = 'location / { return 200 "hello\\n"; }'
TASKS = 32


async def more(load: Load, count: int = 500) -> None:
    """Until the load has gone on for so many requests."""
    wanted = load.sent + count
    await soon(lambda: load.sent >= wanted)


def typed(account: Account) -> None:
    for end in account.failed().values():
        assert isinstance(end, TransportError | DeadlineExceeded), end


@pytest.mark.parametrize("protocol", ["http1", "http2"])
async def test_reloads(nginx: Callable[..., Nginx], protocol: str) -> None:
    http2 = protocol == "http2"
    server = nginx(HELLO, listen="http2" if http2 else "", workers=2)
    async with penstock.AsyncClient(server.url, http2="always" if http2 else False) as client:
        load = Load(client, tasks=TASKS)
        for _ in range(4):
            await more(load)
            await asyncio.to_thread(server.reload)
        await more(load)
        await load.stop()
    assert load.gets.failed() == {}
    typed(load.posts)
    assert repeated(server.exchanges(), "POST") == {}


@pytest.mark.parametrize("protocol", ["http1", "http2"])
@pytest.mark.parametrize("graceful", [True, False], ids=["quit", "stop"])
async def test_a_lone_server_stops_and_starts(nginx: Callable[..., Nginx], protocol: str, graceful: bool) -> None:
    """While it is away requests fail, at once and typed; when it is back they succeed."""
    http2 = protocol == "http2"
    server = nginx(HELLO, listen="http2" if http2 else "")
    async with penstock.AsyncClient(server.url, http2="always" if http2 else False) as client:
        load = Load(client, tasks=TASKS)
        for _ in range(3):
            await more(load)
            await asyncio.to_thread(server.stop, graceful=graceful)
            await asyncio.to_thread(server.start)
        served = len(load.gets.ended) - len(load.gets.failed())
        await soon(lambda: len(load.gets.ended) - len(load.gets.failed()) >= served + 500)
        await load.stop()
        assert (await client.post("/after")).status_code == 200
    typed(load.gets)
    typed(load.posts)
    assert repeated(server.exchanges(), "POST") == {}


@pytest.mark.parametrize("graceful", [True, False], ids=["quit", "stop"])
async def test_one_of_two_servers_stops_and_starts(nginx: Callable[..., Nginx], graceful: bool) -> None:
    servers = [nginx(HELLO), nginx(HELLO)]
    eject = penstock.Eject(time=0.3)
    async with penstock.AsyncClient([server.url for server in servers], eject=eject) as client:
        load = Load(client, tasks=TASKS)
        for server in servers:
            await more(load)
            await asyncio.to_thread(server.stop, graceful=graceful)
            await more(load)
            before = server.asked()
            await asyncio.to_thread(server.start)
            await soon(lambda server=server, before=before: server.asked() > before)  # it has its share again
        await load.stop()
    assert load.gets.failed() == {}
    typed(load.posts)
    assert repeated([exchange for server in servers for exchange in server.exchanges()], "POST") == {}
