"""The server through its Python face: real sockets, real models."""

from __future__ import annotations

import asyncio
import builtins
import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from typing import Any

import numpy as np
import pytest

import penstock
from penstock import ItemError, Server, cli, model, testing
from penstock.errors import Closed, ConfigError, ConnectFailed, LoadFailed

X = {"x": ("float32", [2])}
Y = {"y": ("float32", [2])}


@model("double", inputs=X, outputs=Y)
def double(x: Any) -> Any:
    return x * np.float32(2)


def ask(server: Server, name: str, inputs: dict[str, Any]) -> tuple[int, Any]:
    request = urllib.request.Request(
        f"{server.url}/v2/models/{name}/infer", json.dumps(testing.infer_body(inputs)).encode()
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)["outputs"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)["error"]


def one(values: list[float]) -> dict[str, Any]:
    return {"x": ("FP32", [1, len(values)], values)}


def test_a_direct_call_of_a_model_is_what_it_was() -> None:
    assert double(np.ones((3, 2), np.float32)).shape == (3, 2)


def test_a_function_is_served_and_answers_with_its_rows() -> None:
    with Server([double], port=0) as server:
        status, outputs = ask(server, "double", {"x": ("FP32", [2, 2], [[1, 2], [3, 4]])})
        assert (status, outputs[0]["shape"], outputs[0]["data"]) == (200, [2, 2], [2.0, 4.0, 6.0, 8.0])
        assert server.ready
        assert server.stats().models["double"].requests == 2
        assert "double" in repr(server)
        assert "penstock_batches_total" in server.metrics()
    assert "closed" in repr(server)


def test_a_class_loads_before_it_is_ready_and_closes_at_the_end() -> None:
    seen: list[str] = []

    @model("counted", inputs=X, outputs={"n": ("int64", [])}, version="7")
    class Counted:
        def load(self, ctx: penstock.LoadContext) -> None:
            seen.append(f"load {ctx.name} {ctx.version}")

        def predict(self, x: Any) -> Any:
            return np.full(len(x), 5, np.int64)

        def close(self) -> None:
            seen.append("close")

    with Server(Counted, port=0) as server:
        assert seen == ["load counted 7"]
        assert ask(server, "counted/versions/7", one([1, 2]))[1][0]["data"] == [5]
        assert ask(server, "counted/versions/8", one([1, 2]))[0] == 404
    assert seen == ["load counted 7", "close"]


def test_several_inputs_come_by_name_and_several_outputs_go_by_name() -> None:
    inputs = {"text": ("string", []), "scale": ("float64", [])}

    @model("pair", inputs=inputs, outputs={"n": ("float64", []), "up": ("string", [])})
    def pair(scale: Any, text: list[str]) -> dict[str, Any]:
        return {"n": np.array([len(t) for t in text]) * scale, "up": [t.upper() for t in text]}

    with Server([pair], port=0) as server:
        body = {"text": ("BYTES", [2], ["ab", "zwölf"]), "scale": ("FP64", [2], [1, 10])}
        status, outputs = ask(server, "pair", body)
    assert (status, outputs[0]["data"], outputs[1]["data"]) == (200, [2.0, 50.0], ["AB", "ZWÖLF"])


async def test_an_async_model_runs_on_a_loop_of_its_own_and_the_server_closes_without_blocking() -> None:
    threads: list[str] = []

    @model("slow", inputs=X, outputs=Y)
    async def slow(x: Any) -> Any:
        threads.append(threading.current_thread().name)
        await asyncio.sleep(0.01)
        return x

    async with Server([slow], port=0) as server:
        status, _ = await asyncio.to_thread(ask, server, "slow", one([1, 2]))
    assert (status, threads) == (200, ["penstock-asyncio"])


def test_one_requests_error_is_its_own_and_the_others_are_answered() -> None:
    @model("picky", inputs=X, outputs=Y)
    def picky(x: Any) -> Any:
        if (x < 0).any():
            raise ValueError("negative")
        return x

    @model("refusing", inputs=X, outputs=Y)
    def refusing(x: Any) -> list[Any]:
        return [ItemError("zero") if row[0] == 0 else row for row in x]

    with Server([picky, refusing], port=0) as server:
        bodies = [testing.infer_body(one([v, 1.0])) for v in (1.0, -1.0, 2.0, 0.0)]
        report = testing.load(
            f"{server.url}/v2/models/picky/infer", bodies, clients=20, requests_per_client=20, keep_answers=True
        )
        assert {status for at, status, _ in report.answers if at == 1} == {500}
        assert {status for at, status, _ in report.answers if at != 1} == {200}
        assert ask(server, "refusing", one([0.0, 1.0])) == (400, "zero")
        report = testing.load(
            f"{server.url}/v2/models/refusing/infer", bodies, clients=20, requests_per_client=20, keep_answers=True
        )
        assert {(status, body) for at, status, body in report.answers if at == 3} == {(400, b'{"error":"zero"}')}
        assert {status for at, status, _ in report.answers if at != 3} == {200}


