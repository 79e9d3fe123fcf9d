"""Loading weights: our readers of safetensors beside those of the format's own package."""

from __future__ import annotations

import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from benches.python.compare.outcome import Measure, Outcome
from benches.python.formats import safetensors

if TYPE_CHECKING:
    from benches.python.door.story import Bench

OURS = 'Penstock, `mode="auto"`: the default'
WAYS = {
    "auto": OURS,
    "mmap": 'Penstock, `mode="mmap"`',
    "load_file:mmap": "safetensors, `load_file`",
    "load_file:pread": 'safetensors, `load_file(backend="pread")`',
    "safe_open:": "safetensors, `safe_open`, each tensor",
}
ROUNDS = 3
MEASURES = (
    Measure("arrays_ms", "ms until the arrays", 2),
    Measure("summed_ms", "ms until every byte was summed", 0),
    Measure("peak", "peak memory, of the file", 2),
)

ABOUT = (
    "A file of {mebibytes} MiB with {tensors} arrays, each load in a process of its own. Warm, it lies in the page "
    "cache; cold, it was asked to leave, which says nothing of the caches below the system. Our default copies this "
    "file into memory, for somebody might shorten it; `mmap`, and the default for a file that nobody may write to, "
    "copy nothing."
)


def run(bench: Bench) -> Outcome:
    """A file in the page cache, and one that is not."""
    size = safetensors.QUICK_BYTES if bench.quick else safetensors.BYTES
    about = ABOUT.format(mebibytes=size >> 20, tensors=safetensors.TENSORS)
    outcome = Outcome("Loading weights", about, OURS, MEASURES)
    for name in WAYS.values():
        package = "penstock" if name.startswith("Penstock") else "safetensors"
        outcome.settings[name] = metadata.version(package)
    with tempfile.TemporaryDirectory(dir="target") as folder:
        path, small = Path(folder, "weights.safetensors"), Path(folder, "small.safetensors")
        safetensors.write(path, size)
        safetensors.write(small, safetensors.TENSORS * 64)
        for load, cold in (("warm", False), ("cold", True)):
            rounds = bench.effort(0, ROUNDS).rounds
            found = safetensors.rounds_of(list(WAYS), rounds, path, small, cold=cold)
            for way, figures in found.items():
                each = [dict(zip(figures, one, strict=True)) for one in zip(*figures.values(), strict=True)]
                outcome.add(load, WAYS[way], each)
    return outcome
