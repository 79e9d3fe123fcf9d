"""Generating: one step of the network for every text that is being written, and the next byte of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self, TypeAlias

import numpy as np

from examples.byte_lm.network import chances, window_after

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from examples.byte_lm.network import ByteLM, Bytes, Floats

# Below, the likeliest byte is the only one that is ever chosen, and scores divided by it might be too large.
COLD: Final = 1e-3

Doubles: TypeAlias = "NDArray[np.float64]"


@dataclass(slots=True, eq=False)
class Writing:
    """A text that is being written.

    Attributes:
        window: its last bytes, uint8 [WINDOW].
        temperature: 0 always takes the likeliest byte; above, unlikely ones are taken the more often the higher it is.
        top_p: only the likeliest bytes that together have this share are chosen from.
        chance: where its random numbers come from.
    """

    window: Bytes
    temperature: float
    top_p: float
    chance: np.random.Generator

    @classmethod
    def after(cls, prompt: bytes, temperature: float, top_p: float, seed: int | None) -> Self:
        """Go on after a prompt; with the same seed, in the same way every time."""
        return cls(window_after(prompt), temperature, top_p, np.random.default_rng(seed))


def step(network: ByteLM, writings: Sequence[Writing]) -> list[bytes]:
    """Write one byte more of every text, and tell which."""
    windows = np.stack([one.window for one in writings])
    temperatures = np.array([one.temperature for one in writings])
    top_ps = np.array([one.top_p for one in writings])
    draws = np.array([one.chance.random() for one in writings])
    chosen = choose(network.scores(windows), temperatures, top_ps, draws)
    for one, byte in zip(writings, chosen, strict=True):
        one.window[:-1] = one.window[1:]
        one.window[-1] = byte
    written = chosen.tobytes()
    return [written[row : row + 1] for row in range(len(written))]


def choose(scores: Floats, temperatures: Doubles, top_ps: Doubles, draws: Doubles) -> Bytes:
    """Choose a byte by each row of scores.

    Args:
        scores: of every byte, float32 [n, 256].
        temperatures: [n], 0 or more.
        top_ps: [n], 0 to 1; the likeliest byte can always be chosen.
        draws: [n], a number from 0 up to 1 each: the share of the chances at which the choice falls.

    Returns:
        uint8 [n].
    """
    chosen: Bytes = scores.argmax(axis=1).astype(np.uint8)
    warm = np.flatnonzero(temperatures > COLD)
    if len(warm):
        cooled: Floats = scores[warm] / temperatures.astype(np.float32)[warm, np.newaxis]
        shares = chances(cooled)
        likeliest_first = np.argsort(-shares, axis=1)
        shares = np.take_along_axis(shares, likeliest_first, axis=1)
        up_to = np.cumsum(shares, axis=1)
        left_out = up_to - shares >= np.maximum(top_ps[warm], np.finfo(np.float64).tiny)[:, np.newaxis]
        kept = np.where(left_out, 0, up_to).max(axis=1)
        places = (up_to <= (draws[warm] * kept)[:, np.newaxis]).sum(axis=1)
        chosen[warm] = likeliest_first[np.arange(len(warm)), places]
    return chosen
