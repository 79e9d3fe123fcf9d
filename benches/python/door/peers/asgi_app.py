"""Bare ASGI, orjson and the batcher: no framework at all."""

from functools import cache

import orjson
from batcher import Batcher

HEADERS = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}
batcher = cache(Batcher)  # made on first use, for it wants the running loop


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    message = await receive()
    body = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    answer = await batcher().submit(orjson.loads(body)["x"])
    await send(HEADERS)
    await send({"type": "http.response.body", "body": orjson.dumps({"y": answer}, option=orjson.OPT_SERIALIZE_NUMPY)})
