"""What `Client` asks of inference servers, over HTTP or gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock import _native
from penstock._base_client import BaseClient
from penstock._infer_stream import InferStream
from penstock._inference import Inference, InferResult, refusal, result_of, result_of_http, takes_binary
from penstock._questions import answer_of, is_true, parameters_of, question_of
from penstock._request import AGAIN_IF_SILENT, REDIRECTS, retry_bits, with_bits
from penstock._response import Response
from penstock._stream import caller
from penstock._uploads import send_pieces
from penstock.errors import DeadlineExceeded, TransportError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import EllipsisType

    from penstock._headers import HeadersGiven
    from penstock._inference import OverHttp
    from penstock._policy import Priority
    from penstock._questions import Parameter
    from penstock.pooling import Timeout


class BlockingInference(BaseClient):
    """The Open Inference Protocol, version 2, blocking."""

    def infer(
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
        """As `AsyncClient.infer`, blocking."""
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
                    self._binary = self._takes_binary(inference)
                binary = self._binary
            url, options = inference.request(binary=binary)
            return result_of_http(self._call("POST", url, options, bits))
        http = self._over_http(inference, binary) if self._builder.speaks_http else None
        manner = self._builder.manner(inference.timeout, inference.terms, bits)
        return result_of(self._calls.infer_blocking(inference.asked(), http, manner))

    def is_live(self, *, timeout: float | Timeout | EllipsisType | None = ...) -> bool:
        """As `AsyncClient.is_live`, blocking."""
        return is_true(*self._ask("live", timeout))

    def is_ready(
        self,
        model: str | None = None,
        *,
        version: str | None = None,
        timeout: float | Timeout | EllipsisType | None = ...,
    ) -> bool:
        """As `AsyncClient.is_ready`, blocking."""
        kind = "ready" if model is None else "model_ready"
        return is_true(*self._ask(kind, timeout, model, version))

    def server_metadata(self, *, timeout: float | Timeout | EllipsisType | None = ...) -> dict[str, Any]:
        """As `AsyncClient.server_metadata`, blocking."""
        return dict(answer_of(*self._ask("server", timeout)))

    def model_metadata(
        self, model: str, *, version: str | None = None, timeout: float | Timeout | EllipsisType | None = ...
    ) -> dict[str, Any]:
        """As `AsyncClient.model_metadata`, blocking."""
        return dict(answer_of(*self._ask("model", timeout, model, version)))

    def repository_index(
        self, *, ready: bool = False, timeout: float | Timeout | EllipsisType | None = ...
    ) -> list[dict[str, Any]]:
        """As `AsyncClient.repository_index`, blocking."""
        return list(answer_of(*self._ask("index", timeout, ready=ready)))

    def load_model(
        self,
        model: str,
        parameters: Mapping[str, Parameter] | None = None,
        *,
        timeout: float | Timeout | EllipsisType | None = ...,
    ) -> None:
        """As `AsyncClient.load_model`, blocking."""
        answer_of(*self._ask("load", timeout, model, parameters=parameters))

    def unload_model(
        self, model: str, *, dependents: bool = False, timeout: float | Timeout | EllipsisType | None = ...
    ) -> None:
        """As `AsyncClient.unload_model`, blocking."""
        parameters = {"unload_dependents": True} if dependents else None
        answer_of(*self._ask("unload", timeout, model, parameters=parameters))

    def unary(
        self,
        method: str,
        message: bytes,
        *,
        metadata: HeadersGiven | None = None,
        timeout: float | Timeout | EllipsisType | None = ...,
    ) -> bytes:
        """As `AsyncClient.unary`, blocking."""
        native = self._calls.unary_blocking(method, message, self._builder.manner(timeout, metadata))
        if native.grpc_code != "OK":
            raise refusal(native)
        return native.content

    def stream_infer(
        self,
        *,
        timeout: float | Timeout | EllipsisType | None = ...,
        metadata: HeadersGiven | None = None,
        return_exceptions: bool = False,
    ) -> InferStream:
        """As `AsyncClient.stream_infer`, blocking, to be used as `with`."""
        place = caller()
        manner = self._builder.lasting(timeout, metadata)
        return InferStream(lambda: self._calls.stream_blocking(manner, place), return_exceptions=return_exceptions)

    def _ask(
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
        http = self._question_over_http(question)
        return question, self._calls.ask_blocking(question, http, self._builder.manner(timeout))

    def _over_http(self, inference: Inference, binary: bool | None) -> OverHttp:
        """The request for those of the endpoints that speak HTTP."""
        if binary is None and self._binary is None:
            try:
                self._binary = self._takes_binary(inference)
            except (TransportError, DeadlineExceeded):
                # None of them answers; others may. JSON is what every server takes.
                binary = False
        return self._inference_over_http(inference, binary=bool(self._binary if binary is None else binary))

    def _takes_binary(self, inference: Inference) -> bool:
        return takes_binary(self._call("GET", "/v2", inference.question()))

    def _call(self, method: str, url: str, options: Mapping[str, Any], bits: int = 0) -> Response:
        prepared = self._builder.prepare(method, url, options)
        if bits:
            prepared = with_bits(prepared, bits)
        if options and "content" in options and isinstance(upload := prepared[3], _native.NativeUpload):
            response = Response(self._with_pieces(upload, self._native.begin(*prepared)))
        else:
            response = Response(self._native.submit_blocking(*prepared))
        if response.status_code in REDIRECTS and self._is_to_follow(response.status_code, options):
            journey = self._journey(prepared)
            while (following := journey.after(response)) is not None:
                response = Response(self._native.submit_blocking(*following))
            response.history = journey.history
        return response

    def _with_pieces(self, upload: _native.NativeUpload, pending: _native.NativePending) -> Any:
        """The answer to a request whose body this thread makes meanwhile."""
        try:
            send_pieces(upload, pending)
            return pending.wait()
        except BaseException:
            pending.cancel()
            raise
