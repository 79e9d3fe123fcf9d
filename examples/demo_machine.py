"""The machine that the demo runs on, and whether it had it to itself."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Final

import numpy as np

STAT: Final = Path("/proc/stat")
# Fields of its first line after the name, in ticks: user nice system idle iowait irq softirq steal.
IDLE: Final = (3, 4)
FIELDS: Final = 8

# Below this share of one core the neighbours are not worth a word.
WORTH_A_WORD: Final = 0.05


def describe() -> str:
    """What it is."""
    return f"Python {platform.python_version()}, NumPy {np.__version__}, {os.cpu_count()} cores"


class Neighbours:
    """Counts what other processes take of the processor from here on."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._busy = _busy_seconds()
        self._own = _own_seconds()

    def cores(self) -> float:
        """How many cores they took on average; 0 where the system does not tell.

        Children of this process count as its own once they have ended.
        """
        others = (_busy_seconds() - self._busy) - (_own_seconds() - self._own)
        return max(0.0, others / max(1e-3, time.monotonic() - self._since))


def remark(cores: float) -> str:
    """A sentence about the neighbours; empty where there is nothing to say."""
    if cores < WORTH_A_WORD:
        return ""
    return f"Other processes took {cores:.1f} of {os.cpu_count()} cores meanwhile: alone, it would do better."


def _busy_seconds() -> float:
    try:
        ticks = [int(field) for field in STAT.read_text().split("\n", 1)[0].split()[1 : 1 + FIELDS]]
    except (OSError, ValueError):
        return 0.0
    return float(sum(count for place, count in enumerate(ticks) if place not in IDLE)) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
