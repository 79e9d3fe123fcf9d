"""all-MiniLM-L6-v2 as an ONNX graph, written from its safetensors weights: `python -m examples.minilm_onnx`.

The graph takes token ids and a mask, has free axes for batch and length, and ends in unit vectors: pooling and
normalisation are inside. It is the computation of `examples.minilm`, in ONNX's standard operators. Writing it needs the
package `onnx`, and the packages of `examples.minilm`.

`served()` is the graph as a model that takes tokens and runs without the interpreter; `TextEmbeddings` stands before it
and takes texts.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import numpy as np

import penstock
from examples import minilm
from examples.minilm import HEAD_WIDTH, HEADS, LAYERS, MAX_TOKENS, WIDTH, MiniLMMissing
from examples.onnx_graph import FOLDER, OPSET, Graph, save

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from examples.minilm import Floats, Tokenizer

NAME: Final = "minilm-onnx"
IDS: Final = "input_ids"
MASK: Final = "attention_mask"
EMBEDDING: Final = "embedding"
FILE: Final = f"minilm-{minilm.WEIGHTS_SHA256[:8]}-{OPSET}.onnx"

HIDDEN_SCORE: Final = np.float32(-1e9)
"""What is added to the scores of padding: far enough down for `exp` to give 0, and no infinity to make NaN of."""


def written(folder: Path = FOLDER) -> Path:
    """The graph's file in `folder`, written where it is not there yet.

    Raises:
        MiniLMMissing: where the weights or a package are not installed.
        MiniLMMismatch: where the weights have another sha256.
    """
    path = folder / FILE
    if not path.is_file():
        _write(path, minilm.locate() / minilm.WEIGHTS)
    return path


def served(folder: Path = FOLDER) -> penstock.OnnxModel:
    """The graph as a model that takes token ids and their mask; texts of different lengths share batches.

    Raises:
        MiniLMMissing: as `written`, and where the package that runs it is not installed.
    """
    if find_spec("onnxruntime") is None:
        raise MiniLMMissing(minilm.INSTALL.format("onnxruntime"))
    return penstock.onnx_model(NAME, written(folder), max_batch_size=64, pad=True, warmup=True)


@penstock.model(f"{NAME}-text", task="embed", outputs={EMBEDDING: ("float32", [WIDTH])}, requires=NAME)
class TextEmbeddings:
    """Texts as vectors: Python cuts them into tokens, and the graph does the rest."""

    def load(self, ctx: penstock.LoadContext) -> None:
        """Take the graph, which is loaded by now, and read the tokenizer."""
        self._graph: penstock.OnnxSession = ctx[NAME]
        _tokenizer()

    def predict(self, text: list[str]) -> Floats:
        """Vectors of length 1, float32 [n, 384], for n texts."""
        ids, mask = tokens(text)
        embeddings: Floats = self._graph({IDS: ids, MASK: mask})[EMBEDDING]
        return embeddings


def tokens(texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids and mask of texts, each int64 [n, longest]; the ids of what the mask leaves out are 0."""
    encodings = _tokenizer().encode_batch_fast(list(texts))
    ids = np.array([encoding.ids for encoding in encodings], np.int64)
    return ids, np.array([encoding.attention_mask for encoding in encodings], np.int64)


@cache
def _tokenizer() -> Tokenizer:
    return minilm.read_tokenizer(minilm.locate() / minilm.TOKENIZER)


def _write(path: Path, weights: Path) -> None:
    if find_spec("onnx") is None:
        raise MiniLMMissing(minilm.INSTALL.format("onnx"))
    with minilm.open_tensors(weights) as tensors:
        save(graph_of(tensors), path)


def graph_of(tensors: Mapping[str, Floats]) -> Any:
    """The model as ONNX's `ModelProto`, of the tensors by the names of the safetensors file."""
    graph = _Bert(tensors)
    graph.embed()
    graph.hide_padding()
    states = "embeddings.LayerNorm"
    for number in range(LAYERS):
        states = graph.layer(f"encoder.layer.{number}", states)
    graph.pool(states)
    axes = ["batch", "length"]
    return graph.model("minilm", {IDS: ("INT64", axes), MASK: ("INT64", axes)}, (EMBEDDING, ["batch", WIDTH]))


