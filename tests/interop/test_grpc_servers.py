"""Our client against a grpcio server: tensors, metadata, every status, time, cancelling, limits, restarts, TLS."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import grpc
import ml_dtypes
import numpy as np
import pytest

import penstock
from penstock.errors import (
    ConnectFailed,
    DeadlineExceeded,
    ItemError,
    ModelNotFound,
    ModelNotReady,
    Overloaded,
    PenstockError,
    RemoteError,
    TransportError,
)
from tests.interop.support.certificates import write_certificates
from tests.interop.support.grpcio_server import WORDS, grpcio_server
from tests.interop.support.processes import free_port
from tests.interop.support.served import assert_mirrored, both_doors, everything
from tests.python.support.arrays import same
from tests.python.support.waiting import PATIENCE, soon

if TYPE_CHECKING:
    from pathlib import Path

X = np.arange(6, dtype=np.float32).reshape(3, 2)
CODES: dict[str, type[PenstockError]] = {
    "CANCELLED": RemoteError,
    "UNKNOWN": RemoteError,
    "INVALID_ARGUMENT": ItemError,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "NOT_FOUND": ModelNotFound,
    "ALREADY_EXISTS": RemoteError,
    "PERMISSION_DENIED": RemoteError,
    "RESOURCE_EXHAUSTED": Overloaded,
    "FAILED_PRECONDITION": RemoteError,
    "ABORTED": RemoteError,
    "OUT_OF_RANGE": RemoteError,
    "UNIMPLEMENTED": RemoteError,
    "INTERNAL": RemoteError,
    "UNAVAILABLE": ModelNotReady,
    "DATA_LOSS": RemoteError,
    "UNAUTHENTICATED": RemoteError,
}


async def test_every_datatype_raw() -> None:
    sent = everything()
    async with grpcio_server() as server, penstock.AsyncClient(server.url) as client:
        found = await client.infer("mirror", sent)
        assert list(found) == list(sent)
        for name, array in sent.items():
            assert_mirrored(found[name], array, name)
        assert found["bf16"].dtype == ml_dtypes.bfloat16

        def blocking() -> Any:
            with penstock.Client(server.url) as blocking:
                return blocking.infer("mirror", {"x": X})["x"]

        assert same(await asyncio.to_thread(blocking), X)


async def test_every_datatype_typed() -> None:
    sent = {name: array for name, array in everything().items() if name not in ("fp16", "bf16")}
    async with grpcio_server() as server, penstock.AsyncClient(server.url) as client:
        found = await client.infer("typed", sent)
        for name, array in sent.items():
            if name.startswith("fp"):  # protobuf's floats pass through Python's, which keep no signals of NaN
                assert np.array_equal(found[name], array, equal_nan=True)
            else:
                assert_mirrored(found[name], array, name)


async def test_arrays_that_do_not_lie_in_a_row() -> None:
    base = np.arange(24, dtype=np.float64).reshape(4, 6)
    async with grpcio_server() as server, penstock.AsyncClient(server.url) as client:
        for array in (base.T, base[:, ::2], base[::-1], np.asfortranarray(base), base[:0], base[1:2, 3:4]):
            assert same((await client.infer("mirror", {"x": array}))["x"], array)


@pytest.mark.parametrize("packing", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_packed_answers(packing: grpc.Compression) -> None:
    x = np.tile(X, (1000, 1))
    async with grpcio_server(compression=packing) as server, penstock.AsyncClient(server.url) as client:
        assert same((await client.infer("mirror", {"x": x}))["x"], x)


async def test_large_messages_beside_small_ones() -> None:
    large = np.random.default_rng(5).random((1 << 20, 2), np.float32)  # 8 MiB: far more than a window
    async with grpcio_server() as server, penstock.AsyncClient(server.url) as client:
        small = [client.infer("mirror", {"x": X}) for _ in range(50)]
        first, *rest = await asyncio.gather(client.infer("mirror", {"x": large}), *small)
    assert same(first["x"], large)
    assert all(same(found["x"], X) for found in rest)


async def test_what_the_server_is_told() -> None:
    async with grpcio_server() as server:
        async with penstock.AsyncClient(server.url, headers={"x-tenant": "a"}) as client:
            await client.infer("mirror", {"x": X}, timeout=20)
            await client.infer("mirror", {"x": X}, timeout=None)
        first, second = server.inference.calls
    assert first.metadata["x-tenant"] == "a"
    assert "penstock" in first.metadata["user-agent"]
    assert first.time_left is not None
    assert 10 < first.time_left <= 20
    assert second.time_left is None or second.time_left > 60


@pytest.mark.parametrize("code", list(CODES))
async def test_every_status(code: str) -> None:
    async with grpcio_server() as server, penstock.AsyncClient(server.url, retry=None) as client:
        with pytest.raises(CODES[code], match=WORDS) as caught:
            await client.infer(code, {"x": X})
        if isinstance(caught.value, RemoteError):
            assert caught.value.code == code
        assert same((await client.infer("mirror", {"x": X}))["x"], X)
        assert client.stats().total.created <= 6


async def test_a_call_that_takes_too_long_is_ended_at_the_server() -> None:
    async with grpcio_server() as server, penstock.AsyncClient(server.url) as client:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await client.infer("slow", {"x": X}, timeout=0.3)
        assert time.monotonic() - began < PATIENCE
        assert server.inference.calls[0].time_left is not None
        assert server.inference.calls[0].time_left <= 0.3
        await soon(lambda: server.inference.calls[0].cancelled)
        assert same((await client.infer("mirror", {"x": X}))["x"], X)


async def test_a_task_that_is_cancelled_ends_its_call_at_the_server() -> None:
    async with grpcio_server() as server, penstock.AsyncClient(server.url) as client:
        task = asyncio.create_task(client.infer("slow", {"x": X}))
        await soon(lambda: server.inference.calls)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await soon(lambda: server.inference.calls[0].cancelled)
        assert same((await client.infer("mirror", {"x": X}))["x"], X)
        # The channel stays: a call that is ended costs no more than its stream.
        assert len({call.peer for call in server.inference.calls}) <= 2


async def test_streams_are_capped_as_the_server_says() -> None:
    options = [("grpc.max_concurrent_streams", 2)]
    async with grpcio_server(options=options) as server:
        pool = penstock.Pool(min_size=1, max_size=4)
        async with penstock.AsyncClient(server.url, pool=pool) as client:
            found = await asyncio.gather(*(client.infer("mirror", {"x": X + n}) for n in range(100)))
            channels = {call.peer for call in server.inference.calls}
    assert all(same(one["x"], X + n) for n, one in enumerate(found))
    assert 1 <= len(channels) <= 4


async def test_a_server_that_sends_its_channels_away() -> None:
    """GOAWAY four times a second: whatever it says was not processed is sent again, and nothing fails."""
    options = [("grpc.max_connection_age_ms", 250), ("grpc.max_connection_age_grace_ms", 5000)]
    async with grpcio_server(options=options) as server, penstock.AsyncClient(server.url) as client:
        until = time.monotonic() + 1.5
        count = 0
        while time.monotonic() < until:
            found = await asyncio.gather(*(client.infer("mirror", {"x": X + n}) for n in range(16)))
            assert all(same(one["x"], X + n) for n, one in enumerate(found))
            count += 16
        peers = {call.peer for call in server.inference.calls}
        assert len(server.inference.calls) == count, "no call was made twice"
    assert len(peers) > 1


async def test_a_server_that_goes_and_comes_back() -> None:
    port = free_port()
    async with penstock.AsyncClient(f"grpc://127.0.0.1:{port}", retry=None) as client:
        with pytest.raises((ConnectFailed, DeadlineExceeded)):
            await client.infer("mirror", {"x": X}, timeout=5)
        for _ in range(3):
            async with grpcio_server(port=port) as server:
                await soon_infers(client)
                slow = asyncio.create_task(client.infer("slow", {"x": X}))
                await soon(lambda server=server: any(call.model == "slow" for call in server.inference.calls))
            with pytest.raises((TransportError, RemoteError, ModelNotReady)):
                await slow


async def soon_infers(client: penstock.AsyncClient) -> None:
    """Until a call is answered; before that they fail, each with a type."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            assert same((await client.infer("mirror", {"x": X}, timeout=5))["x"], X)
        except (TransportError, DeadlineExceeded, ModelNotReady, RemoteError):
            assert time.monotonic() < end, "it never came back"
            await asyncio.sleep(0.02)
        else:
            return