def test_a_model_that_must_not_run_twice_fails_its_batch_at_once() -> None:
    calls: list[int] = []

    @model("once", inputs=X, outputs=Y, on_error="fail", min_batch_size=2, max_wait=30)
    def once(x: Any) -> Any:
        calls.append(len(x))
        raise ValueError("no")

    with Server([once], port=0) as server:
        status, error = ask(server, "once", {"x": ("FP32", [2, 2], [1, 2, 3, 4])})
    assert (status, calls) == (500, [2])
    assert "ValueError: no" in error


def test_a_model_that_empties_its_list_and_raises_is_given_it_again() -> None:
    @model("eats", inputs={"t": ("string", [])}, outputs={"u": ("string", [])})
    def eats(t: list[str]) -> list[str]:
        out = [t.pop(0) for _ in list(t)]
        if "bad" in out:
            raise ValueError("bad")
        return out

    with Server([eats], port=0) as server:
        bodies = [testing.infer_body({"t": ("BYTES", [1], [word])}) for word in ("a", "b", "bad", "c")]
        report = testing.load(
            f"{server.url}/v2/models/eats/infer", bodies, clients=40, requests_per_client=10, keep_answers=True
        )
    assert {status for at, status, _ in report.answers if at == 2} == {500}
    assert {status for at, status, _ in report.answers if at != 2} == {200}


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (lambda x: x.astype(np.float64), "float64"),
        (lambda x: x[:, :1], "shape"),
        (lambda x: x[:0], "shape"),
        (lambda _: None, "could not become"),
        (lambda x: {"z": x}, "no output 'y'"),
    ],
)
def test_a_wrong_output_is_an_error_that_says_what_came(returned: Any, words: str) -> None:
    with Server([model("wrong", inputs=X, outputs=Y)(returned)], port=0) as server:
        status, error = ask(server, "wrong", one([1, 2]))
    assert status == 500
    assert words in error


def test_texts_of_any_length_and_bytes_that_are_no_text() -> None:
    @model("words", inputs={"t": ("string", [])}, outputs={"w": ("string", [-1])})
    def words(t: list[str]) -> list[list[str]]:
        return [text.split() for text in t]

    @model("raw", inputs={"t": ("string", [])}, outputs={"b": ("bytes", [])})
    def raw(t: list[str]) -> list[bytes]:
        return [b"\xff" if text == "bad" else text.encode() for text in t]

    with Server([words, raw], port=0) as server:
        outputs = ask(server, "words", {"t": ("BYTES", [1], ["a b c"])})[1]
        assert (outputs[0]["shape"], outputs[0]["data"]) == ([1, 3], ["a", "b", "c"])
        assert ask(server, "raw", {"t": ("BYTES", [1], ["ok"])})[1][0]["data"] == ["ok"]
        status, error = ask(server, "raw", {"t": ("BYTES", [1], ["bad"])})
        assert status == 500
        assert "utf-8" in error


def test_a_model_that_fails_to_load_ends_the_start_with_its_cause() -> None:
    @model("broken", inputs=X, outputs=Y)
    class Broken:
        def load(self, _ctx: Any) -> None:
            raise OSError("no weights")

        def predict(self, x: Any) -> Any:
            return x

    with pytest.raises(LoadFailed, match="no weights") as failure:
        Server([double, Broken], port=0).start()
    assert isinstance(failure.value.__cause__, OSError)


def test_closing_twice_is_harmless_and_a_closed_server_stays_closed() -> None:
    server = Server([double], port=0)
    with pytest.raises(Closed):
        _ = server.url
    server.start()
    url = server.url
    server.close()
    server.close()
    with pytest.raises(Closed):
        server.start()
    with pytest.raises(ConnectFailed):
        testing.load(url + "/v2", [b""], clients=1, requests_per_client=1)


