"""`penstock serve --upstream`: which models it finds on other servers, what it calls them, and what it waits for."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import penstock
from penstock._upstream_settings import UpstreamSettings
from penstock._upstreams import models_of_upstreams
from penstock.errors import ConfigError, ModelNotFound, TransportError
from tests.python.support.http_server import free_port, refusing_port
from tests.python.support.text_upstream import JSON, asked, upstream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np

    from tests.python.support.http_server import Peer, Received


def say(name: str) -> Any:
    def answer(peer: Peer, _: Received) -> None:
        peer.answer(json.dumps({"by": name}), headers=JSON)

    return answer


def found(*urls: str, **options: Any) -> dict[str, penstock.RemoteModel]:
    settings = UpstreamSettings.resolve({}, {"upstream": list(urls), **options}, {})
    return {model.name: model for model in models_of_upstreams(settings)}


def test_servers_with_the_same_model_are_one_fleet_for_it() -> None:
    with (
        upstream(say("a"), "both", "one") as first,
        upstream(say("b"), "both", "text-embedding-3") as second,
    ):
        models = found(first.url, second.url, first.url)
        assert {name: model.urls for name, model in models.items()} == {
            "both": (first.url, second.url),
            "one": (first.url,),
            "text-embedding-3": (second.url,),
        }
        tasks = {name: model.__penstock_model__.task for name, model in models.items()}
        assert tasks == {"both": "generate", "one": "generate", "text-embedding-3": "embed"}


def test_models_are_chosen_and_called_as_the_user_says() -> None:
    with upstream(say("a"), "org/llama:8b", "other", "org-llama-8b") as up:
        assert set(found(up.url, upstream_model=["org/llama:8b=llama", "other"])) == {"llama", "other"}
        assert found(up.url, upstream_model=["org/llama:8b"])["org-llama-8b"].upstream.model == "org/llama:8b"
        with pytest.raises(ConfigError, match="would both be called 'org-llama-8b'"):
            found(up.url)
        with pytest.raises(ModelNotFound, match="no upstream has a model 'mistral'"):
            found(up.url, upstream_model=["mistral"])
        for wrong in ("=x", "x="):
            with pytest.raises(ConfigError, match="MODEL or MODEL=NAME"):
                found(up.url, upstream_model=[wrong])


def test_settings_reach_the_models() -> None:
    with upstream(say("a"), "m") as up:
        settings = UpstreamSettings(
            upstream=(up.url,), upstream_key="secret", upstream_concurrency=7, upstream_pool_max=3
        )
        [made] = models_of_upstreams(settings)
        assert made.__penstock_model__.workers == 7
        with penstock.Server([made], port=0) as server, penstock.Client(server.url) as client:
            client.post("/v1/completions", json={"model": "m", "prompt": "a"}).raise_for_status()
        assert {each.header("authorization") for each in up.requests} == {"Bearer secret"}
        assert "secret" not in repr(settings)
        assert len(asked(up)) == 1


def test_nothing_is_found_without_an_upstream() -> None:
    assert models_of_upstreams(UpstreamSettings()) == []
    with pytest.raises(ConfigError, match="say where they are"):
        models_of_upstreams(UpstreamSettings(upstream_model=("m",)))


def test_a_server_that_does_not_come_up_is_a_typed_error() -> None:
    began = time.monotonic()
    with pytest.raises(TransportError):
        found(f"http://127.0.0.1:{refusing_port()}", upstream_wait=0.6)
    assert time.monotonic() - began > 0.1


def test_a_server_that_comes_up_late_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    @penstock.model("late", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
    def late(x: np.ndarray) -> np.ndarray:
        return x * 2

    port = free_port()
    server = penstock.Server([late], port=port)
    timer = threading.Timer(1.0, server.start)
    timer.start()
    try:
        models = found(f"http://127.0.0.1:{port}", upstream_wait=30)
        assert models["late"].__penstock_model__.task == "tensors"
        assert "waiting for the upstream" in caplog.text
    finally:
        timer.join()
        server.close()


APP = """
import penstock

@penstock.model("own", task="generate")
def own(request):
    yield "mine"
"""


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Any]:
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock", "serve", *arguments, "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, **environment},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for end in (process.stdout, process.stderr):
            if end is not None:
                end.close()


def url_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    url = re.search(r"http://\S+", line)
    assert url, line + (process.stderr.read() if process.stderr else "")
    return url[0]


def test_the_command_serves_other_servers_models_beside_its_own(command: Any, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    with upstream(say("there"), "far") as up:
        process = command("app.py", "--upstream", up.url, "--upstream-model", "far=near")
        with penstock.Client(url_of(process)) as client:
            assert {row["id"] for row in client.get("/v1/models").json()["data"]} == {"own", "near"}
            assert client.post("/v1/completions", json={"model": "near", "prompt": "a"}).json() == {"by": "there"}
            own = client.post("/v1/completions", json={"model": "own", "prompt": "a"}).json()
            assert own["choices"][0]["text"] == "mine"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_the_environment_names_upstreams_and_a_file_is_not_needed(command: Any) -> None:
    with upstream(say("a"), "m") as one, upstream(say("b"), "m") as two:
        process = command(PENSTOCK_UPSTREAM=f"{one.url},{two.url}")
        with penstock.Client(url_of(process)) as client:
            said = {client.post("/v1/completions", json={"model": "m", "prompt": "a"}).json()["by"] for _ in range(8)}
            # Which of them is asked is for the balance to say; both can be.
            assert said <= {"a", "b"}
            metrics = client.get("/metrics").text
            assert all(f'endpoint="{up.url}"' in metrics for up in (one, two))


def test_the_command_says_what_is_wrong(command: Any) -> None:
    for arguments, words in [
        (["--upstream", f"http://127.0.0.1:{refusing_port()}", "--upstream-wait", "0.5"], "127.0.0.1"),
        ([], "there is nothing to serve"),
        (["--upstream", "ftp://x", "--upstream-wait", "0.5"], "ftp"),
        (["--upstream-model", "m"], "upstream"),
    ]:
        process = command(*arguments)
        _, error = process.communicate(timeout=60)
        assert process.returncode == 2, error
        assert words in error
