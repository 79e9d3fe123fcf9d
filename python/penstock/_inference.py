"""Inference by the Open Inference Protocol, version 2, from the client's side."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from penstock.errors import ConfigError, DeadlineExceeded, ProtocolError, RemoteError
from penstock.pooling import Timeout, check_time

if TYPE_CHECKING:
    from types import EllipsisType

    from numpy.typing import NDArray

    from penstock._response import Response

BINARY = "binary_tensor_data"
"""The extension of the protocol that a server names where it takes binary tensors."""

_MILLISECOND = 1e-3


class InferResult(Mapping[str, Any]):
    """The outputs of a model: a mapping of arrays by name, batch axis first.

    Texts are arrays of objects, which are `bytes`. NaN and infinities that came as JSON are NaN.

    Attributes:
        id: what the request was called, or `None`.
        model_name: the model that has answered.
        model_version: its version, or `None`.
        timing: where the server's time went, in seconds by name (`queue`, `batch`, `model`, `encode`); empty where it
            does not say.
    """

    __slots__: tuple[str, ...] = ("_outputs", "id", "model_name", "model_version", "timing")

    def __init__(self, response: Response) -> None:
        from penstock import _oip  # noqa: PLC0415  who sends no tensors does not wait for numpy

        try:
            answer, self._outputs = _oip.decode_answer(response.headers, response.content)
            self.model_name: str = str(answer.get("model_name", ""))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ProtocolError(f"{response.url} did not answer by the open inference protocol: {error}") from error
        self.id: str | None = answer.get("id")
        self.model_version: str | None = answer.get("model_version")
        self.timing: dict[str, float] = _seconds(response.headers.get_list("server-timing", split_commas=True))

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)

    def __repr__(self) -> str:
        outputs = ", ".join(f"{name}: {array.dtype}{list(array.shape)}" for name, array in self._outputs.items())
        return f"<InferResult of {self.model_name!r}: {outputs}>"


class Inference:
    """One call of `infer`, and the time that is left for it.

    Args:
        timeout: as of any request, or `...` for the client's own, which the server is not told.
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
    ) -> None:
        if not isinstance(inputs, Mapping):
            raise ConfigError(f"inputs must be a mapping of arrays by name, not {type(inputs).__name__}")
        self._path = f"/v2/models/{quote(str(model), safe='')}"
        if version is not None:
            self._path += f"/versions/{quote(str(version), safe='')}"
        import numpy as np  # noqa: PLC0415  as above

        self._inputs = {name: np.asarray(value) for name, value in inputs.items()}
        self._outputs = None if outputs is None else list(outputs)
        self._id = request_id
        self._timeout = timeout
        total = timeout.total if isinstance(timeout, Timeout) else None if timeout is ... else timeout
        if total is not None:
            check_time("timeout", total)
        self._until = None if total is None else time.monotonic() + total

    def request(self, *, binary: bool) -> tuple[str, dict[str, Any]]:
        """Where to, and the options of the request."""
        from penstock import _oip  # noqa: PLC0415  as above

        headers, body = _oip.encode(self._inputs, self._outputs, self._id, binary=binary)
        left = self._left()
        if left is not None:
            headers["x-request-timeout"] = f"{left:.6f}"
        return f"{self._path}/infer", {"headers": headers, "content": body, **self._options(left)}

    def question(self) -> dict[str, Any]:
        """The options of a request that asks something first."""
        return self._options(self._left())

    def _options(self, left: float | None) -> dict[str, Any]:
        if self._timeout is ...:
            return {}
        return {"timeout": replace(self._timeout, total=left) if isinstance(self._timeout, Timeout) else left}

    def _left(self) -> float | None:
        left = None if self._until is None else self._until - time.monotonic()
        if left is not None and left <= 0:
            raise DeadlineExceeded("no time was left to ask the model")
        return left


def takes_binary(response: Response) -> bool:
    """Whether a server takes and gives binary tensors, from its answer to `GET /v2`."""
    if not response.is_success:
        return False
    try:
        return BINARY in response.json()["extensions"]
    except (ValueError, LookupError, TypeError):
        return False


def result_of(response: Response) -> InferResult:
    """The outputs, or the server's words as an error."""
    if response.is_success:
        return InferResult(response)
    try:
        words = str(json.loads(response.content)["error"])
    except (ValueError, LookupError, TypeError):
        response.raise_for_status()
        words = f"{response.status_code} {response.reason_phrase} for url {response.url}"
    error = RemoteError(words)
    error.status, error.body = response.status_code, response.content
    raise error


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
