"""What `AsyncClient` asks of inference servers, over HTTP or gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock import _native
from penstock._base_client import BaseClient
from penstock._infer_stream import AsyncInferStream
from penstock._inference import Inference, InferResult, refusal, result_of, result_of_http, takes_binary
from penstock._questions import answer_of, is_true, parameters_of, question_of
from penstock._request import AGAIN_IF_SILENT, REDIRECTS, retry_bits, with_bits
from penstock._response import Response
from penstock._stream import caller
from penstock._uploads import send_async_pieces
from penstock.errors import DeadlineExceeded, TransportError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Mapping
    from types import EllipsisType

    from penstock._headers import HeadersGiven
    from penstock._inference import OverHttp
    from penstock._policy import Priority
    from penstock._questions import Parameter
    from penstock._request import Prepared
    from penstock.pooling import Timeout


class AsyncInference(BaseClient):
    """The Open Inference Protocol, version 2, for asyncio."""

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        outputs: Iterable[str] | None = None,
        version: str | None = None,
        request_id: str | None = None,
        timeout: float | Timeout | EllipsisType | None = ...,
        priority: Priority | None = None,
        tenant: str | None = None,
        binary: bool | None = None,
        retry: bool | None = None,
    ) -> InferResult:
        """Asks a model by the Open Inference Protocol, version 2.

        Args:
            model: its name.
            inputs: arrays by name, batch axis first; arrays of `str`, `bytes` or objects are texts.
            outputs: the outputs that are wanted; all by default.
            version: the model's version; what the server prefers by default.
            request_id: what the answer is to be called.
            timeout: as of a request. The server is told how much of it is left, as `X-Request-Timeout` or
                `grpc-timeout`.
            priority: `"high"`, `"normal"` or `"low"`: who goes first in the server's queue, as `X-Request-Priority`.
            tenant: on whose behalf, as `X-Request-Tenant`; a server may give each its share.
            binary: over HTTP, send tensors as binary data, and ask for such, or as JSON; by default the server is asked
                once whether it takes them. Over gRPC they are always raw.
            retry: `True` sends it again wherever a connection breaks, `False` never. By default it is sent again where
                nothing of it was sent; and once where a connection that had served before was closed without a word of
                an answer, as a server does that is being replaced.

        Raises:
            RemoteError: where the server refuses, with its words and its status or code; by what these say it is also
                an `ItemError`, an `Overloaded`, a `DeadlineExceeded`, a `ModelNotFound` or a `ModelNotReady`.
            ProtocolError: where its answer is none of the protocol.
            ConfigError: for an array that the protocol has no datatype for.
        """
        inference = Inference(
            model,
            inputs,
            outputs=outputs,
            version=version,
            request_id=request_id,
            timeout=timeout,
            priority=priority,
            tenant=tenant,
        )
        # A model that is asked twice has answered twice: nothing else has happened.
        bits = retry_bits(retry, AGAIN_IF_SILENT)
        if not self._builder.speaks_grpc:
            if binary is None:
                if self._binary is None:
                    self._binary = await self._takes_binary(inference)
                binary = self._binary
            url, options = inference.request(binary=binary)
            return result_of_http(await self._call("POST", url, options, bits))
        http = await self._over_http(inference, binary) if self._builder.speaks_http else None
        manner = self._builder.manner(inference.timeout, inference.terms, bits)
        return result_of(await self._answer(self._calls.infer(inference.asked(), http, manner)))

    async def is_live(self, *, timeout: float | Timeout | EllipsisType | None = ...) -> bool:
        """Whether the server runs. Raises `TransportError` where it cannot be reached."""
        return is_true(*await self._ask("live", timeout))

    async def is_ready(
        self,
        model: str | None = None,
        *,
        version: str | None = None,
        timeout: float | Timeout | EllipsisType | None = ...,
    ) -> bool:
        """Whether the model, or every model, can answer.

        Raises:
            RemoteModelNotFound: where there is no such model.
            TransportError: where the server cannot be reached.
        """
        kind = "ready" if model is None else "model_ready"
        return is_true(*await self._ask(kind, timeout, model, version))

    async def server_metadata(self, *, timeout: float | Timeout | EllipsisType | None = ...) -> dict[str, Any]:
        """Name, version and extensions of the server."""
        return dict(answer_of(*await self._ask("server", timeout)))

    async def model_metadata(
        self, model: str, *, version: str | None = None, timeout: float | Timeout | EllipsisType | None = ...
    ) -> dict[str, Any]:
        """Name, versions, platform, inputs and outputs of a model; a tensor has a name, a datatype and a shape."""
        return dict(answer_of(*await self._ask("model", timeout, model, version)))

    async def repository_index(
        self, *, ready: bool = False, timeout: float | Timeout | EllipsisType | None = ...
    ) -> list[dict[str, Any]]:
        """The models that the server could serve, or those alone that are `ready`: name, version, state and reason."""
        return list(answer_of(*await self._ask("index", timeout, ready=ready)))

    async def load_model(
        self,
        model: str,
        parameters: Mapping[str, Parameter] | None = None,
        *,
        timeout: float | Timeout | EllipsisType | None = ...,
    ) -> None:
        """Has the server load a model, or load it anew; `parameters` are the server's own."""
        answer_of(*await self._ask("load", timeout, model, parameters=parameters))

    async def unload_model(
        self, model: str, *, dependents: bool = False, timeout: float | Timeout | EllipsisType | None = ...
    ) -> None:
        """Has the server unload a model, and with `dependents` those that only it needed."""
        parameters = {"unload_dependents": True} if dependents else None
        answer_of(*await self._ask("unload", timeout, model, parameters=parameters))

    async def unary(
        self,
        method: str,
        message: bytes,
        *,
        metadata: HeadersGiven | None = None,
        timeout: float | Timeout | EllipsisType | None = ...,
    ) -> bytes:
        """Any call of gRPC that takes one message and gives one, encoded by the caller's own classes.

        Args:
            method: the path of the call, `"/package.Service/Method"`.
            message: the message, serialized.
            metadata: header fields of the call.
            timeout: as of a request. The server is told how much of it is left.

        Returns:
            The answer, serialized.

        Raises:
            RemoteError: where the call ends with another status than OK; as of `infer`.
            ConfigError: where no endpoint of the client speaks gRPC.
        """
        manner = self._builder.manner(timeout, metadata)
        native = await self._answer(self._calls.unary(method, message, manner))
        if native.grpc_code != "OK":
            raise refusal(native)
        return native.content

    def stream_infer(
        self,
        *,
        timeout: float | Timeout | EllipsisType | None = ...,
        metadata: HeadersGiven | None = None,
        return_exceptions: bool = False,
    ) -> AsyncInferStream:
        """Many inferences over one stream, over gRPC: `ModelStreamInfer`.

        Args:
            timeout: seconds for all of the stream, or a `penstock.Timeout`; by default it may last, and only opening it
                has the client's limits.
            metadata: header fields of the call.
            return_exceptions: give answers that are errors as values, instead of raising them.

        Example:
            ```
            async with client.stream_infer() as stream:
                for number, batch in enumerate(batches):
                    await stream.send("digits", {"x": batch}, request_id=str(number))
                await stream.end()
                async for result in stream:
                    ...
            ```
        """
        place = caller()
        manner = self._builder.lasting(timeout, metadata)

        async def enter() -> _native.NativeInferStream:
            future = self._calls.stream(manner, place)
            try:
                return await future
            except BaseException:
                self._native.cancel(future)
                raise

        return AsyncInferStream(enter, return_exceptions=return_exceptions)

    async def _ask(
        self,
        kind: str,
        timeout: float | Timeout | EllipsisType | None,
        model: str | None = None,
        version: str | None = None,
        *,
        ready: bool = False,
        parameters: Mapping[str, Parameter] | None = None,
    ) -> tuple[_native.NativeQuestion, _native.NativeResponse]:
        question = question_of(kind, model, version, ready=ready, parameters=parameters_of(parameters))
        asked = self._calls.ask(question, self._question_over_http(question), self._builder.manner(timeout))
        return question, await self._answer(asked)

    async def _over_http(self, inference: Inference, binary: bool | None) -> OverHttp:
        """The request for those of the endpoints that speak HTTP."""
        if binary is None and self._binary is None:
            try:
                self._binary = await self._takes_binary(inference)
            except (TransportError, DeadlineExceeded):
                # None of them answers; others may. JSON is what every server takes.
                binary = False
        return self._inference_over_http(inference, binary=bool(self._binary if binary is None else binary))

    async def _takes_binary(self, inference: Inference) -> bool:
        """Whether the server takes binary tensors: one question for all who want to know at the same time."""
        import asyncio  # noqa: PLC0415  importing it costs as much as a third of `import numpy`

        loop = asyncio.get_running_loop()
        asking = self._asking.get(loop)
        if asking is None or asking.done():
            asking = self._asking[loop] = loop.create_task(self._call("GET", "/v2", inference.question()))
            asking.add_done_callback(_seen)
        # Who is cancelled takes nobody else's answer with him.
        return takes_binary(await asyncio.shield(asking))

    async def _answer(self, future: asyncio.Future[_native.NativeResponse]) -> _native.NativeResponse:
        try:
            return await future
        except BaseException:
            self._native.cancel(future)
            raise

    async def _call(self, method: str, url: str, options: Mapping[str, Any], bits: int = 0) -> Response:
        prepared = self._builder.prepare(method, url, options)
        if bits:
            prepared = with_bits(prepared, bits)
        # As in _send, without its coroutine: requests wait here by the thousand, and Python's collector looks at each.
        future = self._native.submit(*prepared)
        try:
            if options and "content" in options and isinstance(upload := prepared[3], _native.NativeUpload):
                response = Response(await self._with_pieces(upload, future))
            else:
                response = Response(await future)
        except BaseException:
            self._native.cancel(future)
            raise
        if response.status_code in REDIRECTS and self._is_to_follow(response.status_code, options):
            journey = self._journey(prepared)
            while (following := journey.after(response)) is not None:
                response = await self._send(following)
            response.history = journey.history
        return response

    async def _with_pieces(self, upload: _native.NativeUpload, future: asyncio.Future[Any]) -> Any:
        """The answer to a request whose body is made meanwhile, which ends with the answer."""
        answer, making = await self._while_making(upload, future)
        making.cancel()
        return answer

    async def _while_making(
        self, upload: _native.NativeUpload, future: asyncio.Future[Any]
    ) -> tuple[Any, asyncio.Task[None]]:
        """The answer to a request whose body is made meanwhile, and who makes it, where that goes on."""
        import asyncio  # noqa: PLC0415  importing it costs as much as a third of `import numpy`

        making = asyncio.create_task(send_async_pieces(upload))
        try:
            await asyncio.wait((making, future), return_when=asyncio.FIRST_COMPLETED)
            if making.done() and making.exception() is not None:
                making.result()
            answer = await future
        except BaseException:
            making.cancel()
            self._native.cancel(future)
            # Nobody waits for it any more, whatever comes of it.
            future.cancel()
            raise
        return answer, making

    async def _send(self, prepared: Prepared) -> Response:
        future = self._native.submit(*prepared)
        try:
            return Response(await future)
        except BaseException:
            self._native.cancel(future)
            raise


def _seen(asking: asyncio.Task[Response]) -> None:
    """Asyncio need not complain about a failure that nobody waits for any more."""
    if not asking.cancelled():
        asking.exception()
