"""Penstock under the clients of httpx and httpx2, and of openai, which is built upon the latter."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import openai
import pytest

from penstock import Pool, Timeout
from penstock.errors import ConfigError, PenstockError
from penstock.transport import AsyncTransport, Transport
from tests.python.support.http_server import HttpServer, refusing_port
from tests.python.support.waiting import PATIENCE, soon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from tests.python.support.http_server import Peer

PACKAGES = [httpx, httpx2]
each_package = pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)


@pytest.fixture(scope="module")
def server() -> Iterator[HttpServer]:
    with HttpServer() as server:
        yield server


def told(answer: Any) -> dict[str, Any]:
    told = answer.json()
    return {**told, "connection": 0, "headers": sorted(map(tuple, told["headers"]))}


CALLS: dict[str, dict[str, Any]] = {
    "get": {"method": "GET", "url": "/x", "params": {"a": "1 2"}},
    "post": {"method": "POST", "url": "/x", "json": {"a": 1}},
    "empty post": {"method": "POST", "url": "/x"},
    "headers": {"method": "GET", "url": "/ü", "headers": [("X-A", "1"), ("X-A", "2"), ("Host", "example.org")]},
    "auth": {"method": "GET", "url": "/x", "auth": ("u", "p")},
    "form": {"method": "PUT", "url": "/x", "data": {"a": "b"}},
    "bytes": {"method": "PATCH", "url": "/x", "content": b"\x00\xff"},
}


@each_package
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_requests_are_those_of_the_packages_own_transport(
    server: HttpServer, package: Any, call: dict[str, Any]
) -> None:
    with package.Client(base_url=server.url) as theirs:
        expected = told(theirs.request(**call))
    with package.Client(base_url=server.url, transport=Transport()) as ours:
        answer = ours.request(**call)
        got = told(answer)
        assert (answer.status_code, answer.reason_phrase, answer.http_version) == (200, "OK", "HTTP/1.1")
    hop = ("connection", "keep-alive")
    assert [pair for pair in got["headers"] if pair[0] != hop[0]] == [
        pair for pair in expected["headers"] if pair[0] != hop[0]
    ]
    assert {**got, "headers": 0} == {**expected, "headers": 0}


@each_package
async def test_connections_are_shared(package: Any) -> None:
    with HttpServer() as server:
        transport = AsyncTransport(pool=Pool(min_size=0, max_size=5))
        async with package.AsyncClient(base_url=server.url, transport=transport) as client:
            answers = await asyncio.gather(*(client.get(f"/{number}") for number in range(200)))
            assert [answer.json()["target"] for answer in answers] == [f"/{number}" for number in range(200)]
            stats = transport.stats()
            assert stats.total.acquired == 200
            assert stats.total.created == server.connections <= 5
        assert transport.closed
        assert repr(transport) == "<penstock.AsyncTransport closed>"
        await soon(lambda: server.open == 0)


@each_package
def test_bodies_and_answers_of_generators(server: HttpServer, package: Any) -> None:
    with package.Client(base_url=server.url, transport=Transport()) as client:
        assert client.post("/", content=iter([b"a", b"b"])).json()["body"] == "ab"
        with client.stream("GET", "/x") as answer:
            assert b"/x" in b"".join(answer.iter_raw())


@each_package
async def test_async_bodies(server: HttpServer, package: Any) -> None:
    async def parts() -> Any:
        yield b"a"
        yield b"b"

    async with package.AsyncClient(base_url=server.url, transport=AsyncTransport()) as client:
        assert (await client.post("/", content=parts())).json()["body"] == "ab"


@each_package
def test_unpacking_and_redirects_and_cookies_are_the_packages(package: Any) -> None:
    def behave(peer: Peer) -> None:
        for request in peer:
            if request.target == "/":
                peer.answer(
                    status="302 Found", headers=[("Location", "/x"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
                )
            else:
                body = gzip.compress((request.header("cookie") or "").encode())
                peer.answer(body, headers={"Content-Encoding": "gzip"})

    with HttpServer(behave) as server, package.Client(transport=Transport(), follow_redirects=True) as client:
        answer = client.get(server.url)
        assert answer.text == "a=1; b=2"
        assert len(answer.history) == 1
        assert answer.headers["content-encoding"] == "gzip"


def faulty(peer: Peer) -> None:
    for request in peer:
        if request.target == "/cut":
            return
        if request.target == "/cut-body":
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
            return
        if request.target == "/garbage":
            peer.send(b"garbage\r\n\r\n")
            return
        if request.target == "/stall":
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        assert peer.sees_end()
        return


FAULTS = {
    "/never": "ReadTimeout",
    "/stall": "ReadTimeout",
    "/cut": "ReadError",
    "/cut-body": "ReadError",
    "/garbage": "RemoteProtocolError",
}


@each_package
@pytest.mark.parametrize("target", FAULTS)
async def test_failures_are_the_packages(package: Any, target: str) -> None:
    kind = getattr(package, FAULTS[target])
    timeout = package.Timeout(20, read=0.3)
    with HttpServer(faulty) as server:
        async with package.AsyncClient(base_url=server.url, transport=AsyncTransport(), timeout=timeout) as client:
            with pytest.raises(kind) as caught:
                await client.post(target)
            assert isinstance(caught.value.__cause__, PenstockError)
            assert caught.value.request.url.path == target
        with (
            package.Client(base_url=server.url, transport=Transport(), timeout=timeout) as blocking,
            pytest.raises(kind),
        ):
            blocking.post(target)


@each_package
async def test_connecting_and_waiting_in_vain(package: ModuleType) -> None:
    with package.Client(transport=Transport()) as blocking:
        with pytest.raises(package.ConnectError, match="refused"):
            blocking.get(f"http://127.0.0.1:{refusing_port()}")
        with pytest.raises(package.UnsupportedProtocol):
            blocking.get("ftp://a/")
    with HttpServer(faulty) as server:
        transport = AsyncTransport(pool=Pool(min_size=0, max_size=1))
        timeout = package.Timeout(20, pool=0.2)
        async with package.AsyncClient(base_url=server.url, transport=transport, timeout=timeout) as client:
            held = asyncio.create_task(client.get("/never"))
            await soon(lambda: server.requests)
            with pytest.raises(package.PoolTimeout):
                await client.get("/x")
            held.cancel()
            with pytest.raises(asyncio.CancelledError):
                await held
            await soon(lambda: server.open == 0)


@each_package
async def test_leaving_a_stream_tells_the_server(package: Any) -> None:
    ended = threading.Event()

    def behave(peer: Peer) -> None:
        for _ in peer:
            peer.answer(headers={"Transfer-Encoding": "chunked"}, length=False)
            peer.chunk(b"some")
            assert peer.sees_end()
            ended.set()
            return

    with HttpServer(behave) as server:
        async with package.AsyncClient(base_url=server.url, transport=AsyncTransport()) as client:
            async with client.stream("GET", "/") as answer:
                async for chunk in answer.aiter_bytes():
                    assert chunk == b"some"
                    break
            assert await asyncio.to_thread(ended.wait, PATIENCE)


@each_package
def test_requests_are_spread_over_endpoints(package: Any) -> None:
    with HttpServer() as one, HttpServer() as two, HttpServer() as three:
        transport = Transport([one.url, two.url], balance="round_robin")
        with package.Client(base_url=one.url, transport=transport) as client:
            for _ in range(10):
                client.get("/x")
            assert client.get(three.url).status_code == 200
        assert [len(server.requests) for server in (one, two, three)] == [5, 5, 1]


def test_what_is_no_request() -> None:
    with Transport() as transport, pytest.raises(ConfigError, match="httpx or httpx2"):
        transport.handle_request(object())
    with pytest.raises(ConfigError, match="balance"):
        Transport(balance="best")  # type: ignore[arg-type]
    with Transport(timeout=Timeout(connect=1)) as transport:
        assert not transport.closed


WORDS = ["Water", " flows", " down", "."]


def speaking(peer: Peer) -> None:
    """As much of OpenAI's interface as its client asks for here."""
    for request in peer:
        asked = json.loads(request.body)
        assert request.target == "/v1/chat/completions"
        assert request.header("authorization") == "Bearer key"
        common = {"id": "1", "created": 1, "model": asked["model"]}
        if not asked.get("stream"):
            message = {"role": "assistant", "content": "".join(WORDS)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            body = {**common, "object": "chat.completion", "choices": [choice]}
            peer.answer(json.dumps(body), headers={"Content-Type": "application/json"})
            continue
        peer.answer(headers={"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"}, length=False)
        for word in WORDS:
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            event = {**common, "object": "chat.completion.chunk", "choices": [choice]}
            peer.chunk(f"data: {json.dumps(event)}\n\n".encode())
        peer.chunk(b"data: [DONE]\n\n")
        peer.chunk(b"")


MESSAGES: Any = [{"role": "user", "content": "What does water do?"}]


async def test_openai_over_penstock() -> None:
    with HttpServer(speaking) as server:
        transport = AsyncTransport()
        http_client = httpx2.AsyncClient(transport=transport)
        async with openai.AsyncOpenAI(api_key="key", base_url=server.url + "/v1", http_client=http_client) as client:
            answer = await client.chat.completions.create(model="m", messages=MESSAGES)
            assert answer.choices[0].message.content == "Water flows down."

            async def stream() -> list[str | None]:
                events = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
                return [event.choices[0].delta.content async for event in events]

            streams = await asyncio.gather(*(stream() for _ in range(20)))
            assert streams == [WORDS] * 20
            assert transport.stats().total.acquired == 21


def test_blocking_openai_over_penstock() -> None:
    with HttpServer(speaking) as server:
        http_client = httpx2.Client(transport=Transport())
        with openai.OpenAI(api_key="key", base_url=server.url + "/v1", http_client=http_client) as client:
            for _ in range(3):
                events = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
                assert [event.choices[0].delta.content for event in events] == WORDS
        assert server.connections <= 3


def test_openai_tries_again_as_it_does_over_its_own_transport() -> None:
    def behave(peer: Peer) -> None:
        if peer.index == 0:
            peer.request()
            return
        speaking(peer)

    with HttpServer(behave) as server:
        http_client = httpx2.Client(transport=Transport())
        with openai.OpenAI(api_key="key", base_url=server.url + "/v1", http_client=http_client) as client:
            answer = client.chat.completions.create(model="m", messages=MESSAGES)
            assert answer.choices[0].message.content == "Water flows down."
    with (
        openai.OpenAI(
            api_key="key",
            base_url=f"http://127.0.0.1:{refusing_port()}",
            http_client=httpx2.Client(transport=Transport()),
            max_retries=0,
        ) as client,
        pytest.raises(openai.APIConnectionError),
    ):
        client.chat.completions.create(model="m", messages=MESSAGES)
