"""The demo's server: a process of its own on loopback, always stopped again, and what it counts about itself."""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import IO, TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 20.0
REQUEST_SECONDS: Final = 30.0
OK: Final = 200
NOT_FOUND: Final = 404

# One thread for a matrix product: the server's own threads and the load need the other cores.
ENVIRONMENT: Final = {"OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


class ServerFailed(RuntimeError):
    """The server did not start, or answered what it should not have."""


class ServerProcess:
    """`penstock serve` in a process of its own, from entering to leaving the context.

    Attributes:
        url: where it listens.
        status: its exit status, once it was stopped; below 0 the signal that ended it.
    """

    def __init__(self, application: Path) -> None:
        self._command = [sys.executable, "-m", "penstock", "serve", str(application), "--port", "0"]
        self._process: subprocess.Popen[str] | None = None
        self.url = ""
        self.status: int | None = None

    def __enter__(self) -> Self:
        # In a session of its own, Ctrl-C in the terminal reaches the demo alone, which then stops it in order.
        self._process = subprocess.Popen(
            self._command,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **ENVIRONMENT},
            start_new_session=True,
        )
        try:
            self.url = _url_from(self._process)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop()
        if error is not None:
            print(f"\nserver: stopped, exit status {self.status}")

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid if self._process is not None else 0

    def serves(self, model: str) -> bool:
        """True where a model of that name is served and ready."""
        status, _ = self._request("GET", f"/v2/models/{model}/ready")
        if status not in (OK, NOT_FOUND):
            raise ServerFailed(f"asked whether {model} is ready, the server answered with status {status}")
        return status == OK

    def infer(self, model: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to one inference request."""
        status, answer = self._request("POST", f"/v2/models/{model}/infer", json.dumps(body).encode())
        if status != OK:
            raise ServerFailed(f"{model} answered with status {status}: {answer[:200]!r}")
        parsed: dict[str, Any] = json.loads(answer)
        return parsed

    def counters(self, model: str) -> Counters:
        """What `/metrics` says about a model."""
        status, text = self._request("GET", "/metrics")
        if status != OK:
            raise ServerFailed(f"/metrics answered with status {status}")
        return Counters.parse(text.decode(), model)

    def _request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=REQUEST_SECONDS)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, response.read()
        except OSError as error:
            raise ServerFailed(f"{method} {path}: {error}") from error
        finally:
            connection.close()

    def _stop(self) -> None:
        if self._process is None or self.status is not None:
            return
        self._process.terminate()
        late = False
        try:
            self.status = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            # Also after a second Ctrl-C nothing is left behind.
            if self.status is None:
                self._process.kill()
                self.status = self._process.wait()
        if late:
            raise ServerFailed(f"the server did not stop within {STOP_SECONDS:.0f} s of SIGTERM, and was killed")


@dataclass(frozen=True, slots=True)
class Counters:
    """What a server has counted for one model since it started.

    Attributes:
        rows: requests that were in a batch.
        batches: calls of the model.
        lock_acquisitions: times that a worker took the interpreter lock.
    """

    rows: int
    batches: int
    lock_acquisitions: int

    @classmethod
    def parse(cls, text: str, model: str) -> Counters:
        """Read them from the text of `/metrics`."""
        return cls(
            rows=_total(text, "penstock_batch_size_sum", model),
            batches=_total(text, "penstock_batches_total", model),
            lock_acquisitions=_total(text, "penstock_lock_acquisitions_total", model),
        )

    def __sub__(self, before: Counters) -> Counters:
        return Counters(
            self.rows - before.rows,
            self.batches - before.batches,
            self.lock_acquisitions - before.lock_acquisitions,
        )


def _total(text: str, name: str, model: str) -> int:
    """Sum a counter over all its labels but the model's. Before the first batch some are not there: 0."""
    samples = re.finditer(rf"^{re.escape(name)}\{{([^}}]*)\}} (\S+)", text, re.MULTILINE)
    return round(sum(float(value) for labels, value in (s.groups() for s in samples) if f'model="{model}"' in labels))


def _url_from(process: subprocess.Popen[str]) -> str:
    """Wait for the line that says where the server listens. What it prints later is read and dropped."""
    if process.stdout is None:
        raise ServerFailed("the server's output was not captured")
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_read_lines, args=(process.stdout, lines), daemon=True).start()
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise ServerFailed(f"the server was not ready within {START_SECONDS:.0f} s") from None
        if line is None:
            raise ServerFailed(f"the server ended before it was ready, with status {process.wait()}")
        if found := re.search(r"http://\S+", line):
            return found.group()


def _read_lines(stream: IO[str], lines: queue.SimpleQueue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)
    stream.close()
