"""The charts of the scenarios and of the soak: lines, as SVG by hand like those of docs/make_charts.py."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from docs.make_charts import STYLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WIDTH, LEFT, RIGHT, TOP = 760, 70, 150, 62
PANEL, GAP, BOTTOM = 110, 34, 44
COLOURS = """
.grid { stroke: #d0d7de; stroke-width: 1; } .limit { stroke: #9aa4af; stroke-dasharray: 5 4; fill: none; }
.line { fill: none; stroke-width: 2; } .one { stroke: #1f6feb; } .two { stroke: #bc4c00; } .three { stroke: #8250df; }
.dot-one { fill: #1f6feb; } .dot-two { fill: #bc4c00; } .dot-three { fill: #8250df; }
text.dot-one, text.dot-two, text.dot-three { font-weight: 600; }
@media (prefers-color-scheme: dark) {
  .grid { stroke: #30363d; } .limit { stroke: #6e7781; }
  .one { stroke: #4c8dff; } .two { stroke: #f0883e; } .three { stroke: #bc8cff; }
  .dot-one { fill: #4c8dff; } .dot-two { fill: #f0883e; } .dot-three { fill: #bc8cff; }
}
"""
KINDS = ("one", "two", "three")
NEAR = 15
AIMS = ((3.0, "p50 < 3 ms"), (10.0, "p99 < 10 ms"))
MOST_POINTS = 240


@dataclass(frozen=True)
class Line:
    """One line: its name, and its values at the places of the panel."""

    name: str
    values: Sequence[float]


@dataclass(frozen=True)
class Area:
    """Where a panel is drawn, and from where to where its axes go; `logarithmic` is the upright one."""

    top: float
    height: float
    low: float
    high: float
    first: float
    last: float
    logarithmic: bool = False

    def x(self, at: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (at - self.first) / ((self.last - self.first) or 1)

    def y(self, value: float) -> float:
        low, high, here = self.low, self.high, min(max(value, self.low), self.high)
        if self.logarithmic:
            low, high, here = math.log10(low), math.log10(high), math.log10(here)
        return self.top + self.height * (1 - (here - low) / ((high - low) or 1))


def by_load(scenarios: Iterable[dict[str, Any]]) -> str:
    """Latencies by load, from the figures of the report: upright in powers of ten."""
    shares = sorted((one for one in scenarios if one["share"]), key=lambda one: one["share"])
    at = [100 * one["share"] for one in shares]
    lines = [
        Line(name, [one["report"][key] * 1e3 for one in shares])
        for name, key in (("p50", "p50"), ("p99", "p99"), ("p99.9", "p999"))
    ]
    seen = [value for line in lines for value in line.values if value > 0]
    low, high = 10 ** math.floor(math.log10(min(seen))), 10 ** math.ceil(math.log10(max(seen)))
    area = Area(TOP, 250, low, high, 0, at[-1], logarithmic=True)
    parts = []
    for power in range(round(math.log10(low)), round(math.log10(high)) + 1):
        parts += _grid(area, 10.0**power, f"{10.0**power:g} ms")
    for limit, name in AIMS:
        if low < limit < high:
            y = area.y(limit)
            parts.append(f'<path class="limit" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
            parts.append(
                f'<text class="note" x="{WIDTH - RIGHT - 6}" y="{y - 4:.1f}" text-anchor="end">{escape(name)}</text>'
            )
    parts += _drawn(area, at, lines)
    for share in at:
        label = f'<text class="note" x="{area.x(share):.1f}" y="{area.top + area.height + 18:.0f}"'
        parts.append(f'{label} text-anchor="middle">{share:.0f}</text>')
    title = "Latency by load, 100 connections, open loop"
    note = "by percent of the capacity that the closed loop found; counted from the moment that a request was due"
    return _whole(title, note, parts, TOP + 250 + BOTTOM)


def of_soak(samples: Sequence[dict[str, float]], title: str) -> str:
    """What was held over time, one panel for each unit."""
    kept = samples[:: max(1, len(samples) // MOST_POINTS)]
    at = [one["seconds"] / 60 for one in kept]
    panels = (
        ("MiB", (("server", "server_memory"), ("client", "client_memory"))),
        ("open", (("handles", "server_handles"), ("sockets", "server_sockets"))),
        (
            "",
            (("threads", "server_threads"), ("server's tasks", "server_tasks"), ("client's tasks", "client_tasks")),
        ),
        ("ms", (("p50, a client", "client_p50_ms"), ("p99, a client", "client_p99_ms"))),
    )
    parts: list[str] = []
    top = float(TOP)
    for unit, names in panels:
        lines = [Line(name, [one.get(key, 0.0) for one in kept]) for name, key in names]
        most = max(max(line.values) for line in lines)
        step = _step(most)
        area = Area(top, PANEL, 0, step * math.ceil(most / step) or 1, 0, at[-1])
        value = 0.0
        while value <= area.high:
            parts += _grid(area, value, f"{value:g}" + (f" {unit}" if value + step > area.high else ""))
            value += step
        parts += _drawn(area, at, lines)
        top += PANEL + GAP
    for minute in _ticks(at[-1]):
        label = f'<text class="note" x="{area.x(minute):.1f}" y="{top - GAP + 18:.0f}" text-anchor="middle">'
        parts.append(f"{label}{minute:g} min</text>")
    return _whole("The soak", title, parts, top - GAP + BOTTOM)


def _step(most: float) -> float:
    """Of a grid of two to five lines: 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(most or 1))
    return next(part * power for part in (0.2, 0.5, 1.0, 2.0, 5.0) if most / (part * power) <= 4)


def _ticks(last: float) -> list[float]:
    step = _step(last)
    return [round(step * number, 6) for number in range(int(last / step) + 1)]


def _grid(area: Area, value: float, label: str) -> list[str]:
    y = area.y(value)
    return [
        f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>',
        f'<text class="note" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(label)}</text>',
    ]


def _drawn(area: Area, at: Sequence[float], lines: Sequence[Line]) -> list[str]:
    """The lines; their names stand at their ends, moved apart where they would cover one another."""
    parts: list[str] = []
    ends: list[tuple[float, str, str]] = []
    for kind, line in zip(KINDS, lines, strict=False):
        points = [(area.x(x), area.y(value)) for x, value in zip(at, line.values, strict=True)]
        joined = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        parts.append(f'<path class="line {kind}" d="M{joined}"/>')
        if len(points) <= 12:
            parts += [f'<circle class="dot-{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points]
        ends.append((points[-1][1], kind, line.name))
    low = area.top - NEAR
    for y, kind, name in sorted(ends):
        low = max(low + NEAR, y)
        parts.append(f'<text class="dot-{kind}" x="{WIDTH - RIGHT + 8}" y="{low + 4:.1f}">{escape(name)}</text>')
    return parts


def _whole(title: str, note: str, parts: Sequence[str], height: float) -> str:
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img">',
        f"<title>{escape(title)}: {escape(note)}</title>",
        f"<style>{STYLE}{COLOURS}</style>",
        f'<text class="title" x="8" y="22">{escape(title)}</text>',
        f'<text class="note" x="8" y="42">{escape(note)}</text>',
        *parts,
        "</svg>",
        "",
    ]
    return "\n".join(lines)
