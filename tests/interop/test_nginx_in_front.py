"""nginx in front of our server: kept connections inside, HTTP/2 outside, gRPC, events, restarts and limits."""

from __future__ import annotations

import asyncio
import json
import queue
import signal
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc

import penstock
from penstock.errors import Overloaded, RemoteError
from tests.interop.support.certificates import TLS, write_certificates
from tests.interop.support.metrics import grown, samples
from tests.interop.support.processes import Process, answers, free_port
from tests.interop.support.served import double, gated, in_flight, place, queued, wide
from tests.python.support.waiting import Gate, outcomes, soon, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.interop.support.nginx import Nginx

ROWS = np.arange(6, dtype=np.float32).reshape(3, 2)
KEPT = 'proxy_http_version 1.1; proxy_set_header Connection "";'
PROXY = f"client_max_body_size 64m; location / {{ proxy_pass http://penstock; {KEPT} }}"
GRPC = "location /inference.GRPCInferenceService/ { grpc_pass grpc://penstock; grpc_read_timeout 60s; }"
LIMIT = 60

gates: dict[str, Gate] = {}


def upstream(*urls: str, kept: int = 64) -> str:
    """The block that names the servers behind."""
    return f"upstream penstock {{ {' '.join(f'server {place(url)};' for url in urls)} keepalive {kept}; }}"


@penstock.model("slow", task="generate")
def slow(_: penstock.GenerateRequest) -> Iterator[str]:
    yield "first"
    gates["slow"].opened.wait(LIMIT)
    yield "second"


@penstock.model("endless", task="generate")
def endless(_: penstock.GenerateRequest) -> Iterator[str]:
    try:
        while True:
            gates["endless"].opened.wait(0.01)
            yield "on "
    finally:
        gates["endless"].entered.set()


@pytest.fixture
def server() -> Iterator[penstock.Server]:
    gates.update(slow=Gate(), endless=Gate())
    with penstock.Server([double, wide, slow, endless], port=0) as server:
        yield server


async def test_many_clients_share_few_connections(nginx: Callable[..., Nginx], server: penstock.Server) -> None:
    front = nginx(PROXY, around=upstream(server.url))
    before = samples(server.metrics())

    def counted(name: str, *labels: str) -> float:
        return grown(before, samples(server.metrics()), name, *labels)

    async with penstock.AsyncClient(front.url, pool=penstock.Pool(max_size=32)) as client:
        asked = (client.infer("double", {"x": np.full((1, 2), n, np.float32)}) for n in range(500))
        found = await asyncio.gather(*asked)
    assert [float(one["y"][0, 0]) for one in found] == [2.0 * n for n in range(500)]
    # The last are counted late.
    await soon(lambda: counted("penstock_requests_total", "model=double", "outcome=ok") == 500)
    assert counted("penstock_http_accepted_total") <= 32
    assert {exchange.status for exchange in await front.all_of(500)} == {200}


@pytest.mark.parametrize("listen", ["", "http2", "ssl http2"])
async def test_every_version_of_http_outside(
    nginx: Callable[..., Nginx], server: penstock.Server, tmp_path: Path, listen: str
) -> None:
    certificates = write_certificates(tmp_path / "front")
    block = f"{TLS if 'ssl' in listen else ''} {PROXY}"
    front = nginx(block, around=upstream(server.url), listen=listen, folder=tmp_path / "front")
    url = front.secure_url if "ssl" in listen else front.url
    options: dict[str, Any] = {"http2": "always"} if listen == "http2" else {}
    async with penstock.AsyncClient(url, verify=str(certificates.authority), **options) as client:
        found = await asyncio.gather(*(client.infer("double", {"x": ROWS}) for _ in range(50)))
        assert all(np.array_equal(one["y"], ROWS * 2) for one in found)
        big = (await client.infer("wide", {"x": np.full((1, 500_000), 1.5, np.float32)}))["y"]
        assert (big == 3).all()
    assert {exchange.protocol for exchange in front.exchanges()} == {"HTTP/2.0" if "http2" in listen else "HTTP/1.1"}


