"""Bare ASGI and the batcher: no framework at all."""

from functools import cache


def application(made, read, write, media=b"application/json"):
    """An application: `made` makes the batcher, `read` a row of a body, and `write` a body of an answer."""
    headers = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", media)]}
    batcher = cache(made)  # made on first use, for it wants the running loop

    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        message = await receive()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        answer = await batcher().submit(read(body))
        await send(headers)
        await send({"type": "http.response.body", "body": write(answer)})

    return app
