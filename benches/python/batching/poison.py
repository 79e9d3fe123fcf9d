"""One request in a hundred that makes the function raise, in batches of 32."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

import numpy as np

import penstock
from benches.python.batching.story import Story
from benches.python.measure import spread, table
from penstock.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE = 32
SHARE = 0.01
POISON = -1.0


def run(rounds: int, *, quick: bool) -> Story:
    requests = SIZE * (20 if quick else 400)
    rows = []
    data: dict[str, list[dict[str, float]]] = {}
    for policy in ("isolate", "fail"):
        seen = [asyncio.run(_once(policy, requests, seed)) for seed in range(rounds)]
        data[policy] = seen
        rows.append(
            [
                f'on_error="{policy}"',
                spread([round_["innocents"] * 100 for round_ in seen], 1),
                spread([round_["calls"] for round_ in seen]),
                spread([round_["rows"] for round_ in seen]),
            ]
        )
    head = ["", "innocent requests answered, %", "calls for each batch", "rows through the function for each row"]
    text = table(head, rows)
    return Story(f"{SHARE:.0%} of the requests poisoned, batches of {SIZE}", text, data)


async def _once(policy: Literal["isolate", "fail"], requests: int, seed: int) -> dict[str, float]:
    calls, rows = 0, 0

    @penstock.batched(max_batch_size=SIZE, on_error=policy)
    def strict(x: NDArray[np.float64]) -> NDArray[np.float64]:
        nonlocal calls, rows
        calls, rows = calls + 1, rows + len(x)
        if (x == POISON).any():
            raise ValueError("poisoned")
        return np.sqrt(x)

    rng = np.random.default_rng(seed)
    values = np.where(rng.random(requests) < SHARE, POISON, rng.random(requests))
    answers = []
    for start in range(0, requests, SIZE):
        batch = (strict(float(value)) for value in values[start : start + SIZE])
        answers += await asyncio.gather(*batch, return_exceptions=True)
    innocent = values != POISON
    ended = list(zip(answers, innocent, strict=True))
    answered = sum(not isinstance(answer, BaseException) for answer, good in ended if good)
    wrong = [answer for answer, good in ended if not good and not isinstance(answer, ModelError)]
    if wrong:
        raise AssertionError(f"a poisoned request was answered: {wrong[:3]}")
    batches = strict.stats().batches
    return {"innocents": answered / innocent.sum(), "calls": calls / batches, "rows": rows / requests}
