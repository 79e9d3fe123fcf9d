"""grpcio against our door, with stubs made from what the door says of itself; and the standard health service."""

from __future__ import annotations

import threading
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from tests.interop.support.reflection import V1, V1ALPHA, Stub, ask, files_of, services_of
from tests.interop.support.served import both_doors, gated, in_flight, number_of, place, queued
from tests.python.support.waiting import PATIENCE, until

with warnings.catch_warnings():
    # What these packages import is not ours to answer for.
    warnings.simplefilter("ignore")
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock import Server

SERVICE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with both_doors() as server:
        yield server


@pytest.fixture
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(place(server.grpc_url)) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.Channel) -> Any:
    return Stub(channel, SERVICE)


def pair(stub: Any, model: str, x: Any, **more: Any) -> Any:
    x = np.asarray(x, np.float32)
    request = stub.messages["ModelInferRequest"](model_name=model, raw_input_contents=[x.tobytes()], **more)
    request.inputs.add(name="x", datatype="FP32", shape=x.shape)
    return request


def failure(call: Any, request: Any, **how: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=PATIENCE, **how)
    return caught.value.code(), caught.value.details()


@pytest.mark.parametrize("version", [V1, V1ALPHA])
def test_every_service_is_named_and_described(channel: grpc.Channel, version: str) -> None:
    services = services_of(channel, version)
    assert set(services) == {SERVICE, HEALTH, V1, V1ALPHA}
    for service in services:
        files = files_of(channel, service, version)
        described = [f"{file.package}.{one.name}" for file in files for one in file.service]
        assert service in described
    stub = Stub(channel, SERVICE, by=version)
    assert stub.ServerLive(stub.messages["ServerLiveRequest"](), timeout=PATIENCE).live


def test_what_is_not_there_is_said(channel: grpc.Channel) -> None:
    asked = reflection_pb2.ServerReflectionRequest
    requests = [asked(file_containing_symbol="no.such.Thing"), asked(file_by_filename="none.proto")]
    requests.append(asked(list_services=""))
    missing, file, services = ask(channel, requests)
    assert missing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    assert file.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    assert len(services.list_services_response.service) == 4
    # A message, a call and a field's type are symbols, too.
    for symbol in (f"{SERVICE}.ModelInfer", "inference.ModelInferRequest.InferInputTensor"):
        (answer,) = ask(channel, [asked(file_containing_symbol=symbol)])
        assert answer.HasField("file_descriptor_response"), symbol


