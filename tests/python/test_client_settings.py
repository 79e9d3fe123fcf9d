"""Settings of clients: what is refused, and that the refusal names it."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import TYPE_CHECKING, Any

import pytest

import penstock
from penstock import AsyncClient, Client, Eject, Pool, Retry, Timeout
from penstock.errors import ConfigError, ConnectFailed, PenstockError
from tests.python.support.http_server import HttpServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.python.support.http_server import Peer

REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (Pool, {"min_size": -1}, "min_size"),
    (Pool, {"min_size": 1.5}, "min_size"),
    (Pool, {"max_size": 0}, "max_size must be at least 1"),
    (Pool, {"max_size": True}, "max_size"),
    (Pool, {"min_size": 5, "max_size": 4}, "min_size=5 is more than max_size=4"),
    (Pool, {"acquire_timeout": 0}, "acquire_timeout must be more than 0"),
    (Pool, {"idle_timeout": -1}, "idle_timeout"),
    (Pool, {"max_age": math.nan}, "max_age"),
    (Pool, {"health_interval": "30"}, "health_interval"),
    (Pool, {"streams_per_connection": 0}, "streams_per_connection"),
    (Pool, {"held_too_long": math.inf}, "held_too_long"),
    (Timeout, {"connect": 0}, "connect must be more than 0"),
    (Timeout, {"acquire": "1"}, "acquire"),
    (Timeout, {"first": -1}, "first"),
    (Timeout, {"idle": True}, "idle"),
    (Timeout, {"total": math.inf}, "total"),
    (Retry, {"attempts": 0}, "attempts must be at least 1"),
    (Retry, {"attempts": "3"}, "attempts"),
    (Retry, {"budget": -0.1}, "budget"),
    (Retry, {"per_second": math.nan}, "per_second"),
    (Retry, {"statuses": 503}, "statuses"),
    (Retry, {"statuses": (200,)}, "statuses"),
    (Retry, {"statuses": ("503",)}, "statuses"),
    (Eject, {"failures": 0}, "failures must be at least 1"),
    (Eject, {"time": 0}, "time must be more than 0"),
    (Eject, {"time": None}, "time"),
    (Client, {"pool": 10}, "pool must be a penstock.Pool"),
    (Client, {"retry": 3}, "retry must be a penstock.Retry"),
    (Client, {"eject": True}, "eject must be a penstock.Eject"),
    (Client, {"timeout": "5"}, "timeout must be"),
    (Client, {"timeout": 0}, "timeout must be more than 0"),
    (Client, {"balance": "random"}, "balance must be one of"),
    (Client, {"verify": 7}, "verify must be"),
    (Client, {"cert": ("a",)}, "cert must be"),
    (Client, {"proxy": "localhost:3128"}, "proxy must be"),
    (Client, {"proxy": 3128}, "proxy must be"),
    (Client, {"trust_env": "yes"}, "trust_env must be"),
    (Client, {"http2": "never"}, "http2 must be"),
    (Client, {"max_response": -1}, "max_response"),
    (Client, {"auth": "user"}, "auth must be a pair"),
    (Client, {"headers": {"X": "\n"}}, "header X"),
    (Client, {"params": 7}, "params must be"),
    (Client, {"base_url": "localhost:8000"}, "a URL begins with http://"),
    (Client, {"base_url": "ftp://a"}, "a URL begins with http://"),
    (Client, {"base_url": "/x"}, "base_url must begin with"),
    (Client, {"base_url": "http://"}, "base_url must begin with"),
    (Client, {"base_url": "http://a?b=c"}, "base_url cannot have a query"),
    (Client, {"base_url": []}, "base_url must not be an empty list"),
    (Client, {"base_url": 7}, "base_url must be a URL or a list of URLs"),
    (Client, {"base_url": [7]}, "URL must be a string"),
    (Client, {"base_url": ["http://a/x", "http://b/y"]}, "the base URLs have different paths"),
    (Client, {"base_url": ["http://u:p@a", "http://b"]}, "the base URLs have different users"),
]


@pytest.mark.parametrize(("kind", "settings", "words"), REFUSED, ids=lambda value: str(value)[:40])
def test_a_setting_that_cannot_be_is_refused_by_its_name(kind: Any, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        kind(**settings)


@pytest.mark.parametrize("kind", [Pool, Timeout, Retry, Eject])
def test_settings_are_frozen_values(kind: Any) -> None:
    assert kind() == kind()
    assert hash(kind()) == hash(kind())
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(kind(), dataclasses.fields(kind)[0].name, 1)
    with pytest.raises(TypeError):
        kind(unknown=1)


def test_retry_takes_any_collection_of_statuses() -> None:
    assert Retry(statuses=[502, 503]).statuses == (502, 503)  # type: ignore[arg-type]


def test_names_of_the_package() -> None:
    for name in ("AsyncClient", "Client", "Pool", "Timeout", "Retry", "Eject", "Response", "transport"):
        assert name in penstock.__all__
        assert getattr(penstock, name) is getattr(penstock, name)
    with pytest.raises(AttributeError, match="nothing"):
        _ = penstock.nothing  # type: ignore[attr-defined]


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(PenstockError, match=r"nothing\.pem"):
        Client("https://127.0.0.1:1", verify=tmp_path / "nothing.pem")
    empty = tmp_path / "empty.pem"
    empty.write_bytes(b"")
    with pytest.raises(PenstockError, match=r"empty\.pem"):
        Client("https://127.0.0.1:1", verify=empty)
    with pytest.raises(PenstockError, match=r"nothing\.pem"):
        Client("https://127.0.0.1:1", cert=str(tmp_path / "nothing.pem"))


def proxying(peer: Peer) -> None:
    for request in peer:
        peer.answer(request.target, headers={"X-Proxied": "yes"})


def test_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
    with HttpServer(proxying) as proxy, HttpServer() as server:
        with Client(proxy=proxy.url) as client:
            assert client.get("http://nowhere.invalid/x?y=1").text == "http://nowhere.invalid/x?y=1"
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        with Client() as client:
            assert client.get("http://nowhere.invalid/x").headers["x-proxied"] == "yes"
        with Client(trust_env=False) as client, pytest.raises(ConnectFailed):
            client.get("http://nowhere.invalid/x")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        with Client() as client:
            assert "x-proxied" not in client.get(server.url).headers


async def test_both_context_managers() -> None:
    with HttpServer() as server:
        with AsyncClient(server.url) as client:
            assert (await client.get("/")).status_code == 200
        assert client.closed
        async with Client(server.url) as blocking:
            assert not blocking.closed
        assert blocking.closed
