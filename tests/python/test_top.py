"""`penstock top`: the figures of real servers, in lines, in JSON and on a terminal."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penstock
from penstock import Server, cli
from penstock._top_screen import SORTS, Screen, duration, number, percent, size
from tests.python.support.http_server import refusing_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TERMINAL = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]")
TENSORS: dict[str, Any] = {"inputs": {"x": ("float32", [2])}, "outputs": {"y": ("float32", [2])}}


@penstock.model("double", **TENSORS)
def double(x: Any) -> Any:
    return x * np.float32(2)


@penstock.model("broken", **TENSORS)
def broken(x: Any) -> Any:
    raise ValueError("no such row")


@penstock.model("letters", task="generate")
def letters(request: Any) -> Iterator[str]:
    yield from request.prompt


@contextmanager
def busy(server: Server) -> Iterator[None]:
    """A client that asks all three models, over and over."""
    over = threading.Event()

    def ask() -> None:
        with penstock.Client(server.url) as client:
            while not over.is_set():
                client.infer("double", {"x": np.ones((1, 2), np.float32)})
                with pytest.raises(penstock.PenstockError):
                    client.infer("broken", {"x": np.ones((1, 2), np.float32)})
                client.post("/v2/models/letters/generate_stream", json={"text_input": "abc"})

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server([double, broken, letters], port=0) as server, busy(server):
        yield server


def looked(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["top", *arguments, "--interval", "0.3", "--once"]) == 0
    return capsys.readouterr().out


def test_json_says_what_was_between_two_looks(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(looked(capsys, server.url, "--json"))
    assert found["url"] == server.url
    assert (found["ready"], found["version"], found["processes"]) == (True, penstock.__version__, 1)
    assert found["requests"] > 0
    assert found["errors"] == pytest.approx(found["outcomes"]["failed"] / found["requests"])
    assert 0 < found["latency"]["p50"] <= found["latency"]["p95"] <= found["latency"]["p99"] <= found["latency"]["p999"]
    assert found["batch_size"] == 1
    assert found["connections"] >= 2
    assert found["streams"]["pieces"] > 0
    models = {each["model"]: each for each in found["models"]}
    assert set(models) == {"double", "broken", "letters"}
    assert models["double"]["requests"] > 0
    assert models["double"]["errors"] == 0
    assert models["broken"]["errors"] == 1
    assert models["double"]["ready"] is True


def test_one_look_in_lines(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    text = looked(capsys, server.url)
    assert "\x1b" not in text, "no colours where nobody looks"
    lines = text.splitlines()
    assert lines[0].startswith(f"penstock {penstock.__version__}  {server.url}")
    assert "ready" in lines[0]
    for name in ("requests", "batches", "server", "streams"):
        assert any(line.startswith(name) for line in lines), name
    (row,) = [line for line in lines if line.startswith("broken")]
    assert "100 %" in row


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (40, 10), (200, 60)])
@pytest.mark.parametrize("sort", list(SORTS))
def test_the_screen_is_as_large_as_the_terminal(
    server: Server, capsys: pytest.CaptureFixture[str], columns: int, rows: int, sort: str
) -> None:
    found = json.loads(looked(capsys, server.url, "--json"))
    template = found["models"][0]
    found["models"] = [{**template, "model": f"a-model-of-a-tenant-with-a-long-name-{index}"} for index in range(30)]
    found["upstreams"] = [
        {
            "model": "m",
            "endpoint": "https://a-host-with-a-long-name.internal.example:8443",
            "ejected": index == 0,
            "requests": 12.0,
            "connections": 4,
            "in_use": 2,
            "waiting": 0,
            "reuse_rate": 0.99,
            "wait_p99": 0.001,
        }
        for index in range(2)
    ]
    lines = Screen(columns, rows, colours=True).lines(found, sort, foot=True, trouble=None)
    plain = [TERMINAL.sub("", line) for line in lines]
    if columns >= 80:
        assert max(map(len, plain)) <= columns, max(plain, key=len)
        assert "left out" in "\n".join(plain)
    if rows >= 24:
        assert len(lines) <= rows
    assert any("more" in line for line in plain) == (rows < 60)


def test_what_is_not_there_is_not_shown() -> None:
    assert [number(None), duration(None), size(None), percent(None)] == ["-"] * 4
    assert [number(0), number(0.034), number(1.25), number(12), number(12345), number(2.5e6)] == [
        "0",
        "0.03",
        "1.2",
        "12",
        "12,345",
        "2.5M",
    ]
    assert [duration(0), duration(0.00002), duration(0.0123), duration(3), duration(600), duration(86_400)] == [
        "0 ms",
        "20 us",
        "12.3 ms",
        "3 s",
        "10 min",
        "24 h",
    ]
    assert [size(1023), size(5 << 20), size(1 << 41)] == ["1 KiB", "5 MiB", "2 TiB"]
    assert [percent(0.5), percent(0.00001)] == ["50 %", "<0.01 %"]


@pytest.fixture
def terminal(server: Server) -> Iterator[tuple[subprocess.Popen[bytes], int, str]]:
    """The command on a terminal of 80 columns and 24 rows."""
    import fcntl
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [sys.executable, "-m", "penstock", "top", server.url, "--interval", "0.2"]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    try:
        yield process, ours, server.url
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def read_until(terminal: int, *wanted: str) -> str:
    text = ""
    while not all(each in text for each in wanted):
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # Linux says so where nobody has the other side open any more
            piece = b""
        assert piece, f"it ended after {text[-2000:]!r}"
        text += piece.decode()
    return text


def test_q_leaves_the_terminal_as_it_was(terminal: tuple[subprocess.Popen[bytes], int, str]) -> None:
    process, ours, url = terminal
    shown = read_until(ours, "\x1b[?1049h", url, "double", "q quits, s sorts (by req/s)")
    assert "\x1b[7m" in shown
    os.write(ours, b"s")
    read_until(ours, "s sorts (by p99)")
    os.write(ours, b"q")
    read_until(ours, "\x1b[?25h\x1b[?1049l")
    assert process.wait(30) == 0


def test_ctrl_c_leaves_it_too(terminal: tuple[subprocess.Popen[bytes], int, str]) -> None:
    process, ours, _ = terminal
    read_until(ours, "double")
    process.send_signal(signal.SIGINT)
    read_until(ours, "\x1b[?25h\x1b[?1049l")
    assert process.wait(30) == 130


def test_it_waits_for_a_server_that_went_away(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    with Server([double], port=0) as server:
        command = [sys.executable, "-m", "penstock", "top", server.url, "-i", "0.2"]
        process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
        os.close(theirs)
        port = int(server.url.rsplit(":", 1)[1])
        read_until(ours, "ready")
    try:
        read_until(ours, "does not answer")
        with Server([double], port=port):
            read_until(ours, "ready")
        os.write(ours, b"q")
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_whoever_reads_may_have_enough(server: Server) -> None:
    command = [sys.executable, "-m", "penstock", "top", server.url, "--json", "--interval", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["url"] == server.url
        process.stdout.close()
        assert process.wait(30) == 0
        assert process.stderr.read() == ""


def test_nobody_there(capsys: pytest.CaptureFixture[str]) -> None:
    port = refusing_port()
    assert cli.main(["top", f"http://127.0.0.1:{port}", "--once"]) == 2
    assert f"127.0.0.1:{port}" in capsys.readouterr().err


def test_a_server_without_metrics(capsys: pytest.CaptureFixture[str], server: Server) -> None:
    assert cli.main(["top", f"{server.url}/v2", "--once"]) == 2
    assert "answers with status 404" in capsys.readouterr().err


def test_a_server_that_wants_a_key(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hashed = "sha256:" + hashlib.sha256(b"a-key").hexdigest()
    monkeypatch.delenv("PENSTOCK_API_KEY", raising=False)
    with Server([double], port=0, api_keys={"team": hashed}) as server:
        for arguments in ([], ["--api-key", "another"]):
            assert cli.main(["top", server.url, "--once", *arguments]) == 2
            assert "the server wants an API key" in capsys.readouterr().err
        (tmp_path / "key").write_text("a-key\n")
        assert "double" in looked(capsys, server.url, "--api-key", f"@{tmp_path / 'key'}")
        monkeypatch.setenv("PENSTOCK_API_KEY", "a-key")
        assert json.loads(looked(capsys, server.url, "--json"))["version"] == penstock.__version__


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--interval", "0"], "--interval must be 0.1 to 3600 seconds"),
        (["--interval", "nan"], "--interval must be 0.1 to 3600 seconds"),
        (["--api-key", "@/no/such/file"], "--api-key: "),
        (["grpc://127.0.0.1:1"], "the URL must begin with http:// or https://"),
    ],
)
def test_what_cannot_be_is_said(capsys: pytest.CaptureFixture[str], arguments: list[str], text: str) -> None:
    assert cli.main(["top", *arguments, "--once"]) == 2
    assert text in capsys.readouterr().err
