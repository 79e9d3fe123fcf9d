"""`penstock bench` and `penstock.testing.load` against real servers, some of them broken on purpose."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penstock import Server, _bench_chart, cli, model, testing
from penstock._bench_bodies import inference_bodies
from penstock.errors import ConfigError
from tests.python.support.http_server import refusing_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE = 60


@model("double", inputs={"x": ("float32", [3])}, outputs={"y": ("float32", [3])})
def double(x: Any) -> Any:
    return x * np.float32(2)


@contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Hands every connection to `answer` on a thread of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=served, args=(connection,), daemon=True).start()

        def served(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                answer(connection)

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/any"
        listener.shutdown(socket.SHUT_RDWR)


def replying(reply: bytes, pause: float = 0.0) -> Callable[[socket.socket], None]:
    """Answers whatever comes in one piece."""

    def answer(connection: socket.socket) -> None:
        while connection.recv(65536):
            time.sleep(pause)
            connection.sendall(reply)

    return answer


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "penstock", "bench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def report_of(*arguments: object) -> tuple[int, dict[str, Any]]:
    ended = bench(*arguments, "--json", "-")
    assert ended.stdout, ended.stderr
    return ended.returncode, json.loads(ended.stdout)


def test_a_run_reports_figures_configuration_and_a_chart_of_bars(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    with Server([double], port=0) as server:
        ended = bench(server.url, "--model", "double", "-c", 4, "-n", 500, "--check", "--json", target)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == "", "nothing is written for a terminal that is not there"
    assert "500 answers, 500 of them 2xx" in ended.stdout
    assert re.search(r"≤ .* █+ ", ended.stdout)
    report = json.loads(target.read_text())
    assert (report["planned"], report["ok"], report["failed"], report["wrong"]) == (500, 500, 0, 0)
    times = [report[name] for name in ("min", "p50", "p75", "p90", "p95", "p99", "p999", "p9999", "max")]
    assert times == sorted(times)
    assert times[0] > 0
    assert sum(count for _, count in report["histogram"]) == 500
    assert report["statuses"] == {"200": 500}
    assert (report["errors"], report["stopped"], report["timed_out"]) == ({}, False, False)
    asked = report["configuration"]
    assert (asked["clients"], asked["mode"], asked["protocol"], asked["method"]) == (4, "closed", "HTTP/1.1", "POST")
    assert asked["url"].endswith("/v2/models/double/infer")
    assert report["machine"]["cores"] >= 1
    assert report["versions"].keys() == {"penstock", "python"}
    assert 0 < report["first_byte"]["p50"] <= report["p50"]
    assert report["generator_cpu_us_per_request"] > 0


def test_latencies_are_those_of_the_server() -> None:
    with listening(replying(OK, pause=0.03)) as url:
        status, report = report_of(url, "-c", 2, "-n", 40)
    assert status == 0
    assert 0.03 <= report["min"] <= report["p50"] < 0.3
    assert report["seconds"] >= 20 * 0.03


def test_an_open_loop_counts_from_the_moment_a_request_was_due() -> None:
    # One connection that takes 20 ms for each can answer half of a hundred a second.
    with listening(replying(OK, pause=0.02)) as url:
        status, report = report_of(url, "-c", 1, "--rate", 100, "-d", 1)
        ended = bench(url, "-c", 1, "--rate", 100, "-n", 50)
    assert (status, report["planned"], report["ok"]) == (0, 100, 100)
    assert report["kept_up"] is False
    assert report["backlog"] > 20
    assert report["max"] > 0.5, "the last one waited for all before it"
    assert report["requests_per_second"] < 60
    assert "did not keep up: 100 requests fell due" in ended.stdout
    assert "50 answers" in ended.stdout


def test_an_open_loop_that_keeps_up_says_so() -> None:
    with listening(replying(OK)) as url:
        status, report = report_of(url, "-c", 8, "--rate", 200, "-d", 0.5, "--poisson", "--warmup", 0.2)
    assert (status, report["kept_up"]) == (0, True)
    assert report["lag"]["count"] > 0
    assert report["warmup_answered"] > 0
    assert report["answered"] == report["planned"] < 200


def test_errors_are_counted_by_status_and_by_kind() -> None:
    busy = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
    with listening(replying(busy)) as url:
        status, report = report_of(url, "-n", 10, "-c", 2)
    assert (status, report["statuses"], report["ok"]) == (1, {"503": 10}, 0)
    with listening(lambda connection: connection.recv(65536)) as url:
        status, report = report_of(url, "-n", 10, "-c", 2)
    assert (status, report["answered"], report["failed"]) == (1, 0, 10)
    assert set(report["errors"]) <= {"ReadFailed", "WriteFailed"}
    with listening(replying(b"220 mail ready\r\n")) as url:
        status, report = report_of(url, "-n", 4, "-c", 2)
    assert (status, report["errors"]) == (1, {"ProtocolError": 4})


def test_answers_that_are_no_inference_fail_the_check() -> None:
    with listening(replying(OK)) as url:
        status, report = report_of(url, "-n", 10, "-c", 2, "--check")
    assert (status, report["ok"], report["wrong"]) == (1, 10, 10)
    assert "no inference response" in report["first_wrong"]


def test_a_server_that_never_answers_hangs_nobody() -> None:
    with listening(lambda connection: time.sleep(PATIENCE)) as url:
        status, report = report_of(url, "-n", 4, "-c", 2, "--timeout", 0.1)
        assert (status, report["errors"]) == (1, {"DeadlineExceeded": 4})
        began = time.monotonic()
        status, report = report_of(url, "-n", 4, "-c", 2, "--deadline", 0.3)
        assert (status, report["timed_out"], report["unfinished"]) == (1, True, 4)
        assert time.monotonic() - began < PATIENCE / 2


def test_chunked_answers_are_read() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
    with listening(replying(chunked)) as url:
        status, report = report_of(url, "-n", 10, "-c", 2)
    assert (status, report["bytes_read"], report["reopened"]) == (0, 70, 0)


def test_what_is_sent_is_what_was_asked_for(tmp_path: Path) -> None:
    seen: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        while asked := connection.recv(65536):
            seen.append(asked)
            connection.sendall(OK)

    body = tmp_path / "body.bin"
    body.write_bytes(b"\x00\x01")
    with listening(answer) as url:
        assert bench(url + "?q=1", "-n", 1, "-c", 1).returncode == 0
        arguments = ("--method", "PUT", "--body", f"@{body}", "--header", "X-Tenant: a b", "--connection-close")
        assert bench(url, "-n", 1, "-c", 1, *arguments).returncode == 0
        assert bench(url, "-n", 1, "-c", 1, "--body", '{"a": 1}').returncode == 0
    got = [request.partition(b"\r\n\r\n") for request in seen]
    assert got[0][0].startswith(b"GET /any?q=1 HTTP/1.1\r\nhost: 127.0.0.1:")
    assert b"content-length" not in got[0][0]
    assert got[1][0].startswith(b"PUT /any HTTP/1.1\r\n")
    fields = set(got[1][0].split(b"\r\n"))
    wanted = {b"x-tenant: a b", b"connection: close", b"content-length: 2", b"content-type: application/octet-stream"}
    assert wanted <= fields
    assert got[1][2] == b"\x00\x01"
    assert b"content-type: application/json" in got[2][0]


def test_a_live_line_is_written_where_a_terminal_is() -> None:
    master, slave = pty.openpty()
    try:
        with listening(replying(OK)) as url:
            command = [sys.executable, "-m", "penstock", "bench", url, "-c", "2", "-d", "1", "--warmup", "0.3"]
            with subprocess.Popen(command, stderr=slave, stdout=subprocess.PIPE) as process:
                out, _ = process.communicate(timeout=PATIENCE)
        written = os.read(master, 1 << 20).decode()
    finally:
        os.close(master)
        os.close(slave)
    assert process.returncode == 0
    assert b"requests/s" in out
    assert "\rwarming up" in written.replace("\x1b[K", "")
    assert re.search(r"s +[\d,]+ answers +[\d,]+/s  p50 .* p99 .* 0 errors", written)
    assert written.endswith("\r\x1b[K"), "the line is gone when the report is there"


def interrupted(url: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "penstock", "bench", url, "-c", "2", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_ctrl_c_ends_a_run_early_and_keeps_what_was_measured() -> None:
    answered = threading.Event()

    def answer(connection: socket.socket) -> None:
        for _ in range(10):
            connection.recv(65536)
            connection.sendall(OK)
        answered.set()
        replying(OK)(connection)

    with listening(answer) as url, interrupted(url, "-d", "50", "--json", "-") as process:
        assert answered.wait(PATIENCE)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    report = json.loads(out)
    assert report["stopped"] is True
    assert report["ok"] >= 10
    assert "ended by Ctrl-C" in err


def test_a_second_ctrl_c_ends_it_at_once() -> None:
    # A generator that is stuck in writing its report: the pipe is full and nobody reads.
    loaded = threading.Event()

    def answer(connection: socket.socket) -> None:
        loaded.set()
        replying(OK)(connection)

    with listening(answer) as url:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        with suppress(BlockingIOError):
            while os.write(writer, b"x" * 4096):
                pass
        os.set_blocking(writer, True)
        command = [sys.executable, "-m", "penstock", "bench", url, "-c", "2", "-d", "50"]
        with subprocess.Popen(command, stdout=writer) as process:
            os.close(writer)
            assert loaded.wait(PATIENCE)
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            time.sleep(1.0)
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == -signal.SIGINT
        os.close(reader)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert cli.main(["bench", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["-n", 1, "-d", 1], "--requests and --duration"),
        (["-n", 0], "--requests 0"),
        (["-c", 0], "--clients 0"),
        (["-d", 0], "--duration"),
        (["--rate", "nan"], "--rate"),
        (["--poisson"], "--poisson"),
        (["--http2", "--connection-close"], "--connection-close"),
        (["--streams", 2], "--streams"),
        (["--binary"], "--model"),
        (["--model", "m", "--body", "x"], "--body and --model"),
        (["--header", "nonsense"], "name: value"),
        (["--header", "Content-Length: 3"], "follows from the body"),
        (["--method", "NO NE"], "no method"),
        (["--body", "@/nowhere/at/all"], "/nowhere/at/all"),
        (["--chart", "x.gif"], ".svg, .png, .html"),
    ],
)
def test_mistakes_are_refused_with_status_2(
    capsys: pytest.CaptureFixture[str], arguments: list[object], reason: str
) -> None:
    assert reason in refusal(capsys, "http://127.0.0.1:9/", *arguments)


def test_other_machines_and_other_schemes_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["http://192.0.2.1:80/"], ["http://192.0.2.1:80/", "--model", "m"]):
        assert "servers of its own machine alone" in refusal(capsys, *arguments)
    assert "http://host:port/path" in refusal(capsys, "https://127.0.0.1:80/")


def test_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    port = refusing_port()
    for arguments in (["-n", 1], ["--model", "m"]):
        said = refusal(capsys, f"http://127.0.0.1:{port}/", *arguments)
        assert "no connection" in said
        assert "refused" in said


def test_models_that_are_not_there_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with Server([double], port=0) as server:
        assert "404" in refusal(capsys, server.url, "--model", "triple")
    for reply in (b"hi", b'{"inputs": []}', b'{"inputs": [{"name": 1}]}'):
        whole = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(reply), reply)
        with listening(replying(whole)) as url:
            assert "metadata" in refusal(capsys, url, "--model", "m")


ALL = [
    {"name": name.lower(), "datatype": name, "shape": [-1, 2, -1]}
    for name in ("BOOL", "INT8", "INT64", "UINT16", "FP16", "BF16", "FP32", "FP64", "BYTES")
]


def test_random_bodies_fit_every_datatype() -> None:
    made = inference_bodies(ALL, count=3, rows=4, binary=False, seed=1)
    assert made.headers == {"Content-Type": "application/json"}
    assert len(set(made.bodies)) == 3
    assert made == inference_bodies(ALL, count=3, rows=4, binary=False, seed=1)
    assert made != inference_bodies(ALL, count=3, rows=4, binary=False, seed=2)
    for tensor in json.loads(made.bodies[0])["inputs"]:
        assert tensor["shape"] == [4, 2, 16]
        assert len(tensor["data"]) == 4 * 2 * 16
    with pytest.raises(ConfigError, match="FP31"):
        inference_bodies([{"name": "x", "datatype": "FP31", "shape": [-1]}], count=1, rows=1, binary=False, seed=1)


def test_binary_bodies_are_as_long_as_they_say() -> None:
    made = inference_bodies(ALL, count=5, rows=2, binary=True, seed=1)
    length = int(made.headers["Inference-Header-Content-Length"])
    widths = {"BOOL": 1, "INT8": 1, "INT64": 8, "UINT16": 2, "FP16": 2, "BF16": 2, "FP32": 4, "FP64": 8}
    for body in made.bodies:
        head = json.loads(body[:length])
        assert head["parameters"] == {"binary_data_output": True}
        sizes = [tensor["parameters"]["binary_data_size"] for tensor in head["inputs"]]
        assert sum(sizes) == len(body) - length
        for tensor, size in zip(head["inputs"], sizes, strict=True):
            if tensor["datatype"] in widths:
                assert size == 2 * 2 * 16 * widths[tensor["datatype"]]
    tensors = made.bodies[0][length:]
    third = inference_bodies(ALL[5:6], count=1, rows=2, binary=True, seed=1).bodies[0][-2 * 2 * 16 * 2 :]
    numbers = (np.frombuffer(third, "<u2").astype(np.uint32) << 16).view(np.float32)
    assert ((numbers >= 0) & (numbers < 1)).all(), "the upper half of a float32 is a number of its size"
    assert set(tensors[: 2 * 2 * 16]) == {0, 1}, "BOOL is a byte of 0 or 1"


@pytest.mark.parametrize("suffix", ["svg", "png", "html"])
def test_charts_are_drawn(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    chart = tmp_path / f"chart.{suffix}"
    with listening(replying(OK)) as url:
        ended = bench(url, "-n", 200, "-c", 2, "--chart", chart)
    assert ended.returncode == 0, ended.stderr
    assert {"svg": b"<svg", "png": b"\x89PNG", "html": b"<svg"}[suffix] in chart.read_bytes()


def test_a_chart_without_matplotlib_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install 'penstock[bench]'" in refusal(capsys, "http://127.0.0.1:9/", "--chart", "x.svg")


def test_bars_show_every_answer_once() -> None:
    assert _bench_chart.bars([]) == []
    assert len(_bench_chart.bars([(0.5, 3)])) == 1
    lines = _bench_chart.bars([(0.001 * step, step) for step in range(1, 200)], "#")
    counts = [int(line.split()[-2].replace(",", "")) for line in lines]
    assert (len(lines), sum(counts)) == (12, 199 * 200 // 2)
    assert all(line.count("#") <= 40 for line in lines)


def test_load_takes_a_method_headers_and_a_timeout() -> None:
    seen: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        while asked := connection.recv(65536):
            seen.append(asked)
            if len(seen) < 3:
                connection.sendall(OK)

    with listening(answer) as url:
        report = testing.load(
            url, [b"a"], clients=1, requests_per_client=3, method="PATCH", headers={"X-A": "b"}, timeout=0.2
        )
    assert seen[0].startswith(b"PATCH /any ")
    assert b"x-a: b\r\n" in seen[0]
    assert (report.ok, report.failed, report.errors) == (2, 1, {"DeadlineExceeded": 1})
    assert report.p999 <= report.p9999 <= report.max
    assert report.lag == 0


def test_ctrl_c_in_load_ends_the_run() -> None:
    seen = threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        seen.set()
        assert connection.recv(65536) == b"", "the connection ends with the run"
        ended.set()

    ended = threading.Event()
    with listening(answer) as url:

        def interrupt() -> None:
            assert seen.wait(PATIENCE)
            signal.raise_signal(signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            testing.load(url, [b""], clients=1, requests_per_client=1)
        thread.join()
        assert ended.wait(PATIENCE)


def doubled(row: list[float]) -> bytes:
    return testing.infer_message("double", {"x": ("FP32", [1, 3], np.array(row, "<f4").tobytes())})


def test_load_over_grpc_counts_answers_by_their_code() -> None:
    bodies = [doubled([1, 2, 3]), testing.infer_message("nobody", {}), b"\xff\xff"]
    with Server([double], port=0, grpc_port=0) as server:
        for url in (server.grpc_url, f"{server.grpc_url}/inference.GRPCInferenceService/ModelInfer"):
            report = testing.load(url, bodies, clients=3, requests_per_client=10, streams=3, keep_answers=True)
            assert (report.planned, report.answered, report.ok, report.failed) == (30, 30, 10, 0)
            assert report.codes["OK"] == report.codes["NOT_FOUND"] == 10
            assert sum(report.codes.values()) == 30
            assert report.statuses == {200: 30}
            answers = [answer for index, _, answer in report.answers if index == 0]
            assert {np.frombuffer(answer[-12:], "<f4").tolist().__repr__() for answer in answers} == {"[2.0, 4.0, 6.0]"}
        report = testing.load(f"{server.grpc_url}/no.such/Method", [b""], clients=1, requests_per_client=3)
        assert (report.ok, report.codes) == (0, {"UNIMPLEMENTED": 3})
        report = testing.load(server.grpc_url, [doubled([1, 2, 3])], clients=4, rate=200, duration=0.5)
        assert (report.ok, report.failed) == (report.planned, 0)


def test_a_run_over_grpc() -> None:
    with Server([double], port=0, grpc_port=0) as server:
        status, report = report_of(
            server.grpc_url, "--model", "double", "-c", 8, "-n", 400, "--streams", 4, "--rows", 2, "--check"
        )
        assert (status, report["ok"], report["wrong"], report["codes"]) == (0, 400, 0, {"OK": 400})
        assert (report["configuration"]["protocol"], report["configuration"]["streams"]) == ("gRPC", 4)
        live = f"{server.grpc_url}/inference.GRPCInferenceService/ServerLive"
        ended = bench(live, "-c", 1, "-n", 5)
        assert (ended.returncode, "5 of them OK" in ended.stdout) == (0, True)
        ended = bench(server.grpc_url, "-c", 1, "-n", 5)  # an empty message names no model
        assert ended.returncode == 1
        assert re.search("codes  [A-Z_]+: 5", ended.stdout)
        ended = bench(server.grpc_url, "--model", "nobody", "-n", 5)
        assert (ended.returncode, "answered with NOT_FOUND" in ended.stderr) == (2, True)


def test_a_server_without_grpc_costs_every_call() -> None:
    with listening(replying(OK)) as url:
        status, report = report_of(url.replace("http", "grpc"), "-n", 6, "-c", 2)
    assert (status, report["answered"], report["failed"]) == (1, 0, 6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--connection-close",), "belongs to HTTP/1.1"),
        (("--method", "GET"), "is not POST"),
        (("--streams", "0"), "fewer than 1"),
    ],
)
def test_what_grpc_does_not_have_is_refused(arguments: tuple[str, ...], words: str) -> None:
    ended = bench("grpc://127.0.0.1:9", *arguments)
    assert (ended.returncode, words in ended.stderr) == (2, True), ended.stderr
