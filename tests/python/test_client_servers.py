"""Servers that other people wrote: uvicorn with FastAPI, and TLS of Python's own."""

from __future__ import annotations

import asyncio
import email.policy
import http.server
import ssl
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import fastapi
import pytest
import uvicorn
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import RedirectResponse, StreamingResponse

from penstock import AsyncClient, Client, Pool
from penstock.errors import ConnectFailed, PenstockError, TransportError
from tests.python.support.waiting import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    Served = tuple[str, Path]

app = fastapi.FastAPI()
app.add_middleware(GZipMiddleware, minimum_size=100)


@app.post("/echo")
async def echo(request: fastapi.Request) -> dict[str, Any]:
    return {"got": await request.json(), "query": dict(request.query_params)}


@app.get("/stream")
async def stream() -> StreamingResponse:
    async def parts() -> AsyncIterator[bytes]:
        for number in range(20):
            yield f"{number};".encode()
            await asyncio.sleep(0.001)

    return StreamingResponse(parts(), media_type="text/plain")


@app.get("/moved")
async def moved() -> RedirectResponse:
    return RedirectResponse("/stream")


@app.post("/form")
async def form(request: fastapi.Request) -> list[tuple[str | None, str | None, int]]:
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    parts = email.message_from_bytes(head + await request.body(), policy=email.policy.HTTP).iter_parts()
    named = [(part, part.get_param("name", header="content-disposition")) for part in parts]
    return [(str(name), part.get_filename(), len(part.get_payload(decode=True))) for part, name in named]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(PATIENCE)


async def test_uvicorn(url: str) -> None:
    async with AsyncClient(url, pool=Pool(max_size=16), follow_redirects=True) as client:
        body = {"text": "ä" * 500}
        answers = await asyncio.gather(*(client.post("/echo", json=body, params={"n": n}) for n in range(200)))
        assert [answer.json() for answer in answers] == [{"got": body, "query": {"n": str(n)}} for n in range(200)]
        assert answers[0].headers["content-encoding"] == "gzip"
        whole = "".join(f"{number};" for number in range(20))
        assert (await client.get("/moved")).text == whole
        async with client.stream("GET", "/stream") as answer:
            pieces = [piece async for piece in answer.chunks()]
        assert b"".join(pieces).decode() == whole
        assert len(pieces) > 1
        sent = await client.post("/form", data={"text": "ü"}, files={"file": ("a.bin", bytes(70_000))})
        assert sent.json() == [["text", None, 2], ["file", "a.bin", 70_000]]
        assert (await client.get("/nothing")).status_code == 404
        assert client.stats().total.size <= 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and what it has signed: a server's certificate for localhost, and a client's."""
    folder = tmp_path_factory.mktemp("tls")
    names = {"server": "subjectAltName=DNS:localhost,IP:127.0.0.1", "client": "subjectAltName=DNS:me"}

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(*new, "-x509", "-days", "2", "-subj", "/CN=authority", "-keyout", "authority.key", "-out", "authority.pem")
    for name, extension in names.items():
        (folder / "extension").write_text(extension)
        openssl(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.request")
        signed = ("-CA", "authority.pem", "-CAkey", "authority.key", "-CAcreateserial", "-extfile", "extension")
        openssl("x509", "-req", "-in", f"{name}.request", *signed, "-days", "2", "-out", f"{name}.pem")
    return folder


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        certificate = self.connection.getpeercert()  # type: ignore[attr-defined]  # a connection of TLS
        body = repr(certificate and certificate["subject"]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


class TlsServer(http.server.ThreadingHTTPServer):
    """The handshake is made in the connection's own thread."""

    daemon_threads = True

    def finish_request(self, request: Any, address: Any) -> None:
        try:
            with self.context.wrap_socket(request, server_side=True) as connection:  # type: ignore[attr-defined]
                super().finish_request(connection, address)
        except OSError:
            pass


@pytest.fixture(params=[ssl.CERT_NONE, ssl.CERT_REQUIRED], ids=["anyone", "those with a certificate"])
def tls(request: pytest.FixtureRequest, folder: Path) -> Iterator[tuple[str, bool]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    context.load_verify_locations(folder / "authority.pem")
    context.verify_mode = request.param
    with TlsServer(("127.0.0.1", 0), Handler) as server:
        server.context = context  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"https://localhost:{server.server_port}", request.param == ssl.CERT_REQUIRED
        server.shutdown()
        thread.join(PATIENCE)


def test_tls(tls: tuple[str, bool], folder: Path) -> None:
    url, wants_certificate = tls
    pool = Pool(min_size=0)
    authority = folder / "authority.pem"
    pair = (folder / "client.pem", folder / "client.key")
    for verify in (authority, str(authority), authority.read_bytes(), False):
        with Client(url, pool=pool, verify=verify, cert=pair) as client:
            assert ("client" in client.get("/").text) == wants_certificate
            assert client.get("/").reused
    with Client(url.replace("localhost", "127.0.0.1"), pool=pool, verify=authority, cert=pair) as client:
        assert client.get("/").status_code == 200
    with Client(url, pool=pool, cert=pair) as client, pytest.raises(ConnectFailed, match="certificate"):
        client.get("/")
    with Client(url, pool=pool, verify=authority) as client:
        if wants_certificate:
            with pytest.raises(TransportError):
                client.get("/", retry=False)
        else:
            assert client.get("/").text == "None"


def test_a_certificate_of_another_name(tls: tuple[str, bool], folder: Path) -> None:
    url = tls[0].replace("localhost", "127.0.0.2")
    with Client(url, verify=folder / "authority.pem", timeout=5) as client, pytest.raises(PenstockError):
        client.get("/", retry=False)