async def test_calls_and_streams_of_grpc(nginx: Callable[..., Nginx]) -> None:
    with gated() as (server, gate):
        front = nginx(GRPC, around=upstream(server.grpc_url), listen="http2")
        client = tritonclient.grpc.InferenceServerClient(place(front.url))
        heard: queue.Queue[Any] = queue.Queue()
        client.start_stream(callback=lambda result, error: heard.put(error or result.as_numpy("y")))
        for number in (1, 2):
            given = tritonclient.grpc.InferInput("x", [1], "FP32")
            given.set_data_from_numpy(np.array([number], np.float32))
            client.async_stream_infer("gated", [given])
        until(lambda: queued(server) == 1)
        assert heard.empty(), "the model was not let"
        gate.open()
        assert [heard.get(timeout=LIMIT).tolist() for _ in range(2)] == [[10.0], [20.0]]
        client.stop_stream()
        client.close()
        async with penstock.AsyncClient(front.url.replace("http", "grpc")) as ours:
            found = await asyncio.gather(*(ours.infer("gated", {"x": np.array([n], np.float32)}) for n in range(20)))
            assert [one["y"].tolist() for one in found] == [[10.0 * n] for n in range(20)]
            with pytest.raises(RemoteError, match="'nowhere'"):
                await ours.infer("nowhere", {"x": np.array([1], np.float32)})


@pytest.mark.parametrize("buffering", ["on", "off"])
@pytest.mark.parametrize("listen", ["", "http2"])
async def test_events_pass_as_they_are_said(
    nginx: Callable[..., Nginx], server: penstock.Server, buffering: str, listen: str
) -> None:
    """With buffering on, nginx heeds `X-Accel-Buffering: no`, which our streams say."""
    front = nginx(f"proxy_buffering {buffering}; {PROXY}", around=upstream(server.url), listen=listen)
    asked = {"model": "slow", "prompt": "", "stream": True}
    options: dict[str, Any] = {"http2": "always"} if listen else {}
    async with penstock.AsyncClient(front.url, **options) as client:
        async with client.stream("POST", "/v1/completions", json=asked) as stream:
            events = stream.sse()
            first = await asyncio.wait_for(anext(events), LIMIT)
            assert first.json()["choices"][0]["text"] == "first"
            gates["slow"].open()
            rest = [event.data async for event in events]
        assert json.loads(rest[0])["choices"][0]["text"] == "second"
        assert rest[-1] == "[DONE]"


async def test_a_client_that_leaves_stops_its_stream(nginx: Callable[..., Nginx], server: penstock.Server) -> None:
    front = nginx(PROXY, around=upstream(server.url))
    async with penstock.AsyncClient(front.url) as client:
        asked = {"model": "endless", "prompt": "", "stream": True}
        async with client.stream("POST", "/v1/completions", json=asked) as stream:
            await asyncio.wait_for(anext(stream.sse()), LIMIT)
        await soon(gates["endless"].entered.is_set)
        await soon(lambda: in_flight(server) == 0)
        assert (await client.get("/v2/health/ready")).status_code == 200


async def test_a_body_of_unknown_length(nginx: Callable[..., Nginx], server: penstock.Server) -> None:
    """HTTP/2 outside says no length, and nginx sends chunks inside."""
    front = nginx(f"proxy_request_buffering off; {PROXY}", around=upstream(server.url), listen="http2")
    x = {"name": "x", "datatype": "FP32", "shape": [1, 500_000], "data": [1.5] * 500_000}
    body = json.dumps({"inputs": [x]}).encode()

    async def pieces() -> Any:
        for begin in range(0, len(body), 100_000):
            yield body[begin : begin + 100_000]

    async with penstock.AsyncClient(front.url, http2="always") as client:
        answer = await client.post("/v2/models/wide/infer", content=pieces())
        assert set(answer.raise_for_status().json()["outputs"][0]["data"]) == {3.0}
        missing = await client.post("/v2/models/nowhere/infer", content=pieces())
        assert missing.status_code == 404
        assert (await client.get("/v2/health/ready")).status_code == 200


