"""The clients of the tables behind one face, each with its best settings.

Imported by the process that is measured, in the environment of the client: nothing but the standard library and that
client may be imported here, and the client only when it is made.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable

ECHO = "/bench.Echo/Unary"
INFER = "/inference.GRPCInferenceService/ModelInfer"
MESSAGE = bytes(range(256))
WIDTH = 64
"""Floats of a tensor: 256 bytes, too."""
LONG = 120.0


class WrongAnswer(RuntimeError):
    """An answer that is not what the server sends."""


@dataclass(frozen=True)
class Setup:
    """How a client is made.

    Attributes:
        port: of the server, on this machine.
        channels: connections, no more and no fewer.
    """

    port: int
    channels: int


class Penstock:
    """Time-outs, retries and the balancer at their defaults, a pool of as many channels as are asked for."""

    package = "penstock"

    def __init__(self, setup: Setup) -> None:
        import numpy as np

        import penstock

        pool = penstock.Pool(min_size=setup.channels, max_size=setup.channels, acquire_timeout=LONG)
        self._client = penstock.AsyncClient(f"grpc://127.0.0.1:{setup.port}", pool=pool)
        self._x = np.arange(WIDTH, dtype=np.float32).reshape(1, WIDTH)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.__aexit__(*error)

    async def unary(self) -> None:
        if len(await self._client.unary(ECHO, MESSAGE)) != len(MESSAGE):
            raise WrongAnswer

    async def infer(self) -> None:
        found = await self._client.infer("mlp", {"x": self._x})
        if found["x"].shape != (1, WIDTH):
            raise WrongAnswer


def _channel_options(number: int) -> list[tuple[str, Any]]:
    # Channels with the same arguments share a socket: these differ, and keep what they have to themselves.
    return [("grpc.use_local_subchannel_pool", 1), ("penstock.bench.channel", number)]


class GrpcAio:
    """Messages are bytes, without serializers; protobuf's for an inference. The channels take turns."""

    package = "grpcio"

    def __init__(self, setup: Setup) -> None:
        import numpy as np
        from tritonclient.grpc import service_pb2

        import grpc.aio

        self._channels = [
            grpc.aio.insecure_channel(f"127.0.0.1:{setup.port}", options=_channel_options(number))
            for number in range(setup.channels)
        ]
        self._unary = itertools.cycle([channel.unary_unary(ECHO) for channel in self._channels])
        serializers = {
            "request_serializer": service_pb2.ModelInferRequest.SerializeToString,
            "response_deserializer": service_pb2.ModelInferResponse.FromString,
        }
        self._infer = itertools.cycle([channel.unary_unary(INFER, **serializers) for channel in self._channels])
        self._messages = service_pb2
        self._numpy = np
        self._x = np.arange(WIDTH, dtype=np.float32).reshape(1, WIDTH)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for channel in self._channels:
            await channel.close()

    async def unary(self) -> None:
        if len(await next(self._unary)(MESSAGE)) != len(MESSAGE):
            raise WrongAnswer

    async def infer(self) -> None:
        request = self._messages.ModelInferRequest(model_name="mlp", raw_input_contents=[self._x.tobytes()])
        request.inputs.add(name="x", datatype="FP32", shape=[1, WIDTH])
        answer = await next(self._infer)(request)
        shape = list(answer.outputs[0].shape)
        if self._numpy.frombuffer(answer.raw_output_contents[0], "<f4").reshape(shape).shape != (1, WIDTH):
            raise WrongAnswer


class Triton:
    """A client for each channel; they take turns."""

    package = "tritonclient"

    def __init__(self, setup: Setup) -> None:
        import numpy as np
        from tritonclient.grpc import InferInput
        from tritonclient.grpc.aio import InferenceServerClient

        self._clients = [
            InferenceServerClient(f"127.0.0.1:{setup.port}", channel_args=_channel_options(number))
            for number in range(setup.channels)
        ]
        self._turns = itertools.cycle(self._clients)
        self._input = InferInput
        self._x = np.arange(WIDTH, dtype=np.float32).reshape(1, WIDTH)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            await client.close()

    async def infer(self) -> None:
        x = self._input("x", [1, WIDTH], "FP32")
        x.set_data_from_numpy(self._x)
        found = await next(self._turns).infer("mlp", [x])
        if found.as_numpy("x").shape != (1, WIDTH):
            raise WrongAnswer


CLIENTS: dict[str, Callable[[Setup], Any]] = {
    "penstock": Penstock,
    "grpcio.aio": GrpcAio,
    "tritonclient.grpc.aio": Triton,
}
