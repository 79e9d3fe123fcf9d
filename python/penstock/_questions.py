"""Questions to inference servers besides inference, and their answers over either protocol."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from penstock import _native
from penstock._inference import refusal, refusal_of_http
from penstock._response import Response
from penstock.errors import ConfigError, ProtocolError

if TYPE_CHECKING:
    from collections.abc import Mapping

Parameter = bool | int | str
"""What goes with a request to load a model."""

_NOT_READY = (400, 503)
"""Statuses that say "no" to the question whether something is ready; Triton's is 400."""


def question_of(
    kind: str, model: str | None, version: str | None, *, ready: bool, parameters: list[tuple[str, Parameter]]
) -> _native.NativeQuestion:
    """A question for the extension."""
    return _native.NativeQuestion(kind, model, version, ready=ready, parameters=parameters)


def parameters_of(parameters: Mapping[str, Parameter] | None) -> list[tuple[str, Parameter]]:
    """Parameters as the extension takes them.

    Raises:
        ConfigError: for a value that the protocol does not carry.
    """
    for name, value in (parameters or {}).items():
        if not isinstance(value, bool | int | str):
            raise ConfigError(f"parameter {name!r} must be a bool, an int or a str, not {value!r}")
    return list((parameters or {}).items())


def answer_of(question: _native.NativeQuestion, native: _native.NativeResponse) -> Any:
    """The answer, as JSON has it.

    Raises:
        RemoteError: where the server refused it.
        ProtocolError: where it is no answer of the protocol.
    """
    if native.grpc_code is None:
        response = Response(native)
        if not response.is_success:
            raise refusal_of_http(response)
        try:
            return response.json() if response.content else {}
        except ValueError as error:
            raise ProtocolError(f"{response.url} did not answer by the open inference protocol: {error}") from error
    if native.grpc_code != "OK":
        raise refusal(native)
    return json.loads(question.answer(native.content))


def is_true(question: _native.NativeQuestion, native: _native.NativeResponse) -> bool:
    """The answer to the question whether something is live or ready; over HTTP its status is the answer."""
    if native.grpc_code is None:
        if native.status in _NOT_READY:
            return False
        response = Response(native)
        if not response.is_success:
            raise refusal_of_http(response)
        return True
    answer = answer_of(question, native)
    return bool(answer.get("ready", answer.get("live")))
