"""Streams of text over real sockets, read by our own client: each token as it is made, and the end of all that."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

import penstock
from tests.python.support.waiting import soon, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

READ = threading.Semaphore(0)
"""Tokens that the reader of `drip` has taken."""
CLOSED: list[str] = []


@penstock.model("drip", task="generate")
def drip(request: penstock.GenerateRequest) -> Iterator[str]:
    """Says a token only once the one before was read."""
    for word in request.text.split():
        yield f"{word} "
        assert READ.acquire(timeout=30), "nobody has read it"


@penstock.model("endless", task="generate")
async def endless(_: penstock.GenerateRequest) -> AsyncIterator[str]:
    try:
        while True:
            yield "on "
            await asyncio.sleep(0.001)
    finally:
        CLOSED.append("endless")


@penstock.model("together", task="generate", batched=True, max_batch_size=100)
def together(batch: penstock.Batch) -> Iterator[dict[int, str]]:
    """Counts up to the prompt, all requests one step at a time."""
    said: dict[int, int] = {}
    while batch.live:
        step = {}
        for index in batch:
            said[index] = said.get(index, 0) + 1
            step[index] = f"{said[index]} "
        yield step
        for index in batch.live:
            if said[index] == int(batch[index].text):
                batch.finish(index)
        batch.join()


@pytest.fixture(scope="module")
def server() -> Iterator[penstock.Server]:
    with penstock.Server([drip, endless, together], port=0) as server:
        yield server


def text_of(event: Any) -> str:
    if event.data == "[DONE]":
        return ""
    text: str = event.json()["choices"][0]["text"]
    return text


@pytest.mark.parametrize("coding", ["identity", "gzip", "zstd"])
def test_every_token_leaves_when_it_is_made(server: penstock.Server, coding: str) -> None:
    words = " ".join(f"word{number}" for number in range(40))
    body = {"model": "drip", "prompt": words, "stream": True}
    with (
        penstock.Client(server.url) as client,
        client.stream("POST", "/v1/completions", json=body, headers={"accept-encoding": coding}) as stream,
    ):
        said = []
        for event in stream.sse():
            if text := text_of(event):
                said.append(text)
                READ.release()
    assert "".join(said).split() == words.split()
    assert len(said) == 40


@pytest.mark.parametrize("http2", [False, "always"])
async def test_many_streams_of_one_batch(server: penstock.Server, http2: Any) -> None:
    async with penstock.AsyncClient(server.url, http2=http2) as client:

        async def one(count: int) -> str:
            body = {"model": "together", "prompt": str(count), "stream": True}
            async with client.stream("POST", "/v1/completions", json=body) as stream:
                return "".join([text_of(event) async for event in stream.sse()])

        said = await asyncio.gather(*(one(count) for count in range(1, 101)))
    assert [[int(number) for number in text.split()] for text in said] == [
        list(range(1, count + 1)) for count in range(1, 101)
    ]


def test_lines_of_json(server: penstock.Server) -> None:
    body = {"text_input": "5", "parameters": {"max_tokens": 3}}
    path = "/v2/models/together/generate_stream"
    with (
        penstock.Client(server.url) as client,
        client.stream("POST", path, json=body, headers={"accept": "application/x-ndjson"}) as stream,
    ):
        lines = [json.loads(line) if isinstance(line, str | bytes) else line for line in stream.ndjson()]
    assert [line["text_output"] for line in lines] == ["1 ", "2 ", "3 "]


async def test_who_leaves_ends_the_generation(server: penstock.Server) -> None:
    before = len(CLOSED)
    body = {"model": "endless", "prompt": "", "max_tokens": 1_000_000}
    async with penstock.AsyncClient(server.url) as client:
        async with client.stream("POST", "/v1/completions", json={**body, "stream": True}) as stream:
            async for _ in stream.sse():
                break
        await soon(lambda: len(CLOSED) == before + 1)
        whole = asyncio.ensure_future(client.post("/v1/completions", json=body))
        await asyncio.sleep(0.1)
        whole.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await whole
        await soon(lambda: len(CLOSED) == before + 2)


def test_a_closing_server_says_so_in_its_streams() -> None:
    @penstock.model("on", task="generate")
    async def on(_: penstock.GenerateRequest) -> AsyncIterator[str]:
        while True:
            yield "on "
            await asyncio.sleep(0.005)

    server = penstock.Server(on, port=0).start()
    body = {"model": "on", "prompt": "", "stream": True, "max_tokens": 1_000_000}
    with (
        penstock.Client(server.url) as client,
        client.stream("POST", "/v1/completions", json=body) as stream,
    ):
        events = stream.sse()
        assert text_of(next(events)) == "on "
        closing = threading.Thread(target=server.close, kwargs={"timeout": 0.2})
        closing.start()
        last = list(events)[-1]
    assert last.json()["error"]["code"] == "closed"
    closing.join(30)
    until(lambda: not closing.is_alive())
