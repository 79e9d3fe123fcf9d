"""Puts what `tools/bench` left in its folder into one page: `summary.py FOLDER` writes FOLDER/summary.md."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measure import table

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADINGS = {
    "promises": "What batching promises",
    "batching": "Batching beside others",
    "bridge": "The bridge beside the stock bridge",
    "footprint": "Idle and import",
    "door": "The HTTP door",
    "grpc": "gRPC",
    "streaming": "Streamed answers",
    "load": "The load generator beside wrk",
    "client": "The HTTP client",
    "formats": "Formats of models",
}
"""What pages are called: each is a file that a benchmark printed. Others go by the name of their file."""


def _microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:,.3g}" if seconds < 1e-3 else f"{seconds * 1e6:,.0f}"


def printed(folder: Path) -> Iterator[str]:
    """The pages that are there; what should be there and is not is said."""
    found = {page.stem: page for page in sorted(folder.glob("*.md")) if page.stem != "summary"}
    for name in [*HEADINGS, *(other for other in found if other not in HEADINGS)]:
        text = found[name].read_text(encoding="utf-8").strip() if name in found else "Not run."
        yield f"## {HEADINGS.get(name, name.capitalize())}\n\n{text}"


def criterion_rows(folder: Path) -> Iterator[tuple[object, ...]]:
    """Criterion's mean and its interval, for a whole iteration and for an element of it."""
    for path in sorted(folder.glob("**/new/estimates.json")):
        benchmark = json.loads((path.parent / "benchmark.json").read_text(encoding="utf-8"))
        mean = json.loads(path.read_text(encoding="utf-8"))["mean"]
        low, high = (mean["confidence_interval"][bound] / 1e9 for bound in ("lower_bound", "upper_bound"))
        middle = mean["point_estimate"] / 1e9
        elements = (benchmark["throughput"] or {}).get("Elements", 1)
        yield (
            benchmark["full_id"],
            f"{_microseconds(middle)} [{_microseconds(low)}, {_microseconds(high)}]",
            f"{elements:,}",
            f"{middle / elements * 1e9:,.1f}",
        )


def pytest_rows(report: Path) -> Iterator[tuple[object, ...]]:
    """The medians of pytest-benchmark, whole and by the await."""
    content: dict[str, Any] = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}
    for benchmark in content.get("benchmarks", ()):
        stats, awaits = benchmark["stats"], benchmark["extra_info"].get("awaits", 1)
        least, greatest = _microseconds(stats["min"]), _microseconds(stats["max"])
        yield (
            benchmark["name"].removeprefix("test_"),
            f"{_microseconds(stats['median'])} ({least}-{greatest})",
            f"{awaits:,}",
            f"{stats['median'] / awaits * 1e6:,.2f}",
        )


def main() -> int:
    """Writes the page."""
    folder = Path(sys.argv[1])
    core = table(["benchmark", "µs, mean [95 %]", "elements", "ns an element"], criterion_rows(folder / "criterion"))
    suite = table(
        ["benchmark", "µs, median (least-greatest)", "awaits", "µs an await"],
        pytest_rows(folder / "pytest-benchmark.json"),
    )
    parts = ["# Benchmarks", *printed(folder), f"## Criterion\n\n{core}", f"## pytest-benchmark\n\n{suite}"]
    (folder / "summary.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    print(f"{folder}/summary.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
