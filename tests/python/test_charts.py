"""The charts of the guide are those that its script draws, and show figures that stand in its tables."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_charts_are_what_the_script_draws() -> None:
    script = [sys.executable, DOCS / "make_charts.py", "--check"]
    finished = subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_charts_show_figures_of_the_tables() -> None:
    page = (DOCS / "performance.md").read_text(encoding="utf-8")
    tables = " ".join(line for line in page.splitlines() if line.startswith("|"))
    charts = sorted((DOCS / "images").glob("chart-*.svg"))
    assert charts
    for chart in charts:
        assert f"images/{chart.name}" in page, f"{chart.name} is nowhere shown"
        text = chart.read_text(encoding="utf-8").partition("<rect")[2]
        shown = re.findall(r">([\d.]+) (?:µs|times)(?: \(([\d.]+) to ([\d.]+)\))?<", text)
        assert shown
        for figure in {each for row in shown for each in row if each} - {"1"}:
            assert re.search(rf"(?<![\d.]){re.escape(figure)}(?![\d]|\.\d)", tables), f"{chart.name}: {figure}"