async def test_overload_says_through_nginx_when_to_come_again(nginx: Callable[..., Nginx]) -> None:
    with gated(max_in_flight=1) as (server, gate):
        front = nginx(PROXY, around=upstream(server.url))
        async with penstock.AsyncClient(front.url, retry=penstock.Retry(attempts=1)) as client:
            x = {"x": np.array([1], np.float32)}
            first = asyncio.ensure_future(client.infer("gated", x))
            await gate.is_entered()
            ends = await outcomes(client.infer("gated", x) for _ in range(300))
            assert all(isinstance(end, Overloaded) and end.retry_after for end in ends), ends[:3]
            gate.open()
            assert (await first)["y"].tolist() == [10]
        assert server.stats().models["gated"].requests == 1


async def test_a_limit_of_nginx(nginx: Callable[..., Nginx], server: penstock.Server) -> None:
    """What it turns away, our server never sees, and our client names the status."""
    around = f"limit_req_zone $server_name zone=rate:1m rate=5r/s; limit_req_status 429; {upstream(server.url)}"
    front = nginx(f"limit_req zone=rate burst=10 nodelay; {PROXY}", around=around)
    before = samples(server.metrics())
    question = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}
    async with penstock.AsyncClient(front.url, retry=penstock.Retry(attempts=1)) as client:
        asked = (client.post("/v2/models/double/infer", json=question) for _ in range(100))
        ends = Counter(answer.status_code for answer in await asyncio.gather(*asked))
    assert set(ends) == {200, 429}
    assert ends.total() == 100
    await soon(lambda: grown(before, samples(server.metrics()), "penstock_requests_total") == ends[200])


async def test_it_says_502_while_nobody_is_there_and_goes_on_afterwards(nginx: Callable[..., Nginx]) -> None:
    port = free_port()
    front = nginx(f"{PROXY}", around=f"upstream penstock {{ server 127.0.0.1:{port} max_fails=0; keepalive 4; }}")
    async with penstock.AsyncClient(front.url, retry=penstock.Retry(attempts=1)) as client:
        for _ in range(2):
            with penstock.Server(double, port=port):
                assert np.array_equal((await client.infer("double", {"x": ROWS}))["y"], ROWS * 2)
            with pytest.raises(RemoteError) as caught:
                await client.infer("double", {"x": ROWS})
            assert caught.value.status == 502


APP = """
import penstock

@penstock.model("double", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
def double(x):
    return x * 2
"""


@pytest.mark.parametrize("reloads", ["nginx", "penstock"])
async def test_a_reload_of_either_loses_nothing(nginx: Callable[..., Nginx], tmp_path: Path, reloads: str) -> None:
    (tmp_path / "app.py").write_text(APP)
    port = free_port()
    flags = ["--port", str(port), "--workers", "2"]
    served = Process(
        [sys.executable, "-m", "penstock", "serve", "app.py", *flags], tmp_path / "penstock.log", folder=tmp_path
    )
    try:
        served.wait_until(lambda: answers(f"http://127.0.0.1:{port}/v2/health/ready"))
        front = nginx(PROXY, around=upstream(f"http://127.0.0.1:{port}"))
        ends: Counter[Any] = Counter()
        stopping = asyncio.Event()

        async def ask(client: penstock.AsyncClient, number: int) -> None:
            x = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [number, number]}
            while not stopping.is_set():
                # A connection on which nothing is asked may be closed in the moment in which something is; a status is
                # the end of it.
                answer = await client.post("/v2/models/double/infer", json={"inputs": [x]}, retry=True)
                right = answer.status_code == 200 and answer.json()["outputs"][0]["data"] == [2 * number] * 2
                ends[right or (answer.status_code, answer.text)] += 1

        async with penstock.AsyncClient(front.url) as client:
            asking = [asyncio.create_task(ask(client, number)) for number in range(8)]
            await soon(lambda: ends[True] > 100)
            for _ in range(2):
                if reloads == "nginx":
                    await asyncio.to_thread(front.reload)
                else:
                    before = workers_of(served)
                    served.send(signal.SIGHUP)
                    await soon(lambda gone=before: len(workers_of(served)) == 2 and not workers_of(served) & gone)
                more = ends[True] + 100
                await soon(lambda more=more: ends[True] > more)
            stopping.set()
            await asyncio.wait_for(asyncio.gather(*asking), LIMIT)
        assert set(ends) == {True}, ends
    finally:
        served.stop()


def workers_of(served: Process) -> set[int]:
    command = ["ps", "-o", "pid=", "--ppid", str(served.number)]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    return set(map(int, listed.stdout.split()))
