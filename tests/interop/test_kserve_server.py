"""Our client, and our gateway, against both doors of KServe's model server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penstock
from penstock.errors import DeadlineExceeded, ItemError, ModelNotFound, RemoteError
from tests.interop.support.kserve import kserve
from tests.python.support.arrays import same

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.interop.support.doors import Doors

NUMBERS = ["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32", "float64"]
X = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    with kserve(tmp_path_factory.mktemp("kserve")) as doors:
        yield doors


@pytest.fixture(params=["http", "grpc"])
def url(request: pytest.FixtureRequest, doors: Doors) -> str:
    found: str = getattr(doors, request.param)
    return found


@pytest.mark.parametrize("binary", [None, True, False])
async def test_arrays_in_and_out(url: str, binary: bool | None) -> None:
    async with penstock.AsyncClient(url) as client:
        found = await client.infer("halves", {"x": X}, binary=binary)
    assert set(found) == {"lower", "sum"}
    assert same(found["lower"], X[:, :2])
    assert np.array_equal(np.ravel(found["sum"]), [1.0, 9.0, 17.0])
    with penstock.Client(url) as blocking:
        assert same(blocking.infer("halves", {"x": X}, binary=binary)["lower"], X[:, :2])


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
    assert same(found["n"], inputs["n"])
    assert [one.decode() if isinstance(one, bytes) else one for one in np.ravel(found["text"])] == ["a", "naïve 水"]


async def test_what_it_refuses(url: str) -> None:
    async with penstock.AsyncClient(url) as client:
        with pytest.raises(RemoteError, match="nowhere") as missing:
            await client.infer("nowhere", {"x": X})
        with pytest.raises(RemoteError, match="numbers below zero are not served") as refused:
            await client.infer("halves", {"x": -X})
    assert isinstance(missing.value, ModelNotFound)
    assert isinstance(refused.value, ItemError)


async def test_what_it_says_of_itself(url: str) -> None:
    async with penstock.AsyncClient(url) as client:
        assert await client.is_live()
        assert await client.is_ready()
        assert await client.is_ready("halves")
        assert (await client.server_metadata())["name"] == "kserve"
        assert (await client.model_metadata("halves"))["name"] == "halves"


async def test_many_at_a_time_and_one_that_is_late(url: str) -> None:
    async with penstock.AsyncClient(url) as client:

        async def ask(n: int) -> Any:
            return (await client.infer("halves", {"x": np.full((1, 4), n, np.float32)}))["sum"]

        sums = await asyncio.gather(*(ask(n) for n in range(100)))
        assert [float(np.ravel(one)[0]) for one in sums] == [2.0 * n for n in range(100)]
        with pytest.raises(DeadlineExceeded):
            await client.infer("halves", {"x": X * 1000}, timeout=0.2)
        assert same((await client.infer("halves", {"x": X}, timeout=30))["lower"], X[:, :2])


def test_our_gateway_in_front_of_it(url: str) -> None:
    outputs: Any = {"lower": ("float32", [2]), "sum": ("float32", [])}
    remote = penstock.RemoteModel("halves", [url], inputs={"x": ("float32", [4])}, outputs=outputs, max_batch_size=64)
    with penstock.Server(remote, port=0) as server, penstock.Client(server.url) as client:
        found = client.infer("halves", {"x": X})
        np.testing.assert_array_equal(found["lower"], X[:, :2])
        np.testing.assert_array_equal(found["sum"], [1.0, 9.0, 17.0])
        with pytest.raises(ItemError, match="numbers below zero"):
            client.infer("halves", {"x": -X[1:2]})
