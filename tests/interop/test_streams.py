"""Our client's streams against servers of others: sse-starlette under uvicorn, and one in the shape of OpenAI's."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from penstock import AsyncClient, Client
from penstock.errors import StreamInterrupted
from tests.python.support.waiting import PATIENCE, soon

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.interop.conftest import Application

CHAT: Any = {"messages": [{"role": "user", "content": "abc"}], "stream": True}
WHOLE = "water turns the wheel — naïve 水"


@pytest.fixture
def server(applications: Callable[..., list[Application]]) -> Application:
    return applications("events")[0]


@pytest.fixture
def chats(applications: Callable[..., list[Application]]) -> Application:
    return applications("openai_shaped")[0]


async def test_events_of_sse_starlette_come_as_they_are_sent(server: Application) -> None:
    async with AsyncClient(server.url) as client, client.stream("GET", "/events") as s:
        events = s.sse()
        got = [await asyncio.wait_for(anext(events), PATIENCE) for _ in range(2)]
        for _ in range(3):
            # The server waits for this word: a client that held an event back would wait for ever.
            await client.get("/gate")
            got.append(await asyncio.wait_for(anext(events), PATIENCE))
        assert [each async for each in events] == []
        seen = [(each.event, each.data, each.id) for each in got]
        assert seen[:2] == [("named", "first", "1"), ("message", "two\nlines — 水", "2")]
        assert seen[2:] == [("message", str(number), str(number)) for number in range(3, 6)]
        assert s.stats().events == 5
        assert s.stats().comments >= 1


def test_lines_of_starlette_and_its_connection_afterwards(server: Application) -> None:
    with Client(server.url) as client:
        for _ in range(3):
            with client.stream("GET", "/lines") as s:
                assert [each["number"] for each in s.ndjson()] == list(range(5))
        assert client.stats().total.reused == 2


async def test_leaving_stops_the_other_side(server: Application) -> None:
    async with AsyncClient(server.url) as client:
        async with client.stream("GET", "/endless") as s:
            async for event in s.sse():
                assert event.data == "on"
                break
        await soon(lambda: client.stats().streams_cancelled == 1)

        async def stopped() -> bool:
            return bool((await client.get("/left")).json() == 1)

        for _ in range(int(PATIENCE * 20)):
            if await stopped():
                break
            await asyncio.sleep(0.05)
        assert await stopped()


async def test_a_chat_is_read_to_done_and_its_connection_goes_on(chats: Application) -> None:
    async with AsyncClient(chats.url) as client:
        for _ in range(4):
            async with client.stream("POST", "/v1/chat/completions", json={"model": "m", **CHAT}) as s:
                texts = []
                async for event in s.sse():
                    if event.data == "[DONE]":
                        break
                    texts.append(event.json()["choices"][0]["delta"].get("content", ""))
                assert "".join(texts) == WHOLE
            await soon(lambda: client.stats().streams_open == 0)
        assert client.stats().streams_cancelled == 0
        assert client.stats().total.reused >= 3


async def test_a_chat_that_breaks_off_keeps_what_had_arrived(chats: Application) -> None:
    async with AsyncClient(chats.url) as client:
        async with client.stream("POST", "/v1/chat/completions", json={"model": "breaks-off", **CHAT}) as s:
            with pytest.raises(StreamInterrupted) as caught:
                async for _ in s.sse():
                    pass
        (line,) = [line for line in caught.value.partial.splitlines() if line]
        assert json.loads(line.removeprefix(b"data: "))["choices"][0]["delta"]["content"] == "water "
