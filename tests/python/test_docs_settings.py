"""The guide's table of settings names every setting with its flag, its variable and its default."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from penstock.settings import CacheSettings, DoorSettings, RepositorySettings

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "serving.md"


def rows() -> list[tuple[str, ...]]:
    """Keyword, flag, variable and default of each row of the table."""
    lines = GUIDE.read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip(" `") for cell in line.strip("|").split(" | ")] for line in lines if "`PENSTOCK_" in line]
    return [tuple(row[:4]) for row in cells if re.fullmatch(r"\w+", row[0])]


def shown(kind: str, default: Any) -> str:
    if default is None:
        return {"names": "all", "directory": "none"}.get(kind, "no limit")
    if kind == "switch":
        return "on" if default else "off"
    if kind == "choice":
        return str(default)
    if kind == "size":
        return f"{default >> 20} MiB" if default % (1 << 20) == 0 else f"{default >> 10} KiB"
    return f"{default:g} s" if kind in {"seconds", "pause"} else f"{default:,}"


def test_every_setting_is_in_the_table_as_it_is() -> None:
    assert rows() == [
        (
            each.name,
            "--" + each.name.replace("_", "-"),
            f"PENSTOCK_{each.name.upper()}",
            shown(each.metadata["kind"], each.default),
        )
        for each in (*fields(DoorSettings), *fields(RepositorySettings), *fields(CacheSettings))
    ]
