"""Random inference requests that fit a model: `penstock bench URL --model NAME`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from penstock import _native, testing
from penstock.errors import ConfigError, ProtocolError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_VARIABLE_AXIS: Final = 16  # of an axis that may have any length, other than the rows
_INTEGERS: Final = {
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
}
_FLOATS: Final = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64}
_WORDS: Final = ("water", "gate", "turbine", "pressure", "pipe", "valley", "head", "flow")


@dataclass(frozen=True)
class Bodies:
    """What is sent, and the headers that go with all of it."""

    bodies: list[bytes]
    headers: dict[str, str]


def model_inputs(base: str, model: str) -> list[dict[str, Any]]:
    """The inputs that a server names in the metadata of a model: `name`, `datatype`, `shape`.

    Raises:
        ConfigError: where the server knows no such model, or does not speak the Open Inference Protocol.
        ConnectFailed: where nobody listens.
    """
    grpc = testing.split_url(base).grpc
    inputs = _inputs_by_grpc(base, model) if grpc else _inputs_by_http(base, model)
    if not (inputs and all(list(one["shape"]) for one in inputs)):
        raise ConfigError(f"the metadata of model {model!r} names no inputs with shapes")
    return inputs


def _inputs_by_http(base: str, model: str) -> list[dict[str, Any]]:
    url = f"{base.rstrip('/')}/v2/models/{model}"
    report = testing.load(url, [b""], clients=1, requests_per_client=1, method="GET", timeout=10, keep_answers=True)
    body = _answer(report, url, model)
    try:
        inputs = cast("list[dict[str, Any]]", json.loads(body)["inputs"])
        fits = all(isinstance(one["name"], str) and one["datatype"] and list(one["shape"]) for one in inputs)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{url} gives no metadata of the Open Inference Protocol") from error
    return inputs if fits else []


def _inputs_by_grpc(base: str, model: str) -> list[dict[str, Any]]:
    url = f"{base.rstrip('/')}/{testing.SERVICE}/ModelMetadata"
    question = _native.NativeQuestion("model", model)
    report = testing.load(url, [question.message()], clients=1, requests_per_client=1, timeout=10, keep_answers=True)
    try:
        described = json.loads(question.answer(_answer(report, url, model)))
    except ProtocolError as error:
        raise ConfigError(f"{url} gives no metadata of the Open Inference Protocol") from error
    inputs: list[dict[str, Any]] = described["inputs"]
    return inputs


def _answer(report: testing.LoadReport, url: str, model: str) -> bytes:
    if not report.answers:
        lost = ", ".join(report.errors) or "no answer"
        raise ConfigError(f"the metadata of model {model!r} could not be read from {url}: {lost}")
    _, status, body = report.answers[0]
    if not report.ok:
        ended = next(iter(report.codes), status)
        raise ConfigError(f"{url} answered with {ended}: {body[:200].decode(errors='replace')}")
    return body


def inference_messages(model: str, inputs: Sequence[Mapping[str, Any]], *, count: int, rows: int, seed: int) -> Bodies:
    """As `inference_bodies` for gRPC: messages whose tensors are raw."""
    random = np.random.default_rng(seed)
    return Bodies([_message(model, inputs, rows, random) for _ in range(count)], {})


def inference_bodies(inputs: Sequence[Mapping[str, Any]], *, count: int, rows: int, binary: bool, seed: int) -> Bodies:
    """`count` different requests of `rows` rows, as JSON or with binary tensors; a seed gives the same ones again."""
    random = np.random.default_rng(seed)
    made = [_binary(inputs, rows, random) if binary else (_json(inputs, rows, random), b"") for _ in range(count)]
    if not binary:
        return Bodies([head for head, _ in made], {"Content-Type": "application/json"})
    # One header goes with all requests: white space makes their JSON equally long.
    length = max(len(head) for head, _ in made)
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(length)}
    return Bodies([head.ljust(length) + tensors for head, tensors in made], headers)


def _json(inputs: Sequence[Mapping[str, Any]], rows: int, random: np.random.Generator) -> bytes:
    tensors = []
    for one in inputs:
        shape = _shape(one["shape"], rows)
        values = _values(one["datatype"], shape, random)
        if isinstance(values, np.ndarray) and values.dtype.kind == "f":
            values = values.astype(np.float64).round(6)
        data = values.ravel().tolist() if isinstance(values, np.ndarray) else [text.decode() for text in values]
        tensors.append({"name": one["name"], "datatype": one["datatype"], "shape": shape, "data": data})
    return json.dumps({"inputs": tensors}).encode()


def _binary(inputs: Sequence[Mapping[str, Any]], rows: int, random: np.random.Generator) -> tuple[bytes, bytes]:
    tensors, data = [], []
    for one in inputs:
        shape = _shape(one["shape"], rows)
        raw = _raw(one["datatype"], _values(one["datatype"], shape, random))
        parameters = {"binary_data_size": len(raw)}
        tensors.append({"name": one["name"], "datatype": one["datatype"], "shape": shape, "parameters": parameters})
        data.append(raw)
    head = {"inputs": tensors, "parameters": {"binary_data_output": True}}
    return json.dumps(head).encode(), b"".join(data)


def _message(model: str, inputs: Sequence[Mapping[str, Any]], rows: int, random: np.random.Generator) -> bytes:
    tensors = {}
    for one in inputs:
        shape = _shape(one["shape"], rows)
        tensors[one["name"]] = (one["datatype"], shape, _raw(one["datatype"], _values(one["datatype"], shape, random)))
    return testing.infer_message(model, tensors)


def _shape(declared: Sequence[int], rows: int) -> list[int]:
    return [rows, *(axis if axis >= 0 else _VARIABLE_AXIS for axis in declared[1:])]


def _values(datatype: str, shape: list[int], random: np.random.Generator) -> np.ndarray[Any, Any] | list[bytes]:
    if datatype == "BYTES":
        return [" ".join(random.choice(_WORDS, 6)).encode() for _ in range(int(np.prod(shape)))]
    if datatype == "BOOL":
        return random.random(shape) < 0.5  # noqa: PLR2004  as often as not
    if datatype in _INTEGERS:
        return random.integers(0, 100, shape, dtype=_INTEGERS[datatype])
    if datatype in _FLOATS:
        return random.random(shape).astype(_FLOATS[datatype])
    if datatype == "BF16":
        return random.random(shape).astype(np.float32)
    raise ConfigError(f"the model takes datatype {datatype!r}, which is none of the Open Inference Protocol")


def _raw(datatype: str, values: np.ndarray[Any, Any] | list[bytes]) -> bytes:
    if isinstance(values, list):
        return b"".join(len(text).to_bytes(4, "little") + text for text in values)
    if datatype == "BF16":
        # The upper half of a float32: its low bits are cut, which for random numbers is as good as rounding.
        return (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    return values.astype(values.dtype.newbyteorder("<")).tobytes()
