"""The `openai` client over Penstock's connections, against a server in the shape of OpenAI's API."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import openai
import pytest

from penstock.transport import AsyncTransport, Transport
from tests.python.support.waiting import soon

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.interop.conftest import Application

MESSAGES: Any = [{"role": "user", "content": "abc — 水"}]
WHOLE = "water turns the wheel — naïve 水"


@pytest.fixture
def server(applications: Callable[..., list[Application]]) -> Application:
    return applications("openai_shaped")[0]


def ledger(server: Application) -> dict[str, Any]:
    """What the server counted."""
    with urllib.request.urlopen(server.url + "/ledger", timeout=10) as answer:
        counted: dict[str, Any] = json.load(answer)
    return counted


@pytest.fixture(params=["httpx2", "httpx"])
def library(request: pytest.FixtureRequest) -> Any:
    """Which library's client carries the transport; `openai` takes both."""
    return {"httpx2": httpx2, "httpx": httpx}[request.param]


def asynchronous(server: Application, library: Any, **options: Any) -> openai.AsyncOpenAI:
    client = library.AsyncClient(transport=AsyncTransport(), timeout=30)
    return openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none", http_client=client, **options)


def blocking(server: Application, library: Any, **options: Any) -> openai.OpenAI:
    client = library.Client(transport=Transport(), timeout=30)
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", http_client=client, **options)


def text_of(chunk: Any) -> str:
    return chunk.choices[0].delta.content or ""


async def heard(stream: Any, texts: list[str]) -> None:
    """Adds what the stream says, to its end, to a list that outlives an error."""
    async for chunk in stream:
        texts.append(text_of(chunk))  # noqa: PERF401


async def test_answers_and_streams(server: Application, library: Any) -> None:
    async with asynchronous(server, library) as client:
        answer = await client.chat.completions.create(model="plain", messages=MESSAGES)
        assert answer.choices[0].message.content == "水 — cba"
        stream = await client.chat.completions.create(model="plain", messages=MESSAGES, stream=True)
        assert "".join([text_of(chunk) async for chunk in stream]) == WHOLE
        vectors = await client.embeddings.create(model="plain", input=["a", "bcd"])
        assert [row.embedding for row in vectors.data] == [[1.0, 0.5, -1.0], [3.0, 0.5, -1.0]]


def test_answers_and_streams_without_asyncio(server: Application, library: Any) -> None:
    with blocking(server, library) as client:
        answer = client.chat.completions.create(model="plain", messages=MESSAGES)
        assert answer.choices[0].message.content == "水 — cba"
        stream = client.chat.completions.create(model="plain", messages=MESSAGES, stream=True)
        assert "".join(map(text_of, stream)) == WHOLE
        vectors = client.embeddings.create(model="plain", input=["a", "bcd"])
        assert [row.embedding for row in vectors.data] == [[1.0, 0.5, -1.0], [3.0, 0.5, -1.0]]


async def test_connections_are_used_again(server: Application, library: Any) -> None:
    async with asynchronous(server, library) as client:
        for n in range(20):
            if n % 2:
                await client.chat.completions.create(model="plain", messages=MESSAGES)
            else:
                stream = await client.chat.completions.create(model="plain", messages=MESSAGES, stream=True)
                async for _ in stream:
                    pass
    counted = await asyncio.to_thread(ledger, server)
    assert sum(counted["connections"]) == 20
    # One after the other: one connection is enough, a stream that was read to its end gave it back.
    assert len(counted["connections"]) == 1


async def test_many_at_a_time(server: Application, library: Any) -> None:
    async with asynchronous(server, library) as client:
        for _ in range(3):
            answers = await asyncio.gather(
                *(client.chat.completions.create(model="plain", messages=MESSAGES) for _ in range(30))
            )
            assert {answer.choices[0].message.content for answer in answers} == {"水 — cba"}
    counted = await asyncio.to_thread(ledger, server)
    assert sum(counted["connections"]) == 90
    assert len(counted["connections"]) <= 30


