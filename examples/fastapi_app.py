"""Penstock inside a FastAPI app: `uvicorn examples.fastapi_app:app`.

The lifespan of the app holds both: a batched function, which the route awaits, and a server beside the app, for whoever
speaks the Open Inference Protocol.
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

import penstock
from examples.mlp import mlp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

INFERENCE_PORT = int(os.environ.get("INFERENCE_PORT", "8001"))
"""The port of the server beside the app; 0 takes any that is free."""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Starts what the app needs, and closes it when the app ends: what was accepted is answered first."""
    # Made here and not at import: a lifespan that begins again needs a new one, for what was closed stays closed.
    async with (
        penstock.batched(max_batch_size=100)(mlp) as classify,
        penstock.Server(mlp, port=INFERENCE_PORT) as server,
    ):
        app.state.classify = classify
        app.state.server = server
        yield


app = FastAPI(lifespan=lifespan)


class Sample(BaseModel):
    """What a client sends: one row."""

    x: list[float] = Field(min_length=64, max_length=64)


class Answer(BaseModel):
    """What it gets."""

    y: list[float]


@app.post("/classify")
async def classify(sample: Sample, request: Request) -> Answer:
    """One row of the model; requests that come at the same time share one call of it."""
    row = await request.app.state.classify(np.array(sample.x, np.float32))
    return Answer(y=row.tolist())


@app.get("/stats")
async def stats(request: Request) -> dict[str, float]:
    """How many requests there were, and in how many calls of the model."""
    found = request.app.state.classify.stats()
    return {"requests": found.requests, "batches": found.batches, "mean_batch_size": found.mean_batch_size}


@app.exception_handler(penstock.PenstockError)
async def refused(_request: Request, error: penstock.PenstockError) -> JSONResponse:
    """Errors carry the status that they mean: 503 where a queue is full, 400 where an item does not fit."""
    return JSONResponse({"error": str(error)}, error.http_status)
