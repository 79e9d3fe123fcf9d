"""How statistics look in a notebook and in a terminal."""

from __future__ import annotations

import html
from dataclasses import fields
from typing import Any, ClassVar


class Table:
    """A frozen dataclass that shows itself as a table in a notebook."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(field.name.replace('_', ' '))}</th>"
            f"<td style='text-align:right'>{html.escape(_shown(getattr(self, field.name)))}</td></tr>"
            for field in fields(self)
        )
        return f"<table><caption>{html.escape(type(self).__name__)}</caption>{rows}</table>"


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_shown(count)}" for key, count in value.items()) or "none"
    return str(value)
