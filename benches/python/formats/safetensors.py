"""A file of weights: how long until its arrays are there, until every byte was seen, and what it takes of memory.

Each load has a process of its own, and all ways take turns. Warm, the file lies in the page cache; cold, it was asked
to leave (`posix_fadvise`), which says nothing of caches below the system: cold figures are for one machine and one day.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from benches.python.door.story import Bench, Story
from benches.python.measure import paired_ratio, spread, table

TENSORS = 16
BYTES = 1 << 30
QUICK_BYTES = 32 << 20

WAYS = {
    "mmap": 'Penstock, `mode="mmap"`',
    "read": 'Penstock, `mode="read"`',
    "auto": 'Penstock, `mode="auto"`, a file that somebody may write to',
    "auto-fixed": 'Penstock, `mode="auto"`, a file that nobody may write to',
    "load_file:mmap": "`safetensors.numpy.load_file`",
    "load_file:pread": '`load_file(backend="pread")`',
    "safe_open:": "`safe_open`, each tensor",
}
PEER = "load_file:mmap"
THREADS = (1, 2, 4, 8)
MOST_ROUNDS = 5
"""A round takes some twenty processes, each of which touches gigabytes."""
MOST_MEMORY = 1.05
LEAST_SPEEDUP = 3.0


def write(path: Path, size: int) -> None:
    random = np.random.default_rng(7)
    save_file({f"w{at}": random.random(size // TENSORS // 8).view(np.float32) for at in range(TENSORS)}, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def forget(path: Path) -> None:
    """Takes a file out of the page cache."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def remember(path: Path) -> None:
    """Takes a file into the page cache."""
    with path.open("rb", buffering=0) as file:
        block = bytearray(1 << 20)
        while file.readinto(block):
            pass


def load(way: str, path: Path, small: Path, *, cold: bool) -> dict[str, Any]:
    path.chmod(0o444 if way == "auto-fixed" else 0o644)
    (forget if cold else remember)(path)
    command = [sys.executable, "-m", "benches.python.formats.safetensors_worker", way.removesuffix("-fixed")]
    done = subprocess.run([*command, path, small], check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def rounds_of(
    ways: list[str], rounds: int, path: Path, small: Path, *, cold: bool
) -> dict[str, dict[str, list[float]]]:
    found: dict[str, dict[str, list[float]]] = {way: {} for way in ways}
    totals = set()
    for turn in range(rounds):
        for at in range(len(ways)):
            way = ways[(at + turn) % len(ways)]
            result = load(way, path, small, cold=cold)
            totals.add(result.pop("total"))
            for name, value in result.items():
                found[way].setdefault(name, []).append(value)
    assert len(totals) == 1, "they did not read the same"
    return found


def ways_table(found: dict[str, dict[str, list[float]]], size: int) -> str:
    peer = found[PEER]
    rows = []
    for way, of in found.items():
        beside = paired_ratio(peer["summed_ms"], of["summed_ms"])
        rows.append(
            (
                WAYS[way],
                spread(of["arrays_ms"], 3 if max(of["arrays_ms"]) < 1 else 0),
                spread(of["summed_ms"], 0),
                beside,
                spread(of["peak"], 2),
            )
        )
    head = (f"{size >> 20} MiB in {TENSORS} arrays", "ms until the arrays", "ms until every byte was summed")
    return table((*head, "times as fast as `load_file` (summed)", "peak memory, of the file"), rows)


def threads_table(warm: dict[str, dict[str, list[float]]], cold: dict[str, dict[str, list[float]]]) -> str:
    rows = [
        (way.partition(":")[2], spread(warm[way]["arrays_ms"], 0), spread(cold[way]["arrays_ms"], 0)) for way in warm
    ]
    return table(("`threads=`", "warm, ms until the arrays", "cold"), rows)


def verdicts(warm: dict[str, dict[str, list[float]]], cold: dict[str, dict[str, list[float]]]) -> str:
    read, mapped, peer = warm["read"], warm["mmap"], warm[PEER]
    faster = paired_ratio(peer["arrays_ms"], read["arrays_ms"])
    peak = max(np.median(warm[way]["peak"]) for way in ("read", "mmap", "auto", "auto-fixed"))
    slower = {way: paired_ratio(cold[way]["summed_ms"], cold[PEER]["summed_ms"]) for way in ("read", "mmap", "auto")}
    rows = [
        ("mapped until the arrays, the first time in a process, ms", spread(mapped["arrays_ms"], 3), ""),
        ("mapped until the arrays, after that, ms", spread(mapped["again_ms"], 3), "some 0.03"),
        ("read, times as fast as `load_file` until the arrays", faster, f"at least {LEAST_SPEEDUP:g}"),
        ("peak memory of Penstock's, of the file", f"{peak:.2f}", f"at most {MOST_MEMORY}"),
        *(
            (f'cold `mode="{way}"`, time beside `load_file` until every byte was summed', ratio, "at most 1")
            for way, ratio in slower.items()
        ),
    ]
    return table(("", "reached", "wanted"), rows)


def run(bench: Bench) -> Story:
    size = QUICK_BYTES if bench.quick else BYTES
    rounds = 1 if bench.quick else min(bench.rounds, MOST_ROUNDS)
    readers = [f"read:{threads}" for threads in THREADS]
    with tempfile.TemporaryDirectory(dir="target") as folder:
        path, small = Path(folder, "weights.safetensors"), Path(folder, "small.safetensors")
        write(path, size)
        write(small, TENSORS * 64)
        ways = list(WAYS)
        warm = rounds_of(ways, rounds, path, small, cold=False)
        cold = rounds_of(ways, rounds, path, small, cold=True)
        many = [rounds_of(readers, min(rounds, 3), path, small, cold=cold_one) for cold_one in (False, True)]
    parts = [
        verdicts(warm, cold),
        f"Warm:\n\n{ways_table(warm, size)}",
        f"Cold:\n\n{ways_table(cold, size)}",
        threads_table(*many),
    ]
    data = {"warm": warm, "cold": cold, "threads_warm": many[0], "threads_cold": many[1]}
    return Story("safetensors", "\n\n".join(parts), data)
