"""What the client sends: compared with what httpx sends for the same call, byte for byte where it matters."""

from __future__ import annotations

import io
import math
import re
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from penstock import AsyncClient, Client, Pool
from penstock.errors import ConfigError
from tests.python.support.http_server import HttpServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def server() -> Iterator[HttpServer]:
    with HttpServer() as server:
        yield server


def sent(client: Any, server: HttpServer, method: str, url: str, **options: Any) -> tuple[Any, ...]:
    assert client.request(method, url, **options).status_code == 200
    request = server.requests[-1]
    body, kind = request.body, request.header("content-type")
    if kind and kind.startswith("multipart/"):
        boundary = kind.partition("boundary=")[2]
        body, kind = body.replace(boundary.encode(), b"BOUNDARY"), kind.replace(boundary, "BOUNDARY")
    keys = {"accept", "x-a", "x-b", "authorization", "cookie"}
    told = sorted((n.lower(), v) for n, v in request.headers if n.decode().lower() in keys)
    return request.method, request.target, kind, body, request.header("content-length") or "0", told


SAME = {
    "a path": ("GET", "/x", {}),
    "no path": ("GET", "", {}),
    "a relative path": ("GET", "x/y", {}),
    "dots": ("GET", "/a/./b/../c", {}),
    "up": ("GET", "../x", {}),
    "letters": ("GET", "/ü/日本?q=ä ö", {}),
    "quoted": ("GET", "/a%2Fb%20c?x=%26", {}),
    "a query": ("GET", "/x?a=1&a=2&b=", {}),
    "a fragment": ("GET", "/x?y#z", {}),
    "specials": ("GET", "/{a}|b^c`d;e,f@g:h?[i]{j}|k", {}),
    "params": ("GET", "/x", {"params": {"a": "1 2", "b": [1, 2.5], "c": None, "d": True, "ü": "ä&b"}}),
    "pairs": ("GET", "/x", {"params": [("a", "1"), ("a", "3"), ("b", "2")]}),
    "a string": ("GET", "/x", {"params": "a=1&b=%20"}),
    "headers": ("GET", "/x", {"headers": {"X-A": "1", "Accept": "text/plain"}}),
    "header pairs": ("GET", "/x", {"headers": [("X-A", "1"), ("X-A", "2"), (b"X-B", b"\xff")]}),
    "auth": ("GET", "/x", {"auth": ("user", "pass:word")}),
    "bytes": ("POST", "/x", {"content": b"\x00\xff"}),
    "text": ("POST", "/x", {"content": "ä"}),
    "json": ("POST", "/x", {"json": {"ä": [1, 2.5, None, True, "日本"]}}),
    "json list": ("PUT", "/x", {"json": []}),
    "json zero": ("POST", "/x", {"json": 0}),
    "json with a type": ("POST", "/x", {"json": {}, "headers": {"Content-Type": "application/vnd.x+json"}}),
    "no body": ("POST", "/x", {}),
    "form": ("POST", "/x", {"data": {"a": "1 2", "b": [1, 2], "c": None, "d": True, "ü": "ä&"}}),
    "empty form": ("POST", "/x", {"data": {}}),
    "file": ("POST", "/x", {"files": {"f": ("a.txt", b"data")}}),
    "file with a form": ("POST", "/x", {"data": {"a": ["1", "2"], "b": 3}, "files": {"f": ('ü"\\\n.bin', b"\x00")}}),
    "file with a type": ("POST", "/x", {"files": {"f": ("a.x", b"d", "text/x")}}),
    "file with headers": ("POST", "/x", {"files": [("f", ("a.x", b"d", "text/x", {"X-H": "1"}))]}),
    "nameless file": ("POST", "/x", {"files": {"f": (None, b"d")}}),
    "delete": ("DELETE", "/x", {"json": {"a": 1}}),
    "patch": ("PATCH", "/x", {"content": b"p"}),
    "options": ("OPTIONS", "/x", {}),
    "own method": ("PURGE", "/x", {}),
    "lower case": ("get", "/x", {}),
    "cookies": ("GET", "/x", {"headers": {"Cookie": "a=1"}}),
}


@pytest.mark.parametrize("call", SAME.values(), ids=SAME)
@pytest.mark.parametrize("base", ["", "/base", "/base/ä/"])
def test_requests_are_those_of_httpx(server: HttpServer, call: tuple[str, str, dict[str, Any]], base: str) -> None:
    method, url, options = call
    with Client(server.url + base) as ours, httpx.Client(base_url=server.url + base) as theirs:
        expected = sent(theirs, server, method, url, **options)
        if options.get("data") == {}:
            # An empty form is a form, for us.
            expected = (*expected[:2], "application/x-www-form-urlencoded", *expected[3:])
        assert sent(ours, server, method, url, **options) == expected


