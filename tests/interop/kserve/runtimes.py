"""KServe's model server with the models of the tests: run by its own Python, which knows nothing of Penstock.

python runtimes.py --http_port PORT --grpc_port PORT
"""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import uvicorn
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.errors import InvalidInput
from kserve.utils.utils import generate_uuid


class Mirror(Model):
    """Gives back what it is given."""

    def load(self) -> bool:
        self.ready = True
        return self.ready

    async def predict(self, payload: InferRequest, headers: Any = None, response_headers: Any = None) -> InferResponse:
        return answer(self, payload, {one.name: (one.datatype, one.as_numpy()) for one in payload.inputs})


class Halves(Mirror):
    """The lower half of every row, and its sum. Refuses what is negative, and takes its time for what is large."""

    async def predict(self, payload: InferRequest, headers: Any = None, response_headers: Any = None) -> InferResponse:
        x = payload.inputs[0].as_numpy()
        if (x < 0).any():
            raise InvalidInput("numbers below zero are not served")
        await asyncio.sleep(float(x.max()) / 1000)
        lower = x[:, : x.shape[1] // 2]
        return answer(self, payload, {"lower": ("FP32", lower), "sum": ("FP32", lower.sum(axis=1))})


def answer(model: Model, asked: InferRequest, arrays: dict[str, tuple[str, Any]]) -> InferResponse:
    """Arrays as they were asked for: over gRPC raw, over HTTP in JSON or binary."""
    binary = asked.from_grpc or asked.use_binary_outputs
    outputs = []
    for name, (datatype, array) in arrays.items():
        output = InferOutput(name, list(array.shape), datatype)
        output.set_data_from_numpy(array, binary_data=binary)
        outputs.append(output)
    return InferResponse(asked.id or generate_uuid(), model.name, outputs, use_binary_outputs=asked.use_binary_outputs)


def keep_to_loopback() -> None:
    """KServe listens at every address of the machine, and has no setting for that."""

    def at_loopback(listen: Callable[..., Any]) -> Callable[..., Any]:
        def patched(self: Any, *given: Any, **options: Any) -> Any:
            if "host" in options:
                options["host"] = "127.0.0.1"
            given = tuple(one.replace("[::]", "127.0.0.1") if isinstance(one, str) else one for one in given)
            return listen(self, *given, **options)

        return patched

    uvicorn.Config.__init__ = at_loopback(uvicorn.Config.__init__)
    grpc.aio.Server.add_insecure_port = at_loopback(grpc.aio.Server.add_insecure_port)


if __name__ == "__main__":
    keep_to_loopback()
    models = [Mirror("mirror"), Halves("halves")]
    for model in models:
        model.load()
    ModelServer().start(models)
