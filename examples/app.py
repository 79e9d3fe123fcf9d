"""A real application: `penstock serve examples/app.py`.

Without the packages of `examples/requirements.txt` that sentence embeddings need, it serves the others alone.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

# Served by path, this file is no part of a package: its neighbours are found through the repository's root.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from examples import minilm, minilm_onnx
from examples.app_models import ByteLanguageModel, Digits, SentenceEmbeddings

LOG = logging.getLogger("examples.app")

models: list[object] = [Digits, ByteLanguageModel]
try:
    minilm.locate()
except minilm.MiniLMMissing as missing:
    LOG.warning("serving without minilm: %s", missing)
else:
    models.append(SentenceEmbeddings)
    try:
        models += [minilm_onnx.served(), minilm_onnx.TextEmbeddings]
    except minilm.MiniLMMissing as missing:
        LOG.warning("serving without minilm-onnx: %s", missing)
