"""Tensors of the Open Inference Protocol, version 2: from NumPy to the bytes of a request, and back from an answer's.

The protocol: <https://github.com/open-inference/open-inference-protocol>; the binary form of tensors:
<https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md>.
"""

from __future__ import annotations

import json
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

HEADER_LENGTH = "inference-header-content-length"
"""The header that says how many bytes of JSON stand before binary data."""

_PREFIX = 4
"""Bytes of the length before each text of binary data."""

_DATATYPES = {
    "bool": "BOOL",
    **{f"int{bits}": f"INT{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"UINT{bits}" for bits in (8, 16, 32, 64)},
    "float16": "FP16",
    "bfloat16": "BF16",
    "float32": "FP32",
    "float64": "FP64",
}
ELEMENTS = {datatype: name for name, datatype in _DATATYPES.items()}
"""Element types of numbers by the protocol's names for them."""


def dtype(elements: str) -> np.dtype[Any]:
    """NumPy's type for a declared element type: texts are objects, `"bfloat16"` comes from the package ml_dtypes."""
    if elements in ("string", "bytes"):
        return np.dtype(object)
    kind: np.dtype[Any] = np.dtype(import_module("ml_dtypes").bfloat16 if elements == "bfloat16" else elements)
    return kind


def encode(
    inputs: Mapping[str, Any], outputs: Iterable[str] | None, request_id: str | None, *, binary: bool
) -> tuple[dict[str, str], bytes]:
    """The headers and the body of an inference request.

    Args:
        inputs: arrays by name, batch axis first; arrays of `str`, `bytes` or objects are texts.
        outputs: names of the outputs that are wanted, or `None` for all.
        request_id: what the answer is to be called.
        binary: send tensors as binary data, and ask for such, instead of JSON.

    Raises:
        ConfigError: for an array that the protocol has no datatype for, or for bytes that JSON cannot carry.
    """
    tensors, chunks = [], []
    for name, value in inputs.items():
        array = np.asarray(value)
        tensor: dict[str, Any] = {"name": name, "datatype": _datatype(name, array), "shape": list(array.shape)}
        if binary:
            chunks.append(_binary(name, array))
            tensor["parameters"] = {"binary_data_size": len(chunks[-1])}
        else:
            tensor["data"] = _listed(name, array)
        tensors.append(tensor)
    body: dict[str, Any] = {"inputs": tensors}
    if request_id is not None:
        body["id"] = request_id
    if outputs is not None:
        body["outputs"] = [{"name": name} for name in outputs]
    if not binary:
        return {"content-type": "application/json"}, json.dumps(body).encode()
    body["parameters"] = {"binary_data_output": True}
    head = json.dumps(body).encode()
    return {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(head))}, b"".join([head, *chunks])


def raw(name: str, array: NDArray[Any]) -> tuple[str, NDArray[Any]] | tuple[str, list[int], bytes]:
    """An input as the extension takes it: an array whose memory is copied as it is, or texts and their shape.

    Raises:
        ConfigError: for an array that the protocol has no datatype for.
    """
    if array.dtype.kind in "OSU":
        return (name, list(array.shape), _binary(name, array))
    if array.dtype.name not in _DATATYPES:
        _datatype(name, array)
    if not array.flags.c_contiguous:
        array = np.array(array, order="C")
    return (name, array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("=")))


def decode(headers: Mapping[str, str], body: bytes, *, strings: Container[str] = ()) -> dict[str, NDArray[Any]]:
    """The outputs of an inference answer by name, batch axis first, as arrays of their own memory.

    Texts are arrays of objects: `str` for the outputs in `strings`, `bytes` for the others. What JSON says `null` for,
    NaN and infinities, becomes NaN.
    """
    return decode_answer(headers, body, strings=strings)[1]


def decode_answer(
    headers: Mapping[str, str], body: bytes, *, strings: Container[str] = ()
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """An inference answer: its JSON, and its outputs as `decode` gives them."""
    length = int(headers.get(HEADER_LENGTH, len(body)))
    rest = memoryview(body)[length:]
    answer = json.loads(body[:length])
    outputs = {}
    for tensor in answer["outputs"]:
        size = (tensor.get("parameters") or {}).get("binary_data_size")  # some say null where there are none
        data: Any = tensor.get("data")
        if size is not None:
            data, rest = rest[:size], rest[size:]
        outputs[tensor["name"]] = _array(tensor, data, is_string=tensor["name"] in strings)
    return answer, outputs


def _datatype(name: str, array: NDArray[Any]) -> str:
    if array.dtype.kind in "OSU":
        return "BYTES"
    if array.dtype.name not in _DATATYPES:
        raise ConfigError(f"input '{name}': the protocol has no datatype for {array.dtype}")
    return _DATATYPES[array.dtype.name]


def _binary(name: str, array: NDArray[Any]) -> bytes:
    if array.dtype.kind not in "OSU":
        # The wire is little-endian.
        return (array.byteswap() if array.dtype.str.startswith(">") else array).tobytes()
    texts = [text.encode() if isinstance(text, str) else text for text in _texts(name, array)]
    return b"".join(len(text).to_bytes(_PREFIX, "little") + text for text in texts)


def _listed(name: str, array: NDArray[Any]) -> list[Any]:
    if array.dtype.kind not in "OSU":
        # Of the small floats, only NumPy's own know how to become a Python number.
        return list(array.ravel().astype(np.float32 if array.dtype.name == "bfloat16" else array.dtype).tolist())
    try:
        return [text.decode() if isinstance(text, bytes) else text for text in _texts(name, array)]
    except UnicodeDecodeError as error:
        raise ConfigError(f"input '{name}' holds bytes that are not utf-8: json cannot carry them") from error


def _texts(name: str, array: NDArray[Any]) -> Iterator[str | bytes]:
    for text in array.ravel().tolist():
        if not isinstance(text, str | bytes):
            raise ConfigError(f"input '{name}' holds a {type(text).__name__} where str or bytes are expected")
        yield text


def _array(tensor: dict[str, Any], data: Any, *, is_string: bool) -> NDArray[Any]:
    shape = tensor["shape"]
    if tensor["datatype"] != "BYTES":
        elements = dtype(ELEMENTS[tensor["datatype"]])
        if isinstance(data, memoryview):
            return np.frombuffer(data, elements.newbyteorder("<")).astype(elements).reshape(shape)
        return np.array(data, elements).reshape(shape)
    texts = list(_split(data)) if isinstance(data, memoryview) else [text.encode() for text in data]
    array = np.empty(len(texts), object)
    array[:] = [text.decode() for text in texts] if is_string else texts
    return array.reshape(shape)


def _split(data: memoryview) -> Iterator[bytes]:
    while data:
        end = _PREFIX + int.from_bytes(data[:_PREFIX], "little")
        yield bytes(data[_PREFIX:end])
        data = data[end:]
