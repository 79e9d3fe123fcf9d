"""A model of 100 MB from the local disk: how long its load takes, as the cache measures it."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import penstock
from benches.python.measure import spread, table
from benches.python.models.story import Rounds, Story

if TYPE_CHECKING:
    from penstock.models import LoadContext

ARRAYS = 50
BYTES = 100 * 10**6


def write(path: Path) -> None:
    random = np.random.default_rng(7)
    arrays = {f"w{at}": random.random(BYTES // ARRAYS // 8) for at in range(ARRAYS)}
    with path.open("wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())


def forget(path: Path) -> None:
    """Takes a file out of the page cache."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run(rounds: Rounds) -> Story:
    found: dict[str, list[float]] = {"from the disk": [], "from the page cache": [], "reading alone, from the disk": []}
    with tempfile.TemporaryDirectory(dir="target") as folder, penstock.ModelCache(memory="1GB") as cache:
        path = Path(folder) / "model.npz"
        write(path)

        @cache.loader("model")
        def load(_ctx: LoadContext) -> dict[str, Any]:
            with np.load(path) as file:
                return {name: file[name] for name in file.files}

        for _ in range(rounds.count):
            for name, cold in (("from the disk", True), ("from the page cache", False)):
                if cold:
                    forget(path)
                began = time.perf_counter()
                with cache.acquire("model") as model:
                    found[name].append((time.perf_counter() - began) * 1e3)
                    assert len(model) == ARRAYS
                del model
                cache.unload("model").wait()
            forget(path)
            began = time.perf_counter()
            path.read_bytes()
            found["reading alone, from the disk"].append((time.perf_counter() - began) * 1e3)
        assert cache.stats().bytes.used == 0
    rows = [(name, spread(times, 0), f"{sum(times) / len(times):.0f}") for name, times in found.items()]
    text = table((f"{BYTES // 10**6} MB in {ARRAYS} arrays, ms", "median", "mean"), rows)
    return Story("A model from the local disk", text, found)
