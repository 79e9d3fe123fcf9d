"""What the benchmarks share: facts about the machine, medians, paired ratios with intervals, tables."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

RESAMPLES = 10_000
PACKAGES = ("penstock", "numpy", "uvloop", "batched")


def facts() -> dict[str, Any]:
    """The machine and the versions that a result belongs to."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "absent"
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average_at_start": os.getloadavg()[0],
        **versions,
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


@dataclass(frozen=True)
class Ratio:
    """The median of paired ratios, and where it lies with 95 % confidence."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}]"


def paired_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Ratio:
    """Compares two contenders round by round: what slows a whole round down cancels out.

    The interval is a percentile bootstrap over the rounds, with a fixed seed: a report can be computed again.
    """
    ratios = np.asarray(numerator) / np.asarray(denominator)
    drawn = np.random.default_rng(0).integers(0, len(ratios), (RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(ratios[drawn], axis=1), (2.5, 97.5))
    return Ratio(float(np.median(ratios)), float(low), float(high))


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median, and in brackets the least and the greatest."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [list(map(str, head)), ["---"] * len(head), *([str(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def described(found: dict[str, Any]) -> str:
    """The facts in a line."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in found.items())


def write_json(path: Path | None, content: dict[str, Any]) -> None:
    """Writes a report, if it is wanted."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1, default=_plain) + "\n", encoding="utf-8")


def _plain(value: object) -> Any:
    if isinstance(value, Ratio):
        return asdict(value)
    raise TypeError(f"no JSON for {value!r}")
