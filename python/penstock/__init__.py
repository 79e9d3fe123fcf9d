"""Penstock: the data plane between requests and a Python model.

`batched` turns a function over a batch into an awaitable over one item; `model` and `Server` put models behind the Open
Inference Protocol. Every error is a class of `penstock.errors`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from penstock import _native, errors
from penstock._policy import BatchPolicy, BatchStats
from penstock.batching import Batcher, batched
from penstock.errors import ItemError, PenstockError

if TYPE_CHECKING:
    from penstock.models import LoadContext, model
    from penstock.server import Server
else:

    def __getattr__(name: str) -> object:
        """Imports the server's half when it is asked for: who only batches does not wait for it."""
        module = {"LoadContext": "models", "model": "models", "Server": "server"}.get(name)
        if module is None:
            raise AttributeError(f"module 'penstock' has no attribute {name!r}")
        value = getattr(import_module(f"penstock.{module}"), name)
        globals()[name] = value
        return value


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
