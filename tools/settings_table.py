"""Writes the tables of `docs/configuration.md` from the classes of settings: `python tools/settings_table.py`.

With `--check` it writes nothing, and its exit status says whether the page is as it would be written.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from penstock._settings_model import described, flag_of, settings_of, variable_of
from penstock._settings_values import shown
from penstock.settings import SECTIONS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"
BEGIN, END = "<!-- settings: made by tools/settings_table.py -->\n", "<!-- end of settings -->\n"


def tables() -> str:
    """Every section with a table of its settings."""
    classes: dict[str, list[type[Any]]] = {}
    for kind in SECTIONS:
        classes.setdefault(kind.section, []).append(kind)
    return "\n".join(f"### `[{name}]`\n\n" + "\n".join(map(table, kinds)) for name, kinds in classes.items())


def table(kind: type[Any]) -> str:
    """The settings of one class, under what the class says of itself."""
    texts = described(kind)
    rows = [f"| {' | '.join(cells(kind, each, texts[each.name]))} |\n" for each in settings_of(kind)]
    said = (kind.__doc__ or "").partition("\n    Attributes:")[0].replace("\n    ", "\n").strip()
    if not kind.keywords:
        said += "\n\nOf `penstock serve` only." if kind.flags else "\n\nNeither keywords of servers nor flags."
    return f"{said}\n\n| Setting | Default | Variable | Flag | Meaning |\n|---|---|---|---|---|\n{''.join(rows)}"


def cells(kind: type[Any], each: Any, text: str) -> list[str]:
    """One row of a table."""
    default = shown(each.metadata["kind"], each.default, each.metadata["none"])
    flag = f"`{flag_of(each)}`" if kind.flags else ""
    return [f"`{each.name}`", default, f"`{variable_of(kind, each)}`", flag, text.replace("|", "\\|")]


def written(page: str) -> str:
    """The page with the tables as they are now."""
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"{PAGE} has no place for the tables: {BEGIN.strip()} ... {END.strip()}")
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


def main() -> int:
    """Writes or checks the page."""
    page = PAGE.read_text(encoding="utf-8")
    after = written(page)
    if "--check" in sys.argv[1:]:
        return int(page != after)
    PAGE.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
