"""Several processes that share one port: real processes, real signals."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from penstock import _supervisor, cli
from penstock.errors import ConfigError
from penstock.settings import ListenSettings
from tests.python.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

APP = """
import os, time
import numpy as np
import penstock

X = {"x": ("float32", [1])}
P = {"p": ("int64", [])}

@penstock.model("pid", inputs=X, outputs=P)
def pid(x):
    return np.full(len(x), os.getpid(), np.int64)

@penstock.model("slow", inputs=X, outputs=P)
def slow(x):
    open("entered", "w").close()
    time.sleep(float(x[0, 0]))
    return np.full(len(x), os.getpid(), np.int64)
"""

BROKEN = """
import penstock

@penstock.model("broken", inputs={"x": ("float32", [1])}, outputs={"y": ("float32", [1])})
class Broken:
    def load(self, ctx):
        raise OSError("no weights here")

    def predict(self, x):
        return x
"""

BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1]}]}


class Fleet:
    """`penstock serve app.py --workers N`, as a user starts it."""

    def __init__(self, folder: Path, app: str, workers: int, *more: str) -> None:
        (folder / "app.py").write_text(app)
        self.folder = folder
        command = [sys.executable, "-m", "penstock", "serve", "app.py", "--port", "0", "--workers", str(workers), *more]
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        self.url, self.grpc_url = self.line.split()[-3::2] if self.line else ("", "")

    def pid(self) -> int:
        """Who answers a new connection."""
        return ask(self.url, "pid")

    def answering(self) -> set[int]:
        return {self.pid() for _ in range(40)}

    def children(self) -> set[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return {int(child) for child in children.read_text().split()}

    def ends(self) -> tuple[int, str]:
        _, err = self.process.communicate(timeout=30)
        return self.process.returncode, err


def ask(url: str, model: str, x: float = 1.0) -> int:
    body = json.dumps({"inputs": [{**BODY["inputs"][0], "data": [x]}]}).encode()
    with urllib.request.urlopen(f"{url}/v2/models/{model}/infer", body, timeout=30) as answer:
        return int(json.load(answer)["outputs"][0]["data"][0])


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Any]:
    started: list[Fleet] = []

    def start(app: str = APP, workers: int = 2, *more: str) -> Fleet:
        started.append(Fleet(tmp_path, app, workers, *more))
        return started[-1]

    yield start
    for one in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(one.process.pid, signal.SIGKILL)
        one.process.communicate()


def test_all_workers_answer_at_one_port_and_are_announced_once(fleet: Any) -> None:
    two = fleet()
    assert re.fullmatch(
        r"penstock \S+ serves pid, slow by 2 workers on http://127\.0\.0\.1:(\d+) and grpc://127\.0\.0\.1:\1\n",
        two.line,
    )
    seen: set[int] = set()
    until(lambda: seen.update(two.answering()) or len(seen) == 2)
    assert seen == two.children()
    two.process.terminate()
    assert two.process.stdout.read() == "penstock stops: answering what was accepted\n"
    assert two.ends() == (0, "")


def test_a_killed_worker_is_replaced_and_no_connection_is_refused_meanwhile(fleet: Any) -> None:
    two = fleet()
    before = two.children()
    outcomes: Counter[str] = Counter()
    stop = threading.Event()

    def connect() -> None:
        while not stop.is_set():
            connection = HTTPConnection(urlsplit(two.url).netloc, timeout=30)
            try:
                connection.connect()
                outcomes["connected"] += 1
                connection.request("GET", "/v2/health/ready")
                outcomes[str(connection.getresponse().status)] += 1
            except ConnectionRefusedError:
                outcomes["refused"] += 1
            except (OSError, HTTPException):
                outcomes["broken"] += 1  # it was with the worker that died
            finally:
                connection.close()

    threads = [threading.Thread(target=connect) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(two.children() - before) == 1)
        replaced: set[int] = set()
        until(lambda: replaced.update(two.answering()) or not replaced.isdisjoint(two.children() - before))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert outcomes["refused"] == 0
    assert outcomes["200"] > 0
    two.process.terminate()
    code, err = two.ends()
    assert code == 0
    assert f"(process {victim}) was ended by SIGKILL; another one starts in 0.1 s" in err


@pytest.mark.parametrize("everybody", [False, True], ids=["supervisor", "whole group"])
def test_sigterm_answers_what_was_accepted_and_ends_with_0(fleet: Any, everybody: bool) -> None:
    two = fleet()
    answers: list[int] = []
    sender = threading.Thread(target=lambda: answers.append(ask(two.url, "slow", 1.0)))
    sender.start()
    until((two.folder / "entered").exists)
    children = two.children()
    # systemd and others send it to every process that there is.
    os.killpg(two.process.pid, signal.SIGTERM) if everybody else two.process.terminate()
    sender.join(30)
    assert two.ends() == (0, "")
    assert set(answers) < children


def test_a_second_signal_ends_all_at_once(fleet: Any) -> None:
    two = fleet()
    with socket.create_connection(two.url.removeprefix("http://").split(":")) as connection:
        body = json.dumps({"inputs": [{**BODY["inputs"][0], "data": [60]}]}).encode()
        head = f"POST /v2/models/slow/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        until((two.folder / "entered").exists)
        children = two.children()
        two.process.send_signal(signal.SIGINT)
        assert two.process.stdout.readline().startswith("penstock stops")
        two.process.send_signal(signal.SIGINT)
        assert two.ends()[0] == -signal.SIGINT
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def test_workers_end_when_their_supervisor_is_gone(fleet: Any) -> None:
    two = fleet()
    children = two.children()
    assert len(children) == 2
    two.process.kill()
    two.process.wait(30)
    until(lambda: not any(is_running(child) for child in children))
    with pytest.raises(OSError, match="refused"):
        two.pid()


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_fails_to_load_is_told_once_with_its_cause(fleet: Any) -> None:
    three = fleet(BROKEN, 3)
    assert three.line == ""
    code, err = three.ends()
    assert code == 2
    assert err.count("model 'broken' failed to load") == 1
    assert err.count("\nOSError: no weights here\n") == 1


@pytest.mark.parametrize(
    ("app", "words", "status"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'", 1),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV before its models", 1),
        ("import os\nos._exit(0)", "ended with status 0 before its models", 1),
        ("x = 1", "there is no model in app.py", 2),
    ],
)
def test_what_ends_before_it_is_ready_ends_the_whole(fleet: Any, app: str, words: str, status: int) -> None:
    two = fleet(app)
    code, err = two.ends()
    assert (code, err.count(words)) == (status, 1), err


def test_an_app_that_works_once_and_never_again_is_given_up(fleet: Any) -> None:
    guard = "import os, pathlib\nif pathlib.Path('spoilt').exists():\n    os._exit(9)\n"
    one = fleet(guard + APP)
    (one.folder / "spoilt").touch()
    os.kill(min(one.children()), signal.SIGKILL)
    code, err = one.ends()
    assert code == 1
    assert "was ended by SIGKILL; another one starts in 0.1 s" in err
    assert "ended with status 9; another one starts in 0.4 s" in err
    assert f"that was {_supervisor.MOST_DEATHS} times within 60 s: it gives up" in err


def test_pauses_grow_and_end() -> None:
    pauses = [_supervisor.pause_after(deaths) for deaths in range(1, _supervisor.MOST_DEATHS + 1)]
    assert pauses[-1] is None
    assert pauses[:-1] == pytest.approx([0.1, 0.4, 1.6, 6.4])


def test_sighup_replaces_the_workers_one_by_one_and_loses_no_request(fleet: Any) -> None:
    two = fleet()
    before = two.children()
    stop, failures, answered = threading.Event(), [], []

    def send() -> None:
        while not stop.is_set():
            try:
                answered.append(two.pid())
            except OSError as error:
                failures.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    two.process.send_signal(signal.SIGHUP)
    until(lambda: len(two.children()) == 2 and two.children().isdisjoint(before))
    stop.set()
    sender.join()
    assert failures == []
    assert set(answered) - before
    two.process.terminate()
    assert two.ends() == (0, "penstock: starts its workers again, one after another\n")


def test_a_kept_connection_hears_from_a_replaced_worker_that_it_ends(fleet: Any) -> None:
    two = fleet()
    before = two.children()
    kept = [HTTPConnection(urlsplit(two.url).netloc, timeout=30) for _ in range(4)]
    for connection in kept:
        connection.connect()
    two.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 60
    while kept:
        assert time.monotonic() < deadline
        for connection in list(kept):
            # Each of them is asked at once what comes: a worker that closed it instead would be an error here.
            connection.request("GET", "/v2/health/live")
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b'{"live":true}')
            if answer.getheader("connection") == "close":
                kept.remove(connection)
                connection.close()
        time.sleep(0.01)
    until(lambda: len(two.children()) == 2 and two.children().isdisjoint(before))
    two.process.terminate()
    assert two.ends() == (0, "penstock: starts its workers again, one after another\n")


def test_a_new_version_that_does_not_load_leaves_the_old_workers_alone(fleet: Any) -> None:
    two = fleet()
    before = two.children()
    (two.folder / "app.py").write_text(BROKEN)
    two.process.send_signal(signal.SIGHUP)
    err = two.process.stderr
    said = [err.readline(), err.readline()]
    assert "worker 2 could not start: penstock: model 'broken' failed to load: OSError: no weights here" in said[1]
    until(lambda: two.children() == before)
    assert two.pid() in before
    two.process.terminate()
    assert two.process.wait(30) == 0


def test_a_port_that_is_taken_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "app.py").write_text(APP)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status = cli.main(["serve", str(tmp_path / "app.py"), "--port", str(port), "--workers", "2"])
    assert status == 2
    assert capsys.readouterr().err == f"penstock: cannot listen on 127.0.0.1:{port}: Address already in use\n"


def test_a_host_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="no-such-host"):
        _supervisor.listen("no-such-host.invalid", 0)


def test_the_shared_socket_speaks_both_families() -> None:
    with _supervisor.listen("::", 0) as listener:
        port = listener.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port)).close()


@pytest.mark.parametrize("given", ["0", "-1", "x", "1.5", ""])
def test_a_number_of_workers_that_cannot_be_is_refused_by_name(
    given: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["serve", "app.py", f"--workers={given}"]) == 2
    assert "--workers must be a whole number" in capsys.readouterr().err
    monkeypatch.setenv("PENSTOCK_WORKERS", given)
    assert cli.main(["serve", "app.py"]) == 2
    assert "PENSTOCK_WORKERS must be a whole number" in capsys.readouterr().err


def test_the_command_line_is_stronger_than_the_environment() -> None:
    assert ListenSettings.resolve({}, {}, {}).workers == 1
    assert ListenSettings.resolve({}, {}, {"PENSTOCK_WORKERS": "3"}).workers == 3
    assert ListenSettings.resolve({}, {"workers": "2"}, {"PENSTOCK_WORKERS": "3"}).workers == 2


def test_settings_are_flags_and_reach_every_worker(fleet: Any) -> None:
    two = fleet(APP, 2, "--max-body", "1KiB", "--no-server-timing")
    seen: Counter[int] = Counter()

    def statuses() -> set[int]:
        connection = HTTPConnection(urlsplit(two.url).netloc, timeout=30)
        connection.request("POST", "/v2/models/pid/infer", json.dumps(BODY))
        answer = connection.getresponse()
        assert answer.headers["Server-Timing"] is None
        seen[json.load(answer)["outputs"][0]["data"][0]] += 1
        connection.request("POST", "/v2/models/pid/infer", b" " * 2000)
        found = connection.getresponse().status
        connection.close()
        return {found}

    until(lambda: statuses() == {413} and len(seen) == 2)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--max-body", "many"], "--max-body must be a size such as"),
        (["--header-timeout", "0"], "--header-timeout must be a positive number of seconds"),
        (["--drain-timeout", "soon"], "--drain-timeout must be a positive number of seconds"),
        (["--max-streams", "0"], "--max-streams must be a whole number of at least 1"),
    ],
)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_flag_that_cannot_be_is_refused_by_name(
    flags: list[str], words: str, workers: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / f"flagged_{workers}.py").write_text(APP)
    target = str(tmp_path / f"flagged_{workers}.py")
    assert cli.main(["serve", target, "--port", "0", "--workers", workers, *flags]) == 2
    assert words in capsys.readouterr().err


def directory_of(fleet: Fleet) -> Path:
    """Where the workers ask one another, as each of them was told."""
    command = Path(f"/proc/{min(fleet.children())}/cmdline").read_text().split("\0")
    post = next(word for word in command if word.startswith("--as-worker="))
    return Path(json.loads(post.partition("=")[2])["directory"])


def metrics(url: str) -> str:
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        return str(answer.read().decode())


def test_any_worker_answers_for_the_metrics_of_all(fleet: Any) -> None:
    two = fleet()
    sent: Counter[int] = Counter()

    def both_answered() -> bool:
        sent.update([two.pid()])
        return len(sent) == 2

    until(both_answered)
    counted = r'penstock_requests_total\{(?=.*model="pid")(?=.*outcome="ok")(?=.*worker="(\d)").*\} (\d+)'
    for _ in range(20):
        found = dict(re.findall(counted, metrics(two.url)))
        assert set(found) == {"0", "1"}
        assert sorted(map(int, found.values())) == sorted(sent.values())


def test_the_workers_directory_is_private_and_does_not_stay(fleet: Any) -> None:
    two = fleet()
    directory = directory_of(two)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in directory.iterdir()} == {"0.sock", "1.sock", "connections"}
    two.process.terminate()
    two.ends()
    assert not directory.exists()


@pytest.mark.parametrize("end", ["killed", "second signal"])
def test_the_workers_directory_does_not_stay_when_all_ends_at_once(fleet: Any, end: str) -> None:
    two = fleet()
    directory = directory_of(two)
    if end == "killed":
        two.process.kill()
    else:
        two.process.send_signal(signal.SIGINT)
        two.process.send_signal(signal.SIGINT)
    two.process.wait(30)
    until(lambda: not directory.exists())


def test_a_replaced_worker_is_counted_again(fleet: Any) -> None:
    two = fleet()
    os.kill(min(two.children()), signal.SIGKILL)

    def workers() -> set[str]:
        with contextlib.suppress(OSError):
            return set(re.findall(r'penstock_\w+\{.*worker="(\d)"', metrics(two.url)))
        return set()

    until(lambda: len(two.children()) == 2 and workers() == {"0", "1"})


def test_connections_are_shared_among_the_workers(fleet: Any) -> None:
    two = fleet()
    place = urlsplit(two.url)
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(closing(socket.create_connection((place.hostname, place.port)))) for _ in range(40)
        ]
        for client in clients:
            client.settimeout(60)
            client.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: test\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
        counted = r'penstock_http_connections\{worker="(\d)"\} (\d+)'
        found = {name: int(count) for name, count in re.findall(counted, metrics(two.url))}
    assert set(found) == {"0", "1"}
    # Who is ahead waits for ten milliseconds at most: on a busy machine the shares are not exactly even.
    assert min(found.values()) >= 5, found
