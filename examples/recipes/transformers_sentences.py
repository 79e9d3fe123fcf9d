"""A tokenizer of Transformers in front of an ONNX model; in a model directory this file is `sentences/1/model.py`.

Beside it lie `model.onnx` and the files of the tokenizer, as `tokenizer.save_pretrained(folder)` writes them. PyTorch
is not needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from transformers import AutoTokenizer

import penstock

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDER = Path(__file__).parent
MAX_TOKENS = 256


@penstock.model(
    "sentences",
    task="embed",
    outputs={"embedding": ("float32", [384])},
    max_batch_size=32,
)
class Sentences:
    """Texts as vectors that are near when the texts mean alike."""

    def load(self, ctx: penstock.LoadContext) -> None:
        """Read the tokenizer and the graph that lie beside this file; neither the hub nor its cache is asked."""
        self._tokenizer = AutoTokenizer.from_pretrained(FOLDER, local_files_only=True, trust_remote_code=False)
        self._session = ctx.onnx("model.onnx")

    def predict(self, text: list[str]) -> NDArray[np.float32]:
        """Vectors of length 1, float32 [n, 384], for n texts; a text of more than 256 tokens loses its end."""
        # The same terms each time: a tokenizer keeps those of the last call, and threads would get one another's.
        tokens = self._tokenizer(text, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="np")
        named = {name: tokens[name].astype(np.int64, copy=False) for name in self._session.inputs}
        embedding: NDArray[np.float32] = self._session.run(named)["embedding"]
        return embedding
