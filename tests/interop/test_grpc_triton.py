"""tritonclient against both doors: blocking and on asyncio, raw tensors, streams, calls that are cancelled or late."""

from __future__ import annotations

import asyncio
import queue
import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.interop.support.served import (
    DATATYPES,
    SLOW_SECONDS,
    TENSORS,
    WIDE,
    assert_mirrored,
    both_doors,
    everything,
    gated,
    in_flight,
    place,
    queued,
)
from tests.python.support.waiting import PATIENCE, soon, until

with warnings.catch_warnings():
    # What these packages import is not ours to answer for.
    warnings.simplefilter("ignore")
    import tritonclient.grpc as triton
    import tritonclient.grpc.aio as triton_aio
    import tritonclient.http as triton_http
    import tritonclient.http.aio as triton_http_aio
    from tritonclient.utils import InferenceServerException

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from penstock import Server

GRPC, HTTP = "gRPC", "HTTP"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with both_doors() as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with triton.InferenceServerClient(place(server.grpc_url)) as client:
        yield client


@pytest.fixture
async def aio_client(server: Server) -> AsyncIterator[Any]:
    async with triton_aio.InferenceServerClient(place(server.grpc_url)) as client:
        yield client


@pytest.fixture(params=[GRPC, HTTP])
def either(request: pytest.FixtureRequest, server: Server) -> Iterator[Any]:
    """The blocking client of one door and then of the other."""
    module, url = (triton, server.grpc_url) if request.param == GRPC else (triton_http, server.url)
    with module.InferenceServerClient(place(url)) as client:
        yield module, client


def pair(values: list[list[float]], module: Any = triton) -> list[Any]:
    array = np.array(values, np.float32)
    tensor = module.InferInput("x", list(array.shape), "FP32")
    tensor.set_data_from_numpy(array)
    return [tensor]


def number(value: float, module: Any = triton) -> list[Any]:
    tensor = module.InferInput("x", [1], "FP32")
    tensor.set_data_from_numpy(np.array([value], np.float32))
    return [tensor]


def all_inputs(module: Any) -> list[Any]:
    inputs = []
    for name, array in everything().items():
        tensor = module.InferInput(name, list(array.shape), name.upper())
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    return inputs


def test_both_doors_say_the_same_of_themselves(client: Any, server: Server) -> None:
    with triton_http.InferenceServerClient(place(server.url)) as http:
        for one in (client, http):
            assert one.is_server_live()
            assert one.is_server_ready()
            assert one.is_model_ready("mirror")
            assert one.is_model_ready("mirror", "3")
        for unknown in (("mirror", "4"), ("nobody",)):
            assert not http.is_model_ready(*unknown)
            with pytest.raises(InferenceServerException) as caught:
                client.is_model_ready(*unknown)
            assert caught.value.status() == "StatusCode.NOT_FOUND"
        assert client.get_server_metadata(as_json=True) == http.get_server_metadata()
        ours, theirs = client.get_model_metadata("mirror", as_json=True), http.get_model_metadata("mirror")
    assert ours["versions"] == theirs["versions"] == ["3"]
    assert (ours["name"], ours["platform"]) == (theirs["name"], theirs["platform"])
    for side in ("inputs", "outputs"):
        # Protobuf's JSON has 64-bit numbers as text.
        found = [(one["name"], one["datatype"], [int(axis) for axis in one["shape"]]) for one in ours[side]]
        assert found == [(one["name"], one["datatype"], one["shape"]) for one in theirs[side]]
        assert [datatype for _, datatype, _ in found] == list(DATATYPES)


def test_every_datatype(either: tuple[Any, Any]) -> None:
    module, client = either
    result = client.infer("mirror", all_inputs(module), request_id="a-1")
    for name, array in everything().items():
        assert_mirrored(result.as_numpy(name), array, name)
    response = result.get_response()
    answered = response if isinstance(response, dict) else {"id": response.id, "model_version": response.model_version}
    assert (answered["id"], answered["model_version"]) == ("a-1", "3")


def test_the_outputs_that_are_asked_for(either: tuple[Any, Any]) -> None:
    module, client = either
    wanted = [module.InferRequestedOutput("sum")]
    result = client.infer("double", pair([[1, 2], [3, 4]], module), outputs=wanted)
    assert result.as_numpy("sum").tolist() == [3, 7]
    assert result.as_numpy("y") is None
    wanted = [module.InferRequestedOutput("fp64"), module.InferRequestedOutput("int8")]
    result = client.infer("mirror", all_inputs(module), outputs=wanted)
    assert [name for name in TENSORS if result.as_numpy(name) is not None] == ["int8", "fp64"]


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
def test_packed_messages(client: Any, packing: str) -> None:
    x = [[float(row), 1.0] for row in range(500)]
    result = client.infer("double", pair(x), compression_algorithm=packing)
    assert result.as_numpy("y").tolist() == [[2 * a, 2 * b] for a, b in x]


