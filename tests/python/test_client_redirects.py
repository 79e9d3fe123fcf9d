"""Redirects, as httpx users expect them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from penstock import AsyncClient, Client
from penstock.errors import DeadlineExceeded, ProtocolError, RemoteError
from tests.python.support.http_server import HttpServer, Peer

if TYPE_CHECKING:
    from collections.abc import Iterator


def redirecting(peer: Peer) -> None:
    for request in peer:
        path, _, there = request.target.partition("?to=")
        if path.startswith("/r/"):
            status = path.removeprefix("/r/")
            peer.answer("moved", status=f"{status} Moved", headers={"Location": there} if there else {})
        elif path.startswith("/count/"):
            left = int(path.removeprefix("/count/"))
            if left:
                peer.answer(status="302 Found", headers={"Location": f"/count/{left - 1}"})
            else:
                peer.echo(request)
        else:
            peer.echo(request)


@pytest.fixture(scope="module")
def server() -> Iterator[HttpServer]:
    with HttpServer(redirecting) as server:
        yield server


@pytest.fixture(scope="module")
def other() -> Iterator[HttpServer]:
    with HttpServer(redirecting) as server:
        yield server


def test_a_redirect_is_an_answer_unless_it_is_to_be_followed(server: HttpServer) -> None:
    with Client(server.url) as client:
        response = client.get("/r/302?to=/x")
        assert (response.status_code, response.headers["location"], response.content) == (302, "/x", b"moved")
        assert response.has_redirect_location
        assert response.is_redirect
        assert client.get("/r/302?to=/x", follow_redirects=True).json()["target"] == "/x"
    with Client(server.url, follow_redirects=True) as client:
        response = client.get("/r/302?to=/x")
        assert response.json()["target"] == "/x"
        assert [each.status_code for each in response.history] == [302]
        assert response.history[0].content == b"moved"
        assert response.url == server.url + "/x"
        assert client.get("/r/302?to=/x", follow_redirects=False).status_code == 302


METHODS = {
    (301, "GET"): "GET",
    (301, "POST"): "GET",
    (301, "PUT"): "PUT",
    (302, "POST"): "GET",
    (302, "PUT"): "GET",
    (302, "HEAD"): "HEAD",
    (303, "POST"): "GET",
    (303, "DELETE"): "GET",
    (303, "HEAD"): "HEAD",
    (307, "POST"): "POST",
    (308, "PUT"): "PUT",
}


@pytest.mark.parametrize("case", METHODS, ids=lambda case: f"{case[0]}-{case[1]}")
def test_the_method_and_the_body_after_a_redirect(server: HttpServer, case: tuple[int, str]) -> None:
    status, method = case
    body = {} if method in ("GET", "HEAD") else {"json": {"a": 1}}
    with Client(server.url, follow_redirects=True) as client:
        assert client.request(method, f"/r/{status}?to=/x", headers={"X-A": "1"}, **body).status_code == 200  # type: ignore[arg-type]
    last = server.requests[-1]
    assert (last.method, last.target, last.header("x-a")) == (METHODS[case], "/x", "1")
    keeps_body = METHODS[case] not in ("GET", "HEAD")
    assert last.body == (b'{"a":1}' if keeps_body else b"")
    assert last.header("content-type") == ("application/json" if keeps_body else None)


PLACES = {
    "/y": "/y",
    "y": "/r/y",
    "?q=1": "/r/302?q=1",
    "../y": "/y",
    "/ü y": "/%C3%BC%20y",
    "/y#part": "/y",
    "./": "/r/",
}


@pytest.mark.parametrize("there", PLACES)
def test_where_a_redirect_leads(there: str) -> None:
    def behave(peer: Peer) -> None:
        for request in peer:
            if request.target == "/r/302":
                peer.send(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + there.encode() + b"\r\n\r\n")
            else:
                peer.echo(request)

    with HttpServer(behave) as server, Client(server.url, follow_redirects=True) as client:
        assert client.get("/r/302").json()["target"] == PLACES[there]


def secrets(told: dict[str, Any]) -> list[str]:
    return sorted(name for name, _ in told["headers"] if name in ("authorization", "cookie", "x-a"))


def test_another_origin_is_told_no_secrets(server: HttpServer, other: HttpServer) -> None:
    headers = {"Cookie": "a=1", "X-A": "1"}
    with Client(server.url, auth=("user", "password"), headers=headers, follow_redirects=True) as client:
        assert secrets(client.get("/r/302?to=/x").json()) == ["authorization", "cookie", "x-a"]
        away = client.get(f"/r/307?to={other.url}/x")
        assert away.url == f"{other.url}/x"
        assert secrets(away.json()) == ["x-a"]
        # And none on the way back.
        back = client.get(f"/r/307?to={other.url}/r/307?to={server.url}/x").json()
        assert secrets(back) == ["x-a"]
    with Client(server.url, follow_redirects=True) as client:
        away = client.get(f"/r/307?to={other.url}/x", headers={"Authorization": "Bearer t", "X-A": "1"})
        assert secrets(away.json()) == ["x-a"]
        assert dict(away.json()["headers"])["host"] == other.url.removeprefix("http://")


def test_a_user_in_a_location_is_not_taken(server: HttpServer, other: HttpServer) -> None:
    there = other.url.replace("//", "//user:password@")
    with Client(server.url, follow_redirects=True) as client:
        assert secrets(client.get(f"/r/302?to={there}/x").json()) == []


def test_too_many_redirects(server: HttpServer) -> None:
    with Client(server.url, follow_redirects=True, max_redirects=5) as client:
        response = client.get("/count/5")
        assert [each.url.rpartition("/")[2] for each in response.history] == ["5", "4", "3", "2", "1"]
        with pytest.raises(RemoteError, match="max_redirects=5") as caught:
            client.get("/count/6")
        assert caught.value.status == 302


@pytest.mark.parametrize("there", ["ftp://a/x", "http://a:b/", "mailto:a@b", "javascript:1", "//[x/"])
def test_a_redirect_that_leads_nowhere(there: str) -> None:
    def behave(peer: Peer) -> None:
        for _ in peer:
            peer.answer(status="302 Found", headers={"Location": there})

    with (
        HttpServer(behave) as server,
        Client(server.url, follow_redirects=True) as client,
        pytest.raises(ProtocolError, match="redirect"),
    ):
        client.get("/")


def test_a_redirect_without_a_location_is_an_answer(server: HttpServer) -> None:
    with Client(server.url, follow_redirects=True) as client:
        response = client.get("/r/302")
        assert (response.status_code, response.history) == (302, ())
        assert not response.has_redirect_location
        assert client.get("/r/304?to=/x").status_code == 304


def test_the_time_is_for_all_redirects_together() -> None:
    def behave(peer: Peer) -> None:
        for _ in peer:
            if peer.sees_end(0.2):
                return
            peer.answer(status="302 Found", headers={"Location": "/"})

    with HttpServer(behave) as server, Client(server.url, follow_redirects=True) as client:
        with pytest.raises(DeadlineExceeded):
            client.get("/", timeout=1)
        assert len(server.requests) < 10


async def test_awaiting_many_and_streams_follow(server: HttpServer) -> None:
    async with AsyncClient(server.url, follow_redirects=True) as client:
        response = await client.post("/r/307?to=/count/2", content=b"x")
        assert [each.status_code for each in response.history] == [307, 302, 302]
        urls = ["/x", "/count/3", "/r/302", "/r/302?to=/y", "/count/1"]
        answers = await client.request_many(urls)
        assert [len(answer.history) for answer in answers] == [0, 3, 0, 1, 1]
        assert [answer.status_code for answer in answers] == [200, 200, 302, 200, 200]
        async with client.stream("GET", "/count/2") as stream:
            assert [each.status_code for each in stream.history] == [302, 302]
            told = json.loads(await stream.read())
            assert told["target"] == "/count/0"
    with Client(server.url) as client:
        with client.stream("GET", "/count/2", follow_redirects=True) as blocking:
            assert len(blocking.history) == 2
        with client.stream("GET", "/count/2") as blocking:
            assert blocking.status_code == 302


def test_a_broken_redirect_among_many(server: HttpServer) -> None:
    urls = ["/x", "/r/302?to=ftp://a/", "/count/3"]
    with Client(server.url, follow_redirects=True, max_redirects=2) as client:
        answers = client.request_many(urls, return_exceptions=True)
        assert [type(answer).__name__ for answer in answers] == ["Response", "ProtocolError", "RemoteError"]
        with pytest.raises(ProtocolError):
            client.request_many(urls)
