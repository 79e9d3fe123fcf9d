"""What the model is measured against: counts of trigrams, smoothed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from examples.byte_lm.network import Bytes

ORDER: Final = 3
DISCOUNT: Final = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Trigrams:
    """How likely a byte is after two others, by interpolated absolute discounting (Ney, Essen and Kneser, 1994).

    Each count gives up half of an occurrence; what a context gives up so is shared out by the chances of the context
    that is a byte shorter, the shortest by equal ones.

    Attributes:
        chances: float64 [256, 256, 256], of the third byte after the first two.
    """

    chances: NDArray[np.float64]

    @classmethod
    def count(cls, text: Bytes) -> Self:
        """Count the trigrams of a text, and its pairs and bytes."""
        chances = np.full(256, 1 / 256)
        for order in range(1, ORDER + 1):
            grams = np.zeros(len(text) - order + 1, np.int64)
            for place in range(order):
                grams = grams * 256 + text[place : len(text) - order + 1 + place]
            chances = _interpolated(np.bincount(grams, minlength=256**order).reshape(-1, 256), chances)
        return cls(chances.reshape(256, 256, 256))

    def bits_per_byte(self, text: Bytes) -> float:
        """Bits that a byte of this text would take, packed by these chances."""
        return -float(np.log2(self.chances[text[:-2], text[1:-1], text[2:]]).mean())


def _interpolated(counts: NDArray[np.int64], shorter: NDArray[np.float64]) -> NDArray[np.float64]:
    """Chances, [contexts, 256]; `shorter` are those after all but the first byte of each context."""
    beneath = np.tile(shorter.reshape(-1, 256), (max(1, len(counts) // max(1, shorter.size // 256)), 1))
    total = counts.sum(axis=1, keepdims=True)
    given_up = DISCOUNT * (counts > 0).sum(axis=1, keepdims=True)
    known = np.maximum(counts - DISCOUNT, 0) + given_up * beneath
    return np.where(total > 0, known / np.maximum(total, 1), beneath)