async def test_many_at_a_time() -> None:
    async with grpcio_server() as server, penstock.AsyncClient(server.url) as client:
        found = await asyncio.gather(*(client.infer("mirror", {"x": X + n}) for n in range(500)))
        stats = client.stats().total
    assert all(same(one["x"], X + n) for n, one in enumerate(found))
    assert (stats.failed, stats.cancelled) == (0, 0)
    assert len(server.inference.calls) == 500


async def test_a_unix_socket(tmp_path: Path) -> None:
    socket = tmp_path / "inference.sock"
    async with grpcio_server(address=f"unix:{socket}"):
        for url in (f"grpc+unix://{socket}", "grpc+unix://" + str(socket).replace("/", "%2F")):
            async with penstock.AsyncClient(url) as client:
                assert same((await client.infer("mirror", {"x": X}))["x"], X)


async def test_tls(tmp_path: Path) -> None:
    certificates = write_certificates(tmp_path)
    pair = ((tmp_path / "server.key").read_bytes(), (tmp_path / "server.pem").read_bytes())
    credentials = grpc.ssl_server_credentials([pair])
    async with grpcio_server(credentials=credentials) as server:
        async with penstock.AsyncClient(server.url, verify=str(certificates.authority)) as client:
            assert same((await client.infer("mirror", {"x": X}))["x"], X)
        other = write_certificates(tmp_path / "other")
        for verify in (True, str(other.authority)):
            async with penstock.AsyncClient(server.url, verify=verify, retry=None) as client:
                with pytest.raises(ConnectFailed, match="certificate"):
                    await client.infer("mirror", {"x": X})
        plain = server.url.replace("grpcs://", "grpc://")
        async with penstock.AsyncClient(plain, retry=None) as client:
            with pytest.raises(TransportError):
                await client.infer("mirror", {"x": X})


