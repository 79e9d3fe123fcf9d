"""Connections by hand, for what the load generator does not do: hold them open, ask and not read, ask by GET."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from benches.python.door.machine import Served

LIMIT = 30.0
HEADERS_END = b"\r\n\r\n"


class Connection:
    """One HTTP/1.1 connection that stays open."""

    def __init__(self, server: Served) -> None:
        self._host = f"127.0.0.1:{server.port}"
        self._socket = socket.create_connection(("127.0.0.1", server.port), LIMIT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, path: str, body: bytes | None = None) -> None:
        """Sends a request and reads nothing: GET, or POST where there is a body."""
        method = "GET" if body is None else "POST"
        head = f"{method} {path} HTTP/1.1\r\nhost: {self._host}\r\ncontent-length: {len(body or b'')}\r\n\r\n"
        self._socket.sendall(head.encode() + (body or b""))

    def status(self) -> int:
        """Reads a whole answer and gives its status."""
        data = b""
        while HEADERS_END not in data:
            data += self._more()
        head, _, rest = data.partition(HEADERS_END)
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        missing = length - len(rest)
        while missing > 0:
            missing -= len(self._more())
        return int(head.split(b" ", 2)[1])

    def _more(self) -> bytes:
        data = self._socket.recv(1 << 16)
        if not data:
            raise ConnectionError("the server closed the connection in the middle of an answer")
        return data


def latencies(server: Served, path: str, body: bytes | None, seconds: float) -> dict[str, float]:
    """One connection asks again and again for a while: its p50, p99 and greatest latency in ms."""
    seen = []
    errors = 0
    with Connection(server) as connection:
        until = time.perf_counter() + seconds
        while (began := time.perf_counter()) < until:
            connection.ask(path, body)
            errors += connection.status() != 200
            seen.append((time.perf_counter() - began) * 1000)
    p50, p99 = np.percentile(seen, (50, 99))
    return {"p50_ms": float(p50), "p99_ms": float(p99), "max_ms": max(seen), "errors": float(errors)}
