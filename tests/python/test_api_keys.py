"""Keys: who shows one is served, and no key is ever written down."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest

import penstock
from penstock.errors import ConfigError, RemoteError
from penstock.settings import SecuritySettings
from penstock.testing import TestClient
from tests.python.support.security import HASH, KEY, Serving, X, double
from tests.python.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path


@penstock.model("tiny", task="generate")
def tiny(request: Any) -> Any:
    yield from ("a", "b")


def keys_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.toml"
    path.write_text(f'# ours\nteam-a = "{HASH}"\n')
    return path


@pytest.fixture(params=["given", "file"])
def keys(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return {"team-a": HASH} if request.param == "given" else keys_file(tmp_path)


def test_a_client_with_a_key_is_served_and_one_without_is_not(keys: Any) -> None:
    with penstock.Server([double, tiny], port=0, api_keys=keys) as server:
        for url in (server.url, server.grpc_url):
            with penstock.Client(url, api_key=KEY) as client:
                assert (client.infer("double", {"x": X})["y"] == 2).all()
                assert client.is_ready("double")
            for options in ({}, {"api_key": KEY[:-1]}, {"headers": {"x-api-key": "x"}}):
                with penstock.Client(url, **options) as client:
                    with pytest.raises(RemoteError) as refused:
                        client.infer("double", {"x": X})
                    assert KEY[:-1] not in str(refused.value)
        with penstock.Client(server.url, headers={"x-api-key": KEY}) as client:
            assert client.get("/metrics").status_code == 200
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY) as client:
            answer = client.completions.create(model="tiny", prompt="x")
            assert answer.choices[0].text == "ab"
        stranger = openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0)
        with stranger, pytest.raises(openai.AuthenticationError, match="not known here"):
            stranger.models.list()


async def test_an_async_client_shows_its_key(keys: Any) -> None:
    with penstock.Server(double, port=0, api_keys=keys) as server:
        async with penstock.AsyncClient([server.url, server.grpc_url], api_key=KEY) as client:
            for _ in range(4):
                assert (await client.infer("double", {"x": X}))["y"].sum() == 4


def test_what_is_open_needs_no_key() -> None:
    with penstock.Server(double, port=0, api_keys={"a": HASH}) as server:
        open_paths = ["/v2/health/live", "/v2/health/ready", "/dashboard", "/openapi.json"]
        closed = ["/v2", "/metrics", "/v1/models", "/v2/models/double", "/nowhere"]
        assert [httpx.get(server.url + path).status_code for path in open_paths] == [200] * 4
        assert [httpx.get(server.url + path).status_code for path in closed] == [401] * 5
        answer = httpx.get(server.url + "/v2")
        assert answer.headers["www-authenticate"] == 'Bearer realm="penstock"'
    with penstock.Server(double, port=0, api_keys={"a": HASH}, metrics_open=True) as server:
        assert httpx.get(server.url + "/metrics").status_code == 200


def test_requests_in_the_process_need_a_key_as_well() -> None:
    with TestClient(penstock.Server(double, api_keys={"a": HASH})) as client:
        assert client.get("/v2").status_code == 401
        assert client.get("/v2", headers={"x-api-key": KEY}).status_code == 200


def test_no_key_is_written_down(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    caplog.set_level("DEBUG")
    header = {"authorization": f"Bearer {KEY}", "cookie": "sid=cookie-secret"}
    settings: dict[str, Any] = {"api_keys": keys_file(tmp_path), "access_log": True}
    with penstock.Server(double, port=0, **settings) as server:
        client = penstock.Client(server.url, api_key=KEY, auth=None)
        with client:
            client.infer("double", {"x": X})
            client.get("/v2?token=query-secret", headers=header)
        httpx.get(server.url + "/v2", headers={"x-api-key": "wrong-secret"})
        httpx.get(server.url + "/wrong-path", headers={"authorization": "Basic dTpwYXNzd29yZC1zZWNyZXQ="})
        until(lambda: sum(record.name == "penstock.access" for record in caplog.records) >= 4)
        texts = [
            *(f"{record.getMessage()} {record.__dict__}" for record in caplog.records if record.name[:4] == "pens"),
            server.metrics(),
            repr(server),
            repr(server.settings),
            server.settings._repr_html_(),
            repr(SecuritySettings.resolve({"api_keys": {"a": HASH}})),
            repr(client),
            repr(client.explain()),
            client.metrics(),
        ]
    for secret in (KEY, HASH, HASH[7:], "cookie-secret", "query-secret", "wrong-secret", "password-secret", "dTpwYX"):
        assert not any(secret in text for text in texts), secret
    named = [record.__dict__["key"] for record in caplog.records if record.name == "penstock.access"]
    assert (named.count(None), set(named)) == (2, {None, "team-a"})


def test_what_is_no_key_is_refused_and_not_repeated(tmp_path: Path) -> None:
    for keys in (
        {"a": "hunter2"},
        {"a": []},
        {"a": [HASH, "hunter2"]},
        {"a": 3},
        {"a b": HASH},
        {"": HASH},
        {"x" * 65: HASH},
        {f"k{at}": HASH for at in range(1001)},
        7,
    ):
        with pytest.raises(ConfigError, match="api_keys") as refused:
            penstock.Server(double, port=0, api_keys=keys)
        assert "hunter2" not in str(refused.value)
    path = tmp_path / "keys.toml"
    for text in ("hunter2", "a = hunter2", "a = 'hunter2'", f"a = {HASH}\na = {HASH}", "\udcff"):
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(ConfigError, match=r"keys\.toml") as refused:
            penstock.Server(double, port=0, api_keys=path).start()
        assert "hunter2" not in str(refused.value)
    with pytest.raises(ConfigError, match="missing cannot be read"):
        penstock.Server(double, port=0, api_keys=tmp_path / "missing").start()


def test_keys_change_with_their_file(tmp_path: Path) -> None:
    path = keys_file(tmp_path)
    with (
        penstock.Server(double, port=0, api_keys=path, tls_reload_seconds=0.05) as server,
        penstock.Client(server.url, api_key=KEY) as client,
    ):
        assert client.get("/v2").status_code == 200
        path.write_text("# nobody\n")
        until(lambda: client.get("/v2").status_code == 401)
        path.write_text(f'b = ["{HASH}"]\n')
        until(lambda: client.get("/v2").status_code == 200)


def test_a_client_takes_one_kind_of_credentials() -> None:
    for options in (
        {"api_key": KEY, "auth": ("a", "b")},
        {"api_key": KEY, "headers": {"Authorization": "x"}},
        {"api_key": ""},
        {"api_key": "a b"},
        {"api_key": "a\nb"},
        {"api_key": 3},
    ):
        with pytest.raises(ConfigError, match="api_key"):
            penstock.Client("http://127.0.0.1:1", **options)  # type: ignore[arg-type]


def test_the_command_makes_a_key_that_a_server_knows(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "penstock", "key"]
    made = subprocess.run([*command, "team-b"], capture_output=True, text=True, check=True)
    key, line = made.stdout.splitlines()
    assert len(key) >= 43
    assert key not in made.stderr
    (tmp_path / "keys.toml").write_text(line + "\n")
    refused = subprocess.run([*command, "team b"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "penstock: name: a key's name" in refused.stderr
    with Serving(tmp_path, "--api-keys", "keys.toml", "--workers", "2", "--access-log") as serving:
        with penstock.Client(serving.url, api_key=key) as client:
            for _ in range(6):
                client.infer("double", {"x": X})
        with httpx.Client(base_url=serving.url) as stranger:
            assert {stranger.get("/v2").status_code for _ in range(6)} == {401}
    logged = "".join(serving.errors)
    assert "key=team-b" in logged
    assert key not in logged


def test_a_section_of_the_file_of_settings_holds_hashes(tmp_path: Path) -> None:
    (tmp_path / "penstock.toml").write_text(f'[security]\nmetrics_open = true\napi_keys = {{ a = "{HASH}" }}\n')
    with Serving(tmp_path) as serving, penstock.Client(serving.url, api_key=KEY) as client:
        assert client.get("/v2").status_code == 200
        assert httpx.get(f"{serving.url}/v2").status_code == 401
        assert httpx.get(f"{serving.url}/metrics").status_code == 200
