"""Streams of inferences: against Penstock's own door, and against a server of grpcio that is told how to behave."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc as services

from penstock import AsyncClient, Client, ItemError, Server, Timeout, model
from penstock.client import InferResult
from penstock.errors import (
    ConfigError,
    ConnectFailed,
    DeadlineExceeded,
    IdleTimeout,
    ModelNotFound,
    RemoteError,
    StreamClosed,
)
from tests.python.support.arrays import same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@model("picky", inputs={"x": ("float32", [-1])}, outputs={"y": ("float32", [-1])})
def picky(x: Any) -> Any:
    return [ItemError("below nothing") if row[0] < 0 else row * np.float32(2) for row in x]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(picky, port=0) as server:
        yield server


def row(number: float, width: int = 2) -> dict[str, Any]:
    return {"x": np.full((1, width), number, np.float32)}


async def test_answers_come_in_the_order_of_their_requests(server: Server) -> None:
    async with AsyncClient(server.grpc_url) as client, client.stream_infer() as stream:
        for number in range(300):
            await stream.send("picky", row(number), request_id=str(number))
        await stream.end()
        results = [result async for result in stream]
        assert [result.id for result in results if isinstance(result, InferResult)] == [str(n) for n in range(300)]
        assert all(same(result["y"], row(n)["x"] * 2) for n, result in enumerate(results))  # type: ignore[index]
        assert results[0].model_name == "picky"  # type: ignore[union-attr]


def test_a_thread_can_send_while_another_reads(server: Server) -> None:
    with Client(server.grpc_url) as client, client.stream_infer() as stream, ThreadPoolExecutor(1) as threads:
        first = threads.submit(next, iter(stream))
        stream.send("picky", row(1))
        assert first.result(30)["y"].tolist() == [[2, 2]]
        stream.send("picky", row(2))
        stream.end()
        assert [result["y"].tolist() for result in stream] == [[[4, 4]]]  # type: ignore[index]
        with pytest.raises(StreamClosed, match="ended"):
            stream.send("picky", row(3))


async def test_an_error_is_its_requests_own_and_the_stream_goes_on(server: Server) -> None:
    async with AsyncClient(server.grpc_url) as client:
        async with client.stream_infer() as stream:
            for number in (1, -1, 2):
                await stream.send("picky", row(number), request_id=str(number))
            await stream.send("nothing", row(1))
            await stream.end()
            assert (await anext(stream))["y"].tolist() == [[2, 2]]  # type: ignore[index]
            with pytest.raises(RemoteError, match="below nothing") as caught:
                await anext(stream)
            assert caught.value.request_id == "-1"  # type: ignore[attr-defined]
            assert (await anext(stream))["y"].tolist() == [[4, 4]]  # type: ignore[index]
            with pytest.raises(RemoteError, match="there is no model 'nothing'"):
                await anext(stream)
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        async with client.stream_infer(return_exceptions=True) as stream:
            for number in (1, -1):
                await stream.send("picky", row(number))
            await stream.end()
            kinds = [type(result).__mro__ for result in [result async for result in stream]]
            assert [RemoteError in kind for kind in kinds] == [False, True]


async def test_whoever_sends_waits_while_nobody_reads() -> None:
    read = threading.Event()

    def behave(requests: Iterator[Any], _: grpc.ServicerContext) -> Iterator[Any]:
        read.wait(30)
        for request in requests:
            yield messages.ModelStreamInferResponse(infer_response=messages.ModelInferResponse(id=request.id))

    with StreamServer(behave) as server:
        async with AsyncClient(server.url) as client, client.stream_infer() as stream:
            big, sent = row(1, 100_000), 0
            try:
                while sent < 50:
                    await asyncio.wait_for(stream.send("m", big), 1.0)
                    sent += 1
            except TimeoutError:
                pass
            assert sent < 50
            read.set()
            await stream.end()
            # What was given up while it waited for room had been taken.
            assert len([result async for result in stream]) == sent + 1


async def test_leaving_the_block_resets_the_stream() -> None:
    cancelled = threading.Event()

    def behave(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(cancelled.set)
        for request in requests:
            yield messages.ModelStreamInferResponse(infer_response=messages.ModelInferResponse(id=request.id))

    with StreamServer(behave) as server:
        async with AsyncClient(server.url) as client:
            async with client.stream_infer() as stream:
                await stream.send("m", row(1), request_id="a")
                result = await anext(stream)
                assert isinstance(result, InferResult)
                assert result.id == "a"
            assert await asyncio.to_thread(cancelled.wait, 30)
            assert stream.closed
            with pytest.raises(StreamClosed):
                await stream.send("m", row(1))
            with pytest.raises(StreamClosed):
                await anext(stream)
            with pytest.raises(ConfigError, match="entered once"):
                await stream.__aenter__()
            assert client.stats().total.leases == 0


def test_the_end_of_a_stream_says_what_it_means() -> None:
    def behave(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        next(requests)
        yield messages.ModelStreamInferResponse(error_message="sorry")
        context.abort(grpc.StatusCode.NOT_FOUND, "gone")

    with StreamServer(behave) as server, Client(server.url) as client:
        with client.stream_infer(return_exceptions=True) as stream:
            stream.send("m", row(1))
            assert str(next(stream)) == "sorry"
            with pytest.raises(ModelNotFound, match="gone"):
                next(stream)
        with pytest.raises(StreamClosed):
            next(client.stream_infer())


def test_a_stream_keeps_its_time(server: Server) -> None:
    with Client(server.grpc_url, timeout=Timeout(idle=0.2, first=0.2)) as client:
        with client.stream_infer() as stream:
            # The client's own limits are of answers that are owed.
            threading.Event().wait(1.0)
            stream.send("picky", row(1))
            assert isinstance(next(stream), InferResult)
        with client.stream_infer(timeout=0.3) as stream, pytest.raises(DeadlineExceeded):
            next(stream)
        limits = Timeout(first=5, idle=0.2)
        with client.stream_infer(timeout=limits) as stream:
            stream.send("picky", row(1))
            assert isinstance(next(stream), InferResult)
            with pytest.raises(IdleTimeout):
                next(stream)


def test_a_stream_needs_somebody_who_speaks_grpc(server: Server) -> None:
    with Client(server.url) as client, pytest.raises(ConfigError, match="gRPC only"):
        client.stream_infer().__enter__()
    with Client("grpc://127.0.0.1:9") as client, pytest.raises(ConnectFailed):
        client.stream_infer().__enter__()
    with Client([server.url, server.grpc_url]) as client, client.stream_infer() as stream:
        assert repr(stream) == f"<InferStream to {server.grpc_url} open>"
        stream.send("picky", row(1))
        assert isinstance(next(stream), InferResult)


class StreamServer:
    """A server of grpcio that answers streams as it is told."""

    def __init__(self, behave: Callable[[Iterator[Any], grpc.ServicerContext], Iterator[Any]]) -> None:
        class Told(services.GRPCInferenceServiceServicer):  # type: ignore[misc]
            def ModelStreamInfer(self, requests: Any, context: Any) -> Iterator[Any]:  # noqa: N802
                return behave(requests, context)

        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        services.add_GRPCInferenceServiceServicer_to_server(Told(), self._server)
        self.url = f"grpc://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait(30)
