"""The same rows in the words of more peers, and sentences for MiniLM."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from benches.python.door.workload import OIP_JSON, PLAIN_JSON, Dialect, compact, features
from examples.demo_subjects import sentences
from penstock import testing

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEXTS = 96
JSON_TYPE = {"content-type": "application/json"}

NAMED_JSON = replace(PLAIN_JSON, headers=JSON_TYPE)
"""For those who refuse a body whose type is not named."""

NAMED_OIP = replace(OIP_JSON, headers=JSON_TYPE)

LOTS_OF_ONE = Dialect(
    [compact({"x": [row.tolist()]}) for row in features], lambda answer: json.loads(answer)[0], JSON_TYPE
)
"""BentoML's way: every request is a batch, here of one row."""

INSTANCES = Dialect(
    [compact({"instances": [row.tolist()]}) for row in features],
    lambda answer: json.loads(answer)["predictions"][0],
    JSON_TYPE,
)
"""KServe's own protocol, the first."""


def floats(answer: bytes) -> NDArray[np.float32]:
    """An answer that is nothing but numbers."""
    return np.frombuffer(answer, "<f4")


RAW = Dialect([row.tobytes() for row in features.astype("<f4")], floats)
"""No envelope at all: less than any protocol for tensors can do with."""


def texts() -> list[str]:
    """Sentences of a few to a few dozen words."""
    return sentences(TEXTS)


def text_oip() -> Dialect:
    """Sentences for Penstock."""
    bodies = [compact(testing.infer_body({"text": ("BYTES", [1], [text])})) for text in texts()]
    return Dialect(bodies, OIP_JSON.read)


def text_json() -> Dialect:
    """Sentences for the peers."""
    return Dialect([compact({"text": text}) for text in texts()], lambda answer: json.loads(answer)["embedding"])
