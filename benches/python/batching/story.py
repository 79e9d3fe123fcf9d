"""What a story is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Story:
    """A title, what was seen as Markdown, and the figures themselves."""

    title: str
    text: str
    data: dict[str, Any] = field(default_factory=dict)
