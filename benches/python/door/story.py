"""What every story is given and gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benches.python.door.rounds import Effort

if TYPE_CHECKING:
    from pathlib import Path

QUICK_SECONDS = 0.15


@dataclass(frozen=True)
class Bench:
    """Where things are and how much is to be done.

    Attributes:
        hyper: the program built from benches/hyper_hello.rs.
        logs: the folder of the servers' output.
        peers: the folder of the peers' virtual environments.
        rounds: rounds of every table.
        quick: does it still run? Once, for a moment, and the figures mean nothing.
    """

    hyper: Path
    logs: Path
    peers: Path
    rounds: int
    quick: bool

    def effort(self, seconds: float, rounds: int | None = None) -> Effort:
        """`rounds` is the most that a story wants: where a visit takes long, fewer do."""
        if self.quick:
            return Effort(1, QUICK_SECONDS)
        return Effort(min(self.rounds, rounds or self.rounds), seconds)


@dataclass(frozen=True)
class Story:
    """A part of the report: Markdown for people, data for programs."""

    title: str
    text: str
    data: Any