def test_a_large_tensor(either: tuple[Any, Any]) -> None:
    module, client = either
    x = np.random.default_rng(3).random((2, WIDE), np.float32)  # 4 MB: many windows of HTTP/2
    tensor = module.InferInput("x", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x)
    assert np.array_equal(client.infer("wide", [tensor]).as_numpy("y"), x * 2)


@pytest.mark.parametrize(
    ("model", "values", "code", "words"),
    [
        ("nobody", [[1, 2]], "NOT_FOUND", "nobody"),
        ("double", [[1, 2, 3]], "INVALID_ARGUMENT", "'x'|\"x\"|x"),
        ("picky", [[-1, 2]], "INVALID_ARGUMENT", "numbers below zero are not served"),
        ("broken", [[1, 2]], "INTERNAL", "the pump has failed"),
    ],
)
def test_what_goes_wrong(either: tuple[Any, Any], model: str, values: list[list[float]], code: str, words: str) -> None:
    module, client = either
    with pytest.raises(InferenceServerException, match=words) as caught:
        client.infer(model, pair(values, module))
    if module is triton:
        assert caught.value.status() == f"StatusCode.{code}"
    assert client.infer("double", pair([[1, 2]], module)).as_numpy("y").tolist() == [[2, 4]]


def test_an_unknown_version_and_what_is_not_there(client: Any) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer("mirror", all_inputs(triton), model_version="4")
    assert caught.value.status() == "StatusCode.NOT_FOUND"
    with pytest.raises(InferenceServerException) as caught:
        client.get_inference_statistics()  # of Triton's own, which nobody described here
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


def test_many_at_once(client: Any) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    for n in range(200):
        client.async_infer(
            "double", pair([[n, 0]]), lambda result, error: answers.put((result, error)), request_id=str(n)
        )
    seen = {}
    for _ in range(200):
        result, error = answers.get(timeout=PATIENCE)
        assert error is None
        seen[result.get_response().id] = result.as_numpy("sum").tolist()
    assert seen == {str(n): [n] for n in range(200)}


async def test_asyncio(aio_client: Any, server: Server) -> None:
    assert await aio_client.is_server_ready()
    metadata = await aio_client.get_model_metadata("double", as_json=True)
    assert metadata["name"] == "double"
    result = await aio_client.infer("mirror", all_inputs(triton_aio))
    for name, array in everything().items():
        assert_mirrored(result.as_numpy(name), array, name)
    both = [aio_client.infer("double", pair([[n, 0]])) for n in range(100)]
    async with triton_http_aio.InferenceServerClient(place(server.url)) as http:
        both += [http.infer("double", pair([[n, 0]], triton_http)) for n in range(100)]
        sums = [result.as_numpy("sum").tolist() for result in await asyncio.gather(*both)]
    assert sums == [[n] for n in range(100)] * 2
    with pytest.raises(InferenceServerException, match="the pump has failed"):
        await aio_client.infer("broken", pair([[1, 2]]))


def test_a_stream(client: Any) -> None:
    """Answers in the order of the requests; what goes wrong is an answer, and the stream goes on."""
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    try:
        for n in range(50):
            client.async_stream_infer("broken" if n == 10 else "double", pair([[n, 1]]), request_id=str(n))
        for n in range(50):
            result, error = answers.get(timeout=PATIENCE)
            if n == 10:
                assert "the pump has failed" in str(error)
            else:
                assert error is None
                assert (result.get_response().id, result.as_numpy("sum").tolist()) == (str(n), [n + 1])
    finally:
        client.stop_stream()
    assert answers.empty()


async def test_a_stream_on_asyncio(aio_client: Any) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for n in range(50):
            model = "picky" if n == 20 else "double"
            yield {"model_name": model, "inputs": pair([[-n if n == 20 else n, 1]]), "request_id": str(n)}

    seen = []
    async for result, error in aio_client.stream_infer(requests()):
        if error is None:
            seen.append((result.get_response().id, result.as_numpy("sum").tolist()))
        else:
            seen.append(("", str(error)))
    assert len(seen) == 50
    assert "numbers below zero are not served" in seen.pop(20)[1]
    assert seen == [(str(n), [n + 1]) for n in range(50) if n != 20]


def test_a_stream_lets_its_requests_batch_together() -> None:
    with gated() as (server, gate), triton.InferenceServerClient(place(server.grpc_url)) as client:
        answers: queue.Queue[Any] = queue.Queue()
        client.start_stream(lambda result, error: answers.put((result, error)))
        for n in range(8):
            client.async_stream_infer("gated", number(n))
        until(lambda: queued(server) == 7)  # all of them are at the model though none is answered
        gate.open()
        client.stop_stream()
        came = [answers.get(timeout=PATIENCE)[0].as_numpy("y").tolist() for _ in range(8)]
    assert came == [[10.0 * n] for n in range(8)]


