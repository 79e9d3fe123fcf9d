"""Servers that speak TLS, clients that show certificates, and certificates that change."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
import time
from typing import TYPE_CHECKING

import aiohttp
import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import penstock
from penstock.errors import Closed, ConfigError, TransportError
from penstock.testing import TestClient
from tests.python.support.security import Files, Serving, X, double
from tests.python.support.waiting import soon, until

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def serial(url: str, files: Files) -> str:
    """The serial number of the certificate that a new connection is shown."""
    host, port = url.split("//")[1].split(":")
    context = ssl.create_default_context(cafile=str(files.ca))
    with (
        socket.create_connection((host, int(port)), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname=host) as secured,
    ):
        shown = secured.getpeercert()
        assert shown is not None
        return str(shown["serialNumber"])


def test_every_scheme_is_served_over_tls(files: Files) -> None:
    with penstock.Server(double, port=0, grpc_port=0, **files.settings) as server:
        assert server.url.startswith("https://")
        assert server.grpc_url.startswith("grpcs://")
        assert server.stats().url == server.url
        assert server.url in repr(server)
        one_port = server.url.replace("https", "grpcs")
        for url in (server.url, server.grpc_url, one_port, [server.url, server.grpc_url]):
            with penstock.Client(url, verify=files.ca) as client:
                assert (client.infer("double", {"x": X})["y"] == 2).all()
            with pytest.raises(TransportError), penstock.Client(url) as client:
                client.infer("double", {"x": X})


def test_clients_of_others_are_answered(files: Files) -> None:
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}
    context = ssl.create_default_context(cafile=str(files.ca))

    async def by_aiohttp(url: str) -> int:
        async with aiohttp.ClientSession() as session, session.post(url, json=body, ssl=context) as answer:
            await answer.read()
            return answer.status

    with penstock.Server(double, port=0, **files.settings) as server:
        url = f"{server.url}/v2/models/double/infer"
        assert asyncio.run(by_aiohttp(url)) == 200
        for http2 in (False, True):
            with httpx.Client(verify=context, http2=http2, timeout=60) as client:
                answer = client.post(url, json=body)
                assert (answer.status_code, answer.http_version) == (200, "HTTP/2" if http2 else "HTTP/1.1")
        credentials = grpc.ssl_channel_credentials(files.ca.read_bytes())
        with grpc.secure_channel(server.grpc_url.removeprefix("grpcs://"), credentials) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            assert check(health_pb2.HealthCheckRequest(), timeout=60).status == health_pb2.HealthCheckResponse.SERVING


def test_a_client_that_leaves_takes_its_request_out_of_the_queue(files: Files) -> None:
    entered, go = [], []

    @penstock.model("slow", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])}, max_batch_size=1)
    def slow(x: np.ndarray) -> np.ndarray:
        entered.append(x[0, 0])
        until(lambda: bool(go))
        return x

    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}

    async def leaves(url: str) -> None:
        context = ssl.create_default_context(cafile=str(files.ca))
        async with aiohttp.ClientSession() as session:
            asked = [asyncio.create_task(session.post(url, json=body, ssl=context)) for _ in range(2)]
            await soon(lambda: server.stats().models["slow"].queued == 1 and entered)
            for each in asked:
                each.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            await soon(lambda: server.stats().connections == 0)

    with penstock.Server(slow, port=0, **files.settings) as server:
        try:
            asyncio.run(leaves(f"{server.url}/v2/models/slow/infer"))
        finally:
            go.append(True)
        until(lambda: server.stats().models["slow"].abandoned >= 1)
        assert len(entered) == 1


def test_a_client_is_asked_for_a_certificate_and_named_by_it(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    with penstock.Server(double, port=0, tls_client_ca=files.ca, access_log=True, **files.settings) as server:
        for url in (server.url, server.grpc_url):
            with penstock.Client(url, verify=files.ca, cert=files.client) as client:
                client.infer("double", {"x": X})
            with penstock.Client(url, verify=files.ca) as client, pytest.raises(TransportError):
                client.infer("double", {"x": X})
        until(lambda: len(named(caplog)) >= 2)
    assert all("CN=team-a" in name for name in named(caplog))


def named(caplog: pytest.LogCaptureFixture) -> list[str]:
    records = (record for record in caplog.records if record.name == "penstock.access")
    return [record.__dict__["client"] for record in records if "infer" in record.__dict__["path"].lower()]


def test_certificates_that_change_are_shown_and_bad_ones_are_told(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    with penstock.Server(double, port=0, tls_reload_seconds=0.05, **files.settings) as server:
        first = serial(server.url, files)
        files.renew()
        until(lambda: serial(server.url, files) != first)
        second = serial(server.url, files)
        files.cert.write_text("nothing")
        until(lambda: any("stays in force" in record.message for record in caplog.records))
        assert serial(server.url, files) == second
        with pytest.raises(ConfigError, match=r"tls_cert: .* holds no certificate"):
            server.reload_certificates()
        files.renew()
        until(lambda: serial(server.url, files) != second)
    record = next(record for record in caplog.records if "stays in force" in record.message)
    assert record.levelname == "WARNING"
    assert "PRIVATE KEY" not in caplog.text


def test_reload_reads_at_once(files: Files) -> None:
    server = penstock.Server(double, port=0, tls_reload_seconds=0, **files.settings)
    with pytest.raises(Closed):
        server.reload_certificates()
    with server:
        assert server.reload_certificates() is False
        first = serial(server.url, files)
        files.renew()
        assert server.reload_certificates() is True
        assert serial(server.url, files) != first


def test_settings_that_cannot_be_are_refused_by_name(files: Files, tmp_path: Path) -> None:
    for settings, words in (
        ({"tls_key": files.key}, "tls_key is given without tls_cert"),
        ({"tls_client_ca": files.ca}, "tls_client_ca is given without tls_cert"),
        ({"tls_cert": 3}, "tls_cert must be the path of a file"),
        ({**files.settings, "tls_reload_seconds": -1}, "tls_reload_seconds"),
    ):
        with pytest.raises(ConfigError, match=words):
            penstock.Server(double, port=0, **settings)
    for settings, words in (
        ({"tls_cert": tmp_path / "missing"}, "missing cannot be read"),
        ({"tls_cert": files.cert}, "holds no private key"),
        ({**files.settings, "tls_client_ca": files.key}, "tls_client_ca"),
        ({"tls_cert": files.cert, "tls_key": files.client}, "cannot be used together"),
    ):
        with pytest.raises(ConfigError, match=words):
            penstock.Server(double, port=0, **settings).start()


def test_without_a_door_there_is_nothing_to_encrypt(files: Files) -> None:
    with TestClient(penstock.Server(double, **files.settings)) as client:
        assert client.get("/v2/health/ready").status_code == 200


@pytest.mark.parametrize("workers", [1, 2])
def test_a_command_serves_it_and_reads_it_again_on_a_hangup(files: Files, tmp_path: Path, workers: int) -> None:
    flags = ["--tls-cert", str(files.cert), "--tls-key", str(files.key), "--tls-reload-seconds", "0"]
    with Serving(tmp_path, *flags, "--workers", str(workers)) as serving:
        assert serving.url.startswith("https://")
        assert serving.grpc_url.startswith("grpcs://")
        with penstock.Client([serving.url, serving.grpc_url], verify=files.ca) as client:
            for _ in range(8):
                assert (client.infer("double", {"x": X})["y"] == 2).all()
        first = serial(serving.url, files)
        files.renew()
        assert serial(serving.url, files) == first
        serving.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 60
        while serial(serving.url, files) == first:
            assert time.monotonic() < end, serving.errors
            time.sleep(0.05)
        if workers == 1:
            files.cert.write_text("nothing")
            serving.process.send_signal(signal.SIGHUP)
            until(lambda: any("stays in force" in line for line in serving.errors))
    # Of several, one may have been about to start.
    assert serving.process.returncode == 0 or workers > 1
    assert "PRIVATE" not in "".join(serving.errors)
