"""Inference by the Open Inference Protocol, version 2, from the client's side."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from penstock._policy import check_choice
from penstock._remote_errors import OF_CLASSES, OF_STATUSES
from penstock._response import Response
from penstock.errors import ConfigError, DeadlineExceeded, Overloaded, ProtocolError, RemoteError
from penstock.pooling import Timeout, check_time

if TYPE_CHECKING:
    from types import EllipsisType

    from numpy.typing import NDArray

    from penstock import _native
    from penstock._headers import Pairs
    from penstock._policy import Priority

    Inferred = tuple[str, str, str, list[tuple[str, Any]]]
    """What the extension reads out of an answer: model, version, id, outputs."""
    Asked = tuple[str, str | None, str | None, Sequence[tuple[str, Any] | tuple[str, list[int], bytes]], list[str]]
    """What the extension makes a message of: model, version, id, inputs, names of outputs."""
    OverHttp = tuple[str, str, Pairs | None, bytes]
    """The same request for an endpoint of HTTP: method, where to, headers, body."""

BINARY = "binary_tensor_data"
"""The extension of the protocol that a server names where it takes binary tensors."""

_MILLISECOND = 1e-3
_LONGEST_TENANT = 128


class InferResult(Mapping[str, Any]):
    """The outputs of a model: a mapping of arrays by name, batch axis first.

    Arrays are of their own memory. Texts are arrays of objects, which are `bytes`. NaN and infinities that came as JSON
    are NaN.

    Attributes:
        id: what the request was called, or `None`.
        model_name: the model that has answered.
        model_version: its version, or `None`.
    """

    __slots__: tuple[str, ...] = ("_outputs", "_timing", "id", "model_name", "model_version")

    def __init__(
        self,
        outputs: dict[str, NDArray[Any]],
        *,
        model_name: str,
        model_version: str | None,
        request_id: str | None,
        timing: str | _native.NativeTiming | None,
    ) -> None:
        self._outputs = outputs
        self._timing = timing
        self.id: str | None = request_id
        self.model_name: str = model_name
        self.model_version: str | None = model_version

    @property
    def timing(self) -> dict[str, float]:
        """Where the server's time went, in seconds; empty where it is not said.

        Penstock says `queue` (until the batch could be taken), `slot` (until a worker took it), `gather` (until the
        model was called), `model`, `scatter` (until the results were there) and `encode`.
        """
        timing = self._timing
        if timing is None or isinstance(timing, str):
            return _seconds(timing.split(",")) if timing else {}
        return timing.seconds()

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)

    def __repr__(self) -> str:
        outputs = ", ".join(f"{name}: {array.dtype}{list(array.shape)}" for name, array in self._outputs.items())
        return f"<InferResult of {self.model_name!r}: {outputs}>"

    def _repr_html_(self) -> str:
        from penstock import _reprs  # noqa: PLC0415  a notebook asks for it

        return _reprs.of_result(self)


def result_of_json(response: Response) -> InferResult:
    """The outputs of an answer of HTTP.

    Raises:
        ProtocolError: where it is none of the protocol.
    """
    from penstock import _oip  # noqa: PLC0415  who sends no tensors does not wait for numpy

    try:
        answer, outputs = _oip.decode_answer(response.headers, response.content)
        model = str(answer.get("model_name", ""))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ProtocolError(f"{response.url} did not answer by the open inference protocol: {error}") from error
    return InferResult(
        outputs,
        model_name=model,
        model_version=answer.get("model_version"),
        request_id=answer.get("id"),
        timing=response.headers.get("server-timing"),
    )


def result_of_message(inferred: Inferred, timing: str | _native.NativeTiming | None) -> InferResult:
    """The outputs of an answer of gRPC, or of a pipeline."""
    model, version, request_id, tensors = inferred
    outputs = {name: texts_of(value) if type(value) is tuple else value for name, value in tensors}
    return InferResult(
        outputs, model_name=model, model_version=version or None, request_id=request_id or None, timing=timing
    )


class Inference:
    """One call of `infer`, and the time that is left for it.

    Args:
        timeout: as of any request, or `...` for the client's own, which the server is not told.

    Attributes:
        terms: how it is to wait, as header fields; `None` where nothing is said of it.
    """

    def __init__(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        outputs: Iterable[str] | None,
        version: str | None,
        request_id: str | None,
        timeout: float | Timeout | EllipsisType | None,
        priority: Priority | None = None,
        tenant: str | None = None,
    ) -> None:
        if type(inputs) is not dict and not isinstance(inputs, Mapping):
            raise ConfigError(f"inputs must be a mapping of arrays by name, not {type(inputs).__name__}")
        self._model, self._version = str(model), None if version is None else str(version)
        import numpy as np  # noqa: PLC0415  as above

        self._inputs = {name: np.asarray(value) for name, value in inputs.items()}
        self._outputs = None if outputs is None else list(outputs)
        self._id = request_id
        self._timeout = timeout
        total = timeout.total if isinstance(timeout, Timeout) else None if timeout is ... else timeout
        if total is not None:
            check_time("timeout", total)
        self.terms = _terms(priority, tenant)
        self._until = None if total is None else time.monotonic() + total

    def request(self, *, binary: bool) -> tuple[str, dict[str, Any]]:
        """Where to, and the options of the request."""
        from penstock import _oip  # noqa: PLC0415  as above

        headers, body = _oip.encode(self._inputs, self._outputs, self._id, binary=binary)
        left = self._left()
        if left is not None:
            headers["x-request-timeout"] = f"{left:.6f}"
        headers.update(self.terms or {})
        return f"{model_path(self._model, self._version)}/infer", {
            "headers": headers,
            "content": body,
            **self._options(left),
        }

    def asked(self) -> Asked:
        """The same for the extension, which makes a message of gRPC of it."""
        from penstock import _oip  # noqa: PLC0415  as above

        inputs = [_oip.raw(name, array) for name, array in self._inputs.items()]
        return (self._model, self._version, self._id, inputs, self._outputs or [])

    @property
    def timeout(self) -> float | Timeout | EllipsisType | None:
        """The time that is left, as a request is given it."""
        return self._given(self._left())

    def question(self) -> dict[str, Any]:
        """The options of a request that asks something first."""
        return self._options(self._left())

    def _options(self, left: float | None) -> dict[str, Any]:
        given = self._given(left)
        return {} if given is ... else {"timeout": given}

    def _given(self, left: float | None) -> float | Timeout | EllipsisType | None:
        if self._timeout is ...:
            return ...
        return replace(self._timeout, total=left) if isinstance(self._timeout, Timeout) else left

    def _left(self) -> float | None:
        left = None if self._until is None else self._until - time.monotonic()
        if left is not None and left <= 0:
            raise DeadlineExceeded("no time was left to ask the model")
        return left


def check_terms(priority: Priority | None, tenant: str | None) -> None:
    """Refuses what is no priority, and what no tenant can be called.

    Raises:
        ConfigError: for either.
    """
    if priority is not None:
        check_choice("priority", priority, ("high", "normal", "low"))
    if tenant is not None and (
        not isinstance(tenant, str)
        or not (tenant.isascii() and tenant.isprintable())
        or not 0 < len(tenant) <= _LONGEST_TENANT
    ):
        raise ConfigError(f"tenant must be 1 to {_LONGEST_TENANT} printable characters of ASCII, not {tenant!r}")


def _terms(priority: Priority | None, tenant: str | None) -> dict[str, str] | None:
    """How a request is to wait, as header fields of either protocol."""
    if priority is None and tenant is None:
        return None
    check_terms(priority, tenant)
    terms: dict[str, str] = {}
    if priority is not None:
        terms["x-request-priority"] = priority
    if tenant is not None:
        terms["x-request-tenant"] = tenant
    return terms


def model_path(model: str, version: str | None) -> str:
    """The path of a model, or of one version of it, by the protocol."""
    path = f"/v2/models/{quote(model, safe='')}"
    return path if version is None else f"{path}/versions/{quote(version, safe='')}"


def takes_binary(response: Response) -> bool:
    """Whether a server takes and gives binary tensors, from its answer to `GET /v2`."""
    if not response.is_success:
        return False
    try:
        return BINARY in response.json()["extensions"]
    except (ValueError, LookupError, TypeError):
        return False


def result_of(native: _native.NativeResponse) -> InferResult:
    """The outputs of an answer to a request that may have gone either way.

    Raises:
        RemoteError: where the server refused it.
        ProtocolError: where it is no answer of the protocol.
    """
    if native.grpc_code is None:
        return result_of_http(Response(native))
    if native.grpc_code != "OK":
        raise refusal(native)
    return result_of_message(native.inferred(), native.header("server-timing"))


def result_of_http(response: Response) -> InferResult:
    """The same, of an answer of HTTP."""
    if response.is_success:
        return result_of_json(response)
    raise refusal_of_http(response)


def refusal(native: _native.NativeResponse | _native.NativeInferStream) -> RemoteError:
    """What a server refused a call of gRPC with, as the error that the one table has for its code."""
    code = native.grpc_code
    words = native.grpc_message or f"{native.endpoint} answered with {code}"
    error = OF_CLASSES.get(native.grpc_error or "", RemoteError)(words)
    error.code = code
    if isinstance(error, Overloaded):
        error.retry_after = getattr(native, "retry_after", None)
    return error


def refusal_of_http(response: Response) -> RemoteError:
    """What a server refused a request of HTTP with. Only in the words of the protocol does a status say so much."""
    try:
        words = str(json.loads(response.content)["error"])
    except (ValueError, LookupError, TypeError):
        error = response.error()
    else:
        error = OF_STATUSES.get(response.status_code, RemoteError)(words)
        error.status, error.body = response.status_code, response.content
        if isinstance(error, Overloaded):
            error.retry_after = response.retry_after
    return error


def texts_of(given: tuple[list[int], list[Any]]) -> NDArray[Any]:
    """A tensor of texts, of which its shape and its elements are given."""
    import numpy as np  # noqa: PLC0415  as above

    shape, texts = given
    array = np.empty(len(texts), object)
    array[:] = texts
    return array.reshape(shape)


def _seconds(metrics: list[str]) -> dict[str, float]:
    """The durations of a `Server-Timing` header, which are milliseconds: <https://www.w3.org/TR/server-timing/>."""
    found: dict[str, float] = {}
    for metric in metrics:
        name, *parameters = [part.strip() for part in metric.split(";")]
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            try:
                if key.strip().lower() == "dur":
                    found[name] = float(value.strip().strip('"')) * _MILLISECOND
            except ValueError:
                continue
    return found
