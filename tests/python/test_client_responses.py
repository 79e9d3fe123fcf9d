"""What comes back: heads, bodies of every framing and packing, text, errors."""

from __future__ import annotations

import gzip
import json
import pickle
import time
import zlib
from typing import TYPE_CHECKING

import brotli
import pytest

from penstock import AsyncClient, Client, Pool, Response
from penstock.errors import ConfigError, PenstockError, ProtocolError, ReadFailed, RemoteError, TransportError
from tests.python.support.http_server import HttpServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.python.support.http_server import Peer


def answered(*said: bytes, then_close: bool = False) -> Response:
    """What the client makes of the bytes that a server says."""

    def behave(peer: Peer) -> None:
        for _ in peer:
            for each in said:
                peer.send(each)
            if then_close:
                return

    with HttpServer(behave) as server, Client(server.url) as client:
        return client.get("/x")


ALONE = Pool(min_size=0)
OK = b"HTTP/1.1 200 OK\r\n"


def test_the_head() -> None:
    response = answered(OK + b"Content-Length: 2\r\nX-A: 1\r\nx-a: 2\r\nX-B: \xc3\xa4\r\nX-C: \xff\r\n\r\nhi")
    assert (response.status_code, response.reason_phrase, response.http_version) == (200, "OK", "HTTP/1.1")
    assert response.headers["x-A"] == "1, 2"
    assert response.headers.get_list("X-a") == ["1", "2"]
    assert (response.headers["x-b"], response.headers["x-c"]) == ("ä", "ÿ")
    assert response.headers.multi_items()[1:3] == [("x-a", "1"), ("x-a", "2")]
    assert (b"X-A", b"1") in response.headers.raw or (b"x-a", b"1") in response.headers.raw
    assert "content-length" in response.headers
    assert "nothing" not in response.headers
    assert response.headers == {"content-length": "2", "x-a": "1, 2", "x-b": "ä", "x-c": "ÿ"}
    assert response.content == b"hi"
    assert response.url.endswith("/x")
    assert response.url.startswith(response.endpoint)
    assert (response.attempts, response.reused, response.history) == (1, False, ())
    assert 0 < response.first_byte <= response.elapsed < 30
    assert response.is_success
    assert not response.is_error
    assert repr(response) == "<Response [200 OK]>"


