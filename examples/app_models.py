"""The models of `examples/app.py`, each of which can be served by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import penstock
from examples import minilm
from examples.byte_lm.generation import Writing, step
from examples.byte_lm.network import ByteLM
from examples.digits import DigitClassifier

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@penstock.model("byte-lm", task="generate", batched=True, max_batch_size=64)
class ByteLanguageModel:
    """Goes on with a text, byte by byte: every request that is live gets one byte of each step."""

    def load(self, _ctx: penstock.LoadContext) -> None:
        """Read the weights, once, before the server is ready."""
        self._network = ByteLM.load()

    def predict(self, batch: penstock.Batch) -> Iterator[list[bytes]]:
        """Write on until nobody is left. `max_tokens` and `stop` are seen to by the server."""
        writings: dict[int, Writing] = {}
        while batch.live:
            # Those who are paused go on when their readers have caught up.
            here = {*batch.live, *batch.paused}
            writings = {index: one for index, one in writings.items() if index in here}
            for index in batch.live:
                if index not in writings:
                    writings[index] = self._begin(batch[index])
            yield step(self._network, [writings[index] for index in batch.live])
            batch.join()

    def _begin(self, request: penstock.GenerateRequest) -> Writing:
        prompt = request.text.encode()
        request.prompt_tokens = len(prompt)
        return Writing.after(prompt, request.temperature, request.top_p, request.seed)


@penstock.model("minilm", task="embed", outputs={"embedding": ("float32", [384])}, max_batch_size=32)
class SentenceEmbeddings:
    """Texts as vectors that are near when the texts mean alike."""

    def load(self, _ctx: penstock.LoadContext) -> None:
        """Read and verify the weights, once, before the server is ready."""
        self._minilm = minilm.MiniLM.load()

    def predict(self, text: list[str]) -> NDArray[np.float32]:
        """Vectors of length 1, float32 [n, 384], for n texts."""
        return self._minilm.encode(text)
