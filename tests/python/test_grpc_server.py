"""The server over gRPC, through its Python face and its command line; the client is Triton's."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penstock import Server, cli, model, testing
from penstock.errors import Closed, ConfigError
from penstock.settings import ListenSettings
from tests.python.support.http_server import free_port
from tests.python.support.waiting import PATIENCE, Gate, until

with warnings.catch_warnings():
    # What these packages import is not ours to answer for.
    warnings.simplefilter("ignore")
    import grpc
    import tritonclient.grpc as triton
    from tritonclient.utils import InferenceServerException

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

X = {"x": ("float32", [2])}
Y = {"y": ("float32", [2])}


@model("double", inputs=X, outputs=Y)
def double(x: Any) -> Any:
    return x * np.float32(2)


@model("broken", inputs=X, outputs=Y)
def broken(x: Any) -> Any:
    raise RuntimeError(f"no pump for {len(x)}")


@model("shout", inputs={"words": ("string", [-1])}, outputs={"loud": ("string", [-1])})
def shout(words: Any) -> Any:
    return [[word.upper() for word in row] for row in words]


def client_of(url: str) -> Any:
    # A connection of its own: grpcio shares one among all channels of a process otherwise.
    return triton.InferenceServerClient(place(url), channel_args=[("grpc.use_local_subchannel_pool", 1)])


def place(url: str) -> str:
    assert url.startswith("grpc://")
    return url.removeprefix("grpc://")


def tensor(*rows: list[float]) -> list[Any]:
    array = np.array(rows, np.float32)
    given = triton.InferInput("x", list(array.shape), "FP32")
    given.set_data_from_numpy(array)
    return [given]


def ask_http(url: str, name: str, *rows: list[float]) -> Any:
    body = json.dumps(testing.infer_body({"x": ("FP32", [len(rows), 2], rows)})).encode()
    with urllib.request.urlopen(f"{url}/v2/models/{name}/infer", body, timeout=PATIENCE) as answer:
        return json.load(answer)["outputs"][0]["data"]


@pytest.fixture
def gated() -> Iterator[tuple[Server, Gate]]:
    gate = Gate()
    declared = model("gated", inputs=X, outputs=Y, max_batch_size=16)(lambda x: gate.run(x))  # noqa: PLW0108
    with Server(declared, port=0, grpc_port=0) as server:
        yield server, gate
        gate.open()


def test_one_port_answers_both_and_a_second_one_grpc_alone() -> None:
    with Server(double, port=0) as one:
        assert one.grpc_url == one.url.replace("http://", "grpc://")
        assert client_of(one.grpc_url).infer("double", tensor([1, 2])).as_numpy("y").tolist() == [[2, 4]]
        assert ask_http(one.url, "double", [1, 2]) == [2, 4]
    with Server(double, port=0, grpc_port=0) as two:
        assert place(two.grpc_url) != two.url.removeprefix("http://")
        for url in (two.grpc_url, two.url.replace("http://", "grpc://")):
            assert client_of(url).infer("double", tensor([3, 4])).as_numpy("y").tolist() == [[6, 8]]
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(two.grpc_url.replace("grpc://", "http://") + "/v2", timeout=PATIENCE)
        with caught.value as error:
            assert error.code == 415
            assert f"http on port {two.url.rpartition(':')[2]}" in json.load(error)["error"]


def test_a_port_that_cannot_be_is_refused_and_leaves_nothing_open() -> None:
    for port in (-1, 70_000, True, "8001"):
        with pytest.raises(ConfigError, match="grpc_port must be between"):
            Server(double, grpc_port=port)  # type: ignore[arg-type]
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
        port, other = taken.getsockname()[1], free.getsockname()[1]
        free.close()
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}"):
            Server(double, port=other, grpc_port=port).start()
        with Server(double, port=other) as server:
            assert server.url.endswith(f":{other}")


def test_a_server_without_a_door_has_no_url_for_grpc_either() -> None:
    server = Server(double)
    with pytest.raises(Closed, match="not started"):
        _ = server.grpc_url
    with testing.TestClient(server), pytest.raises(Closed, match="listens nowhere"):
        _ = server.grpc_url


def test_requests_of_both_protocols_share_a_batch(gated: tuple[Server, Gate]) -> None:
    server, gate = gated
    client = client_of(server.grpc_url)
    client.async_infer("gated", tensor([0, 0]), callback=lambda **_: None)
    until(gate.entered.is_set)
    answers: dict[str, Any] = {}

    def over_http() -> None:
        answers["http"] = ask_http(server.url, "gated", [1, 1])

    def over_grpc() -> None:
        answers["grpc"] = client.infer("gated", tensor([2, 2], [3, 3])).as_numpy("y").tolist()

    senders = [threading.Thread(target=each) for each in (over_http, over_grpc)]
    for sender in senders:
        sender.start()
    until(lambda: server.stats().models["gated"].queued == 3)
    gate.open()
    for sender in senders:
        sender.join(PATIENCE)
    assert answers == {"http": [10, 10], "grpc": [[20, 20], [30, 30]]}
    assert [len(batch) for batch in gate.batches] == [1, 3]


def test_text_goes_both_ways() -> None:
    with Server(shout, port=0) as server:
        words = np.array([["größer", "b"], ["", "日本"]], np.object_)
        given = triton.InferInput("words", [2, 2], "BYTES")
        given.set_data_from_numpy(words)
        answer = client_of(server.grpc_url).infer("shout", [given]).as_numpy("loud")
        assert [[word.decode() for word in row] for row in answer] == [["GRÖSSER", "B"], ["", "日本"]]


def test_what_a_model_raises_is_internal_and_in_its_words() -> None:
    with Server([double, broken], port=0) as server:
        client = client_of(server.grpc_url)
        with pytest.raises(InferenceServerException, match="RuntimeError: no pump for 1") as caught:
            client.infer("broken", tensor([1, 2]))
        assert caught.value.status() == "StatusCode.INTERNAL"
        with pytest.raises(InferenceServerException, match="'x' has shape") as caught:
            client.infer("double", tensor([1, 2, 3]))
        assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
        assert client.infer("double", tensor([1, 2])).as_numpy("y").tolist() == [[2, 4]]


def test_limits_hold_for_messages() -> None:
    with Server(double, port=0, max_body="1KiB", max_in_flight=1) as server:
        client = client_of(server.grpc_url)
        with pytest.raises(InferenceServerException, match="max_body=1024") as caught:
            client.infer("double", tensor(*[[1, 2]] * 1000))
        assert caught.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
        assert 'penstock_grpc_responses_total{code="RESOURCE_EXHAUSTED"} 1' in server.metrics()


def accesses(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "penstock.access"]


def test_calls_are_in_the_access_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "penstock.access")
    with Server(double, port=0, access_log=True) as server:
        client = client_of(server.grpc_url)
        client.infer("double", tensor([1, 2], [3, 4]), request_id="a7")
        with pytest.raises(InferenceServerException):
            client.infer("treble", tensor([1, 2]))
        until(lambda: len(accesses(caplog)) == 2)
    records = accesses(caplog)
    made = records[1].request_id  # type: ignore[attr-defined]
    assert re.fullmatch("[0-9a-f]{32}", made)
    shown = [
        (one.protocol, one.path, one.grpc_code, one.status, one.request_id, one.model, one.rows)  # type: ignore[attr-defined]
        for one in records
    ]
    path = "/inference.GRPCInferenceService/ModelInfer"
    assert shown == [
        ("grpc", path, "OK", 200, "a7", "double", 2),
        ("grpc", path, "NOT_FOUND", 404, made, None, None),
    ]
    assert re.search(rf"POST {path} OK [\d.]+ ms rows=2 batch=2$", records[0].getMessage())
    assert re.search(rf"POST {path} NOT_FOUND [\d.]+ ms$", records[1].getMessage())


def test_closing_answers_what_was_accepted_and_ends_streams(gated: tuple[Server, Gate]) -> None:
    server, gate = gated
    client = client_of(server.grpc_url)
    answers: list[tuple[Any, Any]] = []
    client.start_stream(lambda result, error: answers.append((result, error)))
    client.async_stream_infer("gated", tensor([1, 1]), request_id="1")
    until(gate.entered.is_set)
    client.async_stream_infer("gated", tensor([2, 2]), request_id="2")
    until(lambda: server.stats().models["gated"].queued == 1)
    closing = threading.Thread(target=server.close)
    closing.start()
    until(lambda: not server.ready)
    gate.open()
    closing.join(PATIENCE)
    assert not closing.is_alive()
    until(lambda: len(answers) == 3)
    assert [result.as_numpy("y").tolist() for result, _ in answers[:2]] == [[[10, 10]], [[20, 20]]]
    assert answers[2][1].status() == "StatusCode.UNAVAILABLE"
    assert "closing" in str(answers[2][1])
    client.stop_stream()


def test_closing_without_draining_refuses_what_waits(gated: tuple[Server, Gate]) -> None:
    server, gate = gated
    client = client_of(server.grpc_url)
    ends: list[Any] = []
    client.async_infer("gated", tensor([1, 1]), callback=lambda result, error: ends.append((result, error)))
    until(gate.entered.is_set)
    client.async_infer("gated", tensor([2, 2]), callback=lambda result, error: ends.append((result, error)))
    until(lambda: server.stats().models["gated"].queued == 1)
    closing = threading.Thread(target=server.close, kwargs={"drain": False})
    closing.start()
    until(lambda: len(ends) == 1)
    assert ends[0][1].status() == "StatusCode.UNAVAILABLE"
    gate.open()
    closing.join(PATIENCE)
    until(lambda: len(ends) == 2)
    assert ends[1][0].as_numpy("y").tolist() == [[10, 10]]


def test_health_is_live_while_models_load() -> None:
    loading = threading.Event()

    @model("slow", inputs=X, outputs=Y)
    class Slow:
        def load(self, _: Any) -> None:
            assert loading.wait(PATIENCE)

        def predict(self, x: Any) -> Any:
            return x

    port = free_port()
    server = Server(Slow, port=port)
    starting = threading.Thread(target=server.start)
    starting.start()
    client = client_of(f"grpc://127.0.0.1:{port}")

    def is_live() -> bool:
        try:
            return bool(client.is_server_live())
        except InferenceServerException:
            return False

    until(is_live)
    assert not client.is_server_ready()
    assert not client.is_model_ready("slow")
    loading.set()
    starting.join(PATIENCE)
    assert client.is_server_ready()
    assert client.is_model_ready("slow")
    server.close()


APP = """
import numpy as np, os, penstock

