"""Penstock: the data plane between requests and a Python model.

`batched` turns a function over a batch into an awaitable over one item; `model` and `Server` put models behind the Open
Inference Protocol; `AsyncClient` and `Client` keep connections to such servers, and to any over HTTP. Every error is a
class of `penstock.errors`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from penstock import _native, errors
from penstock._batch_records import BatchRecord
from penstock._clock import VirtualClock
from penstock._deadline import remaining
from penstock._policy import Adaptive, BatchPolicy, BatchStats, Pad
from penstock._processes import Processes
from penstock._scope import current_trace
from penstock._steps import Batch, Stream
from penstock.batching import Batcher, batched
from penstock.errors import ItemError, PenstockError

if TYPE_CHECKING:
    from penstock import transport
    from penstock._generate import GenerateRequest
    from penstock.client import AsyncClient, Client, Response
    from penstock.models import LoadContext, ModelCache, model
    from penstock.onnx import OnnxModel, OnnxSession, load_onnx, onnx_model
    from penstock.pipeline import Pipeline, PipelineStream
    from penstock.pooling import Eject, Pool, Retry, Timeout
    from penstock.remote import RemoteModel
    from penstock.repository import ModelDirectory
    from penstock.safetensors import load_safetensors, open_safetensors
    from penstock.server import Server
else:
    _LATER = {
        **dict.fromkeys(("AsyncClient", "Client", "Response"), "client"),
        "GenerateRequest": "_generate",
        **dict.fromkeys(("LoadContext", "ModelCache", "model"), "models"),
        **dict.fromkeys(("OnnxModel", "OnnxSession", "load_onnx", "onnx_model"), "onnx"),
        **dict.fromkeys(("Pipeline", "PipelineStream"), "pipeline"),
        **dict.fromkeys(("Eject", "Pool", "Retry", "Timeout"), "pooling"),
        "RemoteModel": "remote",
        "ModelDirectory": "repository",
        **dict.fromkeys(("load_safetensors", "open_safetensors"), "safetensors"),
        "Server": "server",
    }

    def __getattr__(name: str) -> object:
        """Imports the server's and the client's halves when they are asked for: who only batches does not wait."""
        if name == "transport":
            return import_module("penstock.transport")
        if name not in _LATER:
            raise AttributeError(f"module 'penstock' has no attribute {name!r}")
        value = getattr(import_module(f"penstock.{_LATER[name]}"), name)
        globals()[name] = value
        return value


__version__: str = _native.VERSION

__all__ = [
    "Adaptive",
    "AsyncClient",
    "Batch",
    "BatchPolicy",
    "BatchRecord",
    "BatchStats",
    "Batcher",
    "Client",
    "Eject",
    "GenerateRequest",
    "ItemError",
    "LoadContext",
    "ModelCache",
    "ModelDirectory",
    "OnnxModel",
    "OnnxSession",
    "Pad",
    "PenstockError",
    "Pipeline",
    "PipelineStream",
    "Pool",
    "Processes",
    "RemoteModel",
    "Response",
    "Retry",
    "Server",
    "Stream",
    "Timeout",
    "VirtualClock",
    "__version__",
    "batched",
    "current_trace",
    "errors",
    "load_onnx",
    "load_safetensors",
    "model",
    "onnx_model",
    "open_safetensors",
    "remaining",
    "transport",
]
