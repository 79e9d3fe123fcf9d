"""HTTP/1.1 against nginx: what it closes, when it closes it, and what it says in between."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

import penstock
from penstock.errors import ReadFailed, TransportError
from tests.interop.support.load import Account, one, repeated
from tests.interop.support.nginx import a_connection
from tests.interop.support.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.interop.support.nginx import Nginx

HELLO = 'location / { return 200 "hello\\n"; }'


async def test_connections_that_end_after_ten_requests(nginx: Callable[..., Nginx]) -> None:
    server = nginx(f"keepalive_requests 10; {HELLO}")
    account = Account()
    async with penstock.AsyncClient(server.url) as client:
        for batch in range(25):
            await asyncio.gather(
                *(one(client, ("GET", "POST")[n % 2], f"/?n={batch * 20 + n}", account) for n in range(20))
            )
    assert account.failed() == {}
    exchanges = await server.all_of(500)
    assert len(exchanges) == 500  # none was sent twice
    assert max(a_connection(exchanges).values()) == 10  # none was given up early


@pytest.mark.parametrize("hint", ["", "1s"])
async def test_connections_that_nginx_closed_while_they_were_idle(nginx: Callable[..., Nginx], hint: str) -> None:
    server = nginx(f"keepalive_timeout 1s {hint}; {HELLO}")
    account = Account()
    async with penstock.AsyncClient(server.url) as client:
        for batch in range(3):
            if batch:
                await asyncio.sleep(1.5)  # nginx has closed every one by then
            await asyncio.gather(
                *(one(client, ("GET", "POST")[n % 2], f"/?n={batch * 12 + n}", account) for n in range(12))
            )
    assert account.failed() == {}
    assert len(await server.all_of(36)) == 36


async def test_requests_sent_while_nginx_closes(nginx: Callable[..., Nginx]) -> None:
    """Whether such a request was read nobody can know: a GET is sent again, a POST never is."""
    server = nginx(f"keepalive_timeout 1s; {HELLO}")
    gets, posts = Account(), Account()

    async def follow(lane: int) -> None:
        reads = lane % 2 == 0
        async with penstock.AsyncClient(server.url, pool=penstock.Pool(min_size=0, max_size=1)) as client:
            for step in range(5):
                await one(client, "GET" if reads else "POST", f"/?n={lane}-{step}", gets if reads else posts)
                # nginx looks at its timers once a millisecond: the lanes close in on its second from both sides.
                await asyncio.sleep(0.990 + lane * 0.0005)

    await asyncio.gather(*(follow(lane) for lane in range(40)))
    assert gets.failed() == {}
    for error in posts.failed().values():
        assert isinstance(error, ReadFailed), error
    assert repeated(server.exchanges(), "POST") == {}


async def test_nginx_closes_without_an_answer(nginx: Callable[..., Nginx]) -> None:
    server = nginx(f"location /fault {{ return 444; }} {HELLO}")
    async with penstock.AsyncClient(server.url) as client:
        with pytest.raises(ReadFailed):
            await client.post("/fault/post")
        with pytest.raises(ReadFailed):
            await client.get("/fault/get")
        assert (await client.get("/fine")).text == "hello\n"
    exchanges = await server.all_of(3)
    assert len([exchange for exchange in exchanges if exchange.method == "POST"]) == 1
    attempts = [exchange for exchange in exchanges if exchange.target == "/fault/get"]
    assert 1 < len(attempts) <= 10  # sent again, but not for ever


async def test_nginx_before_a_server_that_is_dead(nginx: Callable[..., Nginx]) -> None:
    """An answer is an answer, unless the caller says that it is a failure of the server."""
    server = nginx(f"location / {{ proxy_pass http://127.0.0.1:{free_port()}; }}")
    async with penstock.AsyncClient(server.url) as client:
        answers = [await client.get("/once"), await client.post("/once")]
    assert [answer.status_code for answer in answers] == [502, 502]
    async with penstock.AsyncClient(server.url, retry=penstock.Retry(attempts=3, statuses=(502,))) as client:
        answers = [await client.get("/thrice"), await client.post("/once")]
    assert [(answer.status_code, answer.attempts) for answer in answers] == [(502, 3), (502, 1)]
    exchanges = await server.all_of(6)
    assert [exchange.target for exchange in exchanges] == ["/once"] * 2 + ["/thrice"] * 3 + ["/once"]


async def test_a_body_that_breaks_off(nginx: Callable[..., Nginx]) -> None:
    server = nginx("location / { limit_rate 20k; }")
    (server.files / "long").write_bytes(b"x" * 200_000)
    async with penstock.AsyncClient(server.url, pool=penstock.Pool(min_size=0, max_size=1)) as client:
        getting = asyncio.create_task(client.get("/long"))
        await asyncio.sleep(0.5)
        server.stop()
        # It asks again, and needs for that the place of the connection that broke.
        with pytest.raises(TransportError):
            await asyncio.wait_for(getting, 20)


@pytest.mark.parametrize("size", [100_000, 20_000_000])
async def test_a_body_that_nginx_refuses_to_read(nginx: Callable[..., Nginx], size: int) -> None:
    """It answers at once and closes: the answer is what counts, not that the rest could not be written."""
    server = nginx(f"client_max_body_size 1k; {HELLO}")
    async with penstock.AsyncClient(server.url) as client:
        for _ in range(5):
            assert (await client.post("/", content=bytes(size))).status_code == 413
        assert (await client.get("/")).status_code == 200


async def test_compressed_answers(nginx: Callable[..., Nginx]) -> None:
    server = nginx("gzip on; gzip_min_length 0; gzip_types *; gzip_http_version 1.0;")
    text = "the same words again and again\n" * 10_000
    (server.files / "words.txt").write_text(text)
    async with penstock.AsyncClient(server.url) as client:
        plain, packed = await asyncio.gather(
            client.get("/words.txt", headers={"accept-encoding": "identity"}), client.get("/words.txt")
        )
        assert "content-encoding" not in plain.headers
        assert packed.headers["content-encoding"] == "gzip"
        assert plain.text == packed.text == text
        async with client.stream("GET", "/words.txt") as stream:
            assert b"".join([chunk async for chunk in stream.chunks()]).decode() == text


async def test_answers_without_a_body_leave_the_connection_in_step(nginx: Callable[..., Nginx]) -> None:
    server = nginx("location /gone { return 204; } location / { etag on; }")
    (server.files / "page").write_text("page")
    async with penstock.AsyncClient(server.url, pool=penstock.Pool(min_size=0, max_size=1)) as client:
        first = await client.get("/page")
        again = {"if-none-match": first.headers["etag"]}
        for _ in range(3):
            head = await client.head("/page")
            assert (head.status_code, head.headers["content-length"], head.content) == (200, "4", b"")
            assert (await client.get("/page", headers=again)).status_code == 304
            assert (await client.get("/gone")).status_code == 204
            part = await client.get("/page", headers={"range": "bytes=1-2"})
            assert (part.status_code, part.content) == (206, b"ag")
            assert (await client.get("/page")).text == "page"
    assert len(a_connection(await server.all_of(16))) == 1


async def test_redirects(nginx: Callable[..., Nginx]) -> None:
    server = nginx(
        "location /old { return 301 /new; } location /move { return 307 /new; } location /loop { return 302 /loop; }"
        'location /new { return 200 "$request_method"; }'
    )
    async with penstock.AsyncClient(server.url) as client:
        assert (await client.get("/old")).status_code == 301
        assert (await client.get("/old", follow_redirects=True)).text == "GET"
        assert (await client.post("/old", content=b"x", follow_redirects=True)).text == "GET"  # as browsers, as httpx
        assert (await client.post("/move", content=b"x", follow_redirects=True)).text == "POST"


async def test_a_unix_socket(nginx: Callable[..., Nginx]) -> None:
    server = nginx(HELLO, socket=True)
    async with penstock.AsyncClient(server.url) as client:
        answers = await asyncio.gather(*(client.get(f"/{n}") for n in range(50)))
    assert {answer.text for answer in answers} == {"hello\n"}
    assert len(await server.all_of(50)) == 50


def test_the_blocking_client(nginx: Callable[..., Nginx]) -> None:
    server = nginx(f"keepalive_requests 10; {HELLO}")
    with penstock.Client(server.url) as client:
        assert {client.request(("GET", "POST")[n % 2], "/").text for n in range(60)} == {"hello\n"}
        many = client.request_many([("GET", f"/{n}") for n in range(200)])
    assert [answer.status_code for answer in many] == [200] * 200
