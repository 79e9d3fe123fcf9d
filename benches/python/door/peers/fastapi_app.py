"""FastAPI as its documentation teaches it: a pydantic model in, a pydantic model out; with and without batches."""

from functools import cache

import numpy as np
from batcher import Batcher
from fastapi import FastAPI
from network import mlp
from pydantic import BaseModel


class Features(BaseModel):
    x: list[float]


class Answer(BaseModel):
    y: list[float]


# The load generator names no content type, which FastAPI otherwise refuses.
app = FastAPI(strict_content_type=False)
batcher = cache(Batcher)  # made on first use, for it wants the running loop


@app.post("/plain")
async def plain(features: Features) -> Answer:
    return Answer(y=mlp(np.array([features.x], np.float32))[0].tolist())


@app.post("/batched")
async def batched(features: Features) -> Answer:
    answer = await batcher().submit(features.x)
    return Answer(y=answer.tolist())
