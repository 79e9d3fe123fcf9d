"""Server-sent events from one connection after the other: where one ends, the next asks for what came after it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Generic, TypeVar

from penstock._headers import merged, sendable
from penstock._policy import check_count, check_seconds
from penstock._stream import AsyncStream, Stream
from penstock.errors import DeadlineExceeded, ProtocolError, StreamClosed, StreamError, TransportError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from penstock._headers import HeadersGiven, Pairs
    from penstock._items import AsyncItems, Items
    from penstock._native import Event

S = TypeVar("S", AsyncStream, Stream)

_WANTED: Pairs = [(b"accept", b"text/event-stream"), (b"cache-control", b"no-store")]
_OK, _NO_CONTENT = 200, 204
_LONGEST_PAUSE = 60.0
_LOST = (TransportError, DeadlineExceeded, StreamError)
"""What the next connection may do better."""


class _Source(Generic[S]):
    """What both kinds have in common.

    Attributes:
        last_event_id: the id of the last event that named one; what the next connection begins after.
        retry: seconds between the end of a connection and the next one: the server's own word, where it gave one.
    """

    def __init__(self, open_stream: Callable[[str], S], last_event_id: str, retry: float, attempts: int | None) -> None:
        self._open_stream: Callable[[str], S] = open_stream
        self.last_event_id: str = last_event_id
        self.retry: float = retry
        self._attempts = attempts
        self._failures = 0
        """Connections in a row that brought no event."""
        self._brought = False
        """Whether the last one did."""
        self._is_first = True
        self._stream: S | None = None
        self._closed = False

    @property
    def closed(self) -> bool:
        """True where no more events come."""
        return self._closed

    def __repr__(self) -> str:
        state = "closed" if self._closed else "waiting" if self._stream is None else "open"
        return f"<{type(self).__name__} {state}, last_event_id={self.last_event_id!r}>"

    def _pause(self) -> float:
        """Seconds to wait before the next connection: longer each time that one brought nothing."""
        if self._is_first:
            self._is_first = False
            return 0.0
        doubled: float = self.retry * 2.0 ** min(self._failures, 16)
        return max(self.retry, min(doubled, _LONGEST_PAUSE))

    def _lost(self, error: Exception | None) -> None:
        """A connection is over, by an error or in good order: another follows, unless too many brought nothing."""
        self._let_go()
        self._failures = 0 if self._brought else self._failures + 1
        self._brought = False
        if self._attempts is not None and self._failures > self._attempts:
            self._closed = True
            raise error or StreamError(f"the server ended {self._failures} connections in a row without an event")

    def _let_go(self) -> None:
        stream, self._stream = self._stream, None
        if stream is None:
            return
        if (native := stream._stream) is not None:  # noqa: SLF001  one package
            last, retry = native.resumption()
            self.last_event_id = self.last_event_id if last is None or last == "" else last
            self.retry = self.retry if retry is None else retry
        stream._close()  # noqa: SLF001

    def _end(self) -> None:
        self._closed = True
        self._let_go()

    def _check_open(self) -> None:
        if self._closed:
            raise StreamClosed("the source of events is closed")

    def _gives_events(self, stream: S) -> bool:
        """Whether the server answers with events.

        Raises:
            ProtocolError: where it gives something else instead.
        """
        kind = stream.headers.get("content-type", "").partition(";")[0].strip().lower()
        if stream.status_code == _OK and kind != "text/event-stream":
            self._end()
            raise ProtocolError(f"{stream.url} answers with {kind or 'no content type'}, not with text/event-stream")
        return stream.status_code == _OK

    def _refused(self, stream: S, body: bytes) -> None:
        """Raises what another status means; 204 says that there are no more events."""
        if stream.status_code != _NO_CONTENT:
            raise stream._error(body, body.decode(errors="replace"))  # noqa: SLF001  one package


class AsyncEventSource(_Source[AsyncStream]):
    """Server-sent events that go on over lost connections; made by `AsyncClient.events`.

    To be used as `async for`; as `async with` it is closed at the end of the block, else when it is forgotten. It
    follows the rules of the WHATWG (HTML, section 9.2.3): where a connection ends, the next is opened after `retry`
    seconds, with the id of the last event as `Last-Event-ID`. A status of 204 ends it. What the others mean, and
    another content type, is raised.

    Attributes:
        last_event_id: the id of the last event that named one; what the next connection begins after.
        retry: seconds between the end of a connection and the next one: the server's own word, where it gave one.
    """

    _events: AsyncItems[Event]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """The next event.

        Raises:
            RemoteError: for a status that is neither 200 nor 204.
            ProtocolError: for another content type.
            TransportError: where `attempts` connections in a row brought nothing, the last by this.
            StreamClosed: after closing.
        """
        self._check_open()
        while True:
            try:
                if self._stream is None:
                    await self._connect()
                event = await anext(self._events)
            except StopAsyncIteration:
                if self._closed:
                    raise
                self._lost(None)
            except _LOST as error:
                if self._closed:
                    raise
                self._lost(error)
            else:
                self._brought = True
                return event

    async def _connect(self) -> None:
        import asyncio  # noqa: PLC0415  importing it costs as much as a third of `import numpy`

        await asyncio.sleep(self._pause())
        stream = self._open_stream(self.last_event_id)
        await stream.__aenter__()
        self._stream = stream
        self._events = stream.sse()
        if not self._gives_events(stream):
            refused = await stream.read()
            self._end()
            self._refused(stream, refused)
            raise StopAsyncIteration

    async def aclose(self) -> None:
        """Ends it. Safe to call twice."""
        self._end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._end()


class EventSource(_Source[Stream]):
    """As `AsyncEventSource`, blocking; made by `Client.events`. Ctrl-C ends the waiting.

    Attributes:
        last_event_id: the id of the last event that named one; what the next connection begins after.
        retry: seconds between the end of a connection and the next one: the server's own word, where it gave one.
    """

    _events: Items[Event]

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        """As of `AsyncEventSource`."""
        self._check_open()
        while True:
            try:
                if self._stream is None:
                    self._connect()
                event = next(self._events)
            except StopIteration:
                if self._closed:
                    raise
                self._lost(None)
            except _LOST as error:
                if self._closed:
                    raise
                self._lost(error)
            else:
                self._brought = True
                return event

    def _connect(self) -> None:
        time.sleep(self._pause())
        stream = self._open_stream(self.last_event_id)
        stream.__enter__()
        self._stream = stream
        self._events = stream.sse()
        if not self._gives_events(stream):
            refused = stream.read()
            self._end()
            self._refused(stream, refused)
            raise StopIteration

    def close(self) -> None:
        """Ends it. Safe to call twice."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()


def check_attempts(reconnect_after: float, attempts: int | None) -> None:
    """Refuses what is no time, and no number of attempts."""
    check_seconds("reconnect_after", reconnect_after)
    if attempts is not None:
        check_count("attempts", attempts)


def headers_of(given: HeadersGiven | None, last_event_id: str) -> Pairs:
    """The headers of a connection: what the caller gave himself, and what the rules want."""
    pairs = merged(_WANTED, sendable(given))
    return [*pairs, (b"last-event-id", last_event_id.encode())] if last_event_id else pairs
