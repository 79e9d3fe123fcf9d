"""Bare ASGI, orjson and the batcher: no framework at all."""

import orjson
from batcher import Batcher

HEADERS = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}
batcher = None


async def app(scope, receive, send):
    global batcher
    if scope["type"] != "http":
        return
    if batcher is None:
        batcher = Batcher()
    message = await receive()
    body = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    answer = await batcher.submit(orjson.loads(body)["x"])
    await send(HEADERS)
    await send({"type": "http.response.body", "body": orjson.dumps({"y": answer}, option=orjson.OPT_SERIALIZE_NUMPY)})
