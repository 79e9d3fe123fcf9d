"""What `[client]` says of clients: it takes the place of what code leaves as it is by default, and of nothing else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from penstock import AsyncClient, Client, Eject, Pool, Retry, Server, Timeout, model
from penstock._client_settings import client_options
from penstock.errors import ConfigError, RemoteError
from penstock.transport import Transport
from tests.python.support.http_server import HttpServer, Peer

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PENSTOCK_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def write(tmp_path: Path) -> Any:
    return lambda text: (tmp_path / "penstock.toml").write_text(text, encoding="utf-8")


def test_nothing_changes_where_nothing_is_said() -> None:
    given = {"pool": None, "timeout": Timeout(), "http2": True}
    assert client_options(given) == (given, "")


def test_what_code_leaves_open_is_filled(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        "[client]\nconnect_timeout = 1\ntotal_timeout = 2\npool_max_size = 5\nretry_attempts = 1\n"
        "eject_time = 3\nbalance = 'p2c'\nmax_response = '1MiB'\n"
    )
    monkeypatch.setenv("PENSTOCK_CLIENT_STREAM_WINDOW", "64KiB")
    options, told = client_options({"timeout": Timeout(total=9), "pool": None, "stream_memory": 1 << 22, "retry": None})
    assert options["timeout"] == Timeout(connect=1, total=9)
    assert options["pool"] == Pool(max_size=5)
    assert (options["retry"], options["eject"]) == (Retry(attempts=1), Eject(time=3))
    assert (options["balance"], options["max_response"]) == ("p2c", 1 << 20)
    assert (options["stream_window"], options["stream_memory"]) == (1 << 16, 1 << 22)
    assert told == ", settings of penstock.toml"
    options, _ = client_options(
        {"pool": Pool(max_size=7, min_size=2), "retry": Retry(attempts=4), "balance": "round_robin"}
    )
    assert options["pool"] == Pool(max_size=7, min_size=2)
    assert (options["retry"].attempts, options["balance"]) == (4, "round_robin")


def test_protocol_and_redirects_are_settings_of_those_that_have_them(write: Any) -> None:
    for text, expected in (
        ("true", True),
        ("false", False),
        ("'off'", False),
        ("'on'", True),
        ("'always'", "always"),
    ):
        write(f"[client]\nhttp2 = {text}\nmax_redirects = 3\n")
        assert client_options({"http2": True})[0]["http2"] == expected
        assert client_options({"http2": "always"})[0]["http2"] == "always", "code has the last word"
        assert "max_redirects" not in client_options({})[0]
    write("[client]\nhttp2 = 2\n")
    with pytest.raises(
        ConfigError, match=re.escape("penstock.toml:2 [client] http2 must be 'on' or 'off' or 'always'")
    ):
        Client("http://127.0.0.1:1")


def test_redirects_are_followed_where_settings_say_so(write: Any) -> None:
    def behave(peer: Peer) -> None:
        for request in peer:
            number = int(request.target.rpartition("/")[2])
            if number:
                peer.answer("", status="302 Found", headers={"Location": f"/{number - 1}"})
            else:
                peer.answer("there")

    with HttpServer(behave) as server:
        with Client(server.url) as client:
            assert client.get("/2").status_code == 302
        write("[client]\nfollow_redirects = true\nmax_redirects = 2\n")
        with Client(server.url) as client, Transport(server.url):
            assert client.get("/2").text == "there"
            with pytest.raises(RemoteError, match="max_redirects=2"):
                client.get("/3")
            assert client.get("/2", follow_redirects=False).status_code == 302


def test_what_contradicts_itself_is_refused_with_its_sources(write: Any) -> None:
    write("[client]\npool_min_size = 50\n")
    with pytest.raises(
        ConfigError, match=re.escape("a client with penstock.toml:2 [client] pool_min_size: min_size=50")
    ):
        Client("http://127.0.0.1:1", pool=Pool(max_size=20))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("verify = false", "[client] verify: there is no such setting"),
        ("proxy = 'http://elsewhere'", "[client] proxy: there is no such setting"),
        ("connect_timeout = 0", "[client] connect_timeout must be a positive number of seconds, not 0"),
        ("balance = 'random'", "[client] balance must be 'round_robin' or"),
    ],
)
def test_a_file_says_nothing_of_trust_and_nothing_that_cannot_be(write: Any, text: str, words: str) -> None:
    write(f"[client]\n{text}\n")
    for make in (Client, AsyncClient, Transport):
        with pytest.raises(ConfigError, match=re.escape(words)):
            make("http://127.0.0.1:1")


def test_clients_work_so_and_say_so(write: Any) -> None:
    @model("double", inputs={"x": ("float32", [])}, outputs={"y": ("float32", [])})
    def double(x: Any) -> Any:
        return x * 2

    write("[client]\nmax_response = 10\n")
    with Server(double, port=0) as server, Client(server.url) as client:
        assert repr(client) == f"<penstock.Client {server.url} open, settings of penstock.toml>"
        with pytest.raises(Exception, match="10 bytes"):
            client.get("/metrics")
        write("[client]\nmax_response = '10MiB'\n")
        with Client(server.url) as other, Transport(server.url) as transport:
            assert other.get("/metrics").status_code == 200
            assert "settings of penstock.toml" in repr(transport)
