"""Answers that are read while they arrive."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock._display import Table
from penstock._items import AsyncDocuments, AsyncItems, Documents, Items
from penstock._response import Answer
from penstock.errors import ConfigError, StreamClosed

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from types import TracebackType
    from typing import Self

    from penstock import _native
    from penstock._native import Event
    from penstock._response import Response

    Opened = tuple[_native.NativeStream, tuple[Response, ...], asyncio.Task[None] | None]

MAX_CHUNK = 65_536
"""Bytes of a chunk at most, where nobody says otherwise."""
MAX_EVENT = 1 << 20
"""Bytes of an event or a line at most, where nobody says otherwise."""

_CHUNKS, _LINES, _EVENTS = "chunks", "lines", "events"


def caller() -> str:
    """Where the function that asks was called from, for the report of a connection that is held too long."""
    frame = sys._getframe(2)  # noqa: SLF001  what inspect does, without its cost
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


@dataclass(frozen=True)
class StreamStats(Table):
    """What a stream has come to so far; a table in a notebook. Times are in seconds.

    Attributes:
        time_to_first: from the call to the first event or line, or to the first bytes where chunks are taken; `None`
            before.
        gap_p50: from one event, line or portion of bytes to the next: what half of them did not exceed. Those that come
            together wait for nothing.
        gap_p99: what 99 % of them did not exceed.
        stalls: times that reading had to stop until somebody took something: the consumer was the slow one.
        stalled: how long it stood, all in all.
        bytes: of the body, unpacked where it was packed.
        events: events, lines or portions of bytes that came.
        comments: comments that came between the events: signs of life.
    """

    time_to_first: float | None = None
    gap_p50: float | None = None
    gap_p99: float | None = None
    stalls: int = 0
    stalled: float = 0.0
    bytes: int = 0
    events: int = 0
    comments: int = 0


class _Stream(Answer):
    """What both kinds of streams have in common."""

    __slots__: tuple[str, ...] = ("_closed", "_content", "_form", "_making", "_ready", "_stream")

    _stream: _native.NativeStream | None

    def __init__(self) -> None:
        self._headers = None
        self._stream = None
        self._content: bytes | None = None
        self._closed = False
        self._form: str | None = None
        self._ready: list[Any] = []
        self._making: asyncio.Task[None] | None = None
        self.history: tuple[Response, ...] = ()

    def __getattr__(self, name: str) -> Any:
        if name == "_native":
            raise StreamClosed("the request is sent when the stream is entered: use it as a context manager")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def content(self) -> bytes:
        """The body, where it was read by `read`.

        Raises:
            StreamClosed: where it was not.
        """
        if self._content is None:
            raise StreamClosed("the body was not read: call read() first")
        return self._content

    @property
    def text(self) -> str:
        """As `content`, as text."""
        return self.content.decode(self._charset(), errors="replace")

    @property
    def closed(self) -> bool:
        """True where nothing more can be read."""
        return self._closed

    def stats(self) -> StreamStats:
        """What it has come to so far: time to the first, time between two, bytes, events.

        Raises:
            StreamClosed: before the block is entered.
        """
        if self._stream is None:
            raise StreamClosed("the request is sent when the stream is entered: use it as a context manager")
        figures = self._stream.figures()
        return StreamStats(time_to_first=figures.pop("first"), **figures)

    def raise_for_status(self) -> Self:
        """Itself, where the status is below 400.

        Raises:
            RemoteError: otherwise, with the status; and with the body, where `read` was called before.
        """
        if self.is_error:
            read = self._content is not None
            raise self._error(self.content if read else b"", self.text if read else "")
        return self

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"<{name} not entered>" if self._stream is None else super().__repr__()

    def _enter(self, opened: Opened) -> None:
        self._stream, self.history, self._making = opened
        self._native = self._stream.response

    def _open(self) -> _native.NativeStream:
        if self._stream is None:
            raise StreamClosed("the request is sent when the stream is entered: use it as a context manager")
        if self._closed:
            raise StreamClosed("the stream was closed")
        return self._stream

    def _opened(self, form: str, most: int) -> _native.NativeStream:
        native = self._open()
        if self._form is not form:
            native.decode(form, most)
            self._form = form
        return native

    def _close(self) -> None:
        self._closed = True
        self._ready.clear()
        if self._stream is not None:
            self._stream.close()
        if self._making is not None:
            self._making.cancel()

    def _check_not_entered(self) -> None:
        if self._stream is not None or self._closed:
            raise ConfigError("a stream is entered once: call stream() again")

    def _natural(self) -> str:
        """What the content type says that the body is made of."""
        kind = (self._native.header("content-type") or "").partition(";")[0].strip().lower()
        if kind == "text/event-stream":
            return "sse"
        return "ndjson" if kind in ("application/x-ndjson", "application/ndjson", "application/jsonl") else "chunks"


class AsyncStream(_Stream):
    """An answer that is read while it arrives; made by `AsyncClient.stream`, to be used as `async with`.

    It is taken as one of `sse()`, `ndjson()`, `lines()` and `chunks()`. What has come lies ready for whoever takes it,
    at most `stream_window` bytes; where that is full, the server has to wait.

    Leaving the block before the end abandons the rest, and the server is told: its connection is closed, or its stream
    reset. So does whoever is cancelled inside, and a stream that is forgotten. Where the last that came is
    `data: [DONE]`, with which chats end, the end of the body is read in the background, for at most half a second,
    and the connection serves the next request. Cancelling whoever waits for a chunk loses none: reading can go on
    afterwards.

    What fails is raised after all that had arrived was taken: `FirstChunkTimeout`, `IdleTimeout`, `DeadlineExceeded`;
    and `StreamInterrupted` for a connection that broke off, with the `TransportError` as its cause. Each has
    `partial`, the bytes of the body that had arrived, unpacked, also those that were taken: the last MiB, or a share
    of 4 MiB where there are many streams; `partial_start` says which byte of the body is the first of them.
    """

    __slots__: tuple[str, ...] = ("_send",)

    def __init__(self, send: Callable[[], Coroutine[Any, Any, Opened]]) -> None:
        super().__init__()
        self._send = send

    async def __aenter__(self) -> Self:
        self._check_not_entered()
        self._enter(await self._send())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._close()

    def sse(self, *, max_event: int = MAX_EVENT) -> AsyncItems[Event]:
        """Server-sent events, by the rules of the WHATWG: each has `event`, `data`, `id` and `json()`.

        `.batches()` of it gives lists of all that have come, which costs less than one by one.

        Args:
            max_event: bytes of an event at most.

        Raises:
            FirstChunkTimeout: where no event came in time. Comments do not count.
            IdleTimeout: where the next did not.
            DeadlineExceeded: where the whole did not.
            StreamInterrupted: where the connection broke off.
            StreamError: for an event that is too long.
            ConfigError: where the stream is taken as something else already.
            StreamClosed: outside the block.
        """
        return AsyncItems(self._opened, self._ready, _EVENTS, max_event)

    def ndjson(self, *, max_line: int = MAX_EVENT) -> AsyncItems[Any]:
        """What the lines say, each of them JSON; blank lines are passed over. Errors as of `sse`.

        Raises:
            json.JSONDecodeError: for a line that is none; the next can be read.
        """
        return AsyncDocuments(self._opened, self._ready, _LINES, max_line)

    def lines(self, *, max_line: int = MAX_EVENT) -> AsyncItems[str]:
        """Lines, without their ends: LF, CR or CRLF. UTF-8; what is not is replaced. Errors as of `sse`."""
        return AsyncItems(self._opened, self._ready, _LINES, max_line)

    def chunks(self, *, max: int = MAX_CHUNK) -> AsyncItems[bytes]:  # noqa: A002  what it is
        """The body in pieces as they arrive, unpacked where it was packed, at most `max` bytes each.

        What has come while nobody took it comes as one. Errors as of `sse`; every byte counts for the time-outs.
        """
        return AsyncItems(self._opened, self._ready, _CHUNKS, max)

    aiter_bytes = chunks
    aiter_lines = lines

    def batches(self) -> AsyncIterator[list[Any]]:
        """Lists of all that has come, of what the content type says: events, JSON documents, or chunks."""
        items: AsyncItems[Any] = getattr(self, self._natural())()
        return items.batches()

    async def read(self, size: int = -1, /) -> bytes:
        """The rest of the body; or with a `size` the next bytes as soon as there are any, at most so many."""
        if size >= 0:
            return await self._read(size) if size else b""
        if self._content is None:
            self._content = b"".join([chunk async for chunk in self.chunks()])
        return self._content

    aread = read

    async def _read(self, size: int) -> bytes:
        while (chunk := self._opened(_CHUNKS, MAX_CHUNK).take(size)) is False:
            await self._open().wait()
        return chunk or b""

    async def aclose(self) -> None:
        """Abandons what was not read. Safe to call twice."""
        self._close()


class Stream(_Stream):
    """As `AsyncStream`, blocking; made by `Client.stream`, to be used as `with`. Ctrl-C ends the waiting."""

    __slots__: tuple[str, ...] = ("_send",)

    def __init__(self, send: Callable[[], Opened]) -> None:
        super().__init__()
        self._send = send

    def __enter__(self) -> Self:
        self._check_not_entered()
        self._enter(self._send())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def sse(self, *, max_event: int = MAX_EVENT) -> Items[Event]:
        """As `AsyncStream.sse`, blocking."""
        return Items(self._opened, self._ready, _EVENTS, max_event)

    def ndjson(self, *, max_line: int = MAX_EVENT) -> Items[Any]:
        """As `AsyncStream.ndjson`, blocking."""
        return Documents(self._opened, self._ready, _LINES, max_line)

    def lines(self, *, max_line: int = MAX_EVENT) -> Items[str]:
        """As `AsyncStream.lines`, blocking."""
        return Items(self._opened, self._ready, _LINES, max_line)

    def chunks(self, *, max: int = MAX_CHUNK) -> Items[bytes]:  # noqa: A002  what it is
        """As `AsyncStream.chunks`, blocking."""
        return Items(self._opened, self._ready, _CHUNKS, max)

    iter_bytes = chunks
    iter_lines = lines

    def batches(self) -> Iterator[list[Any]]:
        """As `AsyncStream.batches`, blocking."""
        items: Items[Any] = getattr(self, self._natural())()
        return items.batches()

    def read(self, size: int = -1, /) -> bytes:
        """As `AsyncStream.read`, blocking."""
        if size >= 0:
            return self._read(size) if size else b""
        if self._content is None:
            self._content = b"".join(self.chunks())
        return self._content

    def _read(self, size: int) -> bytes:
        while (chunk := self._opened(_CHUNKS, MAX_CHUNK).take(size)) is False:
            self._open().wait_blocking()
        return chunk or b""

    def file(self) -> io.BufferedReader:
        """The body as a binary file, which can be read once: for whatever takes one, `pandas.read_csv` or `tarfile`.

        Closing the file closes the stream. `read1`, `readinto1` and `readline` give what has come; `read(n)` waits for
        all of the `n` bytes.
        """
        return io.BufferedReader(_File(self), MAX_CHUNK)

    def close(self) -> None:
        """Abandons what was not read. Safe to call twice."""
        self._close()


class _File(io.RawIOBase):
    """A stream as Python's buffered files want it."""

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        room = memoryview(buffer).cast("B")
        chunk = self._stream.read(len(room))
        room[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()
