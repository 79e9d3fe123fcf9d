"""Writes docs/notebook.ipynb: the cells below, run in a fresh kernel, with their outputs.

    python docs/make_notebook.py                    writes the notebook beside this file
    python docs/make_notebook.py --output OTHER     writes it elsewhere: to see whether it still runs

It needs `pip install -r tools/requirements-demo.txt`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT = 120
"""Seconds that one cell may take."""

CELLS = r'''
# %% [markdown]
# Penstock in a notebook

This notebook was run from top to bottom; the outputs below are what it printed. The figures are from a small virtual
machine with two cores: run it on yours.

# %%
import asyncio
import os
import random
import time

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy: its matrix products would take both cores

import matplotlib.pyplot as plt
import numpy as np

import penstock

print("penstock", penstock.__version__)

# %% [markdown]
## A function over a batch

The "model" is a small network in NumPy. A call of it costs much the same for one row as for fifty, which is why batches
pay. `@penstock.batched` makes a call of it take *one* row; callers that come at the same time share one call.

# %%
rng = np.random.default_rng(0)
W1 = rng.standard_normal((64, 1024)).astype(np.float32)
W2 = rng.standard_normal((1024, 8)).astype(np.float32)


@penstock.batched(max_batch_size=100)
def network(x: np.ndarray) -> np.ndarray:
    """Float32 [n, 64] in, float32 [n, 8] out."""
    return np.maximum(x @ W1, 0) @ W2


network

# %% [markdown]
A notebook can `await` at the top level. Three hundred callers at once:

# %%
items = rng.standard_normal((300, 64)).astype(np.float32)
rows = await asyncio.gather(*(network(item) for item in items))
print(len(rows), "rows;", "all right:", np.allclose(rows, network.fn(items), atol=1e-3))

# %% [markdown]
What happened? `stats()` shows as a table.

# %%
network.stats()

# %% [markdown]
## Many items, in order, with a bar

`map` keeps the order and never has more than `max_queue` requests waiting.

# %%
import warnings

warnings.filterwarnings("ignore", message="IProgress")  # no ipywidgets here: the bar is text

many = rng.standard_normal((20_000, 64)).astype(np.float32)
results = await network.map(many, progress=True)
print("in order:", np.allclose(results[::1000], network.fn(many[::1000]), atol=1e-3))

# %% [markdown]
## Without `await`

`.call()` blocks until the answer is there. It works in a cell although the notebook's own event loop is running, and in
threads and scripts. `.fn` is the plain function over a batch.

# %%
one = network.call(items[0])
print(one.shape, np.allclose(one, network.fn(items[:1])[0], atol=1e-3))

# %% [markdown]
## One request's error is its own

The batch raised; it was run again in halves until only the guilty request had failed.

# %%
@penstock.batched
def root(x: np.ndarray) -> np.ndarray:
    """Fail for the whole batch if one number is bad."""
    if (x < 0).any():
        raise ValueError("a negative number")
    return np.sqrt(x)


await asyncio.gather(root(4.0), root(-1.0), root(9.0), return_exceptions=True)

# %% [markdown]
## Running a cell again

Running the cell that defines a function again closes the older one, which still answers what waits in it: no threads
pile up. Here both stand in one cell, as if it had been run twice.

# %%
@penstock.batched
def scaled(x: np.ndarray) -> np.ndarray:
    """Return twice the number."""
    return x * 2


older = scaled


@penstock.batched
def scaled(x: np.ndarray) -> np.ndarray:
    """Return three times the number."""
    return x * 3


print(older)
print(scaled, await scaled(14))

# %% [markdown]
## Tick or window?

Under `dispatch="tick"`, the default, a batch leaves when the event loop has finished its round and a worker is free.
Under `"window"` it leaves when it is full or its first request has waited `max_wait`. The cell below measures both,
with 1 to 300 callers that each send a request, wait for the answer, and think for 10 ms on average before the next.

# %%
async def measure(batcher: penstock.Batcher, callers: int, seconds: float = 1.0) -> tuple[list[float], float]:
    """Latencies in ms, and the requests in a batch on average."""
    latencies = []
    before = batcher.stats()
    end = time.perf_counter() + seconds

    async def caller(item: np.ndarray) -> None:
        while True:
            await asyncio.sleep(random.expovariate(100))
            if (start := time.perf_counter()) > end:
                return
            await batcher(item)
            latencies.append(1000 * (time.perf_counter() - start))

    await asyncio.gather(*(caller(many[number]) for number in range(callers)))
    after = batcher.stats()
    return latencies, (after.requests - before.requests) / (after.batches - before.batches)


policies = {
    "tick": penstock.BatchPolicy(max_batch_size=100),
    "window of 5 ms": penstock.BatchPolicy(max_batch_size=100, dispatch="window", max_wait=0.005),
}
counts = [1, 3, 10, 30, 100, 300]
measured = {}
for name, policy in policies.items():
    with penstock.Batcher(network.fn, policy) as batcher:
        await measure(batcher, 100, seconds=0.2)  # warm up
        measured[name] = []
        for count in counts:
            measured[name].append(await measure(batcher, count))

print(f"{'':>15}{'callers':>9}{'requests/s':>12}{'p50 ms':>8}{'p90 ms':>8}{'mean batch':>12}")
for name, runs in measured.items():
    for count, (latencies, size) in zip(counts, runs, strict=True):
        p50, p90 = np.percentile(latencies, [50, 90])
        print(f"{name:>15}{count:>9}{len(latencies):>12,}{p50:>8.2f}{p90:>8.2f}{size:>12.1f}")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
for (name, runs), marker in zip(measured.items(), "os", strict=True):
    p50, p90 = np.transpose([np.percentile(latencies, [50, 90]) for latencies, _ in runs])
    (line,) = left.plot(counts, p50, marker=marker, label=f"{name}, median")
    left.plot(counts, p90, marker=marker, linestyle=":", color=line.get_color(), label=f"{name}, 90th percentile")
    right.plot(counts, [size for _, size in runs], marker=marker, label=name)
left.set(xscale="log", yscale="log", xlabel="callers", ylabel="latency (ms)", title="How long a request takes")
right.set(xscale="log", yscale="log", xlabel="callers", ylabel="mean batch size", title="How large batches are")
for axes in (left, right):
    axes.set_xticks(counts, counts, minor=False)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
left.legend(fontsize=8, loc="upper left")
left.set_ylim(top=200)
right.legend(fontsize=8)
plt.show()

# %% [markdown]
The window makes larger batches, and lets every request pay for that. Under the tick a lone request waits for nobody,
and batches grow by themselves as more requests come in one round of the loop.

## A server in a cell

`@penstock.model` declares what goes in and out, and a `Server` puts it behind HTTP, by the Open Inference Protocol.
Leaving the `with` block answers what was accepted and closes it.

# %%
@penstock.model("network", inputs={"x": ("float32", [64])}, outputs={"y": ("float32", [8])}, max_batch_size=100)
def served(x: np.ndarray) -> np.ndarray:
    """Serve the plain function: the server makes the batches."""
    return network.fn(x)


async with penstock.Server(served, port=0) as server, penstock.AsyncClient(server.url) as client:
    print(server, client, sep="\n")
    asked = (client.infer("network", {"x": items[at : at + 3]}) for at in range(0, 60, 3))
    answers = [answer["y"] for answer in await asyncio.gather(*asked)]
    stats = server.stats()
    connections = client.stats()

print("all right:", np.allclose(np.concatenate(answers), network.fn(items[:60]), atol=1e-3))
stats.models["network"]

# %% [markdown]
Twenty requests of three rows each, in fewer calls of the model, and one lock acquisition for each call.

## Connections that are kept

`penstock.AsyncClient` sent them, as arrays, over connections of a pool. What the pool has done:

# %%
connections

# %% [markdown]
The guides: [batching](batching.md), [serving](serving.md), [pooling](pooling.md), [architecture](architecture.md).
'''


def cells(text: str) -> Iterator[Any]:
    """The cells of a text in the percent format of editors."""
    for number, part in enumerate(text.strip().split("# %%")[1:]):
        kind, source = part.split("\n", 1)
        make = new_markdown_cell if "[markdown]" in kind else new_code_cell
        yield make(source.strip(), id=f"cell-{number}")


def main(text: str, name: str, description: str | None) -> None:
    """Makes, runs and writes a notebook."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name(name))
    output = parser.parse_args().output
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = new_notebook(cells=list(cells(text)), metadata={"kernelspec": kernel})
    start = time.perf_counter()
    NotebookClient(notebook, timeout=TIMEOUT, kernel_name="python3", coalesce_streams=True).execute()
    for cell in notebook.cells:
        cell.metadata = {}  # times of execution would differ with every run
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    nbformat.validate(notebook)
    nbformat.write(notebook, output)
    print(f"{output}: {len(notebook.cells)} cells, run in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main(CELLS, "notebook.ipynb", __doc__)
