"""What the soak serves: the network, streams, models that do not fit into memory together, and one that looks around.

`PENSTOCK_SOAK_WEIGHTS` names the file that the models of `SWAPPED` load. `PENSTOCK_SOAK_LEAK` says what leaks, by names
of `LEAKS`, once in `PENSTOCK_SOAK_LEAK_SECONDS` at most, so that it can be seen that the soak notices.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import penstock

if TYPE_CHECKING:
    from collections.abc import Callable

# `penstock serve FILE` puts the file's folder on the path, not the repository's root.
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from benches.python.models.served import declared
from benches.python.scenarios import SWAPPED
from benches.python.streaming.apps import drip
from examples.mlp import mlp

LEAKED_BYTES = 64 << 10


@penstock.model("looks", max_batch_size=1, inputs={"x": ("float32", [1])}, outputs={"seen": ("int64", [2])})
async def looks(x: Any) -> Any:
    """Tasks of Penstock's own event loop, and objects that the garbage collector watches."""
    if "tasks" in LEAK:
        _kept.append(asyncio.get_running_loop().create_task(asyncio.sleep(3600)))
    return np.array([[len(asyncio.all_tasks()), len(gc.get_objects())]] * len(x), np.int64)


def _waiting_thread() -> threading.Thread:
    thread = threading.Thread(target=threading.Event().wait, daemon=True)
    thread.start()
    return thread


LEAK = os.environ.get("PENSTOCK_SOAK_LEAK", "").split(",")
LEAKS: dict[str, Callable[[], object]] = {
    "memory": lambda: b"x" * LEAKED_BYTES,
    "handles": lambda: os.open(os.devnull, os.O_RDONLY),
    "threads": _waiting_thread,
    "objects": lambda: [[] for _ in range(100)],
}
_kept: list[object] = []
_due = 0.0


@penstock.model("mlp", max_batch_size=100, inputs={"x": ("float32", [64])}, outputs={"y": ("float32", [8])})
def leaking(x: Any) -> Any:
    """The same network, which keeps something now and then."""
    global _due  # noqa: PLW0603  a leak is a thing of the whole process
    if time.monotonic() >= _due:
        _due = time.monotonic() + float(os.environ["PENSTOCK_SOAK_LEAK_SECONDS"])
        _kept.extend(leak() for name, leak in LEAKS.items() if name in LEAK)
    return mlp(x)


_weights = Path(os.environ["PENSTOCK_SOAK_WEIGHTS"])
models = [
    leaking if "PENSTOCK_SOAK_LEAK" in os.environ else mlp,
    drip,
    looks,
    *(declared(name, _weights, size=_weights.stat().st_size) for name in SWAPPED),
]
