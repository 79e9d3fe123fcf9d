"""What a stream is taken as: chunks, lines, JSON documents and events, one at a time or all that have come."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from typing import Self

    from penstock import _native

    Opened = Callable[[str, int], _native.NativeStream]
    """The stream as something, each of at most so many bytes; raises where it is not open."""

T = TypeVar("T")

_loads = json.JSONDecoder().decode


class _Taking(Generic[T]):
    """What all have in common. What was taken and not handed out is the stream's: another iterator goes on."""

    __slots__ = ("_form", "_most", "_opened", "_ready")

    def __init__(self, opened: Opened, ready: list[Any], form: str, most: int) -> None:
        self._opened = opened
        self._ready = ready
        """The first stands last."""
        self._form = form
        self._most = most

    def _rest(self) -> list[T]:
        """All that lies ready."""
        rest = self._ready[::-1]
        self._ready.clear()
        return rest


class AsyncItems(_Taking[T]):
    """An asynchronous iterator. It goes on after whoever waited was cancelled, which a generator would not."""

    __slots__ = ()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        ready = self._ready
        if not ready:
            await self._more()
        item: T = ready.pop()
        return item

    def batches(self) -> AsyncIterator[list[T]]:
        """Lists instead: each time all that has come, up to some 64 KiB of it. None is empty."""
        return _AsyncBatches(self)

    async def _more(self) -> None:
        while True:
            native = self._opened(self._form, self._most)
            taken = native.take_many(self._most)
            if taken is None:
                raise StopAsyncIteration
            if taken is not False:
                self._ready.extend(taken)
                return
            await native.wait()


class Items(_Taking[T]):
    """As above, blocking."""

    __slots__ = ()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        ready = self._ready
        if not ready:
            self._more()
        item: T = ready.pop()
        return item

    def batches(self) -> Iterator[list[T]]:
        """Lists instead: each time all that has come, up to some 64 KiB of it. None is empty."""
        return _Batches(self)

    def _more(self) -> None:
        while True:
            native = self._opened(self._form, self._most)
            taken = native.take_many(self._most)
            if taken is None:
                raise StopIteration
            if taken is not False:
                self._ready.extend(taken)
                return
            native.wait_blocking()


class AsyncDocuments(AsyncItems[Any]):
    """A JSON document a line; lines that are blank are passed over."""

    __slots__ = ()

    async def __anext__(self) -> Any:
        while not (line := await super().__anext__()).strip():
            pass
        return _loads(line)

    def _rest(self) -> list[Any]:
        return _documents(super()._rest(), self._ready)


class Documents(Items[Any]):
    """As above, blocking."""

    __slots__ = ()

    def __next__(self) -> Any:
        while not (line := super().__next__()).strip():
            pass
        return _loads(line)

    def _rest(self) -> list[Any]:
        return _documents(super()._rest(), self._ready)


class _AsyncBatches(Generic[T]):
    __slots__ = ("_items",)

    def __init__(self, items: AsyncItems[T]) -> None:
        self._items = items

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[T]:
        items = self._items
        while not (batch := items._rest()):  # noqa: SLF001  one module
            await items._more()  # noqa: SLF001
        return batch


class _Batches(Generic[T]):
    __slots__ = ("_items",)

    def __init__(self, items: Items[T]) -> None:
        self._items = items

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> list[T]:
        items = self._items
        while not (batch := items._rest()):  # noqa: SLF001  one module
            items._more()  # noqa: SLF001
        return batch


def _documents(lines: list[str], ready: list[Any]) -> list[Any]:
    """What lines say, as far as the first that is no JSON; what follows is `ready` for the next time.

    Raises:
        json.JSONDecodeError: where that is the very first; the next can be read.
    """
    documents: list[Any] = []
    for at, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            documents.append(_loads(line))
        except json.JSONDecodeError:
            ready.extend(reversed(lines[at if documents else at + 1 :]))
            if not documents:
                raise
            break
    return documents
