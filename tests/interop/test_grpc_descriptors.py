"""The services as our door describes them by reflection, field by field beside tritonclient's and MLServer's own."""

from __future__ import annotations

import base64
import subprocess
import warnings
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.interop.support.described import Description, described
from tests.interop.support.environments import require
from tests.interop.support.reflection import files_of
from tests.interop.support.served import both_doors, place

with warnings.catch_warnings():
    # What these packages import is not ours to answer for.
    warnings.simplefilter("ignore")
    from google.protobuf.descriptor_pb2 import FileDescriptorProto
    from tritonclient.grpc import service_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVICE = "inference.GRPCInferenceService"
THEIR_FILES = """
import base64
from mlserver.grpc import dataplane_pb2
print(base64.b64encode(dataplane_pb2.DESCRIPTOR.serialized_pb).decode())
"""
STREAM = "inference.ModelStreamInferResponse"
METADATA = "inference.ModelMetadataResponse"


@pytest.fixture(scope="module")
def ours() -> Iterator[Description]:
    with both_doors() as server, grpc.insecure_channel(place(server.grpc_url)) as channel:
        yield described(files_of(channel, SERVICE))


def triton() -> Description:
    file = FileDescriptorProto()
    service_pb2.DESCRIPTOR.CopyToProto(file)
    return described([file])


def mlserver() -> Description:
    program = [str(require("mlserver", "python")), "-c", THEIR_FILES]
    said = subprocess.run(program, capture_output=True, text=True, check=True, timeout=120)
    return described([FileDescriptorProto.FromString(base64.b64decode(line)) for line in said.stdout.split()])


def test_every_message_of_ours_is_tritons(ours: Description) -> None:
    theirs = triton()
    # The protocol has properties of a model; Triton never sends any.
    assert ours.fields_without(theirs) == {(METADATA, 6): "properties"}
    assert theirs.fields_without(ours, only_known=True) == {}
    assert ours.different_fields(theirs) == {}


def test_every_call_of_ours_is_tritons(ours: Description) -> None:
    theirs = triton().methods[SERVICE]
    assert {name: call for name, call in ours.methods[SERVICE].items() if theirs.get(name) != call} == {}
    beyond = {name for name in theirs if name not in ours.methods[SERVICE]}
    # Triton's own extensions, which are answered as unimplemented.
    assert beyond == {
        *(f"{kind}SharedMemory{verb}" for kind in ("Cuda", "System") for verb in ("Register", "Status", "Unregister")),
        *("LogSettings", "ModelConfig", "ModelStatistics", "TraceSetting"),
    }


def test_messages_are_mlservers_but_for_what_is_known(ours: Description) -> None:
    theirs = mlserver()
    # MLServer calls the properties of a model parameters and gives them another type, knows two kinds of parameter
    # less, and streams bare answers.
    absent = {(METADATA, 6): "properties", ("inference.InferParameter", 4): "double_param"}
    absent |= {("inference.InferParameter", 5): "uint64_param"}
    absent |= {(STREAM, 1): "error_message", (STREAM, 2): "infer_response"}
    assert ours.fields_without(theirs) == absent
    beyond = {(METADATA, 6): "parameters", (f"{METADATA}.TensorMetadata", 4): "parameters"}
    assert theirs.fields_without(ours, only_known=True) == beyond
    assert ours.different_fields(theirs) == {}


def test_calls_are_mlservers_but_for_streams(ours: Description) -> None:
    theirs = mlserver().methods[SERVICE]
    assert {name for name, call in ours.methods[SERVICE].items() if theirs.get(name) != call} == {"ModelStreamInfer"}
    assert {name for name in theirs if name not in ours.methods[SERVICE]} == set()
