"""Whoever is woken by an alert finds it in the runbook."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_alert_stands_in_the_runbook() -> None:
    alerts = re.findall(r"- alert: (\w+)", (ROOT / "ops" / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))
    guide = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8").partition("## When it is not well")[2]
    assert alerts
    assert set(re.findall(r"`(Penstock\w+)`", guide)) == set(alerts)
