"""Four servers, one of them dead or ten times slower: its share falls, and comes back with it."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest

import penstock
from tests.interop.support.load import Load
from tests.python.support.waiting import PATIENCE, soon

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.interop.conftest import Application
    from tests.interop.support.nginx import Nginx

    Start = Callable[..., list[Application]]

TASKS = 16
FAST, SLOW = 0.01, 0.1


def asked(application: Application) -> int:
    """What the server itself counted."""
    with urllib.request.urlopen(application.url + "/asked", timeout=10) as answer:
        count: int = json.load(answer)
    return count


def take(application: Application, seconds: float) -> None:
    request = urllib.request.Request(application.url + "/delay", str(seconds).encode(), method="PUT")
    urllib.request.urlopen(request, timeout=10).close()


async def shares(load: Load, applications: list[Application], requests: int = 600) -> list[float]:
    """Each server's part of the requests from here on."""
    before = await asyncio.to_thread(lambda: [asked(application) for application in applications])
    wanted = load.sent + requests
    await soon(lambda: load.sent >= wanted)
    after = await asyncio.to_thread(lambda: [asked(application) for application in applications])
    parts = [later - earlier for earlier, later in zip(before, after, strict=True)]
    return [part / sum(parts) for part in parts]


async def even(load: Load, applications: list[Application]) -> None:
    """Until every server has its part again. `p2c_first_byte` forgets slowness within tens of seconds."""
    end = time.monotonic() + 2 * PATIENCE
    while min(last := await shares(load, applications, 300)) < 0.15:
        assert time.monotonic() < end, f"the shares stay uneven: {last}"


@pytest.mark.parametrize("balance", ["least_outstanding", "p2c", "p2c_first_byte"])
async def test_one_of_four_is_ten_times_slower(applications: Start, balance: str) -> None:
    servers = applications("steady", 4)
    async with penstock.AsyncClient([server.url for server in servers], balance=balance) as client:
        load = Load(client, tasks=TASKS, path="/work")
        await even(load, servers)
        await asyncio.to_thread(take, servers[1], SLOW)
        slowed = await shares(load, servers)
        assert slowed[1] < 0.15, slowed
        await asyncio.to_thread(take, servers[1], FAST)
        await even(load, servers)
        await load.stop()
    assert load.gets.failed() == load.posts.failed() == {}


@pytest.mark.parametrize("balance", ["round_robin", "least_outstanding", "p2c", "p2c_first_byte"])
async def test_one_of_four_dies_and_comes_back(applications: Start, balance: str) -> None:
    servers = applications("steady", 4)
    urls = [server.url for server in servers]
    async with penstock.AsyncClient(urls, balance=balance, eject=penstock.Eject(time=0.5)) as client:
        load = Load(client, tasks=TASKS, path="/work")
        await even(load, servers)
        await asyncio.to_thread(servers[2].stop)
        others = [server for server in servers if server is not servers[2]]
        await even(load, others)
        await asyncio.to_thread(servers[2].start)
        await asyncio.to_thread(servers[2].wait)
        await even(load, servers)
        await load.stop()
    assert load.gets.failed() == {}
    # uvicorn answers what it had begun; a POST that met its end is not sent again.
    assert len(load.posts.failed()) <= TASKS


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("balance", ["round_robin", "p2c_first_byte"])
async def test_one_of_two_asks_to_be_left_alone(nginx: Callable[..., Nginx], status: int, balance: str) -> None:
    """`Retry-After` counts for the server that said it; the other takes what comes."""
    busy = nginx(f'location / {{ add_header Retry-After 20 always; return {status} "busy"; }}')
    idle = nginx('location / { return 200 "idle"; }')
    async with penstock.AsyncClient([busy.url, idle.url], balance=balance) as client:
        answers = [await client.get(f"/{n}") for n in range(100)]
    assert [answer.status_code for answer in answers].count(status) <= 2
    assert busy.asked() <= 2
    assert idle.asked() >= 98