def test_health_of_the_server_and_of_its_models(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", SERVICE, "double", "mirror"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, service
    code, _ = failure(health.Check, health_pb2.HealthCheckRequest(service="nobody"))
    assert code == grpc.StatusCode.NOT_FOUND
    watch = health.Watch(health_pb2.HealthCheckRequest(service="nobody"), timeout=PATIENCE)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()


def test_a_watch_sees_the_server_go() -> None:
    """It says so, or it ends with the connection."""
    with gated() as (server, gate), grpc.insecure_channel(place(server.grpc_url)) as channel:
        gate.open()
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        closer = threading.Thread(target=server.close)
        closer.start()
        rest = []
        with suppress(grpc.RpcError):
            rest += [answer.status for answer in watch]
        closer.join(PATIENCE)
        assert not closer.is_alive()
        assert watch.code() in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        assert set(rest) <= {health_pb2.HealthCheckResponse.NOT_SERVING}


def test_the_server_and_its_models_speak_of_themselves(stub: Any) -> None:
    messages = stub.messages
    assert stub.ServerReady(messages["ServerReadyRequest"](), timeout=PATIENCE).ready
    assert stub.ServerMetadata(messages["ServerMetadataRequest"](), timeout=PATIENCE).name == "penstock"
    assert stub.ModelReady(messages["ModelReadyRequest"](name="double"), timeout=PATIENCE).ready
    found = stub.ModelMetadata(messages["ModelMetadataRequest"](name="double"), timeout=PATIENCE)
    assert [(one.name, one.datatype, list(one.shape)) for one in found.inputs] == [("x", "FP32", [-1, 2])]
    assert [(one.name, one.datatype, list(one.shape)) for one in found.outputs] == [
        ("y", "FP32", [-1, 2]),
        ("sum", "FP32", [-1]),
    ]
    code, words = failure(stub.ModelMetadata, messages["ModelMetadataRequest"](name="nobody"))
    assert (code, "nobody" in words) == (grpc.StatusCode.NOT_FOUND, True)


def test_raw_and_typed_contents(stub: Any) -> None:
    raw = stub.ModelInfer(pair(stub, "double", [[1, 2], [3, 4]], id="r-1"), timeout=PATIENCE)
    assert (raw.id, [one.name for one in raw.outputs]) == ("r-1", ["y", "sum"])
    assert np.frombuffer(raw.raw_output_contents[0], "<f4").tolist() == [2, 4, 6, 8]
    assert np.frombuffer(raw.raw_output_contents[1], "<f4").tolist() == [3, 7]
    asked = stub.messages["ModelInferRequest"](model_name="double")
    asked.inputs.add(name="x", datatype="FP32", shape=[2, 2]).contents.fp32_contents.extend([1, 2, 3, 4])
    typed = stub.ModelInfer(asked, timeout=PATIENCE)
    if typed.raw_output_contents:
        assert np.frombuffer(typed.raw_output_contents[0], "<f4").tolist() == [2, 4, 6, 8]
    else:
        assert list(typed.outputs[0].contents.fp32_contents) == [2, 4, 6, 8]


def test_bad_input_is_named(stub: Any) -> None:
    both = pair(stub, "double", [[1, 2]])
    both.inputs[0].contents.fp32_contents.extend([1, 2])
    short = pair(stub, "double", [[1, 2]])
    short.raw_input_contents[0] = short.raw_input_contents[0][:-1]
    huge = pair(stub, "double", [[1, 2]])
    huge.inputs[0].shape[:] = [2**62, 2**62]
    unnamed = pair(stub, "double", [[1, 2]])
    unnamed.inputs[0].name = "z"
    kind = pair(stub, "double", [[1, 2]])
    kind.inputs[0].datatype = "FP64"
    for request, words in ((both, "raw"), (short, "x"), (huge, "x"), (unnamed, "z"), (kind, "x")):
        code, said = failure(stub.ModelInfer, request)
        assert (code, words in said) == (grpc.StatusCode.INVALID_ARGUMENT, True), said
    assert stub.ModelInfer(pair(stub, "double", [[1, 2]]), timeout=PATIENCE).outputs


def test_a_method_that_nobody_has(channel: grpc.Channel) -> None:
    for path in (f"/{SERVICE}/NoSuchCall", "/no.such.Service/Call"):
        code, _ = failure(channel.unary_unary(path), b"")
        assert code == grpc.StatusCode.UNIMPLEMENTED


def test_a_message_that_is_none(channel: grpc.Channel) -> None:
    code, _ = failure(channel.unary_unary(f"/{SERVICE}/ModelInfer"), b"\xff\xff\xff")
    assert code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL)


def test_metadata_comes_back_with_the_answer(stub: Any) -> None:
    answer, call = stub.ModelInfer.with_call(pair(stub, "double", [[1, 2]]), timeout=PATIENCE)
    assert answer.model_name == "double"
    assert call.code() == grpc.StatusCode.OK


def test_a_stream_of_both_kinds_of_end(stub: Any) -> None:
    models = ["double", "broken", "nobody", "double"]
    asked = (pair(stub, model, [[n, 1]], id=str(n)) for n, model in enumerate(models))
    answers = list(stub.ModelStreamInfer(asked, timeout=PATIENCE))
    assert [bool(answer.error_message) for answer in answers] == [False, True, True, False]
    assert [answer.infer_response.id for answer in answers] == ["0", "1", "2", "3"]
    assert "the pump has failed" in answers[1].error_message
    assert "nobody" in answers[2].error_message


def test_a_call_that_is_cancelled_or_late_never_reaches_the_model() -> None:
    with gated() as (server, gate), grpc.insecure_channel(place(server.grpc_url)) as channel:
        stub = Stub(channel, SERVICE)
        first = stub.ModelInfer.future(number_of(stub, 1), timeout=PATIENCE)
        until(gate.entered.is_set)
        second = stub.ModelInfer.future(number_of(stub, 2), timeout=PATIENCE)
        until(lambda: queued(server) == 1)
        second.cancel()
        until(lambda: in_flight(server) == 1)
        late = stub.ModelInfer.future(number_of(stub, 4), timeout=0.2)
        assert late.exception(timeout=PATIENCE).code() == grpc.StatusCode.DEADLINE_EXCEEDED
        until(lambda: in_flight(server) == 1)
        gate.open()
        assert np.frombuffer(first.result(PATIENCE).raw_output_contents[0], "<f4").tolist() == [10]
        assert stub.ModelInfer(number_of(stub, 3), timeout=PATIENCE).outputs
    assert gate.seen == [1, 3]
