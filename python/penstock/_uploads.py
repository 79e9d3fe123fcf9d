"""Bodies of requests that are made while they are sent: files, iterators and asynchronous iterators of bytes."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from penstock import _native
from penstock.errors import ConfigError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Iterator

PIECE = 65_536
"""Bytes that are read of a file at a time."""
_LOOK_SECONDS = 0.05
"""How often a thread that waits for room looks whether the answer is there already."""


def upload_of(content: object, stated: int | None) -> _native.NativeUpload | None:
    """What sends `content` as it comes; `None` for what is there already.

    Args:
        content: what was given as the body.
        stated: the length that a header of the request states.
    """
    if isinstance(content, str | bytes | bytearray | memoryview | list | tuple | Mapping):
        return None
    if hasattr(content, "read"):
        return _native.NativeUpload(content, _length(content) if stated is None else stated)
    if isinstance(content, AsyncIterable):
        return _native.NativeUpload(content, stated)
    try:
        memoryview(content)  # type: ignore[arg-type]  # that is the question
    except TypeError:
        return _native.NativeUpload(content, stated) if isinstance(content, Iterable) else None
    return None


def pieces_of(source: Any) -> Iterator[bytes]:
    """The pieces, for a thread.

    Raises:
        ConfigError: for what gives no bytes, or gives them to coroutines only.
    """
    if hasattr(source, "read"):
        while piece := bytes_of(source.read(PIECE), "the file given as content"):
            yield piece
        return
    if not isinstance(source, Iterable):
        raise ConfigError("an asynchronous iterator given as content can be sent by an AsyncClient only")
    for piece in source:
        yield bytes_of(piece, "an iterable given as content")


async def async_pieces_of(source: Any) -> AsyncIterator[bytes]:
    """The pieces, for an event loop. Files are read in a thread."""
    if hasattr(source, "read"):
        import asyncio  # noqa: PLC0415  importing it costs as much as a third of `import numpy`

        while True:
            read = await asyncio.to_thread(source.read, PIECE)
            if hasattr(read, "__await__"):
                read = await read
            if not (piece := bytes_of(read, "the file given as content")):
                return
            yield piece
    elif isinstance(source, AsyncIterable):
        async for piece in source:
            yield bytes_of(piece, "an iterable given as content")
    else:
        for piece in source:
            yield bytes_of(piece, "an iterable given as content")


def bytes_of(part: object, what: str) -> bytes:
    """`part` as bytes.

    Raises:
        ConfigError: where it is none.
    """
    if isinstance(part, bytes):
        return part
    if isinstance(part, str):
        raise ConfigError(f"{what} must give bytes, not text: open files in binary mode")
    try:
        return bytes(memoryview(part))  # type: ignore[arg-type]  # that is the question
    except TypeError:
        raise ConfigError(f"{what} must give bytes, not {type(part).__name__}") from None


def send_pieces(upload: _native.NativeUpload, pending: _native.NativePending) -> None:
    """Makes the body, piece by piece, until it is whole or the answer is there."""
    for piece in pieces_of(upload.source):
        has_room = upload.put(piece)
        while not has_room and not pending.answered:
            has_room = upload.wait_blocking(_LOOK_SECONDS)
        if pending.answered:
            return
    upload.finish()


async def send_async_pieces(upload: _native.NativeUpload) -> None:
    """Makes the body, piece by piece."""
    pieces = async_pieces_of(upload.source)
    try:
        async for piece in pieces:
            if not upload.put(piece):
                await upload.wait()
        upload.finish()
    finally:
        await pieces.aclose()  # type: ignore[attr-defined]  # it is a generator


def made(making: asyncio.Task[None], stream: _native.NativeStream) -> None:
    """Ends the reading of an answer where the body of its request could not be made."""
    if not making.cancelled() and making.exception() is not None:
        stream.close()


def _length(file: Any) -> int | None:
    """How many bytes are left of a file, where that can be known."""
    try:
        state = os.fstat(file.fileno())
        if stat.S_ISREG(state.st_mode):
            return max(0, state.st_size - int(file.tell()))
    except (AttributeError, OSError, TypeError, ValueError):
        pass
    try:
        here = file.tell()
        end = file.seek(0, os.SEEK_END)
        file.seek(here)
        return max(0, int(end) - int(here)) if isinstance(file.read(0), bytes) else None
    except (AttributeError, OSError, TypeError, ValueError):
        return None
