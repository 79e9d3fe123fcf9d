"""Spans of OpenTelemetry, made of what the core has recorded, by the SDK that the user has set up.

They are made in bursts, on the thread that brings log records, long after the requests were answered: no request waits
for one. Their numbers were given by the core, because they are in `traceparent` of what was asked of others meanwhile.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeAlias

from penstock._scope import follower
from penstock.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from penstock._tracing_settings import TracingSettings

Ids: TypeAlias = tuple[int, int]
"""The numbers of a trace and of a span."""

Recorded: TypeAlias = tuple[
    str,
    tuple[Ids, int | None, str | None],
    tuple[int, int],
    dict[str, Any],
    list[Ids],
    str | None,
    tuple[int, int] | None,
]
"""What the core has recorded: `"request"` or `"batch"`; its numbers, its parent and `tracestate`; when it began and
ended, in nanoseconds since 1970; attributes; links; why it failed; from when until when it waited."""

_LOG = logging.getLogger("penstock.tracing")
_NAMES = {"request": "penstock.request", "batch": "penstock.batch"}


def ratio_in_force(settings: TracingSettings) -> float | None:
    """The share of requests without a trace that is recorded; `None` where nothing is.

    Raises:
        ConfigError: where tracing is "on" and `opentelemetry-api` is not there.
    """
    if settings.tracing == "off":
        return None
    if settings.tracing == "auto":
        return None if follower() is None else settings.trace_ratio
    try:
        import opentelemetry.trace  # noqa: F401, PLC0415  an extra: who does not trace needs none
    except ImportError as error:
        raise ConfigError("tracing='on' needs opentelemetry-api: pip install 'penstock[otel]'") from error
    return settings.trace_ratio


class _Numbers:
    """Gives the next span the numbers that the core has given it already."""

    def __init__(self) -> None:
        self.trace_id = 0
        self.span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id

    def is_trace_id_random(self) -> bool:
        """The core's are: https://www.w3.org/TR/trace-context-2/#random-trace-id-flag."""
        return True


class Spans:
    """Makes spans, on one thread."""

    def __init__(self) -> None:
        self._provider: Any = None
        self._tracer: Any = None
        self._numbers = _Numbers()
        self._failed = False

    def add(self, several: Iterable[Recorded]) -> None:
        """Makes spans; what a processor of the user raises is logged once, and loses that span alone."""
        for recorded in several:
            try:
                self._add(recorded)
            except Exception:  # noqa: BLE001  a span is never worth the thread
                if not self._failed:
                    _LOG.exception("a span could not be made; further failures are not logged")
                self._failed = True

    def _add(self, recorded: Recorded) -> None:
        from opentelemetry import trace  # noqa: PLC0415  an extra

        kind, place, times, attributes, links, failure, waited = recorded
        tracer = self._found(trace)
        linked = [trace.Link(_context(trace, link)) for link in links]
        role = trace.SpanKind.SERVER if kind == "request" else trace.SpanKind.INTERNAL
        given = {"kind": role, "start_time": times[0], "attributes": attributes, "links": linked}
        span = self._begin(trace, tracer, _NAMES[kind], place, **given)
        if failure is not None:
            span.set_status(trace.Status(trace.StatusCode.ERROR, failure))
        if waited is not None and span.is_recording():
            own = span.get_span_context()
            # Nobody was told its number: any will do.
            place = ((own.trace_id, _another(own.span_id)), own.span_id, None)
            wait = self._begin(trace, tracer, "penstock.queue", place, start_time=waited[0])
            wait.end(end_time=waited[1])
        span.end(end_time=times[1])

    def _begin(
        self,
        trace: Any,
        tracer: Any,
        name: str,
        place: tuple[Ids, int | None, str | None],
        **given: Any,
    ) -> Any:
        (trace_id, span_id), parent, state = place
        self._numbers.trace_id, self._numbers.span_id = trace_id, span_id
        above = trace.INVALID_SPAN
        if parent is not None:
            # Of these alone a request has its parent in another process.
            remote = name == _NAMES["request"]
            above = trace.NonRecordingSpan(_context(trace, (trace_id, parent), state, remote=remote))
        # Not what is current on this thread: the very span that the request came from.
        context = trace.set_span_in_context(above)
        return tracer.start_span(name, context, **given)

    def _found(self, trace: Any) -> Any:
        """The tracer of the provider that is in force now."""
        provider = trace.get_tracer_provider()
        if provider is not self._provider:
            from penstock import __version__  # noqa: PLC0415  it is being imported when this module is

            tracer = provider.get_tracer("penstock", __version__)
            # The SDK's tracers ask this for their numbers. Others give their own: then what was asked of others on
            # behalf of a request is in its trace, and below no span of it.
            if hasattr(tracer, "id_generator"):
                tracer.id_generator = self._numbers
            self._provider, self._tracer = provider, tracer
        return self._tracer


def _context(trace: Any, ids: Ids, state: str | None = None, *, remote: bool = False) -> Any:
    vendors = trace.TraceState.from_header([state]) if state else None
    return trace.SpanContext(*ids, is_remote=remote, trace_flags=trace.TraceFlags(1), trace_state=vendors)


def _another(span_id: int) -> int:
    """A number that no other span of the trace has, as good as certainly."""
    return (span_id * 0x9E3779B97F4A7C15 + 1) % (1 << 64) or 1
