"""httpx and httpx2 over our transport against nginx: what they get is what they get over their own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import pytest

from penstock.transport import AsyncTransport, Transport
from tests.interop.support.certificates import TLS, write_certificates

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.interop.support.nginx import Nginx

PACKAGES = [httpx, httpx2]
each_package = pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
SITE = """
client_max_body_size 8m;
location /hello { return 200 "$request_method $http_x_a\n"; }
location /old { return 302 /hello; }
location /cookie { add_header Set-Cookie "seen=yes; Path=/"; return 200 "$cookie_seen"; }
location /secret { auth_basic here; auth_basic_user_file users; return 200 "in"; }
location /packed { gzip on; gzip_types *; gzip_min_length 1; default_type text/plain; alias files/packed; }
location /part { alias files/packed; }
location /none { return 204; }
location /gone { return 410 "gone"; }
"""
TEXT = "so much water " * 5_000


@pytest.fixture
def site(nginx: Callable[..., Nginx], tmp_path: Path) -> Nginx:
    folder = tmp_path / "site"
    (folder / "files").mkdir(parents=True)
    (folder / "files" / "packed").write_text(TEXT)
    (folder / "users").write_text("u:{PLAIN}p\n")
    return nginx(SITE, folder=folder)


CALLS: dict[str, dict[str, Any]] = {
    "get": {"method": "GET", "url": "/hello", "headers": {"x-a": "1"}},
    "head": {"method": "HEAD", "url": "/hello"},
    "post": {"method": "POST", "url": "/hello", "json": {"a": 1}},
    "redirect": {"method": "POST", "url": "/old", "content": b"x", "follow_redirects": True},
    "refused": {"method": "GET", "url": "/secret"},
    "auth": {"method": "GET", "url": "/secret", "auth": ("u", "p")},
    "packed": {"method": "GET", "url": "/packed"},
    "part": {"method": "GET", "url": "/part", "headers": {"range": "bytes=3-9"}},
    "nothing": {"method": "GET", "url": "/none"},
    "an error": {"method": "GET", "url": "/gone"},
    "not there": {"method": "GET", "url": "/files/nowhere"},
}
# They name the connection, or the moment.
OF_THE_MOMENT = {"date", "x-connection", "connection", "keep-alive"}


def told(answer: Any) -> tuple[Any, ...]:
    headers = {name: value for name, value in answer.headers.items() if name.lower() not in OF_THE_MOMENT}
    history = [one.status_code for one in answer.history]
    return answer.status_code, answer.text, headers, answer.http_version, answer.reason_phrase, history


@each_package
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_answers_are_those_of_their_own_transport(site: Nginx, package: Any, call: dict[str, Any]) -> None:
    with package.Client(base_url=site.url) as theirs:
        expected = told(theirs.request(**call))
    with package.Client(base_url=site.url, transport=Transport()) as ours:
        assert told(ours.request(**call)) == expected
    async with package.AsyncClient(base_url=site.url, transport=AsyncTransport()) as ours:
        assert told(await ours.request(**call)) == expected


@each_package
async def test_cookies_are_kept(site: Nginx, package: Any) -> None:
    async with package.AsyncClient(base_url=site.url, transport=AsyncTransport()) as client:
        assert [(await client.get("/cookie")).text for _ in range(2)] == ["", "yes"]


@each_package
async def test_streams_both_ways(site: Nginx, package: Any) -> None:
    async def pieces() -> Any:
        for number in range(20):
            yield bytes([number]) * 100_000
            await asyncio.sleep(0)

    async with package.AsyncClient(base_url=site.url, transport=AsyncTransport()) as client:
        async with client.stream("GET", "/packed") as answer:
            assert "".join([piece async for piece in answer.aiter_text()]) == TEXT
        async with client.stream("GET", "/packed") as answer:
            async for _ in answer.aiter_bytes(100):
                break
        assert (await client.post("/hello", content=pieces())).text == "POST \n"
        many = await asyncio.gather(*(client.get("/hello", headers={"x-a": str(n)}) for n in range(200)))
        assert [answer.text for answer in many] == [f"GET {n}\n" for n in range(200)]


@each_package
@pytest.mark.parametrize("listen", ["ssl", "ssl http2"])
async def test_tls(nginx: Callable[..., Nginx], tmp_path: Path, package: Any, listen: str) -> None:
    certificates = write_certificates(tmp_path / "secure")
    site = nginx(f"{TLS} {SITE}", listen=listen, folder=tmp_path / "secure")
    under = AsyncTransport(verify=str(certificates.authority))
    async with package.AsyncClient(base_url=site.secure_url, transport=under) as client:
        answer = await client.get("/hello")
        assert (answer.text, answer.http_version) == ("GET \n", "HTTP/2" if "http2" in listen else "HTTP/1.1")
    async with package.AsyncClient(base_url=site.secure_url, transport=AsyncTransport()) as client:
        with pytest.raises(package.ConnectError, match="certificate"):
            await client.get("/hello")
