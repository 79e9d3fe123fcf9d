"""Ctrl-C at `penstock serve`, whatever it is doing: it ends soon, with the right status, and without a traceback.

Those of `penstock bench` and `penstock top` are in test_bench.py and test_top.py, and those of several processes in
test_workers.py.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Self

import pytest

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 20
"""Seconds: less than the time that a load may take."""
APP = """
import time
import penstock

@penstock.model("sleeps", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
def sleeps(x):
    print("entered", flush=True)
    time.sleep(SECONDS)
    return x

@penstock.model("endless", task="generate")
def endless(request):
    print("entered", flush=True)
    while True:
        yield "on "
        time.sleep(0.005)

class Late:
    def load(self, ctx):
        print("entered", flush=True)
        time.sleep(3600)

    def predict(self, x):
        return x

if LATE:
    penstock.model("late", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})(Late)
"""
INFER = ("/v2/models/sleeps/infer", b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,1]}]}')
STREAM = ("/v1/completions", b'{"model":"endless","prompt":"","stream":true}')


class Served:
    """`penstock serve` in a process of its own, until the context is left, and what it printed."""

    def __init__(self, folder: Path, *flags: str, seconds: float = 0, late: bool = False) -> None:
        app = folder / "app.py"
        app.write_text(APP.replace("SECONDS", str(seconds)).replace("LATE", str(late)))
        command = [sys.executable, "-m", "penstock", "serve", str(app), "--port", "0", "--drain-timeout", "2", *flags]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def interrupted(self, number: signal.Signals = signal.SIGINT) -> tuple[int, str]:
        self.process.send_signal(number)
        _, err = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, err


def asking(url: str, path: str, body: bytes) -> threading.Thread:
    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url + path, data=body), timeout=LIMIT) as answer:
                answer.read()
        except (OSError, urllib.error.HTTPError):
            pass  # it went while it was asked

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


def url_of(line: str) -> str:
    found = [word for word in line.split() if word.startswith("http://")]
    assert found, line
    return found[0]


def test_nothing_to_do(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        url_of(served.line())
        code, err = served.interrupted()
    assert (code, "Traceback" in err) == (0, False), err


@pytest.mark.parametrize(
    ("asked", "seconds"), [(INFER, 1), (INFER, 3600), (STREAM, 0)], ids=["short", "long", "stream"]
)
def test_at_work(tmp_path: Path, asked: tuple[str, bytes], seconds: float) -> None:
    with Served(tmp_path, seconds=seconds) as served:
        thread = asking(url_of(served.line()), *asked)
        assert served.line() == "entered\n"
        code, err = served.interrupted()
    thread.join(LIMIT)
    assert not thread.is_alive()
    assert (code, "Traceback" in err) == (0, False), err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_a_model_is_loaded(tmp_path: Path, number: signal.Signals) -> None:
    with Served(tmp_path, late=True) as served:
        assert served.line() == "entered\n"
        code, err = served.interrupted(number)
    assert (code, "Traceback" in err) == (0, False), err
