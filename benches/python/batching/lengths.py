"""Sentences of mixed length through MiniLM: batches by length beside batches as the sentences come."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import numpy as np

import penstock
from benches.python.batching.story import Story
from benches.python.measure import paired_ratio, spread, table
from examples.minilm import MiniLM

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORDS = ("pipe", "water", "turbine", "gate", "pressure", "wheel", "turns", "carries", "top", "lost", "nothing", "all")
SIZE = 16
CALLERS = 256


def run(rounds: int, *, quick: bool) -> Story:
    model = MiniLM.load()
    texts = _sentences(64 if quick else 512)
    policies: dict[str, dict[str, Any]] = {
        "as they come": {"max_batch_size": SIZE},
        "by length: `pad=True`": {"max_batch_size": SIZE, "pad": True},
    }
    seconds: dict[str, list[float]] = {name: [] for name in policies}
    useful: dict[str, list[float]] = {name: [] for name in policies}
    model.encode(texts[:8])
    for turn in range(rounds):
        names = list(policies) if turn % 2 else list(reversed(policies))
        for name in names:
            took, share = asyncio.run(_once(model, texts, policies[name]))
            seconds[name].append(took)
            useful[name].append(share)
    rows = [
        [name, spread([len(texts) / took for took in seconds[name]], 0), spread([u * 100 for u in useful[name]], 1)]
        for name in policies
    ]
    plain, sorted_ = (seconds[name] for name in policies)
    ratio = paired_ratio(plain, sorted_)
    text = table(["batches", "sentences/s", "useful words, %"], rows) + f"\n\nBy length, {ratio} times as many."
    return Story(
        f"MiniLM, sentences of 4 to 160 words, batches of {SIZE}, {CALLERS} callers", text, {"seconds": seconds}
    )


def _sentences(count: int) -> list[str]:
    rng = np.random.default_rng(5)
    lengths = np.exp(rng.uniform(np.log(4), np.log(160), count)).astype(int)
    return [" ".join(rng.choice(WORDS, length)) for length in lengths]


async def _once(model: MiniLM, texts: list[str], policy: dict[str, Any]) -> tuple[float, float]:
    real = padded = 0

    @penstock.batched(**policy)
    def encode(batch: list[str]) -> NDArray[np.float32]:
        nonlocal real, padded
        words = [len(text.split()) for text in batch]
        real, padded = real + sum(words), padded + max(words) * len(words)
        return model.encode(batch)

    limit = asyncio.Semaphore(CALLERS)

    async def one(text: str) -> None:
        async with limit:
            await encode(text)

    began = time.perf_counter()
    await asyncio.gather(*(one(text) for text in texts))
    return time.perf_counter() - began, real / padded
