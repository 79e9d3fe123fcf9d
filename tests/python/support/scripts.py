"""Python in a process of its own: what happens at its end cannot be seen from inside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from textwrap import dedent
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

LIMIT = 25.0
"""Seconds until a script counts as hung. Functions that must not hold an exit up sleep for far longer."""

HEAD = """
import asyncio, logging, os, signal, sys, threading, time
import numpy as np
import penstock
from penstock import batched

# Development mode lets asyncio report whatever takes 0.1 s: how fast a machine is, is no matter here.
logging.getLogger("asyncio").addFilter(lambda record: not record.getMessage().startswith("Executing"))
"""

IN_CHILD = """
def in_child(work):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        try:
            work()
        except SystemExit:
            raise
        except BaseException as error:
            print("child:", type(error).__name__, error)
        sys.stdout.flush()
        sys.exit(5)
    print("exit", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
"""For a script that forks: what a child does, and how it ended."""


@dataclass(frozen=True)
class Finished:
    code: int
    out: list[str]
    err: str


class Script:
    """Runs scripts with every warning an error and Python's development mode on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def start(
        self, text: str, *, before: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Runs it in `environment` besides the own one, by the command that stands `before` it, if any."""
        path = self._folder / "script.py"
        path.write_text(HEAD + dedent(text))
        return subprocess.Popen(
            [*before, sys.executable, "-W", "error", "-X", "dev", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )

    def finish(self, process: subprocess.Popen[str], limit: float = LIMIT) -> Finished:
        try:
            out, err = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its children hold the pipes, too
            out, err = process.communicate()
            raise AssertionError(f"still running after {limit} s; stdout: {out!r}; stderr: {err!r}") from None
        return Finished(process.returncode, out.split("\n")[:-1], err)

    def run(self, text: str, limit: float = LIMIT) -> Finished:
        return self.finish(self.start(text), limit)

    def interrupt(self, text: str) -> Finished:
        """Sends Ctrl-C soon after the script has said `ready`."""
        process = self.start(text)
        assert process.stdout is not None
        line = process.stdout.readline()
        if line != "ready\n":
            raise AssertionError(f"not ready: {line!r}; {self.finish(process)}")
        # Without a wake-up descriptor Python sees a signal that comes just before its main thread goes to sleep only
        # when that sleep ends. The thread that said `ready` may have been faster than the main thread on its way.
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        return self.finish(process)
