"""The same tokens by FastAPI and sse-starlette: an async generator for each request."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

from fastapi import FastAPI
from pydantic import BaseModel
from sse_starlette import EventSourceResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

app = FastAPI()


class Message(BaseModel):
    role: str
    content: str


class Ask(BaseModel):
    model: str
    messages: list[Message]
    max_tokens: int
    stream: bool = False


@app.post("/v1/chat/completions")
async def chat(ask: Ask) -> EventSourceResponse:
    burst, pause = map(int, ask.messages[-1].content.split())
    return EventSourceResponse(_tokens(ask.max_tokens, burst, pause / 1000))


async def _tokens(count: int, burst: int, pause: float) -> AsyncIterator[dict[str, str]]:
    for number in range(count):
        if number % burst == 0 and pause:
            # Pauses end at the same moments for all streams.
            await asyncio.sleep(pause - time.monotonic() % pause)
        yield {"data": _chunk({"content": " token"}, None)}
    yield {"data": _chunk({}, "length")}
    yield {"data": "[DONE]"}


def _chunk(delta: dict[str, str], reason: str | None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    chunk = {
        "id": "chatcmpl-7f1c9a525b7e4f0c9a550f3a2c1d9e4b",
        "object": "chat.completion.chunk",
        "created": 1790000000,
        "model": "drip",
        "choices": [choice],
    }
    return json.dumps(chunk, separators=(",", ":"))