FRAMINGS: dict[str, tuple[bytes, bool]] = {
    "length": (OK + b"Content-Length: 5\r\n\r\nhello", False),
    "chunked": (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nT: 1\r\n\r\n", False),
    "to the end": (OK + b"\r\nhello", True),
    "connection: close": (OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello", True),
    "http/1.0": (b"HTTP/1.0 200 OK\r\n\r\nhello", True),
    "http/1.0, kept": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", False),
    "after 100": (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nhello", False),
    "after 103": (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nhello", False),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", False),
}


@pytest.mark.parametrize(("said", "ends"), FRAMINGS.values(), ids=FRAMINGS)
@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_every_framing_at_every_pace(said: bytes, ends: bool, piece: int) -> None:
    pieces = [said[start : start + piece] for start in range(0, len(said), piece)]
    response = answered(*pieces, then_close=ends)
    assert (response.status_code, response.content) == (200, b"hello")


def packed_by_zstd(data: bytes) -> bytes:
    # A frame with one raw block: RFC 8878, section 3.1.1.
    return b"\x28\xb5\x2f\xfd\x20" + bytes([len(data)]) + (len(data) << 3 | 1).to_bytes(3, "little") + data


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": packed_by_zstd,
    "identity": bytes,
}


@pytest.mark.parametrize("name", PACKINGS)
def test_bodies_are_unpacked(name: str) -> None:
    body = PACKINGS[name](b"hello" * 30)
    head = f"Content-Encoding: {name}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    assert answered(OK + head + body).content == b"hello" * 30


def test_raw_deflate_is_unpacked() -> None:
    pack = zlib.compressobj(wbits=-15)
    body = pack.compress(b"hello") + pack.flush()
    assert (
        answered(OK + f"Content-Encoding: deflate\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body).text
        == "hello"
    )


def test_an_unknown_packing_is_left_as_it_is() -> None:
    assert answered(OK + b"Content-Encoding: mine\r\nContent-Length: 2\r\n\r\n\x00\xff").content == b"\x00\xff"


@pytest.mark.parametrize("body", [b"no gzip", gzip.compress(b"hello", mtime=0)[:-4]])
def test_a_broken_packing_is_an_error(body: bytes) -> None:
    with pytest.raises((ProtocolError, ReadFailed)):
        answered(OK + f"Content-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


def test_a_bomb_is_not_unpacked() -> None:
    body = gzip.compress(bytes(64 << 20))

    def behave(peer: Peer) -> None:
        for _ in peer:
            peer.answer(body, headers={"Content-Encoding": "gzip"})

    with HttpServer(behave) as server, Client(server.url, max_response=1 << 20) as client:
        with pytest.raises(PenstockError, match=r"max_response|1048576"):
            client.get("/")
        with pytest.raises(PenstockError, match=r"max_response|1048576"):
            client.get("/")


def test_text_and_its_encoding() -> None:
    response = answered(OK + b'Content-Type: text/plain; Charset="ISO-8859-1"\r\nContent-Length: 1\r\n\r\n\xe4')
    assert (response.encoding, response.text) == ("iso-8859-1", "ä")
    response.encoding = "cp437"
    assert response.text == "Σ"
    with pytest.raises(LookupError):
        response.encoding = "nothing"
    assert answered(OK + b"Content-Length: 2\r\n\r\n\xc3\xa4").text == "ä"
    assert answered(OK + b"Content-Length: 2\r\n\r\na\xff").text == "a�"
    for unusable in (b"nothing", b"hex", b"\x00"):
        head = b"Content-Type: text/plain; charset=" + unusable.replace(b"\x00", b"a/../b")
        assert answered(OK + head + b"\r\nContent-Length: 2\r\n\r\n\xc3\xa4").text == "ä"


def test_json() -> None:
    assert answered(OK + b"Content-Length: 8\r\n\r\n" + b'{"a": 1}').json() == {"a": 1}
    assert answered(OK + b"Content-Length: 3\r\n\r\n1.5").json(parse_float=str) == "1.5"
    with pytest.raises(json.JSONDecodeError):
        answered(OK + b"Content-Length: 0\r\n\r\n").json()


@pytest.mark.parametrize("status", [200, 204, 304, 302, 399])
def test_a_status_below_400_is_no_error(status: int) -> None:
    response = answered(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode())
    assert response.raise_for_status() is response


def test_a_status_of_an_error() -> None:
    body = b"busy: " + b"x" * 500
    response = answered(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 506\r\n\r\n" + body)
    assert response.is_server_error
    with pytest.raises(RemoteError) as caught:
        response.raise_for_status()
    error = caught.value
    assert (error.status, error.code, error.body) == (503, None, body)
    assert str(error) == f"503 Service Unavailable for url {response.url}: busy: {'x' * 194}..."
    assert pickle.loads(pickle.dumps(error)).status == 503  # noqa: S301


def test_an_error_without_words() -> None:
    response = answered(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(RemoteError, match=f"^404 Not Found for url {response.url}$"):
        response.raise_for_status()


def test_a_response_can_be_pickled() -> None:
    response = answered(OK + b"Content-Length: 2\r\nX-A: 1\r\n\r\nhi")
    response.encoding = "ascii"
    again = pickle.loads(pickle.dumps(response))  # noqa: S301
    assert (again.status_code, again.content, again.headers, again.encoding) == (200, b"hi", response.headers, "ascii")
    assert (again.url, again.elapsed, again.history) == (response.url, response.elapsed, ())
    assert not again.has_redirect_location
    assert repr(pickle.loads(pickle.dumps(again))) == "<Response [200 OK]>"  # noqa: S301


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_statuses_without_a_body_leave_the_connection_usable(status: str) -> None:
    def behave(peer: Peer) -> None:
        for _ in peer:
            peer.answer(status=status, headers={"Content-Length": "50"}, length=False)

    with HttpServer(behave) as server, Client(server.url, pool=ALONE) as client:
        for _ in range(3):
            assert client.get("/").content == b""
        assert server.connections == 1


def test_head_has_no_body() -> None:
    def behave(peer: Peer) -> None:
        for _ in peer:
            peer.answer(headers={"Content-Length": "50"}, length=False)

    with HttpServer(behave) as server, Client(server.url, pool=ALONE) as client:
        for _ in range(3):
            response = client.head("/")
            assert (response.content, response.headers["content-length"]) == (b"", "50")
        assert server.connections == 1


def test_what_follows_an_answer_is_never_taken_for_the_next_one() -> None:
    def behave(peer: Peer) -> None:
        for number, _ in enumerate(peer):
            peer.answer(f"{peer.index}.{number}")
            peer.send(OK + b"Content-Length: 4\r\n\r\nevil")

    with HttpServer(behave) as server, Client(server.url, pool=ALONE) as client:
        for _ in range(5):
            assert client.get("/").text.endswith(".0")
            time.sleep(0.1)  # what comes after the next request was sent nobody could tell from its answer
        assert server.connections == 5


BROKEN: dict[str, bytes] = {
    "not http": b"hello\r\n\r\n",
    "no version": b"200 OK\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "two lengths": OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length of no kind": OK + b"Content-Length: +1\r\n\r\na",
    "negative length": OK + b"Content-Length: -1\r\n\r\n",
    "length too long": OK + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "chunk of no length": OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "chunk without end": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
    "endless head": OK + b"X: " + b"a" * (1 << 20),
    "endless heads": OK + b"X: a\r\n" * (1 << 17),
    "endless hints": b"HTTP/1.1 103 Early Hints\r\n\r\n" * (1 << 15),
    "header without name": OK + b": a\r\n\r\n",
    "space before the colon": OK + b"X : a\r\nContent-Length: 0\r\n\r\n",
    "nul in a header": OK + b"X: a\x00b\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("said", BROKEN.values(), ids=BROKEN)
def test_an_answer_that_is_not_http_is_an_error(said: bytes) -> None:
    def behave(peer: Peer) -> None:
        for _ in peer:
            if peer.server.connections <= 3:
                peer.send(said)
                peer.sees_end(1)
                return
            peer.answer("good")

    with HttpServer(behave) as server, Client(server.url, timeout=20) as client:
        with pytest.raises(TransportError):
            client.post("/")
        server.connections = 3
        assert client.get("/").text == "good"


def test_a_large_head_is_fine() -> None:
    head = b"".join(b"X-%d: %s\r\n" % (number, b"v" * 200) for number in range(90))
    response = answered(OK + head + b"Content-Length: 0\r\n\r\n")
    assert len(response.headers) == 91


def test_a_large_body_is_whole() -> None:
    body = bytes(range(256)) * (1 << 15)
    assert answered(OK + b"Content-Length: 8388608\r\n\r\n" + body).content == body


def test_max_response_is_a_limit_for_answers_of_any_framing() -> None:
    def behave(peer: Peer) -> None:
        for request in peer:
            if request.target == "/length":
                peer.answer(bytes(2000))
            elif request.target == "/chunked":
                peer.answer(headers={"Transfer-Encoding": "chunked"}, length=False)
                for _ in range(20):
                    peer.chunk(bytes(100))
                peer.chunk(b"")
            else:
                peer.answer(bytes(1000))

    with HttpServer(behave) as server, Client(server.url, max_response=1000) as client:
        assert len(client.get("/").content) == 1000
        for target in ("/length", "/chunked"):
            with pytest.raises(PenstockError, match="1000"):
                client.get(target)
        assert len(client.get("/").content) == 1000
    with pytest.raises(ConfigError, match="max_response"):
        Client(max_response="many")  # type: ignore[arg-type]


async def test_awaiting_gives_the_same() -> None:
    with HttpServer() as server:
        async with AsyncClient(server.url) as client:
            for method in ("get", "post", "put", "patch", "delete", "options"):
                response = await getattr(client, method)("/x")
                assert response.json()["method"] == method.upper()
            assert (await client.head("/x")).content == b""
