"""Whether what was sampled stays flat: the slope over the second half of a run, against a bound that is said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST_SAMPLES, A_LINE = 6, 2
"""In the second half: for a verdict, and for a slope at all."""
MINUTE = 60.0


class TooFew(ValueError):
    """Samples that allow no verdict."""


@dataclass(frozen=True)
class Bound:
    """How much one thing may grow over the second half of a run and still be called flat.

    Attributes:
        what: it is, for the message: "memory of the server".
        unit: of its values.
        least: so much is allowed always, in that unit.
        part: so much of its median is allowed, where that is more.
    """

    what: str
    unit: str
    least: float
    part: float = 0.02


@dataclass(frozen=True)
class Trend:
    """What one thing did over the second half.

    Attributes:
        bound: it is held against.
        begin: its median over the first fifth of that half.
        end: likewise over the last fifth.
        growth: of the line through the half, from its begin to its end.
        allowed: for that growth.
        seconds: of the half.
    """

    bound: Bound
    begin: float
    end: float
    growth: float
    allowed: float
    seconds: float

    @property
    def flat(self) -> bool:
        """What shrinks is flat, too: it is no leak."""
        return self.growth <= self.allowed

    @property
    def a_minute(self) -> float:
        """The slope."""
        return self.growth / self.seconds * MINUTE if self.seconds else 0.0

    def __str__(self) -> str:
        verdict = "stays flat" if self.flat else "grows"
        return (
            f"{self.bound.what} {verdict}: {self.a_minute:+,.2f} {self.bound.unit} a minute, "
            f"{self.begin:,.1f} to {self.end:,.1f}, over the last {self.seconds:,.0f} s; "
            f"flat is at most {self.allowed / self.seconds * MINUTE:,.2f} a minute"
        )


def trend(bound: Bound, times: Sequence[float], values: Sequence[float], least: int = LEAST_SAMPLES) -> Trend:
    """The slope over the second half, by Theil and Sen: the median of the slopes of all pairs.

    A single sample that fell into the loading of a model moves it as little as it moves a median.

    Raises:
        TooFew: where there are fewer samples than `least`, which say nothing.
    """
    at, seen = np.asarray(times, float), np.asarray(values, float)
    late = at >= (at[0] + at[-1]) / 2 if len(at) else np.zeros(0, bool)
    at, seen = at[late], seen[late]
    if len(at) < least:
        raise TooFew(f"{bound.what}: {len(at)} samples in the second half, and {least} are the least")
    first, second = np.triu_indices(len(at), 1)
    slope = float(np.median((seen[second] - seen[first]) / (at[second] - at[first])))
    seconds, edge = float(at[-1] - at[0]), max(1, len(at) // 5)
    begin, end = float(np.median(seen[:edge])), float(np.median(seen[-edge:]))
    allowed = max(bound.least, bound.part * float(np.median(seen)))
    return Trend(bound, begin, end, slope * seconds, allowed, seconds)