class _Bert(Graph):
    """The graph while it is written. What a method gives is the name of a tensor, [batch, length, WIDTH]."""

    def __init__(self, tensors: Mapping[str, Floats]) -> None:
        super().__init__()
        self._tensors = tensors

    def embed(self) -> str:
        words = self.constant("words", self._tensors["embeddings.word_embeddings.weight"])
        # Every token is of type 0, so its vector joins the positions once and for all.
        table = self._tensors["embeddings.position_embeddings.weight"][:MAX_TOKENS]
        kind = self._tensors["embeddings.token_type_embeddings.weight"][0]
        positions = self.constant("positions", table + kind)
        self.constant("zero", [0], np.int64)
        self("Shape", IDS, out="length", start=1, end=2)
        here = self("Slice", positions, "zero", "length", out="positions_here")
        states = self("Add", self("Gather", words, IDS, out="words_here"), here, out="embedded")
        return self._norm("embeddings.LayerNorm", states)

    def hide_padding(self) -> None:
        """Makes "penalty", what is added to each key's scores, [batch, 1, 1, length]."""
        self("Cast", MASK, out="real", to=1)  # to float32
        self.constant("axes_of_heads_and_queries", [1, 2], np.int64)
        keys = self("Unsqueeze", "real", "axes_of_heads_and_queries", out="real_keys")
        padding = self("Sub", self.constant("one", 1), keys, out="padding")
        self("Mul", padding, self.constant("hidden_score", HIDDEN_SCORE), out="penalty")

    def layer(self, root: str, states: str) -> str:
        attended = self._linear(f"{root}.attention.output.dense", self._attended(f"{root}.attention.self", states))
        residue = self("Add", attended, states, out=f"{root}.attention.sum")
        states = self._norm(f"{root}.attention.output.LayerNorm", residue)
        up = self("Gelu", self._linear(f"{root}.intermediate.dense", states), out=f"{root}.gelu")
        residue = self("Add", self._linear(f"{root}.output.dense", up), states, out=f"{root}.sum")
        return self._norm(f"{root}.output.LayerNorm", residue)

    def _attended(self, root: str, states: str) -> str:
        query = self._heads(self._linear(f"{root}.query", states, HEAD_WIDTH**-0.5), [0, 2, 1, 3])
        key = self._heads(self._linear(f"{root}.key", states), [0, 2, 3, 1])
        value = self._heads(self._linear(f"{root}.value", states), [0, 2, 1, 3])
        scores = self("MatMul", query, key, out=f"{root}.scores")
        scores = self("Add", scores, "penalty", out=f"{root}.scores.masked")
        weights = self("Softmax", scores, out=f"{root}.weights", axis=-1)
        context = self("MatMul", weights, value, out=f"{root}.context")
        context = self("Transpose", context, out=f"{root}.context.by_token", perm=[0, 2, 1, 3])
        return self("Reshape", context, self.constant("joined", [0, 0, WIDTH], np.int64), out=f"{root}.attended")

    def _heads(self, rows: str, order: list[int]) -> str:
        split = self.constant("split", [0, 0, HEADS, HEAD_WIDTH], np.int64)
        return self("Transpose", self("Reshape", rows, split, out=f"{rows}.split"), out=f"{rows}.heads", perm=order)

    def _linear(self, name: str, states: str, scale: float = 1.0) -> str:
        # A constant factor belongs in the weights.
        weight = self.constant(f"{name}.weight", self._tensors[f"{name}.weight"].T * np.float32(scale))
        bias = self.constant(f"{name}.bias", self._tensors[f"{name}.bias"] * np.float32(scale))
        return self("Add", self("MatMul", states, weight, out=f"{name}.product"), bias, out=name)

    def _norm(self, name: str, states: str) -> str:
        gain = self.constant(f"{name}.gain", self._tensors[f"{name}.weight"])
        bias = self.constant(f"{name}.bias", self._tensors[f"{name}.bias"])
        epsilon = float(minilm.NORM_EPSILON)
        return self("LayerNormalization", states, gain, bias, out=name, axis=-1, epsilon=epsilon)

    def pool(self, states: str) -> None:
        """Makes the output: the mean over real tokens, scaled to length 1; its divisor cancels, so the sum will do."""
        self.constant("axis_of_rows", [1], np.int64)
        weights = self("Unsqueeze", "real", "axis_of_rows", out="pooling")
        sums = self("Squeeze", self("MatMul", weights, states, out="sum"), "axis_of_rows", out="pooled")
        self("LpNormalization", sums, out=EMBEDDING, axis=1, p=2)


def main() -> int:
    """Write the file, and say where it is."""
    try:
        path = written()
    except MiniLMMissing as missing:
        print(missing, file=sys.stderr)
        return 1
    print(f"{path}: {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
