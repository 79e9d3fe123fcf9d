"""What the upstreams serve: models that write down what they compute before they answer.

`once` and `told`, which answers piece by piece, must not run twice on the same request, and say so; `again` may.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import penstock

if TYPE_CHECKING:
    from collections.abc import Iterator

# `python -m tests.faults` starts this file as a script of `penstock serve`, which knows no package `tests`.
FOLDER = Path(os.environ["FAULTS_FOLDER"])
WORKERS = penstock.Processes(1) if os.environ["FAULTS_WORKERS"] == "processes" else 2
SECONDS_A_BATCH = 0.002
NUMBER = ("int64", [])

_files: dict[tuple[str, int], int] = {}


def _written(model: str, numbers: np.ndarray) -> np.ndarray:
    """Notes the requests in a file of this process. What was written stays where the process is killed."""
    process = os.getpid()
    if (model, process) not in _files:
        path = FOLDER / f"{model}-{process}-{time.monotonic_ns()}"
        _files[model, process] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(_files[model, process], np.ascontiguousarray(numbers, np.int64).tobytes())
    time.sleep(SECONDS_A_BATCH)
    return proof(numbers)


def proof(numbers: np.ndarray) -> np.ndarray:
    """What only an answer to this very request says."""
    return np.asarray(numbers, np.int64) * 2_654_435_761 % 1_000_003


@penstock.model(
    "once", inputs={"number": NUMBER}, outputs={"proof": NUMBER}, max_batch_size=32, workers=WORKERS, on_error="fail"
)
def once(number: np.ndarray) -> np.ndarray:
    return _written("once", number)


@penstock.model("again", inputs={"number": NUMBER}, outputs={"proof": NUMBER}, max_batch_size=32, workers=WORKERS)
def again(number: np.ndarray) -> np.ndarray:
    return _written("again", number)


@penstock.model("told", task="generate", on_error="fail")
def told(request: penstock.GenerateRequest) -> Iterator[str]:
    [answer] = _written("told", np.array([int(request.text)]))
    for digit in str(answer):
        yield digit
        time.sleep(SECONDS_A_BATCH / 4)
