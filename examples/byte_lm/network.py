"""The network: the last 32 bytes in, a score for each of the 256 bytes that may come next out.

Each byte is looked up in a table of vectors; two layers of rectified units and a linear one do the rest. It has no
state but the bytes themselves, so requests of any length and age share a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeAlias

import numpy as np

import penstock

if TYPE_CHECKING:
    from numpy.typing import NDArray

WEIGHTS: Final = Path(__file__).with_name("weights.safetensors")
WINDOW: Final = 32
# What stands where a window reaches back to before the text.
NOTHING: Final = 0
EVALUATED_TOGETHER: Final = 4096

Bytes: TypeAlias = "NDArray[np.uint8]"
Floats: TypeAlias = "NDArray[np.float32]"


@dataclass(frozen=True, slots=True, eq=False)
class ByteLM:
    """The weights, float32.

    Attributes:
        vectors: of each byte, [256, width].
        first: from the vectors of a window to the units of the first layer, [WINDOW * width, units].
        first_bias: [units].
        second: [units, units].
        second_bias: [units].
        last: from the units of the second layer to the scores, [units, 256].
        last_bias: [256].
    """

    vectors: Floats
    first: Floats
    first_bias: Floats
    second: Floats
    second_bias: Floats
    last: Floats
    last_bias: Floats

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> Self:
        """Read the weights. They are float16 in the file."""
        return cls(**{name: weights.astype(np.float32) for name, weights in penstock.load_safetensors(path).items()})

    def scores(self, windows: Bytes) -> Floats:
        """Score every next byte, float32 [n, 256]: logits, for windows uint8 [n, WINDOW], the newest byte last."""
        seen = self.vectors[windows].reshape(len(windows), -1)
        first = np.maximum(seen @ self.first + self.first_bias, 0)
        second = np.maximum(first @ self.second + self.second_bias, 0) + first
        scores: Floats = second @ self.last + self.last_bias
        return scores

    def bits_per_byte(self, text: Bytes) -> float:
        """Bits that a byte of this text would take, packed by what the model expects of each after the 32 before it."""
        windows, following = windows_of(text)
        bits = 0.0
        for begin in range(0, len(following), EVALUATED_TOGETHER):
            part = slice(begin, begin + EVALUATED_TOGETHER)
            bits -= float(
                np.log2(chances(self.scores(windows[part]))[np.arange(len(following[part])), following[part]]).sum()
            )
        return bits / len(following)


def windows_of(text: Bytes) -> tuple[Bytes, Bytes]:
    """Every window of a text, uint8 [n, WINDOW], and the bytes that follow them, uint8 [n]. Windows are views."""
    return np.lib.stride_tricks.sliding_window_view(text[:-1], WINDOW), text[WINDOW:]


def window_after(text: bytes) -> Bytes:
    """The window of what comes after a text, which may be shorter than it: uint8 [WINDOW]."""
    window = np.full(WINDOW, NOTHING, np.uint8)
    end = text[-WINDOW:]
    if end:
        window[-len(end) :] = np.frombuffer(end, np.uint8)
    return window


def bits_of(scores: Floats, following: Bytes) -> Floats:
    """Bits that each byte takes, [n], by the scores that were given to all before it was known."""
    above = scores - scores.max(axis=1, keepdims=True)
    surprise: Floats = np.log(np.exp(above).sum(axis=1)) - above[np.arange(len(following)), following]
    return surprise / np.float32(np.log(2))


def chances(scores: Floats) -> Floats:
    """Softmax over the last axis."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return shares