async def test_client_certificates(tmp_path: Path) -> None:
    certificates = write_certificates(tmp_path)
    pair = ((tmp_path / "server.key").read_bytes(), (tmp_path / "server.pem").read_bytes())
    authority = certificates.authority.read_bytes()
    credentials = grpc.ssl_server_credentials([pair], root_certificates=authority, require_client_auth=True)
    async with grpcio_server(credentials=credentials) as server:
        verify, shown = str(certificates.authority), (str(certificates.client), str(certificates.client_key))
        async with penstock.AsyncClient(server.url, verify=verify, cert=shown) as client:
            assert same((await client.infer("mirror", {"x": X}))["x"], X)
        async with penstock.AsyncClient(server.url, verify=verify, retry=None) as client:
            with pytest.raises(TransportError):
                await client.infer("mirror", {"x": X})


async def test_a_fleet_of_both_protocols() -> None:
    """HTTP and gRPC endpoints of different servers under one client: all of them are asked."""
    with both_doors() as ours:
        async with grpcio_server() as theirs:
            urls = [ours.url, ours.grpc_url, theirs.url]
            async with penstock.AsyncClient(urls, balance="round_robin") as client:
                asked = {"x": np.ones((1, 2), np.float32)}
                found = await asyncio.gather(*(client.infer("double", asked) for _ in range(60)))
        assert len(theirs.inference.calls) == 20
        answers = [tuple(found.get("y", found.get("x")).ravel().tolist()) for found in found]
        assert (answers.count((2.0, 2.0)), answers.count((1.0, 1.0))) == (40, 20)
