"""The models of the ladder, all of them real: `PENSTOCK_LADDER_MODELS` says which, in a comma-separated list.

A name that ends in `-2` is a second deployment of the same weights, in memory of its own.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import penstock

# `penstock serve FILE` puts the file's folder on the path, the examples lie beside `benches`.
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

if TYPE_CHECKING:
    from collections.abc import Callable


def _mlp(_name: str) -> object:
    from examples.mlp import mlp

    return mlp


def _digits(_name: str) -> object:
    from examples.app_models import Digits

    return Digits


def _bytes(_name: str) -> object:
    from examples.app_models import ByteLanguageModel

    return ByteLanguageModel


def _sentences(name: str) -> object:
    """MiniLM in NumPy: texts of like length share batches, for it computes as long as the longest."""
    from examples.app_models import SentenceEmbeddings

    class Sentences(SentenceEmbeddings):
        """A deployment of its own."""

    declared = penstock.model(
        name, task="embed", outputs={"embedding": ("float32", [384])}, max_batch_size=16, pad=True
    )
    return declared(Sentences)


def _graph(name: str) -> object:
    from examples import minilm_onnx

    return penstock.onnx_model(name, minilm_onnx.written(), max_batch_size=16, pad=True)


_MADE: dict[str, Callable[[str], object]] = {
    "mlp": _mlp,
    "digits": _digits,
    "byte-lm": _bytes,
    "minilm": _sentences,
    "minilm-onnx": _graph,
}
"""Imported only where they are served: what one model needs is no part of another's memory."""

models = [_MADE[name.removesuffix("-2")](name) for name in os.environ["PENSTOCK_LADDER_MODELS"].split(",")]
