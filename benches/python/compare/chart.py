"""The chart: a dot for each peer and a line from its least to its greatest, on a scale of powers of ten."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WIDTH, LEFT, RIGHT, ROW, TOP = 760, 300, 150, 24, 84
TITLE = "What others cost, as a multiple of what Penstock costs"
NOTE = "medians and ranges of interleaved rounds; the scale is logarithmic; left of 1, the other is cheaper"
STYLE = """
text { font: 13px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #24292f; }
.title { font-size: 15px; font-weight: 600; }
.note { font-size: 12px; fill: #57606a; }
.group { font-weight: 600; }
.ours { fill: #1f6feb; } .other { fill: #6e7781; }
.grid { stroke: #d0d7de; stroke-width: 1; } .one { stroke: #1f6feb; stroke-width: 1.6; }
.range { stroke: #24292f; stroke-width: 1.6; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .note { fill: #9aa4af; } .range { stroke: #e6edf3; }
  .ours { fill: #4c8dff; } .other { fill: #9aa4af; } .grid { stroke: #30363d; } .one { stroke: #4c8dff; }
}
"""


@dataclass(frozen=True)
class Line:
    """A row: a peer and its multiples, round by round; without any, the heading of those below it."""

    label: str
    times: Sequence[float]
    ours: bool = False

    @property
    def middle(self) -> float:
        """The median."""
        return median(self.times)

    @property
    def text(self) -> str:
        """The median and the range, in words."""
        low, high = _said(min(self.times)), _said(max(self.times))
        return f"{_said(self.middle)} times" + (f" ({low} to {high})" if len(self.times) > 1 else "")


def _said(value: float) -> str:
    return f"{value:,.0f}" if value >= 20 else f"{value:.1f}" if value >= 2 else f"{value:.2f}"


def drawn(lines: Sequence[Line]) -> str:
    """The chart as SVG."""
    every = [value for line in lines for value in line.times] or [1.0]
    low = math.floor(math.log10(min(0.999, *every)))
    high = math.ceil(math.log10(max(1.001, *every)))
    scale = (WIDTH - LEFT - RIGHT) / (high - low)

    def across(value: float) -> float:
        return LEFT + (math.log10(value) - low) * scale

    height = TOP + ROW * len(lines) + 14
    made = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(TITLE)}</title>",
        f"<style>{STYLE}</style>",
        f'<text class="title" x="8" y="22">{escape(TITLE)}</text>',
        f'<text class="note" x="8" y="42">{escape(NOTE)}</text>',
    ]
    powers = range(low, high + 1)
    for power in powers:
        x = across(10.0**power)
        made.append(f'<text class="note" x="{x:.1f}" y="{TOP - 8}" text-anchor="middle">{10.0**power:g}</text>')
    for number, line in enumerate(lines):
        y = TOP + number * ROW
        if line.times:
            made += [_grid(across(10.0**power), y, "grid" if power else "one") for power in powers]
        made += _row(line, y, across)
    return "\n".join([*made, "</svg>", ""])


def _grid(x: float, y: int, kind: str) -> str:
    return f'<path class="{kind}" d="M{x:.1f} {y}v{ROW}"/>'


def _row(line: Line, y: int, across: Callable[[float], float]) -> list[str]:
    if not line.times:
        return [f'<text class="group" x="8" y="{y + 17}">{escape(line.label)}</text>']
    low, middle, high = (across(value) for value in (min(line.times), line.middle, max(line.times)))
    kind = "ours" if line.ours else "other"
    return [
        f'<text x="{LEFT - 12}" y="{y + 16}" text-anchor="end">{escape(line.label.replace("`", ""))}</text>',
        f'<path class="range" d="M{low:.1f} {y + 11}H{high:.1f}"/>',
        f'<circle class="{kind}" cx="{middle:.1f}" cy="{y + 11}" r="4.5"/>',
        f'<text x="{max(high, middle) + 10:.1f}" y="{y + 16}">{escape(line.text)}</text>',
    ]