def test_an_address_in_use_is_a_config_error() -> None:
    with Server([double], port=0) as server:
        port = int(server.url.rsplit(":", 1)[1])
        with pytest.raises(ConfigError, match=str(port)):
            Server([double], port=port).start()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "a b"}, "name"),
        ({"inputs": {}}, "inputs"),
        ({"inputs": {"x": "float32"}}, "float32"),
        ({"inputs": {"x": ("float32", ["a"])}}, "axes"),
        ({"workers": 0}, "workers"),
        ({"max_batch_size": 0}, "max_batch_size"),
        ({"batch": 3}, "batch"),
        ({"policy": penstock.BatchPolicy(), "max_wait": 1}, "policy"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused_by_name(change: dict[str, Any], words: str) -> None:
    settings: dict[str, Any] = {"name": "m", "inputs": X, "outputs": Y, **change}
    with pytest.raises(ConfigError, match=words):
        model(settings.pop("name"), **settings)(lambda x: x)


def test_types_and_parameters_are_checked_when_the_server_starts() -> None:
    with pytest.raises(ConfigError, match="complex64"):
        Server([model("c", inputs={"x": ("complex64", [])}, outputs=Y)(lambda x: x)], port=0).start()
    with pytest.raises(ConfigError, match="takes 1 arguments"):
        Server([model("two", inputs={"a": X["x"], "b": X["x"]}, outputs=Y)(lambda x: x)], port=0).start()
    with pytest.raises(ConfigError, match="two models"):
        Server([double, double], port=0).start()


@pytest.mark.parametrize(
    "settings", [{"port": 70000}, {"port": "80"}, {"drain_timeout": 0}, {"max_body": 0}, {"header_timeout": -1}]
)
def test_a_server_refuses_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        Server([double], **settings)


def test_what_is_no_model_is_refused() -> None:
    for wrong in ([], [print], len):
        with pytest.raises(ConfigError, match="model"):
            Server(wrong)
    with pytest.raises(ConfigError, match="predict"):
        model("m", inputs=X, outputs=Y)(type("Empty", (), {}))


def test_the_command_line_says_what_is_wrong(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    (tmp_path / "empty_app.py").write_text("x = 1\n")
    for target, words in (
        ("no_such_file.py", "there is no file"),
        (str(tmp_path / "empty_app.py"), "there is no model"),
        ("no_such_module:x", "there is no module"),
        ("json:nothing", "has no object"),
    ):
        assert cli.main(["serve", target]) == 2
        assert words in capsys.readouterr().err


def test_a_file_is_searched_for_its_models(tmp_path: Any) -> None:
    declared = 'import penstock\n@penstock.model("m", inputs={"x": ("int8", [])}, outputs={"y": ("int8", [])})\n'
    (tmp_path / "found_app.py").write_text(declared + "def m(x):\n    return x\n")
    assert [found.__name__ for found in cli.find_models(str(tmp_path / "found_app.py"))] == ["m"]


def test_the_load_generator_goes_to_this_machine_only() -> None:
    with pytest.raises(ConfigError, match="loopback"):
        testing.load("http://192.0.2.1:80/", [b""])
    with pytest.raises(ConfigError, match="url"):
        testing.load("127.0.0.1:80", [b""])
    with pytest.raises(ConfigError, match="rate"):
        testing.load("http://127.0.0.1:80/", [b""], rate=-1)


SLOW = """
import time, penstock

@penstock.model("slow", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
def slow(x):
    time.sleep(0.7)
    return x
"""


@pytest.mark.parametrize("target", ["slow_app.py", "slow_app:slow"])
def test_sigterm_answers_what_was_accepted_and_ends_with_0(tmp_path: Any, target: str) -> None:
    (tmp_path / "slow_app.py").write_text(SLOW)
    command = [sys.executable, "-m", "penstock", "serve", target, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-3]
        answers: list[Any] = []
        body = json.dumps(testing.infer_body(one([1, 2]))).encode()

        def send() -> None:
            with urllib.request.urlopen(f"{url}/v2/models/slow/infer", body, timeout=30) as answer:
                answers.append(json.load(answer)["outputs"][0]["data"])

        sender = threading.Thread(target=send)
        sender.start()
        # The batch is with the model: the request was accepted and is not answered.
        while 'penstock_batch_size_count{model="slow"} 1' not in _metrics(url):
            time.sleep(0.01)
        process.terminate()
        sender.join(30)
        assert (process.wait(30), answers) == (0, [[1.0, 2.0]])


def _metrics(url: str) -> str:
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        return str(answer.read().decode())


def test_running_a_notebook_cell_again_closes_its_older_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtins, "get_ipython", lambda: None, raising=False)
    older = Server([double], port=0).start()
    port = int(older.url.rsplit(":", 1)[1])
    with Server([double], port=port):
        assert "closed" in repr(older)


def test_a_closed_server_has_left_its_port() -> None:
    older = Server([double], port=0).start()
    port = int(older.url.rsplit(":", 1)[1])
    for _ in range(30):
        older.close()
        older = Server([double], port=port).start()
    older.close()
