"""Whose batch a model runs: the trace that it is part of, and what its requests are called."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Trace: TypeAlias = tuple[str, str | None]
"""`traceparent`, and `tracestate` where there is one."""


class Scope(Protocol):
    """What there is to say of a batch."""

    def headers(self) -> dict[str, str]: ...
    @property
    def trace_id(self) -> str | None: ...
    @property
    def span_id(self) -> str | None: ...
    @property
    def request_ids(self) -> Sequence[str]: ...


SCOPE: ContextVar[Scope | None] = ContextVar("penstock_scope", default=None)
"""The batch that runs in this context, where there is anything to say of it."""

_attached: ContextVar[Any] = ContextVar("penstock_attached", default=None)


def enter(scope: Scope | None) -> None:
    """Says in this context which batch runs from here on, to whoever asks and to OpenTelemetry, where that is in use.

    What a model calls is part of the batch's trace, with any instrumentation of OpenTelemetry.
    """
    if scope is None and SCOPE.get() is None:
        return
    SCOPE.set(scope)
    context = sys.modules.get("opentelemetry.context")
    if context is None:
        return
    if (token := _attached.get()) is not None:
        _attached.set(None)
        context.detach(token)
    if scope is not None and scope.trace_id is not None:
        propagator: Any = sys.modules.get("opentelemetry.trace.propagation.tracecontext")
        if propagator is None:
            from opentelemetry.trace.propagation import tracecontext as propagator  # noqa: PLC0415  it is in use
        extracted = propagator.TraceContextTextMapPropagator().extract(scope.headers())
        _attached.set(context.attach(extracted))


def current_trace() -> dict[str, str]:
    """What names the trace of the running batch to others, as headers.

    To be asked inside a served model, in its own thread or coroutine, and sent with what the model asks of others.
    Where all requests of the batch are of one trace it is that one; else the batch has one of its own, which is linked
    to theirs. `penstock.AsyncClient` and `penstock.Client` send it by themselves.

    Returns:
        `traceparent`, and `tracestate` where there is one; nothing where no request of the batch came with a trace or
        had one begun for it, and outside a batch.

    Example:
        >>> import penstock
        >>> penstock.current_trace()
        {}
    """
    scope = SCOPE.get()
    return {} if scope is None else scope.headers()


def of_batch() -> Trace | None:
    """The trace of the running batch, for whoever asks another model of this process."""
    scope = SCOPE.get()
    if scope is None:
        return None
    headers = scope.headers()
    parent = headers.get("traceparent")
    return None if parent is None else (parent, headers.get("tracestate"))


def of_caller() -> Trace | None:
    """The trace that whoever asks is in: of OpenTelemetry's current span, else of the running batch."""
    api = sys.modules.get("opentelemetry.trace")
    span = None if api is None else api.get_current_span().get_span_context()
    if span is None or not span.is_valid:
        return of_batch()
    parent = f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags & 1:02x}"
    return parent, span.trace_state.to_header() or None


def follower() -> Callable[[], Trace | None] | None:
    """What says which trace a caller is in; nothing where the process has set no tracer provider up by now."""
    # Whoever has set up a provider has imported this.
    api = sys.modules.get("opentelemetry.trace")
    if api is None or isinstance(api.get_tracer_provider(), api.ProxyTracerProvider):
        return None
    return of_caller


def outgoing() -> list[tuple[bytes, bytes]]:
    """Headers that carry the trace of whoever asks: of OpenTelemetry's current span, else of the running batch."""
    api = sys.modules.get("opentelemetry.trace")
    if api is not None and api.get_current_span().get_span_context().is_valid:
        from opentelemetry import propagate  # noqa: PLC0415  it is in use

        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return [(name.encode(), value.encode()) for name, value in carrier.items()]
    scope = SCOPE.get()
    return [] if scope is None else [(name.encode(), value.encode()) for name, value in scope.headers().items()]
