"""Models and parts for tests of pipelines."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

import penstock
from penstock.errors import ItemError

if TYPE_CHECKING:
    from collections.abc import Iterator

X = {"x": ("float32", [2])}
Y = {"y": ("float32", [2])}


class Diary:
    """What models saw, in its order."""

    def __init__(self) -> None:
        self.loads: list[str] = []
        self.batches: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.left = threading.Event()
        self.pieces = 0
        self.pace = 0.0


def doubling(diary: Diary, name: str = "double", **declared: Any) -> type:
    """A model that doubles; it refuses rows that begin with a negative number, and waits where its gate is closed."""

    @penstock.model(name, inputs=X, outputs=Y, **declared)
    class Doubling:
        def load(self, ctx: Any) -> None:
            diary.loads.append(name)

        def predict(self, x: Any) -> Any:
            diary.batches.append(len(x))
            diary.entered.set()
            diary.gate.wait(30)
            return [ItemError(f"{row[0]:g} is negative") if row[0] < 0 else row * 2 for row in x]

    return Doubling


def telling(diary: Diary, name: str = "tell", **declared: Any) -> Any:
    """A model of text that counts as far as its prompt says."""

    @penstock.model(name, task="generate", **declared)
    def tell(request: penstock.GenerateRequest) -> Iterator[str]:
        try:
            for number in range(int(request.text.split()[-1] if request.messages is None else "3")):
                diary.entered.set()
                diary.gate.wait(30)
                time.sleep(diary.pace)
                diary.pieces += 1
                yield f"{number} "
                if request.text.startswith("fail"):
                    raise ValueError("it broke off")
        finally:
            diary.left.set()

    return tell


def stepping(name: str = "steps") -> Any:
    """A model of tensors whose every step says how far it has come."""

    @penstock.model(name, inputs={"n": ("int64", [])}, outputs={"at": ("int64", [])})
    def steps(batch: penstock.Batch) -> Iterator[Any]:
        left = {index: int(batch.inputs[index]["n"]) for index in batch.live}
        at = 0
        while batch.live:
            at += 1
            yield {index: np.int64(at) for index in batch.live}
            for index in list(batch.live):
                left.setdefault(index, int(batch.inputs[index]["n"]))
                left[index] -= 1
                if left[index] <= 0:
                    batch.finish(index)

    return steps
