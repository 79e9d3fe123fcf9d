"""Answers of a pipeline that come step by step."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import coroutine
from typing import TYPE_CHECKING, Any

from penstock._inference import texts_of
from penstock.errors import StreamClosed

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import TracebackType
    from typing import Self

    from penstock import _native


@coroutine
def _pause() -> Generator[None, None, None]:
    """Lets the event loop turn once."""
    yield


class PipelineStream(AsyncIterator[Any], Iterator[Any]):
    """What a model says, step by step; made by `Pipeline.stream`.

    `async for` reads it on an event loop, `for` in a thread or a notebook cell. It begins with the first piece that is
    asked for. Leaving it early (by `close`, at the end of a `with` block, by cancelling who reads, or by letting go of
    it) stops the generation within one step. One reader at a time.

    Attributes:
        finish_reason: why the answer ended: `"stop"`, `"length"`, or what the model said; `None` before its end, and
            where the model says nothing.
        prompt_tokens: how many tokens the prompt had, where the model has said so at the end.
    """

    __slots__: tuple[str, ...] = ("_begin", "_closed", "_native", "_taken", "finish_reason", "prompt_tokens")

    def __init__(self, begin: Callable[[], _native.NativePieces]) -> None:
        self._begin = begin
        self._native: _native.NativePieces | None = None
        self._taken: list[Any] = []
        self._closed = False
        self.finish_reason: str | None = None
        self.prompt_tokens: int | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        """The next piece.

        Raises:
            StopAsyncIteration: at the end.
            PenstockError: what the model failed with, or `DeadlineExceeded`.
            StreamClosed: after `close`.

        """
        while not self._taken:
            taken = self._take()
            if taken is None:
                raise StopAsyncIteration
            try:
                # A model that always has something to say must not keep the loop from its other tasks.
                await (self._open().wait() if taken is False else _pause())
            except Exception:
                raise
            except BaseException:
                # Who reads was cancelled: nobody else will come.
                self.close()
                raise
        return self._next()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        """The next piece, waited for with the interpreter's lock given back; Ctrl-C ends the waiting.

        Raises:
            StopIteration: at the end.
            PenstockError: as `__anext__` says.
        """
        while not self._taken:
            taken = self._take()
            if taken is None:
                raise StopIteration
            if taken is False:
                self._open().wait_blocking()
        return self._next()

    def close(self) -> None:
        """Stops the generation, where it has not ended. Safe to call twice."""
        self._closed = True
        self._taken.clear()
        if self._native is not None:
            self._native.close()

    async def aclose(self) -> None:
        """As `close`; nothing is waited for."""
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "not begun" if self._native is None else "open"
        if self.finish_reason is not None:
            state = f"ended: {self.finish_reason}"
        return f"<PipelineStream {state}>"

    def _open(self) -> _native.NativePieces:
        if self._closed:
            raise StreamClosed("the stream was closed")
        if self._native is None:
            self._native = self._begin()
        return self._native

    def _take(self) -> list[Any] | bool | None:
        """What has come, which is kept for later, too; `None` at the end, `False` where nothing has."""
        native = self._open()
        taken = native.take()
        if taken is None and (end := native.end()) is not None:
            self.finish_reason, self.prompt_tokens = end
        if isinstance(taken, list):
            self._taken = taken
        return taken

    def _next(self) -> Any:
        piece = self._taken.pop()
        if type(piece) is str:
            return piece
        return {name: texts_of(value) if type(value) is tuple else value for name, value in piece}
