"""Answers that are read while they arrive."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from penstock._response import Answer
from penstock.errors import ConfigError, StreamClosed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from types import TracebackType
    from typing import Self

    from penstock import _native
    from penstock._response import Response

    Opened = tuple[_native.NativeStream, tuple[Response, ...]]


def caller() -> str:
    """Where the function that asks was called from, for the report of a connection that is held too long."""
    frame = sys._getframe(2)  # noqa: SLF001  what inspect does, without its cost
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


class _Stream(Answer):
    """What both kinds of streams have in common."""

    __slots__: tuple[str, ...] = ("_closed", "_content", "_stream")

    _stream: _native.NativeStream | None

    def __init__(self) -> None:
        self._headers = None
        self._stream = None
        self._content: bytes | None = None
        self._closed = False
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
        self._stream, history = opened
        self.history = history
        self._native = self._stream.response

    def _open(self) -> _native.NativeStream:
        if self._stream is None:
            raise StreamClosed("the request is sent when the stream is entered: use it as a context manager")
        if self._closed:
            raise StreamClosed("the stream was closed")
        return self._stream

    def _close(self) -> None:
        self._closed = True
        if self._stream is not None:
            self._stream.close()

    def _check_not_entered(self) -> None:
        if self._stream is not None or self._closed:
            raise ConfigError("a stream is entered once: call stream() again")


class AsyncStream(_Stream):
    """An answer that is read while it arrives; made by `AsyncClient.stream`, to be used as `async with`.

    Leaving the block before the end abandons the rest, and the server is told: its connection is closed, or its stream
    reset. Cancelling whoever waits for a chunk loses none: reading can go on afterwards.
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

    def chunks(self) -> AsyncIterator[bytes]:
        """The body in pieces as they arrive, unpacked where it was packed, at most 64 KiB each.

        Raises:
            IdleTimeout: where the next piece did not come in time.
            ReadFailed: where the connection ended before the body.
            StreamClosed: outside the block.
        """
        return _AsyncChunks(self._open)

    aiter_bytes = chunks

    async def read(self) -> bytes:
        """The rest of the body, to its end."""
        if self._content is None:
            self._content = b"".join([chunk async for chunk in self.chunks()])
        return self._content

    aread = read

    async def aclose(self) -> None:
        """Abandons what was not read. Safe to call twice."""
        self._close()


class Stream(_Stream):
    """An answer that is read while it arrives; made by `Client.stream`, to be used as `with`.

    Leaving the block before the end abandons the rest, and the server is told: its connection is closed, or its stream
    reset.
    """

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

    def chunks(self) -> Iterator[bytes]:
        """As `AsyncStream.chunks`, blocking. Ctrl-C ends the waiting."""
        return _Chunks(self._open)

    iter_bytes = chunks

    def read(self) -> bytes:
        """The rest of the body, to its end."""
        if self._content is None:
            self._content = b"".join(self.chunks())
        return self._content

    def close(self) -> None:
        """Abandons what was not read. Safe to call twice."""
        self._close()


class _AsyncChunks:
    """An iterator and no generator, which would end with the first cancellation."""

    def __init__(self, stream: Callable[[], _native.NativeStream]) -> None:
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while (chunk := self._stream().take()) is False:
            await self._stream().wait()
        if chunk is None:
            raise StopAsyncIteration
        return chunk


class _Chunks:
    """As above, blocking."""

    def __init__(self, stream: Callable[[], _native.NativeStream]) -> None:
        self._stream = stream

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        stream = self._stream()
        chunk = stream.take()
        if chunk is False:
            chunk = stream.next_blocking()
        if chunk is None:
            raise StopIteration
        return chunk