@penstock.model("pid", inputs={"x": ("float32", [2])}, outputs={"y": ("int32", [])})
def pid(x):
    return np.full(len(x), os.getpid(), np.int32)
"""


@pytest.mark.parametrize(("flag", "variable"), [(["--grpc-port", "0"], None), ([], "0"), (["--grpc-port=0"], "1")])
def test_the_command_line_opens_the_second_port(tmp_path: Path, flag: list[str], variable: str | None) -> None:
    (tmp_path / "app.py").write_text(APP)
    command = [sys.executable, "-m", "penstock", "serve", "app.py", "--port", "0", *flag]
    environment = None if variable is None else {"PENSTOCK_GRPC_PORT": variable}
    with served(command, tmp_path, environment) as (process, url, grpc_url):
        assert place(grpc_url) != url.removeprefix("http://")
        assert client_of(grpc_url).infer("pid", tensor([1, 2])).as_numpy("y").tolist() == [process.pid]


def test_workers_share_both_ports(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    arguments = ["--port", "0", "--grpc-port", "0", "--workers", "2"]
    command = [sys.executable, "-m", "penstock", "serve", "app.py", *arguments]
    with served(command, tmp_path) as (process, url, grpc_url):
        assert place(grpc_url) != url.removeprefix("http://")
        seen: set[int] = set()

        def both_answered() -> bool:
            with client_of(grpc_url) as client:
                seen.update(client.infer("pid", tensor([1, 2])).as_numpy("y").tolist())
            return len(seen) == 2

        until(both_answered)
        assert process.pid not in seen


@contextmanager
def served(
    command: list[str], folder: Path, environment: dict[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """`penstock serve` as a user starts it: the process and its two URLs."""
    with subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    ) as process:
        assert process.stdout is not None
        url, _, grpc_url = process.stdout.readline().split()[-3:]
        try:
            yield process, url, grpc_url
        finally:
            process.terminate()
        assert process.wait(PATIENCE) == 0


def test_a_port_that_is_none_is_named_with_where_it_came_from(capsys: pytest.CaptureFixture[str]) -> None:
    said = {"PENSTOCK_GRPC_PORT": "81"}
    assert ListenSettings.resolve({}, {}, {}).grpc_port is None
    assert ListenSettings.resolve({}, {}, said).grpc_port == 81
    assert ListenSettings.resolve({}, {"grpc_port": "0"}, said).grpc_port == 0
    for given in ("65536", "-1", "x", "", "1.5"):
        with pytest.raises(ConfigError, match="PENSTOCK_GRPC_PORT must be a port"):
            ListenSettings.resolve({}, {}, {"PENSTOCK_GRPC_PORT": given})
    assert cli.main(["serve", "app.py", "--grpc-port", "many"]) == 2
    assert "--grpc-port must be a port between 0 and 65535, not 'many'" in capsys.readouterr().err


def test_the_standard_health_service_follows_the_server() -> None:
    with Server(double, port=0) as server, grpc.insecure_channel(place(server.grpc_url)) as channel:
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=PATIENCE)
        assert next(watch) == b"\x08\x01", "SERVING"
        closing = threading.Thread(target=server.close)
        closing.start()
        assert next(watch) == b"\x08\x02", "NOT_SERVING"
        with pytest.raises(grpc.RpcError) as caught:
            next(watch)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        closing.join(PATIENCE)
        assert not closing.is_alive()
