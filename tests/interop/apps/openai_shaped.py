"""A server in the shape of OpenAI's API: enough for its client to be itself, faults included.

The model's name says what it does. `/ledger` tells which connections carried which requests.
"""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

WORDS = ["water ", "turns ", "the ", "wheel", " — naïve 水"]


class Ledger:
    """What this process was asked, over which connections, and which answers nobody heard to the end."""

    requests: ClassVar = Counter[str]()
    connections: ClassVar = Counter[str]()
    left: ClassVar = Counter[str]()


def error(status: int, message: str, **headers: str) -> Response:
    body = {"error": {"message": message, "type": "test", "param": None, "code": None}}
    return JSONResponse(body, status, {name.replace("_", "-"): value for name, value in headers.items()})


def chunk(model: str, delta: dict[str, str], finish: str | None = None) -> bytes:
    body = {
        "id": "chat-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


async def words(model: str) -> AsyncIterator[bytes]:
    try:
        for word in WORDS:
            yield chunk(model, {"role": "assistant", "content": word})
            if model == "breaks-off":
                await asyncio.sleep(0.1)  # let what was said arrive
                raise RuntimeError("this server ends in the middle on purpose")
            await asyncio.sleep(30 if model == "stalls" else 0.01)
        while model == "endless":
            yield chunk(model, {"content": "on "})
            await asyncio.sleep(0.01)
        yield chunk(model, {}, "stop")
        yield b"data: [DONE]\n\n"
    except asyncio.CancelledError:
        Ledger.left[model] += 1
        raise


async def chat(request: Request) -> Response:
    body = await request.json()
    model = body["model"]
    before = Ledger.requests[model]
    note(request, model)
    if model == "fails-twice" and before % 3 < 2:
        return error(500, "not yet")
    if model == "overloaded-once" and before == 0:
        return error(429, "slow down", retry_after_ms="50")
    if model == "unknown":
        return error(404, "The model `unknown` does not exist")
    if model == "slow":
        await asyncio.sleep(30)
    if body.get("stream"):
        return StreamingResponse(words(model), media_type="text/event-stream")
    message = {"role": "assistant", "content": body["messages"][-1]["content"][::-1]}
    return JSONResponse(
        {
            "id": "chat-1",
            "object": "chat.completion",
            "created": 1,
            "model": model,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
    )


async def embeddings(request: Request) -> Response:
    body = await request.json()
    note(request, body["model"])
    rows: list[dict[str, Any]] = []
    for index, text in enumerate(body["input"]):
        vector: Any = [float(len(text)), 0.5, -1.0]
        if body.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack("<3f", *vector)).decode()
        rows.append({"object": "embedding", "index": index, "embedding": vector})
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return JSONResponse({"object": "list", "data": rows, "model": body["model"], "usage": usage})


async def files(request: Request) -> Response:
    async with request.form() as form:
        note(request, "files")
        upload: Any = form["file"]
        size = len(await upload.read())
        return JSONResponse(
            {
                "id": "file-1",
                "object": "file",
                "bytes": size,
                "created_at": 1,
                "filename": upload.filename,
                "purpose": form["purpose"],
                "status": "processed",
            }
        )


def note(request: Request, what: str) -> None:
    Ledger.requests[what] += 1
    Ledger.connections[":".join(map(str, request.client or ()))] += 1


async def ledger(_: Request) -> Response:
    return JSONResponse(
        {"requests": Ledger.requests, "connections": list(Ledger.connections.values()), "left": Ledger.left}
    )


async def ready(_: Request) -> Response:
    return Response()


app = Starlette(
    routes=[
        Route("/ready", ready),
        Route("/ledger", ledger),
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/embeddings", embeddings, methods=["POST"]),
        Route("/v1/files", files, methods=["POST"]),
    ]
)
