"""The text that the model is trained on: 2.8 MB of the prose of the Rust documentation, a paragraph a line."""

from __future__ import annotations

import lzma
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEXT: Final = Path(__file__).with_name("text.xz")
BLOCK: Final = 16_384
HELD_OUT_EVERY: Final = 20


def split() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Unpack the text: the bytes to train on, and every twentieth stretch of 16 KiB, which training never sees."""
    text = np.frombuffer(lzma.decompress(TEXT.read_bytes()), np.uint8)
    held_out = np.arange(len(text)) // BLOCK % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    return text[~held_out], text[held_out]
