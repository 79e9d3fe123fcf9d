"""Functions and models for worker processes, which import them by name."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import penstock
from penstock import ItemError, Processes, batched, model
from penstock.errors import PenstockError

TWO = Processes(2)
ONE = Processes(1)


class Point(NamedTuple):
    x: float
    y: float


class OwnError(Exception):
    """It cannot be made from its own arguments."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


@batched(workers=TWO)
def double(x: np.ndarray, *, by: int = 2) -> np.ndarray:
    return x * by


@batched(workers=ONE)
def echo(x: Any) -> Any:
    return x


@batched(workers=ONE)
def refuses(x: list[str]) -> list[Any]:
    return [ItemError(f"not {one}") if one == "bad" else one.upper() for one in x]


@batched(workers=ONE, max_batch_size=32)
def poisoned(x: np.ndarray) -> np.ndarray:
    if 13 in x.tolist():
        raise ValueError("thirteen")
    return x


@batched(workers=ONE)
def raises_its_own(x: np.ndarray) -> np.ndarray:
    raise OwnError(1, 2)


@batched(workers=ONE)
def returns_what_cannot_be_sent(x: np.ndarray) -> list[Any]:
    return [lambda: 1 for _ in x]


@batched(workers=ONE)
def returns_too_few(x: np.ndarray) -> np.ndarray:
    return x[:-1]


@batched(workers=ONE)
def dies_of(x: list[str]) -> list[int]:
    """Exits where it is told to, or the first time that it sees a file."""
    for one in x:
        if one == "exit":
            os._exit(5)
        if one == "abort":
            os.abort()
        if one.startswith("/") and Path(one).exists():
            Path(one).unlink()
            os._exit(6)
    return [os.getpid()] * len(x)


@batched(workers=TWO)
async def awaits(x: np.ndarray) -> np.ndarray:
    await asyncio.sleep(0.001)
    return x + os.getpid()


@batched(workers=ONE)
def time_left(x: np.ndarray) -> list[float | None]:
    return [penstock.remaining()] * len(x)


@batched(workers=ONE, pad=True)
def lengths_of(x: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return np.stack([lengths, np.full(len(x), x.shape[1])], 1)


@batched(workers=ONE)
def runs_out_of_memory(x: np.ndarray) -> np.ndarray:
    if len(x) > 2:
        raise MemoryError
    return x


@batched(workers=ONE)
def sleeps(x: np.ndarray) -> np.ndarray:
    time.sleep(3600)
    return x


@batched(workers=ONE)
def reads_its_input(x: np.ndarray) -> list[str]:
    import sys

    return [sys.stdin.read()] * len(x)


def plain(x: np.ndarray) -> np.ndarray:
    return x + 1


class Adds:
    def __init__(self, number: float) -> None:
        self.number = number

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return x + self.number

    def method(self, x: np.ndarray) -> np.ndarray:
        return x - self.number


MIXED = {"x": ("float32", [3]), "t": ("string", [])}


@model("mixed", inputs=MIXED, outputs={"y": ("float32", [3]), "s": ("string", []), "p": ("int64", [])}, workers=TWO)
def mixed(x: np.ndarray, t: list[str]) -> dict[str, Any]:
    return {"y": x + 1, "s": [one.upper() for one in t], "p": np.full(len(x), os.getpid())}


SCALAR = ("float32", [])


@model("fragile", inputs={"x": SCALAR}, outputs={"y": SCALAR}, workers=ONE, max_batch_size=8)
def fragile(x: np.ndarray) -> Any:
    """Fails, refuses or dies of what it is told to."""
    told = x.tolist()
    if 13 in told:
        raise ValueError("thirteen")
    if 66 in told:
        os._exit(9)
    if 99 in told:
        time.sleep(3600)
    return [ItemError("not 7") if one == 7 else one * 2 for one in told]


@model("wrong", inputs={"x": SCALAR}, outputs={"y": ("float32", [2])}, workers=ONE)
def wrong(x: np.ndarray) -> np.ndarray:
    return x


@model("hurried", inputs={"x": SCALAR}, outputs={"y": SCALAR}, workers=ONE)
def hurried(x: np.ndarray) -> np.ndarray:
    left = penstock.remaining()
    return np.full(len(x), -1 if left is None else left, np.float32)


@model(
    "padded",
    inputs={"x": ("float32", [-1])},
    outputs={"y": ("float32", [2])},
    workers=ONE,
    pad=penstock.Pad(value=9),
    max_wait=0.05,
    dispatch="window",
)
def padded(x: np.ndarray, mask: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return np.stack([(x * mask).sum(1), lengths], 1).astype(np.float32)


@model("coroutine", inputs={"x": SCALAR}, outputs={"y": ("int64", [])}, workers=TWO)
async def coroutine(x: np.ndarray) -> np.ndarray:
    await asyncio.sleep(0.001)
    return np.full(len(x), os.getpid())


@model("whole", inputs={"x": SCALAR}, outputs={"y": SCALAR}, workers=ONE)
class Whole:
    """Says in files when it was loaded and closed."""

    def load(self, ctx: penstock.LoadContext) -> None:
        assert ctx.name == "whole"
        self.folder = Path(os.environ["PENSTOCK_TEST_FOLDER"])
        (self.folder / "loaded").touch()

    def predict(self, x: np.ndarray) -> np.ndarray:
        return x + 5

    def close(self) -> None:
        (self.folder / "closed").touch()


@model("unloadable", inputs={"x": SCALAR}, outputs={"y": SCALAR}, workers=TWO)
class Unloadable:
    def load(self, _ctx: penstock.LoadContext) -> None:
        raise OSError("no such weights")

    def predict(self, x: np.ndarray) -> np.ndarray:
        return x


@model("unloadable-by-name", inputs={"x": SCALAR}, outputs={"y": SCALAR}, workers=ONE)
class UnloadableByName(Unloadable):
    def load(self, _ctx: penstock.LoadContext) -> None:
        raise PenstockError("in its own words")


@model("it", inputs={"x": ("float32", [1])}, outputs={"y": ("float32", [1])}, workers=ONE, size="64MiB")
def doubling_it(x: np.ndarray) -> np.ndarray:
    return x * 2


@batched(workers=ONE, on_error="fail")
def dies_and_must_not_run_twice(x: list[str]) -> list[int]:
    """Notes each run in the file that it is told, and dies."""
    with Path(x[0]).open("a") as file:
        file.write("run\n")
    os._exit(6)


@model("charges", inputs={"x": ("string", [])}, outputs={"y": SCALAR}, workers=ONE, on_error="fail")
def charges(x: list[str]) -> Any:
    """The same as a model."""
    with Path(x[0]).open("a") as file:
        file.write("run\n")
    os._exit(6)
