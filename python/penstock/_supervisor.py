"""Several processes that share one port: the supervisor listens, starts them, and replaces those that die.

The listening socket is the supervisor's, so that a connection which waits in the kernel outlives the worker that dies.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from penstock import __version__
from penstock._supervised import Post
from penstock.errors import ConfigError
from penstock.server import url_of

if TYPE_CHECKING:
    from collections.abc import Sequence

BACKLOG = 4096
"""Connections that the kernel keeps until a worker accepts them."""

DEATH_SECONDS = 60.0
MOST_DEATHS = 5
"""A worker that died this often within `DEATH_SECONDS` is not started again, and the others are ended."""

FIRST_PAUSE = 0.1
"""Seconds before a worker that died is replaced; four times as long after each further death."""

GRACE = 5.0
"""Seconds beyond the drain time-out after which a worker that does not end is killed."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


def pause_after(deaths: int) -> float | None:
    """How long to wait before a worker is replaced that died so often lately, or `None` to give up."""
    return None if deaths >= MOST_DEATHS else FIRST_PAUSE * 4.0 ** max(0, deaths - 1)


def listen(host: str, port: int) -> socket.socket:
    """The one socket that all workers accept from.

    Raises:
        ConfigError: where the address cannot be listened on.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"host '{host}': {error}") from error
    both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    try:
        return socket.create_server(address, family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}") from error


def listeners(host: str, port: int, grpc_port: int | None) -> list[socket.socket]:
    """The socket for both protocols and, where there is a port for it, the one for gRPC alone.

    Raises:
        ConfigError: where an address cannot be listened on.
    """
    first = listen(host, port)
    if grpc_port is None:
        return [first]
    try:
        return [first, listen(host, grpc_port)]
    except ConfigError:
        first.close()
        raise


def urls_of(listeners: Sequence[socket.socket], *, encrypted: bool = False) -> str:
    """Where a server with these sockets is reached, as the line says that it prints."""
    secure = "s" if encrypted else ""
    (host, port), (grpc_host, grpc_port) = (listeners[at].getsockname()[:2] for at in (0, -1))
    return f"{url_of(host, port, f'http{secure}')} and {url_of(grpc_host, grpc_port, f'grpc{secure}')}"


@dataclass(eq=False)
class Worker:
    """A process that serves.

    Attributes:
        name: what it is called in logs and metrics.
        process: the process.
        link: the socket to it.
        deaths: when those that it replaces have died lately.
        replaces: the worker that ends when this one is ready.
        ready: whether its models are loaded.
        failure: why it could not serve, in its own words, and its exit status.
        told_to_stop: whether its end is expected.
        silent: whether the link has ended.
    """

    name: str
    process: subprocess.Popen[bytes]
    link: socket.socket
    deaths: list[float]
    replaces: Worker | None
    ready: bool = False
    failure: tuple[str, int] | None = None
    told_to_stop: bool = False
    silent: bool = False
    _unread: bytes = field(default=b"", repr=False)

    @classmethod
    def start(cls, post: Post, arguments: Sequence[str], deaths: list[float], replaces: Worker | None) -> Worker:
        """Starts `penstock serve` once more, at this post; its link is opened here."""
        link, its_link = socket.socketpair()
        with its_link:
            post = replace(post, link=its_link.fileno())
            command = [sys.executable, "-m", "penstock", "serve", f"--as-worker={post}", *arguments]
            process = subprocess.Popen(command, pass_fds=post.descriptors)  # noqa: S603  ourselves
        link.settimeout(0)
        return cls(post.name, process, link, deaths, replaces)

    def messages(self) -> list[dict[str, Any]]:
        """What it said since the last time."""
        try:
            while data := self.link.recv(1 << 16):
                self._unread += data
            self.silent = True
        except BlockingIOError:
            pass
        except OSError:
            self.silent = True
        *lines, self._unread = self._unread.split(b"\n")
        return [json.loads(line) for line in lines]

    def accept(self) -> None:
        """Lets it accept connections."""
        self._say("accept")

    def hand_over(self) -> None:
        """Lets it end when those that are connected had one more answer: another one accepts in its place."""
        self.told_to_stop = True
        self._say("hand over")

    def _say(self, order: str) -> None:
        # It may have died in this moment.
        with contextlib.suppress(OSError):
            self.link.sendall(json.dumps(order).encode() + b"\n")

    def stop(self) -> None:
        """Lets it answer what it accepted, and end."""
        self.told_to_stop = True
        self.process.terminate()


class Supervisor:
    """The processes of one server, from the first start to the last exit.

    Args:
        listeners: the sockets that they share: for both protocols and, where there is one, for gRPC alone.
        arguments: of `penstock serve`, without those that concern the supervisor alone.
        count: how many.
        drain_timeout: seconds that they may take to end.
        encrypted: whether they speak TLS.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        arguments: Sequence[str],
        count: int,
        drain_timeout: float,
        *,
        encrypted: bool = False,
    ) -> None:
        self._listeners = listeners
        self._arguments = arguments
        self._count = count
        self._drain_timeout = drain_timeout
        self._urls = urls_of(listeners, encrypted=encrypted)
        self._workers: list[Worker] = []
        self._due: list[tuple[float, list[float]]] = []
        self._to_replace: list[Worker] = []
        self._serving = False
        self._deadline: float | None = None
        self._status = 0
        # A terminal that goes away sends this signal, too, and means the end by it.
        self._hangup_restarts = not os.isatty(0)
        self._selector = selectors.DefaultSelector()
        # Nobody else may enter it.
        self._directory = tempfile.mkdtemp(prefix="penstock-")

    def run(self) -> int:
        """Serves until a signal ends it, and gives the exit status."""
        woken, wakes = socket.socketpair()
        for end in (woken, wakes):
            end.settimeout(0)
        before = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
        wakes_before = signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
        self._selector.register(woken, selectors.EVENT_READ)
        try:
            for _ in range(self._count):
                self._start([])
            while self._workers or (self._due and self._deadline is None):
                self._turn(woken)
        finally:
            self._kill()
            signal.set_wakeup_fd(wakes_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._selector.close()
            for end in (woken, wakes, *self._listeners):
                end.close()
        return self._status

    def _turn(self, woken: socket.socket) -> None:
        for key, _ in self._selector.select(self._patience()):
            if key.fileobj is woken:
                for number in woken.recv(1024):
                    self._signalled(number)
            else:
                self._hear(key.data)
        for worker in [worker for worker in self._workers if worker.process.poll() is not None]:
            self._hear(worker)
            self._buried(worker)
        now = time.monotonic()
        if self._deadline is not None:
            if now >= self._deadline:
                self._status = self._status or 1
                self._kill()
            return
        for start in [start for start in self._due if start[0] <= now]:
            self._due.remove(start)
            self._start(start[1])

    def _patience(self) -> float | None:
        times = [when for when, _ in self._due] if self._deadline is None else [self._deadline]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _signalled(self, number: int) -> None:
        if number == signal.SIGHUP and self._hangup_restarts:
            if self._serving and self._deadline is None and not self._to_replace:
                _log("starts its workers again, one after another")
                self._to_replace = list(self._workers)
                self._replace_next()
        elif number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if self._deadline is not None:
                # A second signal ends all at once, as it would end a process without us.
                self._kill()
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            if self._serving:
                print("penstock stops: answering what was accepted", flush=True)  # noqa: T201  a command's answer
            self._stop(0)

    def _start(self, deaths: list[float], replaces: Worker | None = None) -> None:
        taken = {worker.name for worker in self._workers}
        name = next(str(number) for number in range(len(taken) + 1) if str(number) not in taken)
        first, *others = (listener.fileno() for listener in self._listeners)
        post = Post(name, first, others[0] if others else None, -1, self._directory)
        worker = Worker.start(post, self._arguments, deaths, replaces)
        self._workers.append(worker)
        self._selector.register(worker.link, selectors.EVENT_READ, worker)

    def _hear(self, worker: Worker) -> None:
        for message in worker.messages():
            if "failed" in message:
                worker.failure = (message["failed"], message["status"])
            else:
                self._is_ready(worker, message["ready"])
        if worker.silent and worker.link in self._selector.get_map():
            self._selector.unregister(worker.link)

    def _is_ready(self, worker: Worker, names: list[str]) -> None:
        worker.ready = True
        if self._deadline is not None:
            return
        if self._serving:
            worker.accept()
            if worker.replaces is not None:
                worker.replaces.hand_over()
        elif all(worker.ready for worker in self._workers):
            self._serving = True
            for each in self._workers:
                each.accept()
            print(  # noqa: T201  a command's answer
                f"penstock {__version__} serves {', '.join(names)} by {self._count} workers on {self._urls}", flush=True
            )

    def _buried(self, worker: Worker) -> None:
        self._workers.remove(worker)
        if not worker.silent:
            self._selector.unregister(worker.link)
        worker.link.close()
        if worker in self._to_replace:
            self._to_replace.remove(worker)
        if self._deadline is not None:
            # While it serves it handles the signal: it had accepted nothing yet, or had answered all and was leaving.
            expected = (0, -signal.SIGTERM)
            self._status = self._status or int(worker.process.returncode not in expected)
        elif worker.told_to_stop or any(other.replaces is worker for other in self._workers):
            self._replace_next()
        elif not self._serving:
            text, status = worker.failure or (f"penstock: {_obituary(worker)} before its models were loaded", 1)
            print(text, file=sys.stderr, flush=True)  # noqa: T201  a command's answer
            self._stop(status)
        elif worker.replaces in self._workers and not worker.ready:
            self._give_up_replacing(worker)
        else:
            self._died(worker)

    def _died(self, worker: Worker) -> None:
        now = time.monotonic()
        deaths = [*(death for death in worker.deaths if now - death < DEATH_SECONDS), now]
        pause = pause_after(len(deaths))
        if pause is None:
            _log(f"{_told(worker)}; that was {len(deaths)} times within {DEATH_SECONDS:g} s: it gives up")
            self._stop(1)
        else:
            _log(f"{_told(worker)}; another one starts in {pause:g} s")
            self._due.append((now + pause, deaths))

    def _replace_next(self) -> None:
        if self._to_replace:
            self._start([], self._to_replace.pop(0))

    def _give_up_replacing(self, worker: Worker) -> None:
        _log(f"{_told(worker)}; the workers from before go on")
        self._to_replace.clear()

    def _stop(self, status: int) -> None:
        self._status = status
        self._deadline = time.monotonic() + self._drain_timeout + GRACE
        # Who connects from now on is refused as soon as the last worker has stopped accepting.
        for listener in self._listeners:
            listener.close()
        for worker in self._workers:
            worker.stop()

    def _kill(self) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.wait()
            worker.link.close()
        self._workers.clear()
        shutil.rmtree(self._directory, ignore_errors=True)


def _told(worker: Worker) -> str:
    if worker.failure is None:
        return _obituary(worker)
    return f"worker {worker.name} could not start: {worker.failure[0]}"


def _obituary(worker: Worker) -> str:
    code = worker.process.returncode
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    return f"worker {worker.name} (process {worker.process.pid}) {how}"


def _log(text: str) -> None:
    print(f"penstock: {text}", file=sys.stderr, flush=True)  # noqa: T201  a command line answers so
