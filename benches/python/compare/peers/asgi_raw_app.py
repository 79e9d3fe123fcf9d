"""Bare ASGI and the batcher: the bytes of a float32 row in, and those of its answer out."""

from functools import cache

import numpy as np
from batcher import Batcher

HEADERS = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/octet-stream")]}
batcher = cache(Batcher)  # made on first use, for it wants the running loop


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    message = await receive()
    body = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    answer = await batcher().submit(np.frombuffer(body, np.float32))
    await send(HEADERS)
    await send({"type": "http.response.body", "body": answer.tobytes()})
