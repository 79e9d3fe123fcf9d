"""Waiting for what must happen sooner or later, without a bet on how soon."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

PATIENCE = 30.0


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


async def soon(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never happened"
        await asyncio.sleep(0.005)


async def outcomes(futures: Any) -> list[Any]:
    """Results and exceptions; fails instead of hanging where one never comes."""
    return await asyncio.wait_for(asyncio.gather(*futures, return_exceptions=True), PATIENCE)


class Gate:
    """A function over numbers that waits to be let through, and remembers the batches that it saw."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.entered = threading.Event()
        self.batches: list[list[Any]] = []

    def run(self, x: np.ndarray) -> np.ndarray:
        self.batches.append(x.tolist())
        self.entered.set()
        if not self.opened.wait(PATIENCE * 2):
            raise TimeoutError("nobody opened the gate")
        return x * 10

    def open(self) -> None:
        self.opened.set()

    async def is_entered(self) -> None:
        await soon(self.entered.is_set)

    @property
    def seen(self) -> list[Any]:
        return [item for batch in self.batches for item in batch]
