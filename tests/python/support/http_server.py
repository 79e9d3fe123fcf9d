"""An HTTP server that does to each connection what a test says: raw sockets, one thread a connection."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from tests.python.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_PIECE = 65_536


@dataclass(frozen=True)
class Received:
    """A request as it came over the wire."""

    method: str
    target: str
    version: str
    headers: list[tuple[bytes, bytes]]
    body: bytes
    connection: int

    def header(self, name: str) -> str | None:
        values = [value.decode("latin-1") for each, value in self.headers if each.lower() == name.lower().encode()]
        return ", ".join(values) if values else None

    @property
    def told(self) -> dict[str, Any]:
        """What `echo` answers with."""
        return {
            "method": self.method,
            "target": self.target,
            "headers": [[name.decode().lower(), value.decode("latin-1")] for name, value in self.headers],
            "body": self.body.decode("latin-1"),
            "connection": self.connection,
        }


class Peer:
    """One connection, from the server's side.

    Attributes:
        index: which connection it is, from 0.
    """

    def __init__(self, server: HttpServer, connection: socket.socket, index: int) -> None:
        self.server = server
        self.index = index
        self._socket = connection
        self._buffer = b""

    def __iter__(self) -> Iterator[Received]:
        while (request := self.request()) is not None:
            yield request

    def request(self, *, body: bool = True) -> Received | None:
        """The next request, or `None` where the client has closed."""
        while b"\r\n\r\n" not in self._buffer:
            if not self._more():
                return None
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        method, target, version = first.decode().split(" ")
        headers = [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
        request = Received(method, target, version, headers, b"", self.index)
        if (request.header("expect") or "").lower() == "100-continue":
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if body and (request.header("transfer-encoding") or "").lower() == "chunked":
            if (taken := self._chunks()) is None:
                return None
            request = Received(method, target, version, headers, taken, self.index)
        elif body:
            length = int(request.header("content-length") or 0)
            while len(self._buffer) < length:
                if not self._more():
                    return None
            taken, self._buffer = self._buffer[:length], self._buffer[length:]
            request = Received(method, target, version, headers, taken, self.index)
        self.server.requests.append(request)
        return request

    def answer(
        self,
        body: bytes | str = b"",
        *,
        status: str = "200 OK",
        headers: dict[str, str] | list[tuple[str, str]] | None = None,
        version: str = "HTTP/1.1",
        length: bool = True,
    ) -> None:
        sent = body.encode() if isinstance(body, str) else body
        pairs = list(headers.items() if isinstance(headers, dict) else headers or [])
        if length:
            pairs.append(("Content-Length", str(len(sent))))
        lines = [f"{version} {status}", *(f"{name}: {value}" for name, value in pairs)]
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + sent)

    def echo(self, request: Received) -> None:
        self.answer(json.dumps(request.told), headers={"Content-Type": "application/json"})

    def chunk(self, data: bytes) -> None:
        """A piece of a chunked body; an empty one is its end."""
        self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def reset(self) -> None:
        """Ends the connection with RST."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def sees_end(self, seconds: float = PATIENCE) -> bool:
        """Waits until the client ends the connection."""
        end = select.poll()
        end.register(self._socket, select.POLLIN | select.POLLRDHUP)
        while end.poll(seconds * 1000):
            try:
                data = self._socket.recv(_PIECE)
            except OSError:
                return True
            if not data:
                return True
            self._buffer += data
        return False

    def read_chunk(self) -> bytes | None:
        """The next chunk of a request's body, empty for its end; `None` where the client has closed."""
        while b"\r\n" not in self._buffer:
            if not self._more():
                return None
        size, _, self._buffer = self._buffer.partition(b"\r\n")
        length = int(size, 16)
        while len(self._buffer) < length + 2:
            if not self._more():
                return None
        chunk, end, self._buffer = self._buffer[:length], self._buffer[length : length + 2], self._buffer[length + 2 :]
        assert end == b"\r\n"
        return chunk

    def _chunks(self) -> bytes | None:
        body = b""
        while chunk := self.read_chunk():
            body += chunk
        return None if chunk is None else body

    def _more(self) -> bool:
        try:
            data = self._socket.recv(_PIECE)
        except OSError:
            return False
        self._buffer += data
        return bool(data)


def echo(peer: Peer) -> None:
    """Tells the client what it has sent, again and again."""
    for request in peer:
        peer.echo(request)


@dataclass
class HttpServer:
    """Listens on loopback, or on a Unix socket, until its block is left.

    Attributes:
        behave: what happens on each connection; the connection is closed after it.
        requests: what came, in the order in which it came.
        connections: connections that came.
        most: connections that were open at once at most.
    """

    behave: Callable[[Peer], None] = echo
    path: Path | None = None
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    most: int = 0
    open: int = 0
    failures: list[BaseException] = field(default_factory=list)

    def __enter__(self) -> Self:
        if self.path is None:
            self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(self.path))
            self._listener.listen(4096)
        self._lock = threading.Lock()
        self._peers: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE)
        with self._lock:
            for peer in self._peers:
                with contextlib.suppress(OSError):
                    peer.shutdown(socket.SHUT_RDWR)
        if kind is None and self.failures:
            raise self.failures[0]

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"unix://{self.path}" if self.path is not None else f"http://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if self.path is None:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                peer = Peer(self, connection, self.connections)
                self._peers.append(connection)
                self.connections += 1
                self.open += 1
                self.most = max(self.most, self.open)
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: Peer) -> None:
        try:
            self.behave(peer)
        except OSError:
            pass
        except BaseException as error:  # noqa: BLE001  told to the test
            self.failures.append(error)
        finally:
            peer.close()
            # Only now has the client what there is to know.
            with self._lock:
                self.open -= 1


_TAKEN: list[socket.socket] = []


def refusing_port() -> int:
    """A port of loopback on which nobody listens, nor ever will: it is taken for as long as this process lives."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    _TAKEN.append(taken)
    return int(taken.getsockname()[1])


def free_port() -> int:
    """A port of loopback that a server may have, if it is quick: tests beside this one look for ports, too."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
