"""One of several processes that share a port: it loads, says so to its supervisor, and serves until it is told to stop.

What goes over the link between them are lines of JSON. Upwards: `{"ready": NAMES}` or `{"failed": TEXT, "status": N}`.
Downwards: `"accept"`, and `"hand over"` where another one accepts in its place. The end of the link is the end of the
supervisor.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import threading
import time
from dataclasses import asdict, dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from penstock.server import Server

HAND_OVER_SECONDS = 2.0
"""Time in which a connection that is kept, and idle, may bring one more request to a process that is replaced."""


@dataclass(frozen=True)
class Post:
    """Where a worker process stands; it comes by the hidden flag `--as-worker`.

    Attributes:
        name: what it is called in logs and metrics.
        listener: descriptor of the listening socket that all workers share.
        grpc_listener: the same of the one for gRPC alone, or `None`.
        link: descriptor of the socket to the supervisor.
        directory: where the workers ask one another for their metrics.
    """

    name: str
    listener: int
    grpc_listener: int | None
    link: int
    directory: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads what `str` wrote."""
        return cls(**json.loads(text))

    @property
    def descriptors(self) -> list[int]:
        """What the process inherits."""
        every = (self.listener, self.grpc_listener, self.link)
        return [descriptor for descriptor in every if descriptor is not None]

    def __str__(self) -> str:
        return json.dumps(asdict(self))


class _Stopped(BaseException):
    """SIGTERM while models load: there is nothing to answer yet."""


class Supervised:
    """The process's side of its post."""

    def __init__(self, post: Post) -> None:
        self._post = post
        # What a model starts must hold neither the port nor the link open.
        for descriptor in post.descriptors:
            os.set_inheritable(descriptor, False)  # noqa: FBT003  it has no name
        self._link = socket.socket(fileno=post.link)
        # A signal's handler may interrupt whoever waits: an event would let both wait for each other.
        self._stop: SimpleQueue[Literal["stop", "hand over"]] = SimpleQueue()
        self._loading = True
        self._server: Server | None = None
        self._is_orphan = False

    def serve(self, make: Callable[[], Server], explain: Callable[[BaseException], tuple[str, int]]) -> int:
        """Serves what `make` makes; a failure to load is explained to the supervisor, who prints it once."""
        signal.signal(signal.SIGTERM, self._on_sigterm)
        # The terminal sends these to every process in it; what they mean, the supervisor decides. They are handled, not
        # ignored: a process that a model starts would inherit that.
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        threading.Thread(target=self._obey, name="penstock-link", daemon=True).start()
        try:
            self._server = server = self._opened(make)
        except _Stopped:
            return 0
        except BaseException as error:  # noqa: BLE001  whatever it is, the supervisor must know
            text, status = explain(error)
            self._say({"failed": text, "status": status})
            return status
        self._say({"ready": server.names})
        if self._stop.get() == "hand over":
            self._hand_over(server)
        server.close()
        if self._is_orphan:
            # All of them end now, and nobody else is left to clear up.
            shutil.rmtree(self._post.directory, ignore_errors=True)
        return 0

    def _hand_over(self, server: Server) -> None:
        """Until nobody is connected any more, or has used it for so long, or the end is to come at once."""
        deadline = time.monotonic() + HAND_OVER_SECONDS
        while self._stop.empty() and time.monotonic() < deadline and not server._hand_over(0.02):  # noqa: SLF001  as below
            pass

    def _opened(self, make: Callable[[], Server]) -> Server:
        try:
            server = make()
            siblings = (self._post.directory, self._post.name)
            places = (self._post.listener, self._post.grpc_listener)
            server._open(places, accepting=False, siblings=siblings)  # noqa: SLF001  one package
        finally:
            self._loading = False
        return server

    def _obey(self) -> None:
        for order in _lines(self._link):
            if order == "accept" and self._server is not None:
                self._server._accept()  # noqa: SLF001  one package
            elif order == "hand over":
                self._stop.put("hand over")
        self._is_orphan = True
        self._stop.put("stop")
        # By a signal, because the main thread may be loading.
        os.kill(os.getpid(), signal.SIGTERM)

    def _on_sigterm(self, *_: object) -> None:
        # It may come twice: to all processes of a group, and from the supervisor. Only he ends a process at once.
        self._stop.put("stop")
        if self._loading:
            self._loading = False
            raise _Stopped

    def _say(self, message: dict[str, Any]) -> None:
        # A supervisor who is gone shows by the end of the link.
        with contextlib.suppress(OSError):
            self._link.sendall(json.dumps(message).encode() + b"\n")


def _lines(link: socket.socket) -> Iterator[Any]:
    with contextlib.suppress(OSError), link.makefile("rb") as lines:
        for line in lines:
            yield json.loads(line)
