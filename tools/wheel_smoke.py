"""Uses an installed wheel for what it promises first: a hundred awaits become a few calls."""

import asyncio
import platform
import sys

import numpy as np

import penstock

calls: list[int] = []


@penstock.batched(max_batch_size=32)
def double(rows: np.ndarray) -> np.ndarray:
    """A model of few words."""
    calls.append(len(rows))
    return rows * 2


async def main() -> None:
    """A hundred callers at once."""
    items = [np.full(4, i, dtype=np.float32) for i in range(100)]
    answers = await asyncio.gather(*(double(item) for item in items))
    for item, answer in zip(items, answers, strict=True):
        np.testing.assert_array_equal(answer, item * 2)


# The checkout must not stand in for the wheel.
assert penstock.__file__.startswith(sys.prefix), penstock.__file__
asyncio.run(main())
stats = double.stats()
double.close()
assert sum(calls) == 100, calls
assert stats.batches == len(calls) < 100, (stats, calls)
print(
    f"penstock {penstock.__version__} on Python {platform.python_version()}, "
    f"numpy {np.__version__}: 100 items in {stats.batches} batches"
)
