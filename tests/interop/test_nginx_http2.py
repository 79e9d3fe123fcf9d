"""HTTP/2 against nginx: over TLS and by prior knowledge, past its limit of streams, and when its connections end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

import penstock
from tests.interop.support.certificates import TLS, write_certificates
from tests.interop.support.load import Account, one
from tests.interop.support.nginx import a_connection

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.interop.support.nginx import Nginx

HELLO = 'location / { return 200 "hello\\n"; }'
STREAMS = 4


@pytest.fixture(params=["tls", "prior-knowledge"])
def over_http2(
    request: pytest.FixtureRequest, nginx: Callable[..., Nginx], tmp_path: Path
) -> Callable[[str], tuple[Nginx, penstock.AsyncClient]]:
    """nginx with that server block, and a client that speaks HTTP/2 to it."""

    def start(server: str) -> tuple[Nginx, penstock.AsyncClient]:
        if request.param == "prior-knowledge":
            instance = nginx(server, listen="http2")
            return instance, penstock.AsyncClient(instance.url, http2="always")
        folder = tmp_path / "secure"
        certificates = write_certificates(folder)
        instance = nginx(TLS + server, listen="ssl http2", folder=folder)
        return instance, penstock.AsyncClient(instance.secure_url, verify=str(certificates.authority))

    return start


Start = "Callable[[str], tuple[Nginx, penstock.AsyncClient]]"


async def test_one_connection_serves_many_at_a_time(over_http2: Start) -> None:
    server, client = over_http2(HELLO)
    async with client:
        answers = await asyncio.gather(*(client.request(("GET", "POST")[n % 2], f"/?n={n}") for n in range(100)))
    assert {(answer.status_code, answer.text) for answer in answers} == {(200, "hello\n")}
    exchanges = await server.all_of(100)
    assert {exchange.protocol for exchange in exchanges} == {"HTTP/2.0"}
    assert len(exchanges) == 100


async def test_long_requests_past_the_limit_of_streams_all_progress(over_http2: Start) -> None:
    """The eleventh would not wait for the first to end: a further connection is opened where one is full."""
    server, client = over_http2(f"http2_max_concurrent_streams {STREAMS}; location / {{ limit_rate 20k; }}")
    (server.files / "long").write_bytes(b"x" * 40_000)
    begun: dict[int, float] = {}
    ended: dict[int, float] = {}
    connections: dict[str, list[int]] = defaultdict(list)

    async def read(n: int) -> None:
        async with client.stream("GET", f"/long?n={n}") as stream:
            size = 0
            async for chunk in stream.chunks():
                begun.setdefault(n, time.monotonic())
                size += len(chunk)
            ended[n] = time.monotonic()
            assert size == 40_000
            connections[stream.headers["x-connection"]].append(n)

    async with client:
        await asyncio.wait_for(asyncio.gather(*(read(n) for n in range(10))), 60)
    assert max(begun.values()) < min(ended.values())  # all ten at a time
    assert len(connections) >= 3
    assert max(map(len, connections.values())) <= STREAMS


async def test_a_burst_past_the_limit_of_streams(over_http2: Start) -> None:
    """nginx refuses streams that come before it has said its limit; a refused stream was never looked at."""
    server, client = over_http2(f"http2_max_concurrent_streams {STREAMS}; {HELLO}")
    account = Account()
    async with client:
        for batch in range(3):
            await asyncio.gather(
                *(one(client, ("GET", "POST")[n % 2], f"/?n={batch * 200 + n}", account) for n in range(200))
            )
    assert account.failed() == {}
    assert len([exchange for exchange in await server.all_of(600) if exchange.status == 200]) == 600


async def test_connections_that_go_away_after_ten_requests(over_http2: Start) -> None:
    server, client = over_http2(f"keepalive_requests 10; {HELLO}")
    account = Account()
    async with client:
        for batch in range(10):
            await asyncio.gather(
                *(one(client, ("GET", "POST")[n % 2], f"/?n={batch * 20 + n}", account) for n in range(20))
            )
    assert account.failed() == {}
    exchanges = await server.all_of(200)
    assert len(exchanges) == 200
    assert max(a_connection(exchanges).values()) <= 10


async def test_connections_that_nginx_closed_while_they_were_idle(over_http2: Start) -> None:
    _, client = over_http2(f"keepalive_timeout 1s; {HELLO}")
    account = Account()
    async with client:
        for batch in range(2):
            if batch:
                await asyncio.sleep(1.5)
            await asyncio.gather(
                *(one(client, ("GET", "POST")[n % 2], f"/?n={batch * 12 + n}", account) for n in range(12))
            )
    assert account.failed() == {}


async def test_large_bodies_both_ways(over_http2: Start, tmp_path: Path) -> None:
    """Past every window of flow control."""
    server, client = over_http2("client_max_body_size 64m; location /upload { dav_methods PUT; }")
    (server.files / "upload").mkdir()
    bodies = {f"/upload/{n}": bytes([n]) * 4_000_000 for n in range(4)}
    async with client:
        written = await asyncio.gather(*(client.put(path, content=body) for path, body in bodies.items()))
        assert {answer.status_code for answer in written} == {201}
        read = await asyncio.gather(*(client.get(path) for path in bodies))
    assert [answer.content for answer in read] == list(bodies.values())


async def test_streams_that_nobody_reads_stall_no_other(over_http2: Start) -> None:
    server, client = over_http2("")
    (server.files / "large").write_bytes(b"x" * 8_000_000)
    async with client, contextlib.AsyncExitStack() as opened:
        paused = [await opened.enter_async_context(client.stream("GET", "/large")) for _ in range(3)]
        answer = await asyncio.wait_for(client.get("/large"), 30)
        assert len(answer.content) == 8_000_000
        for stream in paused:
            assert sum([len(chunk) async for chunk in stream.chunks()]) == 8_000_000
