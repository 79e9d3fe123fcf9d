"""FastAPI as its documentation teaches it: a pydantic model in, a pydantic model out; with and without batches."""

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
batcher = None


@app.post("/plain")
async def plain(features: Features) -> Answer:
    return Answer(y=mlp(np.array([features.x], np.float32))[0].tolist())


@app.post("/batched")
async def batched(features: Features) -> Answer:
    global batcher
    if batcher is None:
        batcher = Batcher()
    answer = await batcher.submit(features.x)
    return Answer(y=answer.tolist())
