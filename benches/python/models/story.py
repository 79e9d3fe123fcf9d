"""What a measurement of models is told, and what it comes to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Rounds:
    """How much is measured: rounds of each figure, and whether it is only a look at whether it runs."""

    count: int
    quick: bool


@dataclass(frozen=True)
class Story:
    """A heading, its Markdown, and the figures."""

    title: str
    text: str
    data: dict[str, Any] = field(default_factory=dict)
