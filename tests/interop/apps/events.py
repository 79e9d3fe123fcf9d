"""Streams as Starlette and sse-starlette send them: events with comments between them, lines, and both packed by gzip.

`/gate` lets the event that waits go: nothing is sent before the reader has said that it has the one before.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request


class Here:
    """What happens in this process."""

    gate = asyncio.Semaphore(0)
    left = 0


async def ready(_: Request) -> Response:
    return JSONResponse({})


async def told() -> AsyncIterator[ServerSentEvent]:
    yield ServerSentEvent(data="first", event="named", id="1", retry=50)
    yield ServerSentEvent(comment="nothing to see")
    yield ServerSentEvent(data="two\nlines — 水", id="2")
    for number in range(3, 6):
        await Here.gate.acquire()
        yield ServerSentEvent(data=str(number), id=str(number))


async def events(_: Request) -> Response:
    return EventSourceResponse(told(), ping=1, sep="\r\n")


async def endless(_: Request) -> Response:
    async def on() -> AsyncIterator[dict[str, Any]]:
        try:
            while True:
                yield {"data": "on"}
                await asyncio.sleep(0.005)
        finally:
            Here.left += 1

    return EventSourceResponse(on())


async def lines(_: Request) -> Response:
    async def documents() -> AsyncIterator[str]:
        for number in range(5):
            yield json.dumps({"number": number, "text": "水"}) + "\n"
            await asyncio.sleep(0)

    return StreamingResponse(documents(), media_type="application/x-ndjson")


async def gate(_: Request) -> Response:
    Here.gate.release()
    return JSONResponse({})


async def left(_: Request) -> Response:
    return JSONResponse(Here.left)


app = Starlette(routes=[Route("/" + of.__name__, of) for of in (ready, events, endless, lines, gate, left)])
