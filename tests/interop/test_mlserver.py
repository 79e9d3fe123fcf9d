"""`infer` against both doors of MLServer: it knows no binary tensors over HTTP, and takes raw ones over gRPC."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penstock
from penstock.errors import DeadlineExceeded, ItemError, ModelNotFound, RemoteError
from tests.interop.support.mlserver import MODELS, mlserver
from tests.python.support.arrays import same

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.interop.support.doors import Doors

NUMBERS = ["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32", "float64"]


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with mlserver(tmp_path_factory.mktemp("mlserver")) as doors:
        yield doors


@pytest.fixture(params=["http", "grpc"])
def url(request: pytest.FixtureRequest, doors: Doors) -> str:
    found: str = getattr(doors, request.param)
    return found


@pytest.mark.parametrize("binary", [None, False])
async def test_arrays_in_and_out(url: str, binary: bool | None) -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    async with penstock.AsyncClient(url) as client:
        found = await client.infer("halves", {"x": x}, binary=binary)
        assert set(found) == {"lower", "sum"}
        assert same(found["lower"], x[:, :2])
        assert np.array_equal(np.ravel(found["sum"]), [1.0, 9.0, 17.0])
    with penstock.Client(url) as blocking:
        assert same(blocking.infer("halves", {"x": x}, binary=binary)["lower"], x[:, :2])


@pytest.mark.parametrize("dtype", NUMBERS)
async def test_every_data_type(url: str, dtype: str) -> None:
    kind = np.dtype(dtype)
    if kind.kind == "b":
        x = np.array([[True, False, True]])
    elif kind.kind == "f":
        x = np.array([[0.1, -0.0, float(np.finfo(kind).max)], [1 / 3, 1e-30, float(np.finfo(kind).tiny)]], kind)
    else:
        limits = np.iinfo(kind)
        x = np.array([[limits.min, 0, limits.max]], kind)
    async with penstock.AsyncClient(url) as client:
        assert same((await client.infer("mirror", {"x": x}))["x"], x)


async def test_texts_and_several_inputs(url: str) -> None:
    inputs = {"text": np.array([["a", "naïve 水"]], object), "n": np.arange(2, dtype=np.int64).reshape(1, 2)}
    async with penstock.AsyncClient(url) as client:
        found = await client.infer("mirror", inputs)
    assert list(found) == ["text", "n"]
    assert same(found["n"], inputs["n"])
    texts = [text.decode() if isinstance(text, bytes) else text for text in np.ravel(found["text"])]
    assert texts == ["a", "naïve 水"]


NOT_THERE = "Model nowhere (with version  )?not found"


async def test_a_model_that_is_not_there(url: str) -> None:
    x = np.ones((1, 2), np.float32)
    async with penstock.AsyncClient(url) as client:
        with pytest.raises(ModelNotFound, match=NOT_THERE) as caught:
            await client.infer("nowhere", {"x": x})
    assert isinstance(caught.value, RemoteError)
    expected = (None, "NOT_FOUND") if url.startswith("grpc") else (404, None)
    assert (caught.value.status, caught.value.code) == expected
    with penstock.Client(url) as blocking, pytest.raises(RemoteError, match=NOT_THERE):
        blocking.infer("nowhere", {"x": x})


async def test_a_model_that_refuses(url: str) -> None:
    async with penstock.AsyncClient(url) as client:
        with pytest.raises(ItemError, match="numbers below zero are not served") as caught:
            await client.infer("halves", {"x": np.full((1, 2), -1.0, np.float32)})
        assert isinstance(caught.value, RemoteError)
        expected = (None, "INVALID_ARGUMENT") if url.startswith("grpc") else (400, None)
        assert (caught.value.status, caught.value.code) == expected


async def test_what_it_says_of_itself(url: str) -> None:
    async with penstock.AsyncClient(url) as client:
        assert await client.is_live()
        assert await client.is_ready()
        assert await client.is_ready("halves")
        server = await client.server_metadata()
        assert server["name"] == "mlserver"
        model = await client.model_metadata("halves")
        assert model["name"] == "halves"
        with pytest.raises(ModelNotFound):
            await client.model_metadata("nowhere")


async def test_its_repository(url: str) -> None:
    async with penstock.AsyncClient(url) as client:
        states = {one["name"]: one["state"] for one in await client.repository_index()}
        # Over gRPC it says State.READY.
        assert {name: state.removeprefix("State.") for name, state in states.items()} == dict.fromkeys(MODELS, "READY")
        await client.unload_model("mirror")
        try:
            assert {one["name"] for one in await client.repository_index(ready=True)} == {"halves"}
        finally:
            await client.load_model("mirror")
        assert {one["name"] for one in await client.repository_index(ready=True)} == {"halves", "mirror"}
        x = np.ones((1, 2), np.float32)
        assert same((await client.infer("mirror", {"x": x}))["x"], x)


async def test_many_at_a_time(url: str) -> None:
    async with penstock.AsyncClient(url) as client:

        async def ask(n: int) -> Any:
            return (await client.infer("halves", {"x": np.full((1, 4), n, np.float32)}))["sum"]

        sums = await asyncio.gather(*(ask(n) for n in range(100)))
        stats = client.stats()
    assert [float(np.ravel(one)[0]) for one in sums] == [2.0 * n for n in range(100)]
    assert stats.total.failed == stats.total.cancelled == 0


async def test_a_time_that_is_too_short(url: str) -> None:
    x = np.ones((1, 4), np.float32)
    async with penstock.AsyncClient(url) as client:
        with pytest.raises(DeadlineExceeded):
            await client.infer("halves", {"x": x * 1000}, timeout=0.2)  # it takes 1 s
        assert same((await client.infer("halves", {"x": x}, timeout=30))["lower"], x[:, :2])
