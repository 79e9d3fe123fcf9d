"""A real application of two models: `penstock serve examples/app.py`.

Without the packages of `examples/requirements.txt` that sentence embeddings need, it serves digits alone.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import penstock

# Served by path, this file is no part of a package: its neighbours are found through the repository's root.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from examples import minilm
from examples.digits import DigitClassifier

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@penstock.model(
    "digits", inputs={"x": ("float32", [64])}, outputs={"probabilities": ("float32", [10])}, max_batch_size=100
)
class Digits:
    """Which digit an image of 8 by 8 pixels shows."""

    def load(self, _ctx: penstock.LoadContext) -> None:
        """Train the classifier, once, before the server is ready."""
        self._classifier = DigitClassifier.train()

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities, float32 [n, 10], for pixels 0..16, float32 [n, 64]."""
        return self._classifier.predict(x)


@penstock.model("minilm", task="embed", outputs={"embedding": ("float32", [384])}, max_batch_size=32)
class SentenceEmbeddings:
    """Texts as vectors that are near when the texts mean alike."""

    def load(self, _ctx: penstock.LoadContext) -> None:
        """Read and verify the weights, once, before the server is ready."""
        self._minilm = minilm.MiniLM.load()

    def predict(self, text: list[str]) -> NDArray[np.float32]:
        """Vectors of length 1, float32 [n, 384], for n texts."""
        return self._minilm.encode(text)


models: list[object] = [Digits]
try:
    minilm.locate()
except minilm.MiniLMMissing as missing:
    logging.getLogger("examples.app").warning("serving digits only: %s", missing)
else:
    models.append(SentenceEmbeddings)
