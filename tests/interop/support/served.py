"""The models that other people's clients ask, and a server that answers both by HTTP and by gRPC."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from penstock import ItemError, Server, model
from tests.python.support.arrays import same, sample
from tests.python.support.waiting import Gate

if TYPE_CHECKING:
    from collections.abc import Iterator

DATATYPES = {
    "BOOL": "bool",
    **{f"INT{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    "FP16": "float16",
    "BF16": "bfloat16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "bytes",
}
TENSORS = {datatype.lower(): (element, [3]) for datatype, element in DATATYPES.items()}
PAIR = {"x": ("float32", [2])}
SLOW_SECONDS = 1.0
WIDE = 500_000


@model("mirror", inputs=TENSORS, outputs=TENSORS, version="3")
def mirror(*tensors: Any) -> dict[str, Any]:
    return dict(zip(TENSORS, tensors, strict=True))


@model("double", inputs=PAIR, outputs={"y": ("float32", [2]), "sum": ("float32", [])})
def double(x: Any) -> Any:
    return {"y": x * np.float32(2), "sum": x.sum(axis=1)}


@model("picky", inputs=PAIR, outputs={"y": ("float32", [2])})
def picky(x: Any) -> Any:
    return [ItemError("numbers below zero are not served") if (row < 0).any() else row for row in x]


@model("broken", inputs=PAIR, outputs={"y": ("float32", [2])})
def broken(x: Any) -> Any:
    raise RuntimeError("the pump has failed")


@model("wide", inputs={"x": ("float32", [WIDE])}, outputs={"y": ("float32", [WIDE])})
def wide(x: Any) -> Any:
    return x * np.float32(2)


@model("slow", inputs=PAIR, outputs={"y": ("float32", [2])})
def slow(x: Any) -> Any:
    time.sleep(SLOW_SECONDS)
    return x


@contextmanager
def both_doors() -> Iterator[Server]:
    """All models above, over HTTP and over gRPC with ports of their own."""
    with Server([mirror, double, picky, broken, wide, slow], port=0, grpc_port=0) as server:
        yield server


@contextmanager
def gated(**options: Any) -> Iterator[tuple[Server, Gate]]:
    """The model `gated`, which answers with ten times its number and only when it is let; a row a batch."""
    gate = Gate()

    @model("gated", inputs={"x": ("float32", [])}, outputs={"y": ("float32", [])}, max_batch_size=1)
    def gated_model(x: Any) -> Any:
        return gate.run(x)

    with Server([gated_model], port=0, grpc_port=0, **options) as server:
        try:
            yield server, gate
        finally:
            gate.open()


def number_of(stub: Any, value: float) -> Any:
    """A request of `gated`, with a stub of support/reflection.py."""
    raw = np.array([value], "<f4").tobytes()
    request = stub.messages["ModelInferRequest"](model_name="gated", raw_input_contents=[raw])
    request.inputs.add(name="x", datatype="FP32", shape=[1])
    return request


def queued(server: Server, name: str = "gated") -> int:
    """Rows that wait for the model."""
    return server.stats().models[name].queued


def in_flight(server: Server) -> int:
    """Requests that the doors are busy with. Rows of one that is gone stay in the queue until a worker finds them."""
    found = re.search(r"^penstock_http_requests_in_flight (\d+)", server.metrics(), re.MULTILINE)
    assert found
    return int(found[1])


def place(url: str) -> str:
    """`host:port`, as other clients want it."""
    return url.partition("://")[2]


def everything() -> dict[str, np.ndarray[Any, Any]]:
    """A tensor of every datatype, two rows of three."""
    arrays = {
        datatype.lower(): sample(element, (2, 3), seed=7)
        for datatype, element in DATATYPES.items()
        if datatype not in ("BYTES", "BF16")
    }
    arrays["bf16"] = np.array([[1.5, -2, 0], [3.25e38, 1e-30, -0.0]], ml_dtypes.bfloat16)
    arrays["bytes"] = np.array([[b"", b"ab", b"\0"], ["zwölf 😀".encode(), b"\xff", b"d"]], object)
    return arrays


def assert_mirrored(came: np.ndarray[Any, Any] | None, sent: np.ndarray[Any, Any], name: str) -> None:
    """The same bits, or the same bytes in the same shape."""
    assert came is not None, name
    if name == "bytes":
        assert (came.ravel().tolist(), came.shape) == (sent.ravel().tolist(), sent.shape)
    else:
        assert same(came, sent), f"{name}: {came!r} is not {sent!r}"