def test_a_stream_that_is_cancelled() -> None:
    with gated() as (server, gate), triton.InferenceServerClient(place(server.grpc_url)) as client:
        client.start_stream(lambda result, error: None)
        client.async_stream_infer("gated", number(1))
        until(gate.entered.is_set)
        client.async_stream_infer("gated", number(2))
        until(lambda: queued(server) == 1)
        client.stop_stream(cancel_requests=True)
        until(lambda: in_flight(server) == 0)
        gate.open()
        assert client.infer("gated", number(3)).as_numpy("y").tolist() == [30]
    assert gate.seen == [1, 3]


def test_a_call_that_is_cancelled_while_it_is_queued_never_reaches_the_model() -> None:
    with gated() as (server, gate), triton.InferenceServerClient(place(server.grpc_url)) as client:
        ends: queue.Queue[Any] = queue.Queue()
        client.async_infer("gated", number(1), lambda result, error: ends.put((result, error)))
        until(gate.entered.is_set)
        call = client.async_infer("gated", number(2), lambda result, error: ends.put((result, error)))
        until(lambda: queued(server) == 1)
        call.cancel()
        _, error = ends.get(timeout=PATIENCE)
        assert error.status() == "StatusCode.CANCELLED"
        until(lambda: in_flight(server) == 1)
        gate.open()
        result, error = ends.get(timeout=PATIENCE)
        assert (result.as_numpy("y").tolist(), error) == ([10], None)
        assert client.infer("gated", number(3)).as_numpy("y").tolist() == [30]
    assert gate.seen == [1, 3]


@pytest.mark.parametrize("door", [GRPC, HTTP])
async def test_a_task_that_is_cancelled_takes_its_request_along(door: str) -> None:
    module, aio = (triton, triton_aio) if door == GRPC else (triton_http, triton_http_aio)
    with gated() as (server, gate):
        async with aio.InferenceServerClient(place(server.grpc_url if door == GRPC else server.url)) as client:
            first = asyncio.create_task(client.infer("gated", number(1, module)))
            await gate.is_entered()
            second = asyncio.create_task(client.infer("gated", number(2, module)))
            await soon(lambda: queued(server) == 1)
            second.cancel()
            await asyncio.wait([second])
            await soon(lambda: in_flight(server) == 1)
            gate.open()
            assert (await first).as_numpy("y").tolist() == [10]
            assert (await client.infer("gated", number(3, module))).as_numpy("y").tolist() == [30]
    assert gate.seen == [1, 3]


def test_a_call_that_is_too_late_while_it_is_queued_never_reaches_the_model() -> None:
    with gated() as (server, gate), triton.InferenceServerClient(place(server.grpc_url)) as client:
        ends: queue.Queue[Any] = queue.Queue()
        client.async_infer("gated", number(1), lambda result, error: ends.put(error))
        until(gate.entered.is_set)
        with pytest.raises(InferenceServerException) as caught:
            client.infer("gated", number(2), client_timeout=0.3)
        assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        until(lambda: in_flight(server) == 1)
        gate.open()
        assert ends.get(timeout=PATIENCE) is None
        assert client.infer("gated", number(3), client_timeout=PATIENCE).as_numpy("y").tolist() == [30]
    assert gate.seen == [1, 3]


def test_a_model_that_takes_too_long(client: Any, server: Server) -> None:
    began = time.monotonic()
    with pytest.raises(InferenceServerException) as caught:
        client.infer("slow", pair([[1, 2]]), client_timeout=SLOW_SECONDS / 5)
    assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    assert time.monotonic() - began < SLOW_SECONDS
    assert client.infer("slow", pair([[1, 2]]), client_timeout=PATIENCE).as_numpy("y").tolist() == [[1, 2]]
    with triton_http.InferenceServerClient(place(server.url), network_timeout=SLOW_SECONDS / 5) as http:
        with pytest.raises(TimeoutError):
            http.infer("slow", pair([[1, 2]], triton_http))
        assert http.infer("double", pair([[1, 2]], triton_http)).as_numpy("y").tolist() == [[2, 4]]


async def test_time_outs_on_asyncio(aio_client: Any) -> None:
    with pytest.raises(InferenceServerException) as caught:
        await aio_client.infer("slow", pair([[1, 2]]), client_timeout=SLOW_SECONDS / 5)
    # Behind a batch that still runs, what is known to take longer is refused at once.
    assert caught.value.status() in {"StatusCode.DEADLINE_EXCEEDED", "StatusCode.RESOURCE_EXHAUSTED"}
    result = await aio_client.infer("double", pair([[1, 2]]), client_timeout=PATIENCE)
    assert result.as_numpy("y").tolist() == [[2, 4]]