def test_an_open_file_is_sent(server: HttpServer, tmp_path: Path) -> None:
    path = tmp_path / "upload.json"
    path.write_bytes(b"[1]")
    with Client(server.url) as client:
        with path.open("rb") as file:
            client.post("/", content=file)
        assert server.requests[-1].body == b"[1]"
        with path.open("rb") as file:
            client.post("/", files={"f": file})
        body = server.requests[-1].body
        assert b'name="f"; filename="upload.json"\r\nContent-Type: application/json\r\n\r\n[1]\r\n' in body


BODIES = [b"ab", bytearray(b"ab"), memoryview(b"ab"), "ab", io.BytesIO(b"ab"), [b"a", b"b"], (b"a", bytearray(b"b"))]


@pytest.mark.parametrize("content", [*BODIES, np.frombuffer(b"ab", np.uint8)], ids=lambda body: type(body).__name__)
def test_bodies_of_every_kind(server: HttpServer, content: Any) -> None:
    with Client(server.url) as client:
        client.post("/", content=content)
    assert server.requests[-1].body == b"ab"


async def test_asynchronous_bodies_are_collected(server: HttpServer) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    async with AsyncClient(server.url) as client:
        assert (await client.post("/", content=parts())).json()["body"] == "ab"  # type: ignore[arg-type]
        many = await client.request_many([{"method": "POST", "url": "/", "content": parts()}])
        assert many[0].json()["body"] == "ab"
        async with client.stream("POST", "/", content=parts()) as answer:  # type: ignore[arg-type]
            assert b'"body": "ab"' in await answer.read()


def test_what_the_client_has_for_all_requests(server: HttpServer) -> None:
    defaults: dict[str, Any] = {
        "params": {"a": 1, "b": 2},
        "headers": {"X-A": "all", "X-B": "all", "User-Agent": "mine/1"},
        "auth": ("u", "p"),
    }
    with Client(server.url, **defaults) as client:
        told = client.get("/x", params={"b": 3, "c": 4}, headers={"x-b": "one"}).json()
        headers = dict(told["headers"])
        assert told["target"] == "/x?a=1&b=3&c=4"
        assert (headers["x-a"], headers["x-b"], headers["user-agent"]) == ("all", "one", "mine/1")
        assert headers["authorization"] == "Basic dTpw"
        assert client.get("/x").json()["target"] == client.get("/x").json()["target"] == "/x?a=1&b=2"
        # Without the client's user, and with another one.
        assert "authorization" not in dict(client.get("/x", auth=None).json()["headers"])
        assert dict(client.get("/x", auth=("v", "p")).json()["headers"])["authorization"] == "Basic djpw"


def test_a_query_stands_beside_params(server: HttpServer) -> None:
    with Client(server.url) as client:
        assert client.get("/x?a=1", params={"b": 2}).json()["target"] == "/x?a=1&b=2"
        assert client.get("/x?a=1", params={}).json()["target"] == "/x?a=1"


def test_headers_that_every_request_has(server: HttpServer) -> None:
    with Client(server.url) as client:
        headers = dict(client.post("/", content=b"x").json()["headers"])
    assert headers["host"] == server.url.removeprefix("http://")
    assert headers["accept"] == "*/*"
    assert headers["accept-encoding"] == "gzip, deflate, br, zstd"
    assert headers["user-agent"].startswith("penstock/")
    assert headers["content-length"] == "1"


def test_the_length_of_a_body_is_never_what_a_caller_says(server: HttpServer) -> None:
    with Client(server.url) as client:
        told = client.post("/", content=b"abc", headers={"Content-Length": "7", "Transfer-Encoding": "chunked"}).json()
    assert [value for name, value in told["headers"] if name in ("content-length", "transfer-encoding")] == ["3"]
    assert told["body"] == "abc"


def test_a_user_in_a_url(server: HttpServer) -> None:
    with_user = server.url.replace("//", "//user:p%40ss@")
    with Client(with_user) as client:
        assert dict(client.get("/").json()["headers"])["authorization"] == "Basic dXNlcjpwQHNz"
        assert "user" not in repr(client)
    with Client() as client:
        answer = client.get(with_user)
        assert dict(answer.json()["headers"])["authorization"] == "Basic dXNlcjpwQHNz"
        assert "ss@" not in answer.url
        assert "authorization" not in dict(client.get(server.url).json()["headers"])


def test_cookies_of_one_request(server: HttpServer) -> None:
    with Client(server.url) as client:
        assert dict(client.get("/", cookies={"a": "1", "b": "2"}).json()["headers"])["cookie"] == "a=1; b=2"
        assert "cookie" not in dict(client.get("/").json()["headers"])


def test_a_host_of_ones_own(server: HttpServer) -> None:
    with Client(server.url) as client:
        told = client.get("/", headers={"Host": "example.org"}).json()
    assert [value for name, value in told["headers"] if name == "host"] == ["example.org"]


def test_a_unix_socket(tmp_path: Path) -> None:
    with HttpServer(path=tmp_path / "s") as server, Client(server.url, pool=Pool(min_size=0)) as client:
        assert client.get("/x", params={"a": 1}).json()["target"] == "/x?a=1"
        assert client.get("/x").status_code == 200
        assert server.connections == 1


