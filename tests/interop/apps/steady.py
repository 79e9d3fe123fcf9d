"""One endpoint of several: answers after a delay that a test may change, and counts what it is asked."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from starlette.requests import Request


class Endpoint:
    """What this process knows."""

    delay = 0.01
    asked = 0


async def answer(_: Request) -> Response:
    Endpoint.asked += 1
    await asyncio.sleep(Endpoint.delay)
    return JSONResponse({"asked": Endpoint.asked})


async def delay(request: Request) -> Response:
    Endpoint.delay = float(await request.body())
    return Response()


async def asked(_: Request) -> Response:
    return JSONResponse(Endpoint.asked)


async def ready(_: Request) -> Response:
    return Response()


app = Starlette(
    routes=[
        Route("/ready", ready),
        Route("/work", answer, methods=["GET", "POST"]),
        Route("/asked", asked),
        Route("/delay", delay, methods=["PUT"]),
    ]
)
