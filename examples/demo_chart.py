"""The demo's chart: latency against offered load, one panel for each model."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Final

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import RcParams
from matplotlib import pyplot as plt
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from examples.demo_load import Measured, Point

INK: Final = "#1f2933"
FAINT: Final = "#6b7785"
GRID: Final = "#dfe4ea"
BEYOND: Final = "#fbe9e2"
ALARM: Final = "#c1121f"

# From light to dark as from usual to rare; told apart by their markers too.
LINES: Final = (("p50", "#5aa9e6", "o"), ("p95", "#2b6cb0", "s"), ("p99", "#153e75", "^"))

# Above this span of latencies, two labels for each power of ten are enough.
MANY_DECADES: Final = 1e3
# Where nothing was answered, latencies are 0, which a logarithmic axis has no place for.
SHORTEST: Final = 1e-6

ONE_PERCENT: Final = 0.01

# As shares of a panel's height.
ROOM_BELOW: Final = 0.18
ROOM_ABOVE: Final = 0.16

STYLE: Final[RcParams] = RcParams(
    {
        "font.family": "DejaVu Sans",
        "font.size": 13,
        "axes.edgecolor": FAINT,
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
)


def draw(measured: Sequence[Measured], clients: int, remark: str, path: Path) -> None:
    """Write the chart as a PNG."""
    with plt.rc_context(STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12)
        size = (8 * max(1.4, len(measured)), 8.0)
        figure, panels = plt.subplots(1, len(measured), figsize=size, layout=layout, squeeze=False)
        for panel, one in zip(panels[0], measured, strict=True):
            _panel(panel, one)
        panels[0][0].set_ylabel("latency (logarithmic)")
        figure.suptitle("Penstock: latency against offered load", fontsize=20, fontweight="bold", x=0.01, ha="left")
        crossed = any(point.lost or point.report.unfinished for one in measured for point in one.points)
        footnote = _footnote(clients, remark, crossed=crossed)
        figure.supxlabel(footnote, fontsize=11.5, color=FAINT, x=0.01, ha="left", linespacing=1.5)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120, facecolor="white")
        plt.close(figure)


def _panel(panel: Axes, measured: Measured) -> None:
    points = measured.points
    right = max(*(point.rate for point in points), measured.capacity) * 1.06
    low = max(SHORTEST, min(point.report.p50 for point in points))
    high = max(low, *(point.report.p99 for point in points))
    panel.set_xlim(0, right)
    panel.set_yscale("log")
    bottom, top = _with_room(low, high)
    panel.set_ylim(bottom, top)
    _percentiles(panel, points)
    _capacity_line(panel, measured, right)
    _mark_trouble(panel, points)
    _batch_sizes(panel, points)
    panel.set_title(measured.subject.title, loc="left", fontsize=15, pad=12)
    panel.set_xlabel("offered load, requests per second", labelpad=8)
    multiples = (1.0, 2.0, 5.0) if high / low < MANY_DECADES else (1.0, 3.0)
    labels = [tick for tick in LogLocator(subs=multiples).tick_values(low, high) if 0.7 * low < tick < top]
    _ticks(panel, labels)
    panel.grid(axis="y", color=GRID, lw=0.8)
    panel.set_axisbelow(True)
    panel.legend(loc="upper left", frameon=False, ncols=4, handlelength=2.2, columnspacing=1.6)


def _with_room(low: float, high: float) -> tuple[float, float]:
    """Limits of a logarithmic axis that leave room below for the batch sizes, above for the legend."""
    decades = max(1.0, math.log10(high / low)) / (1 - ROOM_BELOW - ROOM_ABOVE)
    return low / 10 ** (decades * ROOM_BELOW), high * 10 ** (decades * ROOM_ABOVE)


def _percentiles(panel: Axes, points: Sequence[Point]) -> None:
    """A line for each percentile; points where the server fell behind are hollow."""
    for name, colour, marker in LINES:
        line = [(point.rate, getattr(point.report, name)) for point in points]
        panel.plot(*zip(*line, strict=True), marker + "-", color=colour, lw=2.2, ms=8, label=name, zorder=3)
        for point, place in zip(points, line, strict=True):
            if point.fell_behind:
                panel.plot(*place, marker, color=colour, mfc="white", mew=2, ms=8, zorder=4)


def _ticks(panel: Axes, latencies: Sequence[float]) -> None:
    panel.yaxis.set_major_locator(FixedLocator(latencies))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(FuncFormatter(lambda seconds, _: _duration(seconds)))
    panel.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:,.0f}"))


def _capacity_line(panel: Axes, measured: Measured, right: float) -> None:
    panel.axvspan(measured.capacity, right, color=BEYOND, zorder=0, lw=0)
    panel.axvline(measured.capacity, ymin=0.1, color=FAINT, ls=(0, (5, 4)), lw=1.6, zorder=2)
    panel.text(
        measured.capacity,
        1.015,
        f"closed loop: {measured.capacity:,.0f}/s",
        transform=panel.get_xaxis_transform(),
        ha="center",
        color=FAINT,
    )


def _mark_trouble(panel: Axes, points: Sequence[Point]) -> None:
    """Cross out points whose latencies leave requests out: those are lower bounds."""
    label: str | None = "some unanswered"
    for point in points:
        missing = (point.lost + point.report.unfinished) / max(1, point.report.planned)
        if not missing:
            continue
        panel.plot(point.rate, point.report.p99, "x", color=ALARM, ms=15, mew=3, zorder=5, label=label)
        label = None
        panel.annotate(
            f"{missing:.0%}" if missing > ONE_PERCENT else "< 1%",
            (point.rate, point.report.p99),
            xytext=(0, 13),
            textcoords="offset points",
            ha="center",
            color=ALARM,
            fontweight="bold",
        )


def _batch_sizes(panel: Axes, points: Sequence[Point]) -> None:
    """How many requests shared a call of the model, under each point."""
    panel.text(0.012, 0.075, "requests per batch", transform=panel.transAxes, color=FAINT)
    for point in points:
        size = point.counters.rows / max(1, point.counters.batches)
        panel.text(point.rate, 0.022, f"{size:.1f}", transform=panel.get_xaxis_transform(), ha="center", color=FAINT)


def _duration(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:g} s"
    return f"{seconds * 1e3:g} ms"


def _footnote(clients: int, remark: str, *, crossed: bool) -> str:
    how = (
        f"Open loop: requests fall due at random moments, and latency counts from then on; {clients} connections. "
        f"Server and load generator share {os.cpu_count()} cores."
    )
    marks = (
        "Shaded: more than the closed loop reached. "
        "Hollow: the server fell behind, and latency grows for as long as the run lasts."
    )
    crosses = "Crosses: requests not answered when the run was ended; those latencies are lower bounds."
    return "\n".join(filter(None, (how, marks, crosses if crossed else "", remark)))