NO_URLS = [
    "nothing",
    "/x",
    "localhost:8000",
    "ftp://a/x",
    "http://",
    "http:///x",
    "http://a:b/",
    "http://a:0/",
    "http://a:65536/",
    "http://a b/",
    "http://[::1/",
    "http://[1.2.3]/",
    "http://1.2.3.4.5:x/",
    "http://999.1.1.1/",
    "http://a/\r\nX: y",
    "http://a/\x00",
    "http://\udc80/",
    "http://a/\udc80",
    "http://faß.de/",
    "//a/b",
    "http://a/" + "x" * 70_000,
    None,
    7,
    b"http://a/",
    ["http://a/"],
]


@pytest.mark.parametrize("url", NO_URLS, ids=lambda url: repr(url)[:20])
def test_what_is_no_url_is_refused(url: Any) -> None:
    with Client() as client, pytest.raises(ConfigError, match=r"URL|host|port|IP"):
        client.get(url)


async def test_errors_come_from_awaiting() -> None:
    async with AsyncClient() as client:
        waiting = client.get("/x")
        with pytest.raises(ConfigError, match="base_url"):
            await waiting


def test_an_error_does_not_tell_a_password() -> None:
    with pytest.raises(ConfigError) as caught:
        Client("ftp://user:secret@host/")
    assert "secret" not in str(caught.value)
    with Client() as client, pytest.raises(ConfigError) as caught:
        client.get("ftp://user:secret@host/")
    assert "secret" not in str(caught.value)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "newline in a header": ({"headers": {"X": "a\r\nY: b"}}, "header X has a control character"),
    "nul in a header": ({"headers": {"X": b"a\x00"}}, "control character"),
    "newline in a name": ({"headers": {"X\r\nY": "a"}}, "no name of a header"),
    "space in a name": ({"headers": {"X Y": "a"}}, "no name of a header"),
    "empty name": ({"headers": {"": "a"}}, "no name of a header"),
    "letters in a name": ({"headers": {"Ü": "a"}}, "no name of a header"),
    "letters in a value": ({"headers": {"X": "日本"}}, "only latin-1"),
    "number in a value": ({"headers": {"X": 1}}, "header X must be a string"),
    "headers of no kind": ({"headers": 7}, "headers must be"),
    "params of no kind": ({"params": 7}, "params must be"),
    "two bodies": ({"content": b"a", "json": {}}, "content and json exclude each other"),
    "form and json": ({"data": {}, "json": {}}, "json and data exclude each other"),
    "nan": ({"json": math.nan}, "json cannot be encoded"),
    "a set": ({"json": {1, 2}}, "json cannot be encoded"),
    "a surrogate": ({"json": "\udc80"}, "json cannot be encoded"),
    "raw data": ({"data": b"x"}, "content="),
    "a mapping": ({"content": {"a": 1}}, "content must be"),
    "a number": ({"content": 7}, "content must be"),
    "numbers": ({"content": [1, 2]}, "must give bytes"),
    "a text file": ({"content": io.StringIO("x")}, "binary mode"),
    "files of no kind": ({"files": 7}, "files must be"),
    "half a user": ({"auth": ("user",)}, "auth must be a pair"),
    "a token": ({"auth": "token"}, "auth must be a pair"),
    "cookies twice": ({"cookies": {"a": "1"}, "headers": {"Cookie": "b=2"}}, "exclude each other"),
    "a cookie with a newline": ({"cookies": {"a": "1\r\nX: y"}}, "control character"),
    "no time": ({"timeout": 0}, "timeout must be more than 0"),
    "negative time": ({"timeout": -1}, "timeout must be"),
    "time in words": ({"timeout": "soon"}, "timeout must be"),
    "true time": ({"timeout": True}, "timeout must be"),
    "retry in numbers": ({"retry": 3}, "retry must be"),
}


@pytest.mark.parametrize(("options", "words"), BAD.values(), ids=BAD)
def test_what_cannot_be_sent_is_refused(server: HttpServer, options: dict[str, Any], words: str) -> None:
    before = len(server.requests)
    with Client(server.url) as client:
        with pytest.raises(ConfigError, match=re.escape(words)):
            client.post("/", **options)
        assert client.get("/").status_code == 200
    assert len(server.requests) == before + 1


@pytest.mark.parametrize("method", ["", "GE T", "GET\r\n", "ü", None, 7])
def test_what_is_no_method_is_refused(server: HttpServer, method: Any) -> None:
    with Client(server.url) as client, pytest.raises(ConfigError, match="no method"):
        client.request(method, "/")


def test_unknown_options_are_named(server: HttpServer) -> None:
    with Client(server.url) as client, pytest.raises(TypeError, match="unknown options of a request: jsn"):
        client.post("/", jsn={})  # type: ignore[call-arg]
