"""One load of one file in a process of its own: how long until its arrays are there, and until every byte was seen.

Run by `safetensors.py` beside it; prints a line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

AGAIN = 50
SHORT = 0.02
"""Seconds: loads that take longer are measured once."""

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def penstock_in(mode: Any, threads: int | None = None) -> Callable[[str], Iterable[np.ndarray]]:
    import penstock

    return lambda path: penstock.load_safetensors(path, mode=mode, threads=threads).values()


def load_file(backend: str) -> Callable[[str], Iterable[np.ndarray]]:
    from safetensors import numpy

    return lambda path: numpy.load_file(path, backend=backend).values()


def safe_open() -> Callable[[str], Iterable[np.ndarray]]:
    import safetensors

    def load(path: str) -> Iterable[np.ndarray]:
        with safetensors.safe_open(path, "np") as file:
            return [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118  it is no mapping

    return load


def way_of(name: str) -> Callable[[str], Iterable[np.ndarray]]:
    way, _, argument = name.partition(":")
    if way == "read":
        return penstock_in("read", int(argument) if argument else None)
    if way in {"mmap", "auto"}:
        return penstock_in(way)
    return safe_open() if way == "safe_open" else load_file(argument)


def status(*names: str) -> list[int]:
    """Numbers of /proc/self/status, in bytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
    return [int(lines[name].split()[0]) << 10 for name in names]


def again_ms(load: Callable[[str], Iterable[np.ndarray]], path: str) -> float:
    """Milliseconds until the arrays are there, in a process that has loaded the file before."""
    began = time.perf_counter()
    kept = list(load(path))
    milliseconds = (time.perf_counter() - began) * 1e3
    del kept
    return milliseconds


def main() -> None:
    name, path, small = sys.argv[1:]
    load = way_of(name)
    # Imports, and whatever else only the first load of a process pays for.
    for _ in range(3):
        sum(int(array.view(np.uint64).sum()) for array in load(small))
    # A virtual machine is given memory by its host when it first touches it, which takes longer than any load: let it
    # have as much as the greediest way takes, and free it again.
    np.ones(5 * (Path(path).stat().st_size >> 1), np.uint8)
    # From here on the peak of memory is that of the load.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    (before,) = status("VmRSS")
    began = time.perf_counter()
    arrays = list(load(path))
    there = time.perf_counter()
    total = sum(int(array.view(np.uint64).sum(dtype=np.uint64)) for array in arrays)
    summed = time.perf_counter()
    peak, anonymous, of_files = status("VmHWM", "RssAnon", "RssFile")
    del arrays
    again = [again_ms(load, path) for _ in range(AGAIN if there - began < SHORT else 0)]
    print(
        json.dumps(
            {
                "arrays_ms": (there - began) * 1e3,
                "again_ms": median(again) if again else (there - began) * 1e3,
                "summed_ms": (summed - began) * 1e3,
                "peak": (peak - before) / Path(path).stat().st_size,
                "anonymous": anonymous,
                "of_files": of_files,
                "total": total % (1 << 64),
            }
        )
    )


if __name__ == "__main__":
    main()
