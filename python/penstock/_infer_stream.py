"""Many inferences over one stream: `ModelStreamInfer` of the Open Inference Protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock._inference import Inference, InferResult, refusal, result_of_message
from penstock._remote_errors import StreamedError
from penstock.errors import ConfigError, RemoteError, StreamClosed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping
    from types import TracebackType
    from typing import Self

    from penstock import _native

    Outcome = InferResult | RemoteError


class _InferStream:
    """What both kinds of streams have in common."""

    __slots__: tuple[str, ...] = ("_closed", "_keeps_errors", "_native")

    def __init__(self, *, return_exceptions: bool) -> None:
        self._native: _native.NativeInferStream | None = None
        self._keeps_errors = return_exceptions
        self._closed = False

    @property
    def closed(self) -> bool:
        """True where nothing more can be sent or read."""
        return self._closed

    def __repr__(self) -> str:
        name = type(self).__name__
        if self._native is None:
            return f"<{name} not entered>"
        return f"<{name} to {self._native.endpoint} {'closed' if self._closed else 'open'}>"

    def _check_not_entered(self) -> None:
        if self._native is not None or self._closed:
            raise ConfigError("a stream is entered once: call stream_infer() again")

    def _open(self) -> _native.NativeInferStream:
        if self._native is None:
            raise StreamClosed("the stream opens when it is entered: use it as a context manager")
        if self._closed:
            raise StreamClosed("the stream was closed")
        return self._native

    def _close(self) -> None:
        self._closed = True
        if self._native is not None:
            self._native.close()

    def _outcome(self, answer: tuple[str | None, Any] | None) -> Outcome | None:
        """What an answer is to whoever reads; none at the end.

        Raises:
            RemoteError: where it says that something went wrong, unless such errors are kept; and where the stream
                ended with another status than OK.
        """
        if answer is None:
            native = self._open()
            if native.grpc_code not in (None, "OK"):
                raise refusal(native)
            return None
        words, inferred = answer
        if words is None:
            return result_of_message(inferred, None)
        error = StreamedError(words)
        error.request_id = inferred[2] or None
        if self._keeps_errors:
            return error
        raise error


def _asked(
    model: str, inputs: Mapping[str, Any], outputs: Iterable[str] | None, version: str | None, request_id: str | None
) -> Any:
    return Inference(model, inputs, outputs=outputs, version=version, request_id=request_id, timeout=...).asked()


class AsyncInferStream(_InferStream):
    """Many inferences over one stream; made by `AsyncClient.stream_infer`, to be used as `async with`.

    It is read by `async for`, while others may send. Answers come in the order of their requests where the server keeps
    it, as Penstock's own does. An answer that is an error is raised as `RemoteError` with its `request_id`, and the
    stream goes on: read it again. Leaving the block before the end resets the stream, and the server drops the rest.
    """

    __slots__: tuple[str, ...] = ("_enter",)

    def __init__(
        self, enter: Callable[[], Coroutine[Any, Any, _native.NativeInferStream]], *, return_exceptions: bool
    ) -> None:
        super().__init__(return_exceptions=return_exceptions)
        self._enter = enter

    async def __aenter__(self) -> Self:
        self._check_not_entered()
        self._native = await self._enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._close()

    async def send(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        outputs: Iterable[str] | None = None,
        version: str | None = None,
        request_id: str | None = None,
    ) -> None:
        """Sends a request; arguments as of `AsyncClient.infer`. Waits while the server takes no more.

        Raises:
            StreamClosed: where the stream is over, or was ended.
            ConfigError: for an array that the protocol has no datatype for.
        """
        native = self._open()
        if not native.send(_asked(model, inputs, outputs, version, request_id)):
            await native.room()

    async def end(self) -> None:
        """Says that no more requests come; answers still do."""
        self._open().finish()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        while (answer := self._open().take()) is False:
            await self._open().wait()
        outcome = self._outcome(answer)
        if outcome is None:
            raise StopAsyncIteration
        return outcome

    async def aclose(self) -> None:
        """Resets the stream, where it has not ended. Safe to call twice."""
        self._close()


class InferStream(_InferStream):
    """As `AsyncInferStream`, blocking; made by `Client.stream_infer`, to be used as `with`. Ctrl-C ends the waiting."""

    __slots__: tuple[str, ...] = ("_enter",)

    def __init__(self, enter: Callable[[], _native.NativeInferStream], *, return_exceptions: bool) -> None:
        super().__init__(return_exceptions=return_exceptions)
        self._enter = enter

    def __enter__(self) -> Self:
        self._check_not_entered()
        self._native = self._enter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def send(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        outputs: Iterable[str] | None = None,
        version: str | None = None,
        request_id: str | None = None,
    ) -> None:
        """As `AsyncInferStream.send`, blocking."""
        native = self._open()
        if not native.send(_asked(model, inputs, outputs, version, request_id)):
            native.room_blocking()

    def end(self) -> None:
        """As `AsyncInferStream.end`."""
        self._open().finish()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Outcome:
        answer = self._open().take()
        if answer is False:
            answer = self._open().next_blocking()
        outcome = self._outcome(answer)
        if outcome is None:
            raise StopIteration
        return outcome

    def close(self) -> None:
        """Resets the stream, where it has not ended. Safe to call twice."""
        self._close()
