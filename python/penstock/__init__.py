"""Penstock: the data plane between requests and a Python model.

`batched` turns a function over a batch into an awaitable over one item; `model` and `Server` put models behind the Open
Inference Protocol. Every error is a class of `penstock.errors`.
"""

from penstock import _native, errors
from penstock._policy import BatchPolicy, BatchStats
from penstock.batching import Batcher, batched
from penstock.errors import ItemError, PenstockError
from penstock.models import LoadContext, model
from penstock.server import Server

__version__: str = _native.VERSION

__all__ = [
    "BatchPolicy",
    "BatchStats",
    "Batcher",
    "ItemError",
    "LoadContext",
    "PenstockError",
    "Server",
    "__version__",
    "batched",
    "errors",
    "model",
]
