"""Writes docs/pipeline.ipynb: the cells below, run in a fresh kernel, with their outputs.

    python docs/make_pipeline_notebook.py                    writes the notebook beside this file
    python docs/make_pipeline_notebook.py --output OTHER     writes it elsewhere: to see whether it still runs

It needs `pip install -r tools/requirements-demo.txt`.
"""

from __future__ import annotations

from make_notebook import main

CELLS = r'''
# %% [markdown]
# A pipeline in a notebook

Nothing has to be loaded or switched on: import Penstock, and make a pipeline of your models. A notebook can `await` at
the top level, and everything that lives long shows itself as a table.

# %%
import asyncio
from collections.abc import Iterator

import numpy as np

import penstock

# %% [markdown]
## Two models

One of tensors, which is called over a whole batch, and one of text, which yields its answer piece by piece.

# %%
rng = np.random.default_rng(0)
WEIGHTS = rng.standard_normal((64, 10)).astype(np.float32)


@penstock.model("digits", inputs={"x": ("float32", [64])}, outputs={"y": ("float32", [10])}, max_batch_size=50)
def digits(x: np.ndarray) -> np.ndarray:
    """Float32 [n, 64] in, float32 [n, 10] out."""
    return x @ WEIGHTS


@penstock.model("story", task="generate")
def story(request: penstock.GenerateRequest) -> Iterator[str]:
    """Say the prompt again, word by word."""
    for word in request.text.split():
        yield f"{word} "


pipeline = penstock.Pipeline([digits, story]).start()
pipeline

# %% [markdown]
## Two hundred requests at once

Each asks for one row. They share a few calls of the model.

# %%
rows = rng.standard_normal((200, 1, 64)).astype(np.float32)
results = await asyncio.gather(*(pipeline.infer("digits", {"x": row}) for row in rows))
print("all right:", np.allclose(np.concatenate([result["y"] for result in results]), rows[:, 0] @ WEIGHTS, atol=1e-3))
results[0]

# %%
pipeline.stats().models["digits"]

# %% [markdown]
Why were the batches as they were?

# %%
pipeline.explain("digits", last=3)

# %% [markdown]
## Without `await`

`call` blocks until the answer is there, although the notebook's own event loop is running.

# %%
answer = pipeline.call("digits", {"x": np.ones((2, 64), np.float32)}, request_id="by hand")
print(answer["y"].shape, answer.id, sorted(answer.timing))

# %% [markdown]
## Text, as it comes

# %%
async for piece in pipeline.stream("story", prompt="once upon a time"):
    print(piece, end="|")

# %% [markdown]
## What is a part worth?

The same models with batching switched off: each request is a call of its own.

# %%
async with penstock.Pipeline(digits, batch=False) as alone:
    await asyncio.gather(*(alone.infer("digits", {"x": row}) for row in rows))
    stats = alone.stats().models["digits"]
print(stats.requests, "requests,", stats.batches, "calls")

# %% [markdown]
## Behind a door

`serve` opens HTTP and gRPC to the pipeline that is there: clients and this notebook share its queues.

# %%
server = pipeline.serve(port=0)
async with penstock.AsyncClient(server.url) as client:
    print(np.allclose((await client.infer("digits", {"x": rows[0]}))["y"], results[0]["y"]))

# %%
pipeline.close()
pipeline

# %% [markdown]
The guide: [the pipeline](pipeline.md).
'''

if __name__ == "__main__":
    main(CELLS, "pipeline.ipynb", __doc__)
