"""Writes the charts of docs/performance.md into docs/images: bars, as SVG by hand, hence the same everywhere.

    python docs/make_charts.py            writes them
    python docs/make_charts.py --check    says whether they are what this would write

Every figure stands in a table of that page, too; `tests/python/test_charts.py` compares the two.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

FOLDER = Path(__file__).with_name("images")
WIDTH, LEFT, RIGHT, ROW, TOP = 760, 270, 150, 26, 62

STYLE = """
text { font: 13px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #24292f; }
.title { font-size: 15px; font-weight: 600; }
.note { font-size: 12px; fill: #57606a; }
.ours { fill: #1f6feb; } .other { fill: #9aa4af; } .floor { fill: #d0d7de; }
.range { stroke: #24292f; stroke-width: 1.2; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .note { fill: #9aa4af; } .range { stroke: #e6edf3; }
  .ours { fill: #4c8dff; } .other { fill: #6e7781; } .floor { fill: #444c56; }
}
"""


@dataclass(frozen=True)
class Bar:
    """One bar: what it is of, its figure as the table has it, and from where to where it ranged."""

    label: str
    figure: str
    kind: str = "other"
    low: str | None = None
    high: str | None = None

    @property
    def length(self) -> float:
        """The figure as a number."""
        return float(self.figure)


@dataclass(frozen=True)
class Chart:
    """Bars under one title, all in one unit."""

    name: str
    title: str
    note: str
    unit: str
    bars: tuple[Bar, ...]


CHARTS = (
    Chart(
        "chart-door",
        "CPU of an HTTP server a request, as a multiple of Penstock's",
        "JSON of 64 floats, a NumPy MLP, 64 connections; medians and ranges of interleaved rounds",
        "times",
        (
            Bar("Penstock", "1", "ours"),
            Bar("mosec 0.9 with orjson", "2.8", low="2.4", high="3.7"),
            Bar("granian 2.8, asyncio batcher, orjson", "3.7", low="2.9", high="4.3"),
            Bar("FastAPI on uvicorn", "11.8", low="9.2", high="15.7"),
            Bar("MLServer 1.7", "45", low="36", high="50"),
        ),
    ),
    Chart(
        "chart-client",
        "CPU of an HTTP client a GET",
        "against nginx, 64 requests at once, asyncio; medians",
        "µs",
        (
            Bar("Penstock", "10.9", "ours"),
            Bar("pyreqwest 0.15", "46.2"),
            Bar("aiohttp 3.14", "81.2"),
        ),
    ),
    Chart(
        "chart-grpc",
        "CPU of gRPC a call",
        "64 calls at once; the door under one load generator, the clients against bare tonic, asyncio",
        "µs",
        (
            Bar("door: bare tonic, an echo", "10.4", "floor"),
            Bar("door: Penstock, the MLP", "11.0", "ours"),
            Bar("door: grpcio.aio, an echo", "190"),
            Bar("door: MLServer 1.7, the MLP", "519"),
            Bar("client: Penstock", "10.9", "ours"),
            Bar("client: grpcio.aio 1.85", "58.9"),
            Bar("client: Penstock, infer with NumPy", "18.4", "ours"),
            Bar("client: tritonclient 2.73, infer", "74.0"),
        ),
    ),
    Chart(
        "chart-await",
        "await f(x) on asyncio, 1,000 awaiters",
        "float32[64] in and a row out, one worker thread",
        "µs",
        (
            Bar("a bare future, no batching", "1.97", "floor"),
            Bar("Penstock", "1.72", "ours"),
            Bar("a good plain-Python batcher", "1.98"),
            Bar("the package batched 0.1.5", "13.8"),
        ),
    ),
)


def drawn(chart: Chart) -> str:
    """The chart as SVG."""
    height = TOP + ROW * len(chart.bars) + 14
    scale = (WIDTH - LEFT - RIGHT) / max(float(bar.high or bar.figure) for bar in chart.bars)
    said = "; ".join(f"{bar.label} {bar.figure} {chart.unit}" for bar in chart.bars)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(chart.title)}: {escape(said)}</title>",
        f"<style>{STYLE}</style>",
        f'<text class="title" x="8" y="22">{escape(chart.title)}</text>',
        f'<text class="note" x="8" y="42">{escape(chart.note)}</text>',
    ]
    for number, bar in enumerate(chart.bars):
        y = TOP + number * ROW
        end = LEFT + bar.length * scale
        lines += [
            f'<text x="{LEFT - 10}" y="{y + 14}" text-anchor="end">{escape(bar.label)}</text>',
            f'<rect class="{bar.kind}" x="{LEFT}" y="{y + 2}" width="{end - LEFT:.1f}" height="16" rx="2"/>',
        ]
        text = f"{bar.figure} {chart.unit}"
        if bar.low and bar.high:
            low, high = (LEFT + float(each) * scale for each in (bar.low, bar.high))
            lines.append(
                f'<path class="range" d="M{low:.1f} {y + 10}H{high:.1f}M{low:.1f} {y + 6}v8M{high:.1f} {y + 6}v8"/>'
            )
            text, end = f"{text} ({bar.low} to {bar.high})", max(end, high)
        lines.append(f'<text x="{end + 8:.1f}" y="{y + 14}">{escape(text)}</text>')
    return "\n".join([*lines, "</svg>", ""])


def main() -> int:
    """Writes the charts, or compares them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 where a file would change")
    check = parser.parse_args().check
    stale = []
    for chart in CHARTS:
        path = FOLDER / f"{chart.name}.svg"
        if check:
            stale += [path.name] if not path.exists() or path.read_text(encoding="utf-8") != drawn(chart) else []
        else:
            FOLDER.mkdir(exist_ok=True)
            path.write_text(drawn(chart), encoding="utf-8")
    if stale:
        print("not as docs/make_charts.py writes them:", *stale)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
