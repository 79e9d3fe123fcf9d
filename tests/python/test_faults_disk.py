"""A disk that is full under the log: requests are answered, and the server ends as it should."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import penstock

APP = """
import penstock

@penstock.model("double", inputs={"x": ("float32", [1])}, outputs={"y": ("float32", [1])})
def double(x):
    return x * 2
"""
REQUESTS = 1500
ROOM = 32 * 1024


def _little_room() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM))


def _served(folder: Path, log: Path, *arguments: str, full_later: bool) -> tuple[int, int]:
    """Serves with its log there, asks, and ends it: how many were answered, and the exit status."""
    (folder / "app.py").write_text(APP)
    command = [sys.executable, "-m", "penstock", "serve", "app.py", "--port", "0", "--access-log", *arguments]
    with (
        log.open("wb") as sink,
        subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=sink,
            text=True,
            preexec_fn=_little_room if full_later else None,  # noqa: PLW1509  this process forks here alone
        ) as process,
    ):
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-3]
            inputs = {"x": np.ones((1, 1), np.float32)}
            with penstock.Client(url) as client:
                answers = sum(client.infer("double", inputs)["y"][0, 0] == 2 for _ in range(REQUESTS))
            process.send_signal(signal.SIGTERM)
            return answers, process.wait(60)
        finally:
            process.kill()


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_full_disk_under_the_log_costs_lines_and_no_answer(form: str, tmp_path: Path) -> None:
    assert _served(tmp_path, Path("/dev/full"), "--log-format", form, full_later=False) == (REQUESTS, 0)
    log = tmp_path / "log"
    assert _served(tmp_path, log, "--log-format", form, full_later=True) == (REQUESTS, 0)
    assert ROOM * 0.9 < log.stat().st_size <= ROOM


def test_a_full_disk_under_a_trace_is_told_at_the_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    answers, status = _served(tmp_path, log, "--record", "trace", "--no-access-log", full_later=True)
    assert (answers, status) == (REQUESTS, 2)
    assert "the trace could not be written" in log.read_text()
