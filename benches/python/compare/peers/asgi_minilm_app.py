"""Bare ASGI, orjson, the batcher and MiniLM."""

from functools import cache

import orjson
from batcher import Batcher
from minilm_model import MAX_BATCH, model

HEADERS = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}


@cache  # made on first use, for it wants the running loop
def batcher():
    return Batcher(model.encode, MAX_BATCH)


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    message = await receive()
    body = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    answer = await batcher().submit(orjson.loads(body)["text"])
    await send(HEADERS)
    answer = orjson.dumps({"embedding": answer}, option=orjson.OPT_SERIALIZE_NUMPY)
    await send({"type": "http.response.body", "body": answer})
