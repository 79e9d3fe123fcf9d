"""Many streams read at once, as cheaply as Python can: sockets and epoll, nothing parsed."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

    from benches.python.streaming.ask import Flow

MARK = b'"content":"'
LAST = b"[DONE]"
OK = b"HTTP/1.1 200"
END = b"0\r\n\r\n"
SOME = 1 << 16
SMALL_BUFFER = 4096
LATE = 30.0


class Broken(RuntimeError):
    """Streams that did not bring what was asked for."""


@dataclass
class Poured:
    """What was seen.

    Attributes:
        tokens: between `begin` and `end`, both of them moments at which no token was under way.
        cost: of those tokens, by the function that `pour` was given.
        seconds: between the two.
        first: seconds from each request to its first token.
        gaps: seconds between two arrivals of tokens on a stream, of all streams that are read.
    """

    tokens: int = 0
    cost: float = 0.0
    seconds: float = 0.0
    first: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)


class _Stream:
    __slots__ = ("asked", "came", "done", "rest", "socket", "tokens")

    def __init__(self, port: int, request: bytes, *, slow: bool) -> None:
        self.socket = socket.socket()
        if slow:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        self.socket.connect(("127.0.0.1", port))
        self.socket.sendall(request)
        self.socket.setblocking(False)  # noqa: FBT003 - its only argument, and by place alone
        self.asked = self.came = time.perf_counter()
        self.tokens = 0
        self.rest = b""
        self.done = False

    def read(self) -> int:
        """How many tokens came, be they cut anywhere."""
        with contextlib.suppress(BlockingIOError):
            data = self.socket.recv(SOME)
            if not data or (data.startswith(b"HTTP/1.1") and not data.startswith(OK)):
                raise Broken(f"a stream ended after {self.tokens} tokens: {data[:300]!r}")
            seen = self.rest + data
            # Shorter than either mark: nothing is counted twice.
            self.rest = seen[-len(MARK) + 1 :]
            self.done = LAST in seen
            return seen.count(MARK)
        return 0


def pour(
    port: int,
    flow: Flow,
    count: int,
    cost: Callable[[], float],
    unread: tuple[Flow, int] | None = None,
    *,
    after: int = 0,
) -> Poured:
    """Read `count` streams to their ends; so many of another flow are asked for and never read.

    The gaps are those after so many tokens of each stream.

    Raises:
        Broken: where one ends early, or nothing comes for half a minute.
    """
    request = flow.request()
    streams = {}
    other, slow = unread or (flow, 0)
    idle = [_Stream(port, other.request(), slow=True) for _ in range(slow)]
    with select.epoll() as poll:
        for _ in range(count):
            one = _Stream(port, request, slow=False)
            streams[one.socket.fileno()] = one
            poll.register(one.socket.fileno(), select.EPOLLIN)
        try:
            return _read(poll, streams, flow, cost, after)
        finally:
            for one in (*streams.values(), *idle):
                one.socket.close()


def _read(poll: select.epoll, streams: dict[int, _Stream], flow: Flow, cost: Callable[[], float], after: int) -> Poured:
    found, total, open_streams, silent = Poured(), 0, len(streams), 0.0
    quiet = max(0.001, flow.pause_ms / 5000)
    begin: tuple[int, float, float] | None = None
    while open_streams:
        ready = poll.poll(quiet)
        if not ready:
            silent += quiet
            if silent > LATE:
                raise Broken(f"nothing came for {LATE:.0f} s; {open_streams} streams are not done")
            if len(found.first) == len(streams) == open_streams and silent == quiet:
                now = (total, cost(), time.perf_counter())
                begin = begin or now
                found.tokens, found.cost, found.seconds = (late - early for late, early in zip(now, begin, strict=True))
            continue
        silent = 0.0
        for number, _ in ready:
            one = streams[number]
            came = one.read()
            if came:
                now_ = time.perf_counter()
                if not one.tokens or one.tokens > after:
                    (found.gaps if one.tokens else found.first).append(now_ - one.came)
                one.came = now_
                one.tokens += came
                total += came
            if one.done:
                poll.unregister(number)
                open_streams -= 1
    # More of them where a server begins with a piece of its own, which says whose words these are.
    if total < len(streams) * flow.tokens:
        raise Broken(f"{total:,} tokens came, not {len(streams) * flow.tokens:,}")
    return found


class Caller:
    """One stream after the other, over one connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), LATE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, flow: Flow) -> float:
        """Read a stream to its end, the last chunk included; the moment at which its first token was there.

        Raises:
            Broken: where it ends early.
        """
        self._socket.sendall(flow.request())
        first, tokens, rest = 0.0, 0, b""
        while not rest.endswith(END):
            data = self._socket.recv(SOME)
            if not data or (not tokens and data.startswith(b"HTTP/1.1") and not data.startswith(OK)):
                raise Broken(f"a stream ended after {tokens} tokens: {data[:300]!r}")
            seen = rest + data
            tokens += seen.count(MARK)
            first = first or (time.perf_counter() if tokens else 0.0)
            rest = seen[-len(MARK) + 1 :]
        if tokens < flow.tokens:
            raise Broken(f"{tokens:,} tokens came, not {flow.tokens:,}")
        return first
