"""Models for worker processes, which import them by name: one keeps all that it was given, the other nothing."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import TYPE_CHECKING

import penstock

if TYPE_CHECKING:
    import numpy as np

ROOM = 256 << 20
A_CALL = 32 << 20
X = {"x": ("float32", [1])}
Y = {"y": ("float32", [1])}


@penstock.model("leaky", inputs=X, outputs=Y, workers=penstock.Processes(1))
class Leaky:
    """Bounds its own process, as a user would, and then keeps 32 MiB a call."""

    def load(self, _ctx: penstock.LoadContext) -> None:
        self.kept: list[bytearray] = []
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, resource.RLIM_INFINITY))

    def predict(self, x: np.ndarray) -> np.ndarray:
        self.kept.append(bytearray(A_CALL))
        return x


@penstock.model("steady", inputs=X, outputs=Y, workers=penstock.Processes(1))
def steady(x: np.ndarray) -> np.ndarray:
    return x
