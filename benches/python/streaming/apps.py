"""The model that the benchmarks serve: tokens as fast as a request wants them, one step for all requests."""

from __future__ import annotations

import time

import penstock


@penstock.model("drip", task="generate", batched=True, max_batch_size=4096)
def drip(batch: penstock.Batch):
    """A prompt is `BURST PAUSE [BYTES]`: so many steps at once, milliseconds until the next ones, bytes of a token.

    Those who are in one batch are taken to want them equally fast. Pauses end at the same moments for all.
    """
    tokens = {}
    while batch.live:
        burst, pause, _ = _wanted(batch[batch.live[0]])
        if pause:
            time.sleep(pause - time.monotonic() % pause)
            batch.join()
        for index in batch.live:
            if index not in tokens:
                size = _wanted(batch[index])[2]
                tokens[index] = " token" if size is None else "x" * size
        for _ in range(burst):
            yield [tokens[index] for index in batch.live]
            if not batch.live:
                break
        batch.join()


def _wanted(request: penstock.GenerateRequest) -> tuple[int, float, int | None]:
    words = request.messages[-1]["content"].split() if request.messages else request.prompt.split()
    burst, pause, *size = map(int, words)
    return burst, pause / 1000, size[0] if size else None


models = [drip]
