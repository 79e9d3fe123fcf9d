"""A server of the inference service on grpcio.aio that does what the name of the model says, and notes what it saw."""

from __future__ import annotations

import asyncio
import warnings
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import numpy as np

from tests.interop.support.processes import free_port

with warnings.catch_warnings():
    # What these packages import is not ours to answer for.
    warnings.simplefilter("ignore")
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    Options = Sequence[tuple[str, Any]]

WORDS = "nothing goes: naïve 水, 100 %"
LARGE: Options = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


@dataclass
class Seen:
    """What one call brought, and how it went."""

    model: str
    metadata: dict[str, Any]
    time_left: float | None
    peer: str
    cancelled: bool = False


@dataclass
class Inference(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  it has no types
    """`mirror` and `typed` answer with what they get, raw and typed; `slow` takes a minute; `DATA_LOSS` ends so."""

    calls: list[Seen] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        seen = Seen(request.model_name, dict(context.invocation_metadata()), context.time_remaining(), context.peer())
        self.calls.append(seen)
        if hasattr(grpc.StatusCode, request.model_name):
            await context.abort(grpc.StatusCode[request.model_name], WORDS)
        if request.model_name == "slow":
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                seen.cancelled = True
                raise
        await context.send_initial_metadata((("x-begins", "1"),))
        context.set_trailing_metadata((("x-ends", "2"),))
        return answer(request)

    async def ModelStreamInfer(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:  # noqa: N802
        async for request in requests:
            if request.model_name == "nobody":
                failed = service_pb2.ModelInferResponse(id=request.id)
                yield service_pb2.ModelStreamInferResponse(error_message=WORDS, infer_response=failed)
            elif hasattr(grpc.StatusCode, request.model_name):
                await context.abort(grpc.StatusCode[request.model_name], WORDS)
            else:
                yield service_pb2.ModelStreamInferResponse(infer_response=answer(request))

    async def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.ServerReadyResponse(ready=True)

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.ModelReadyResponse(ready=request.name == "mirror")

    async def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.ServerMetadataResponse(name="grpcio", version="1", extensions=["none"])

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        tensor = service_pb2.ModelMetadataResponse.TensorMetadata(name="x", datatype="FP32", shape=[-1, 2])
        return service_pb2.ModelMetadataResponse(
            name=request.name, versions=["1", "2"], platform="none", inputs=[tensor], outputs=[tensor]
        )

    async def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: N802
        index = service_pb2.RepositoryIndexResponse.ModelIndex(name="mirror", version="1", state="READY", reason="")
        return service_pb2.RepositoryIndexResponse(models=[index])

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.loaded.append(request.model_name)
        return service_pb2.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.loaded.remove(request.model_name)
        return service_pb2.RepositoryModelUnloadResponse()


def answer(request: Any) -> Any:
    """The tensors of a request: typed contents for the model `typed`, raw ones else."""
    response = service_pb2.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
    for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
        output = response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if request.model_name == "typed":
            _typed(output, raw)
        else:
            response.raw_output_contents.append(raw)
    return response


def _typed(output: Any, raw: bytes) -> None:
    fields = {
        "BOOL": ("?", "bool"),
        **{f"INT{bits}": (f"<i{bits // 8}", "int") for bits in (8, 16, 32)},
        "INT64": ("<i8", "int64"),
        **{f"UINT{bits}": (f"<u{bits // 8}", "uint") for bits in (8, 16, 32)},
        "UINT64": ("<u8", "uint64"),
        "FP32": ("<f4", "fp32"),
        "FP64": ("<f8", "fp64"),
    }
    if output.datatype == "BYTES":
        while raw:
            length = int.from_bytes(raw[:4], "little")
            output.contents.bytes_contents.append(raw[4 : 4 + length])
            raw = raw[4 + length :]
        return
    dtype, name = fields[output.datatype]
    getattr(output.contents, f"{name}_contents").extend(np.frombuffer(raw, dtype).tolist())


@dataclass
class Running:
    """A server that listens.

    Attributes:
        url: where, as Penstock's client takes it.
        inference: what it saw.
        health: the standard health service, all serving at first.
        server: grpcio's.
    """

    url: str
    inference: Inference
    health: Any
    server: Any

    async def say(self, serving: bool) -> None:
        """Sets what the health service answers for the whole server."""
        status = health_pb2.HealthCheckResponse
        await self.health.set("", status.SERVING if serving else status.NOT_SERVING)


@asynccontextmanager
async def grpcio_server(
    *,
    port: int | None = None,
    address: str | None = None,
    credentials: Any = None,
    options: Options = (),
    with_health: bool = True,
    compression: Any = None,
) -> AsyncIterator[Running]:
    """Serves on this event loop, on a free port unless one or an address is given."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), *LARGE, *options], compression=compression)
    inference, servicer = Inference(), health.aio.HealthServicer()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(inference, server)
    if with_health:
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    place = address or f"127.0.0.1:{port or free_port()}"
    if credentials is None:
        server.add_insecure_port(place)
    else:
        server.add_secure_port(place, credentials)
    await server.start()
    try:
        url = f"{'grpc' if credentials is None else 'grpcs'}://{place}"
        yield Running(url, inference, servicer, server)
    finally:
        await server.stop(0)
