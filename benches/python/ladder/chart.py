"""The chart: what the parts reach, added one by one, as multiples of the baseline, on a logarithmic axis."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from benches.python.ladder.report import STEPS, rate, ratios
from benches.python.ladder.rungs import ADDED, BASELINE, NOTES
from docs.make_charts import LEFT, RIGHT, STYLE, WIDTH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benches.python.ladder.visits import Results

TITLE = "Requests a second of 100 clients, as multiples of the baseline"
NOTE = "pool, batch, stream and load added one by one; logarithmic; medians and ranges of interleaved rounds"
BAR, GAP, TOP = 17, 14, 62
STEPS_STYLE = """
.step1 { fill: #9ec5f4; } .step2 { fill: #5b9be8; } .step3 { fill: #1f6feb; } .step4 { fill: #0b3d91; }
.tick { stroke: #d0d7de; } .one { stroke: #57606a; } .name { font-weight: 600; }
@media (prefers-color-scheme: dark) {
  .step1 { fill: #1d3f6e; } .step2 { fill: #2f62a8; } .step3 { fill: #4c8dff; } .step4 { fill: #a5cbff; }
  .tick { stroke: #30363d; } .one { stroke: #9aa4af; }
}
"""
"""From the first step to all four; told apart by their labels, too."""
TICKS = (0.25, 0.5, 1, 1.5, 2, 3, 5, 10, 20, 50, 100)
ROOM = 1.1
"""Between the outermost figures and the edges, as a factor."""


def drawn(results: Results) -> str | None:
    """The chart as SVG; `None` where a rung that it shows is missing."""
    groups: list[tuple[str, list[list[float]]]] = [
        ("the project's notes", [[figure / NOTES[0]] for figure in NOTES[1 : len(STEPS)]])
    ]
    for name, rungs in results.items():
        if any(rung.name not in rungs for rung in ADDED):
            return None
        base = rungs[BASELINE.name]
        groups.append((name, [ratios(rungs[rung.name], base, rate) for rung in ADDED[1:]]))
    values = [value for _, steps in groups for step in steps for value in step]
    axis = _Axis(min(1.0, *values) / ROOM, max(values) * ROOM)
    height = TOP + sum(BAR * len(steps) + GAP for _, steps in groups) + 26
    said = "; ".join(f"{name} {statistics.median(steps[-1]):.2f}" for name, steps in groups)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(TITLE)}; all four: {escape(said)}</title>",
        f"<style>{STYLE}{STEPS_STYLE}</style>",
        f'<text class="title" x="8" y="22">{escape(TITLE)}</text>',
        f'<text class="note" x="8" y="42">{escape(NOTE)}</text>',
        *axis.lines(TOP - 8, height - 24),
    ]
    y = TOP
    for name, steps in groups:
        lines += _group(name, steps, axis, y)
        y += BAR * len(steps) + GAP
    return "\n".join([*lines, "</svg>", ""])


class _Axis:
    """Where a multiple stands."""

    def __init__(self, low: float, high: float) -> None:
        self._low, self._high = low, high

    def at(self, value: float) -> float:
        part = math.log(value / self._low) / math.log(self._high / self._low)
        return LEFT + part * (WIDTH - LEFT - RIGHT)

    def lines(self, top: int, bottom: int) -> list[str]:
        """A grid, and what its lines stand for."""
        made = []
        for tick in TICKS:
            if self._low <= tick <= self._high:
                x, kind = self.at(tick), "tick one" if tick == 1 else "tick"
                made.append(f'<path class="{kind}" d="M{x:.1f} {top}V{bottom}"/>')
                made.append(f'<text class="note" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>')
        return made


def _group(name: str, steps: Sequence[Sequence[float]], axis: _Axis, top: int) -> list[str]:
    lines = [f'<text class="name" x="8" y="{top + 13}">{escape(name)}</text>']
    zero = axis.at(1)
    for number, values in enumerate(steps):
        y = top + number * BAR
        middle, low, high = statistics.median(values), min(values), max(values)
        end = axis.at(middle)
        left, width = min(zero, end), max(1.0, abs(end - zero))
        lines += [
            f'<text x="{LEFT - 10}" y="{y + 13}" text-anchor="end">{STEPS[number + 1]}</text>',
            f'<rect class="step{number + 1}" x="{left:.1f}" y="{y + 1}" width="{width:.1f}" height="14" rx="2"/>',
        ]
        if len(values) > 1:
            first, last = axis.at(low), axis.at(high)
            lines.append(
                f'<path class="range" d="M{first:.1f} {y + 8}H{last:.1f}M{first:.1f} {y + 5}v6M{last:.1f} {y + 5}v6"/>'
            )
        lines.append(f'<text x="{max(end, zero, axis.at(high)) + 8:.1f}" y="{y + 13}">{middle:.2f}</text>')
    return lines