async def test_its_retries_are_its_own(server: Application, library: Any) -> None:
    """It sends a failed POST again; the transport, which may not, sends each attempt once."""
    async with asynchronous(server, library, max_retries=2) as client:
        answer = await client.chat.completions.create(model="fails-twice", messages=MESSAGES)
        assert answer.choices[0].message.content == "水 — cba"
        assert (await asyncio.to_thread(ledger, server))["requests"]["fails-twice"] == 3
        await client.chat.completions.create(model="overloaded-once", messages=MESSAGES)
        assert (await asyncio.to_thread(ledger, server))["requests"]["overloaded-once"] == 2
        with pytest.raises(openai.InternalServerError, match="not yet"):
            await client.with_options(max_retries=0).chat.completions.create(model="fails-twice", messages=MESSAGES)
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            await client.chat.completions.create(model="unknown", messages=MESSAGES)


async def test_time_outs_are_its_own_errors(server: Application, library: Any) -> None:
    async with asynchronous(server, library, max_retries=0) as client:
        with pytest.raises(openai.APITimeoutError):
            await client.chat.completions.create(model="slow", messages=MESSAGES, timeout=0.2)
        stream = await client.chat.completions.create(model="stalls", messages=MESSAGES, stream=True, timeout=0.3)
        with pytest.raises(openai.APITimeoutError):
            await heard(stream, [])
        answer = await client.chat.completions.create(model="plain", messages=MESSAGES)
        assert answer.choices[0].message.content == "水 — cba"


def test_time_outs_without_asyncio(server: Application, library: Any) -> None:
    with blocking(server, library, max_retries=0) as client:
        with pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(model="slow", messages=MESSAGES, timeout=0.2)
        stream = client.chat.completions.create(model="stalls", messages=MESSAGES, stream=True, timeout=0.3)
        with pytest.raises(openai.APITimeoutError):
            assert "".join(map(text_of, stream)) == "never"


async def test_a_server_that_is_not_there(server: Application, library: Any) -> None:
    await asyncio.to_thread(server.stop)
    async with asynchronous(server, library, max_retries=1) as client:
        with pytest.raises(openai.APIConnectionError):
            await client.chat.completions.create(model="plain", messages=MESSAGES)
    with blocking(server, library, max_retries=1) as client, pytest.raises(openai.APIConnectionError):
        client.chat.completions.create(model="plain", messages=MESSAGES)


async def test_a_stream_that_breaks_off(server: Application, library: Any) -> None:
    async with asynchronous(server, library) as client:
        stream = await client.chat.completions.create(model="breaks-off", messages=MESSAGES, stream=True)
        texts: list[str] = []
        with pytest.raises(openai.APIConnectionError):
            await heard(stream, texts)
        assert texts == ["water "]


async def test_a_stream_that_is_left_early_reaches_the_server(server: Application, library: Any) -> None:
    async with asynchronous(server, library) as client:
        stream = await client.chat.completions.create(model="endless", messages=MESSAGES, stream=True)
        async with stream:
            async for chunk in stream:
                if text_of(chunk) == "on ":
                    break
        await soon(lambda: ledger(server)["left"].get("endless") == 1)

    async with asynchronous(server, library) as client:
        waiting = asyncio.create_task(client.chat.completions.create(model="slow", messages=MESSAGES))
        await soon(lambda: ledger(server)["requests"].get("slow") == 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        answer = await client.chat.completions.create(model="plain", messages=MESSAGES)
        assert answer.choices[0].message.content == "水 — cba"


@pytest.mark.parametrize("size", [10, 3_000_000])
async def test_files_go_up(server: Application, library: Any, tmp_path: Path, size: int) -> None:
    """A body in parts, which the libraries hand over as a stream."""
    path = tmp_path / "examples.jsonl"
    path.write_bytes(b"x" * size)
    async with asynchronous(server, library) as client:
        assert (await client.files.create(file=path, purpose="fine-tune")).bytes == size
    with blocking(server, library) as blocked, path.open("rb") as file:
        assert blocked.files.create(file=file, purpose="fine-tune").bytes == size
