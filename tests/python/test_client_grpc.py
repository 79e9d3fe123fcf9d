"""The client over gRPC: against Penstock's own door, and against a server of grpcio that is told how to behave."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc as services

from penstock import AsyncClient, Client, ItemError, Pool, Server, Timeout, model
from penstock.errors import (
    ConfigError,
    ConnectFailed,
    DeadlineExceeded,
    ModelError,
    ModelNotFound,
    Overloaded,
    RemoteError,
)
from tests.python.support.arrays import same, sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


NUMBERS = ["bool", "bfloat16", "float16", "float32", "float64"]
NUMBERS += [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
KINDS: dict[str, tuple[str, list[int]]] = {
    **{name: (name, [-1]) for name in NUMBERS},
    "text": ("string", [2]),
    "raw": ("bytes", [2]),
}
X = {"x": np.array([[1, 2], [3, 4]], np.float32)}
CALL = "/inference.GRPCInferenceService/"


@model("double", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])}, version="3")
def double(x: Any) -> Any:
    return x * np.float32(2)


@model("mirror", inputs=KINDS, outputs=KINDS)
def mirror(*tensors: Any) -> dict[str, Any]:
    return dict(zip(KINDS, tensors, strict=True))


@model("picky", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
def picky(x: Any) -> Any:
    if x[0, 0] < 0:
        raise ZeroDivisionError("below nothing")
    return [ItemError("not this one")] * len(x)


@model("big", inputs={"x": ("float64", [-1])}, outputs={"y": ("float64", [-1])})
def big(x: Any) -> Any:
    return x


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server([double, mirror, picky, big], port=0) as server:
        yield server


async def test_a_model_answers(server: Server) -> None:
    async with AsyncClient(server.grpc_url) as client:
        result = await client.infer("double", X, request_id="r7")
        assert same(result["y"], X["x"] * 2)
        assert (result.id, result.model_name, result.model_version) == ("r7", "double", "3")
        assert set(result.timing) == {"queue", "slot", "gather", "model", "scatter", "encode"}
        assert repr(result) == "<InferResult of 'double': y: float32[2, 2]>"
        result["y"][0] = 0  # an array of its own
        assert same((await client.infer("double", X, version="3", outputs=["y"]))["y"], X["x"] * 2)
        rows = await asyncio.gather(*(client.infer("double", {"x": X["x"] + n}) for n in range(200)))
        assert all(same(row["y"], (X["x"] + n) * 2) for n, row in enumerate(rows))
        assert (await client.infer("double", X)).id is None


def test_tensors_of_every_kind(server: Server) -> None:
    inputs: dict[str, Any] = {name: sample(name, (4, 3), seed) for seed, name in enumerate(NUMBERS)}
    inputs["float64"] = sample("float64", (6, 8), 1).T[::2, :3]
    inputs["int32"] = inputs["int32"].astype(">i4")
    inputs["int8"] = inputs["int8"][:, :0]
    inputs["text"] = np.array([["ä", ""]] * 4)
    inputs["raw"] = np.array([[b"a", b"\xff"]] * 4, object)
    with Client(server.grpc_url) as client:
        outputs = client.infer("mirror", inputs)
    for name in NUMBERS:
        assert same(outputs[name], inputs[name].astype(inputs[name].dtype.newbyteorder("="))), name
    assert outputs["text"].tolist() == [["ä".encode(), b""]] * 4
    assert outputs["raw"].tolist() == [[b"a", b"\xff"]] * 4


def test_large_tensors_come_whole(server: Server) -> None:
    sent = np.random.default_rng(7).random((1, 1_000_000))
    with Client(server.grpc_url) as client:
        assert same(client.infer("big", {"x": sent})["y"], sent)


def test_refusals_say_what_they_mean(server: Server) -> None:
    with Client(server.grpc_url) as client:
        for inputs, name, kind, code, words in (
            (X, "nothing", ModelNotFound, "NOT_FOUND", "there is no model 'nothing'"),
            ({"x": np.ones((2, 3), np.float32)}, "double", ItemError, "INVALID_ARGUMENT", "shape"),
            ({"w": X["x"]}, "double", ItemError, "INVALID_ARGUMENT", "there is no input 'w'"),
            (X, "picky", ItemError, "INVALID_ARGUMENT", "not this one"),
            ({"x": -X["x"]}, "picky", RemoteError, "INTERNAL", "below nothing"),
        ):
            with pytest.raises(RemoteError, match=words) as caught:
                client.infer(name, inputs)
            assert isinstance(caught.value, kind)
            assert (caught.value.code, caught.value.status) == (code, None)
            again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301  our own
            assert (type(again), str(again), again.code) == (type(caught.value), str(caught.value), code)
        with pytest.raises(ConfigError, match="no datatype for complex64"):
            client.infer("double", {"x": X["x"].astype(np.complex64)})
        with pytest.raises(ConfigError, match="holds a dict"):
            client.infer("double", {"x": np.array([{}], object)})
        with pytest.raises(ConfigError, match="mapping of arrays"):
            client.infer("double", [1])  # type: ignore[arg-type]


def test_a_refusal_means_the_same_over_http(server: Server) -> None:
    for url in (server.url, server.grpc_url):
        with Client(url) as client:
            with pytest.raises(ModelNotFound, match="there is no model 'nothing'"):
                client.infer("nothing", X)
            with pytest.raises(ItemError, match="not this one"):
                client.infer("picky", X)


async def test_questions_get_the_same_answers_over_both(server: Server) -> None:
    async with AsyncClient(server.url) as http, AsyncClient(server.grpc_url) as over_grpc:
        for client in (http, over_grpc):
            assert await client.is_live()
            assert await client.is_ready()
            assert await client.is_ready("double", version="3")
            with pytest.raises(ModelNotFound):
                await client.is_ready("nothing")
            with pytest.raises(ModelNotFound, match="version"):
                await client.model_metadata("double", version="4")
        assert await http.model_metadata("double") == await over_grpc.model_metadata("double")
        assert (await http.server_metadata())["name"] == (await over_grpc.server_metadata())["name"] == "penstock"
    with Client(server.grpc_url) as blocking:
        assert blocking.is_live()
        assert blocking.is_ready("double")
        assert blocking.model_metadata("double")["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}]
        assert blocking.server_metadata()["name"] == "penstock"


def test_a_server_without_a_repository_says_so_over_both() -> None:
    with Server([double], port=0, repository="off") as server:
        for url in (server.url, server.grpc_url):
            with Client(url) as client:
                for ask in (
                    client.repository_index,
                    lambda client=client: client.load_model("double", {"a": 1, "b": "x"}),
                    lambda client=client: client.unload_model("double", dependents=True),
                ):
                    with pytest.raises(RemoteError, match="no repository") as caught:
                        ask()
                    assert type(caught.value) is RemoteError
                with pytest.raises(ConfigError, match="must be a bool, an int or a str"):
                    client.load_model("double", {"a": 1.5})  # type: ignore[dict-item]


async def test_any_unary_call_can_be_made(server: Server) -> None:
    ready = messages.ModelReadyRequest(name="double").SerializeToString()
    async with AsyncClient(server.grpc_url) as client:
        answer = await client.unary(f"{CALL}ModelReady", ready, metadata={"x-tenant": "a"})
        assert messages.ModelReadyResponse.FromString(answer).ready
        with pytest.raises(RemoteError) as caught:
            await client.unary("/no.Such/Call", b"")
        assert caught.value.code == "UNIMPLEMENTED"
        with pytest.raises(ConfigError):
            await client.unary("no path", b"")
    with Client(server.grpc_url) as blocking:
        assert blocking.unary(f"{CALL}ServerLive", b"") == b"\x08\x01"
    with Client(server.url) as http, pytest.raises(ConfigError, match="gRPC only"):
        http.unary(f"{CALL}ServerLive", b"")


def test_requests_of_http_have_no_place_there(server: Server) -> None:
    with Client(server.grpc_url) as client, pytest.raises(ConfigError, match="over HTTP only"):
        client.get("/v2")
    with pytest.raises(ConfigError, match="has a path"):
        Client(f"{server.grpc_url}/v2")


async def test_endpoints_of_both_make_one_fleet(server: Server) -> None:
    urls = [server.url, server.grpc_url]
    async with AsyncClient(urls, balance="round_robin") as client:
        rows = await asyncio.gather(*(client.infer("double", {"x": X["x"] + n}) for n in range(40)))
        assert all(same(row["y"], (X["x"] + n) * 2) for n, row in enumerate(rows))
        stats = client.stats().endpoints
        assert all(stats[url].acquired >= 20 for url in urls)
        assert await client.is_ready()
        assert (await client.get("/v2")).is_success


async def test_a_fleet_goes_on_without_the_endpoint_that_is_dead(server: Server) -> None:
    dead = "http://127.0.0.1:9"
    async with AsyncClient([dead, server.grpc_url]) as client:
        for _ in range(10):
            assert same((await client.infer("double", X))["y"], X["x"] * 2)
    with Client(["grpc://127.0.0.1:9", server.url]) as blocking:
        for _ in range(10):
            assert same(blocking.infer("double", X)["y"], X["x"] * 2)


def test_nobody_there_is_said() -> None:
    with Client("grpc://127.0.0.1:9") as client, pytest.raises(ConnectFailed, match=r"grpc://127\.0\.0\.1:9"):
        client.infer("double", X)


class Told(services.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """A server of grpcio that infers as it is told."""

    def __init__(self, behave: Callable[[Any, grpc.ServicerContext], Any]) -> None:
        self._behave = behave
        self.left: list[float | None] = []

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self.left.append(context.time_remaining())
        return self._behave(request, context)


class GrpcServer:
    """The same as a context manager, at a port or a Unix socket."""

    def __init__(self, behave: Callable[[Any, grpc.ServicerContext], Any], address: str = "127.0.0.1:0") -> None:
        self.told = Told(behave)
        self._server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        services.add_GRPCInferenceServiceServicer_to_server(self.told, self._server)
        self.port = self._server.add_insecure_port(address)
        self.url = f"grpc://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait(30)


def answer(request: Any, _: grpc.ServicerContext) -> Any:
    reply = messages.ModelInferResponse(model_name=request.model_name, id=request.id)
    tensor = reply.outputs.add(name="y", datatype="FP32", shape=[2])
    tensor.contents.fp32_contents.extend([1, 2])
    return reply


def test_typed_answers_of_others_are_arrays_too() -> None:
    with GrpcServer(answer) as server, Client(server.url) as client:
        result = client.infer("m", X, timeout=30)
        assert same(result["y"], np.array([1, 2], np.float32))
        assert (result.model_version, result.timing) == (None, {})
        assert server.told.left[0] is not None
        assert 20 < server.told.left[0] <= 30


def test_the_time_that_is_left_is_told_and_kept() -> None:
    woken = threading.Event()

    def behave(request: Any, context: grpc.ServicerContext) -> Any:
        woken.wait(30)
        return answer(request, context)

    with GrpcServer(behave) as server, Client(server.url) as client:
        began = time.monotonic()
        for timeout in (0.2, Timeout(total=0.2)):
            with pytest.raises(DeadlineExceeded):
                client.infer("m", X, timeout=timeout)
        assert time.monotonic() - began < 20
        with pytest.raises(DeadlineExceeded, match="no time was left"):
            client.infer("m", X, timeout=1e-9)
        woken.set()
        assert len(server.told.left) <= 2


async def test_who_gives_up_cancels_the_call() -> None:
    begun, cancelled = threading.Event(), threading.Event()

    def behave(request: Any, context: grpc.ServicerContext) -> Any:
        context.add_callback(cancelled.set)
        begun.set()
        cancelled.wait(30)
        return answer(request, context)

    with GrpcServer(behave) as server:
        async with AsyncClient(server.url) as client:
            asked = asyncio.create_task(client.infer("m", X))
            assert await asyncio.to_thread(begun.wait, 30)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            assert await asyncio.to_thread(cancelled.wait, 30)
            assert client.stats().total.in_use == 0


def test_statuses_of_others_say_what_they_mean() -> None:
    def behave(request: Any, context: grpc.ServicerContext) -> Any:
        if request.model_name == "busy":
            context.set_trailing_metadata((("retry-after", "7"),))
        context.abort(grpc.StatusCode[request.id], f"sorry: {request.id} ü")

    with GrpcServer(behave) as server, Client(server.url) as client:
        for code in grpc.StatusCode:
            if code is grpc.StatusCode.OK:
                continue
            with pytest.raises(RemoteError, match=f"sorry: {code.name} ü") as caught:
                client.infer("m", X, request_id=code.name)
            assert caught.value.code == code.name
        with pytest.raises(Overloaded) as full:
            client.infer("busy", X, request_id="RESOURCE_EXHAUSTED")
        assert full.value.retry_after == 7.0
        with pytest.raises(ModelError):
            client.infer("m", X, request_id="UNAVAILABLE")


def test_a_unix_socket_is_an_endpoint(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with GrpcServer(answer, f"unix:{path}"):
        for url in (f"grpc+unix://{path}", f"grpc+unix://{str(path).replace('/', '%2F')}"):
            with Client(url) as client:
                assert client.infer("m", X)["y"].tolist() == [1, 2]


async def test_streams_of_a_channel_are_capped_and_a_further_channel_is_opened() -> None:
    running, gate = threading.Semaphore(0), threading.Event()

    def behave(request: Any, context: grpc.ServicerContext) -> Any:
        running.release()
        gate.wait(30)
        return answer(request, context)

    pool = Pool(min_size=0, max_size=3, streams_per_connection=2)
    with GrpcServer(behave) as server:
        async with AsyncClient(server.url, pool=pool) as client:
            asked = [asyncio.create_task(client.infer("m", X)) for _ in range(8)]
            for _ in range(6):
                assert await asyncio.to_thread(running.acquire, timeout=30)
            stats = client.stats().total
            assert (stats.size, stats.leases, stats.waiting) == (3, 6, 2)
            gate.set()
            assert all(result["y"].tolist() == [1, 2] for result in await asyncio.gather(*asked))


def test_a_client_of_grpc_keeps_five_channels_at_least_and_fifty_at_most(server: Server) -> None:
    with Client(server.grpc_url) as client:
        client.infer("double", X)
        end = time.monotonic() + 30
        while client.stats().total.size < 5 and time.monotonic() < end:
            time.sleep(0.01)
        assert client.stats().total.size == 5


def test_the_server_may_go_and_come_back() -> None:
    with GrpcServer(answer) as first, Client(first.url, retry=None) as client:
        assert client.infer("m", X)["y"].tolist() == [1, 2]
        first.__exit__()
        with pytest.raises((ConnectFailed, RemoteError, ConnectionError)):
            client.infer("m", X, timeout=5)
        with GrpcServer(answer, f"127.0.0.1:{first.port}"):
            end = time.monotonic() + 30
            while True:
                try:
                    assert client.infer("m", X, timeout=5)["y"].tolist() == [1, 2]
                    break
                except ConnectionError:
                    assert time.monotonic() < end
                    time.sleep(0.05)
