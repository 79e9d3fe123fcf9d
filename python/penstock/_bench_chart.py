"""How the latencies of a run look: bars in a terminal, and a chart in a file where matplotlib is installed."""

from __future__ import annotations

import importlib
import io
import math
from typing import TYPE_CHECKING, Any, Final

from penstock.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    Bucket = tuple[float, int]

SUFFIXES: Final = (".svg", ".png", ".html")
_ROWS: Final = 12
_WIDTH: Final = 40
_TAIL: Final = (0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999)


def duration_text(seconds: float) -> str:
    """A time as a person reads it: 870 µs, 12.3 ms, 4.56 s."""
    if seconds < 1e-3:  # noqa: PLR2004
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def bars(histogram: Sequence[Bucket], bar: str = "█") -> list[str]:
    """A line for each of at most twelve classes of latency, equally wide on a logarithmic scale."""
    classes = _classes(histogram, _ROWS)
    most = max((count for _, count in classes), default=0)
    total = sum(count for _, count in classes)
    lines = []
    for limit, count in classes:
        drawn = bar * math.ceil(count / most * _WIDTH)
        lines.append(f"{'≤ ' + duration_text(limit):>10} {drawn:<{_WIDTH}} {count:>9,} {count / total:>6.1%}")
    return lines


def _classes(histogram: Sequence[Bucket], rows: int) -> list[Bucket]:
    """(upper limit, answers) of each class."""
    if not histogram:
        return []
    low, high = histogram[0][0], histogram[-1][0]
    if high <= low * 1.001:
        return [(high, sum(count for _, count in histogram))]
    step = (math.log(high) - math.log(low)) / rows
    counts = [0] * rows
    for seconds, count in histogram:
        counts[min(rows - 1, int((math.log(seconds) - math.log(low)) / step))] += count
    return [(math.exp(math.log(low) + step * (row + 1)), count) for row, count in enumerate(counts)]


def require_chart(path: Path) -> None:
    """Refuses a chart that could not be drawn, before any load is sent.

    Raises:
        ConfigError: for another suffix, or without matplotlib.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"a chart is a file that ends in {', '.join(SUFFIXES)}, not {path.name!r}")
    _figure()


def draw(path: Path, histogram: Sequence[Bucket], title: str) -> None:
    """Draws the distribution of the latencies, and their percentiles, into a file."""
    figure = _figure()(figsize=(10, 4), layout="constrained")
    spread, tail = figure.subplots(1, 2)
    classes = _classes(histogram, 60)
    limits = [limit * 1e3 for limit, _ in classes]
    edges = [limits[0] / 1.05, *limits] if limits else [0.0]
    spread.stairs([count for _, count in classes], edges, fill=True)
    spread.set(xscale="log", xlabel="latency, ms", ylabel="answers", title="Distribution")
    tail.plot(range(len(_TAIL)), [_quantile(histogram, part) * 1e3 for part in _TAIL], marker="o")
    tail.set_xticks(range(len(_TAIL)), [f"{part * 100:g} %" for part in _TAIL])
    tail.set(yscale="log", xlabel="of the answers came within", ylabel="ms", title="Percentiles")
    tail.grid(visible=True, which="both", alpha=0.3)
    figure.suptitle(title)
    if path.suffix != ".html":
        figure.savefig(path)
        return
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg")
    picture = drawn.getvalue()
    picture = picture[picture.index("<svg") :]
    page = f"<!doctype html><meta charset='utf-8'><title>penstock bench</title>{picture}"
    path.write_text(page, encoding="utf-8")


def _quantile(histogram: Sequence[Bucket], part: float) -> float:
    wanted = math.ceil(part * sum(count for _, count in histogram))
    passed = 0
    for seconds, count in histogram:
        passed += count
        if passed >= wanted:
            return seconds
    return 0.0


def _figure() -> Any:
    # By name: matplotlib is an extra, and type checkers of those who lack it should not stumble.
    try:
        return importlib.import_module("matplotlib.figure").Figure
    except ImportError as error:
        raise ConfigError("a chart in a file needs matplotlib: pip install 'penstock[bench]'") from error
