"""Settings of tracing: whether requests are recorded as spans, and which."""

from __future__ import annotations

from dataclasses import dataclass

from penstock._settings_model import Resolved, setting


@dataclass(frozen=True, kw_only=True)
class TracingSettings(Resolved, section="tracing", title="tracing"):
    """Which requests become spans of OpenTelemetry, made with the SDK that the process has set up.

    Whatever these say, `traceparent` and `tracestate` are passed on.

    Attributes:
        tracing: `"on"` records requests and batches as spans, and is refused where `opentelemetry-api` is missing;
            `"auto"` does so where the process has set up a tracer provider when the server starts; `"off"` does not.
        trace_ratio: of the requests that come without a trace, the share that is recorded. Those that come with one are
            recorded where their sender records it.
        trace_limit: of the requests that come without a trace, those that are recorded in a second at most: Python's
            SDK takes tens of microseconds for each.
    """

    tracing: str = setting("auto", "choice", "whether requests become spans of OpenTelemetry", ("auto", "on", "off"))
    trace_ratio: float = setting(0.01, "share", "of requests that come without a trace, the share that is recorded")
    trace_limit: int = setting(100, "count", "of these, those that are recorded in a second at most")
