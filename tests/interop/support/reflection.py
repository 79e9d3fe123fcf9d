"""Stubs for a server whose services nobody described to us: all is asked by reflection."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

with warnings.catch_warnings():
    # What these packages import is not ours to answer for.
    warnings.simplefilter("ignore")
    from google.protobuf import message_factory
    from google.protobuf.descriptor_pb2 import FileDescriptorProto
    from google.protobuf.descriptor_pool import DescriptorPool
    from grpc_reflection.v1alpha import reflection_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    import grpc

V1, V1ALPHA = "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"
TIME_LIMIT = 30.0


def ask(channel: grpc.Channel, requests: list[Any], service: str = V1) -> list[Any]:
    """One answer for each request, over one stream; the two services have the same messages by different names."""
    call = channel.stream_stream(
        f"/{service}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    answers = list(call(iter(requests), timeout=TIME_LIMIT))
    assert len(answers) == len(requests)
    return answers


def services_of(channel: grpc.Channel, service: str = V1) -> list[str]:
    """Every service that the server names."""
    (answer,) = ask(channel, [reflection_pb2.ServerReflectionRequest(list_services="*")], service)
    return [one.name for one in answer.list_services_response.service]


def files_of(channel: grpc.Channel, symbol: str, service: str = V1) -> list[FileDescriptorProto]:
    """The file that describes a symbol, and what it depends on, each once."""
    asked = reflection_pb2.ServerReflectionRequest
    found: dict[str, FileDescriptorProto] = {}
    waiting = [asked(file_containing_symbol=symbol)]
    while waiting:
        for answer in ask(channel, waiting, service):
            assert answer.HasField("file_descriptor_response"), answer
            for serialized in answer.file_descriptor_response.file_descriptor_proto:
                file = FileDescriptorProto.FromString(serialized)
                found[file.name] = file
        missing = {name for file in found.values() for name in file.dependency} - found.keys()
        waiting = [asked(file_by_filename=name) for name in sorted(missing)]
    return list(found.values())


class Stub:
    """The calls of a service: `stub.ModelInfer(stub.messages["ModelInferRequest"](...), timeout=5)`."""

    def __init__(self, channel: grpc.Channel, service: str, *, by: str = V1) -> None:
        pool = DescriptorPool()
        for file in _in_order(files_of(channel, service, by)):
            pool.Add(file)
        description = pool.FindServiceByName(service)
        self.messages = {
            name: message_factory.GetMessageClass(message)
            for name, message in description.file.message_types_by_name.items()
        }
        for method in description.methods:
            request, answer = map(message_factory.GetMessageClass, (method.input_type, method.output_type))
            kind = f"{_streams(method.client_streaming)}_{_streams(method.server_streaming)}"
            serializers = {"request_serializer": request.SerializeToString, "response_deserializer": answer.FromString}
            setattr(self, method.name, getattr(channel, kind)(f"/{service}/{method.name}", **serializers))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the service has no call {name}")


def _streams(does: bool) -> str:
    return "stream" if does else "unary"


def _in_order(files: list[FileDescriptorProto]) -> Iterator[FileDescriptorProto]:
    """What others depend on comes first."""
    left, done = {file.name: file for file in files}, set[str]()
    while left:
        ready = [file for file in left.values() if set(file.dependency) <= done]
        assert ready, f"files depend on one another: {sorted(left)}"
        for file in ready:
            done.add(file.name)
            yield left.pop(file.name)
