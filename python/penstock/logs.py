"""What Penstock says through `logging`, and two conveniences for those who have not set it up.

Loggers:
    penstock.access: one record a request at level INFO, where a server was made with `access_log=True`. Where this
        logger has no level of its own it is given INFO then.
    penstock.serve, ...: what the Rust core has to say, by the room that says it; its fields are attributes of the
        record and stand behind its message.
    penstock.logs: a WARNING where records were dropped because handlers are slower than the requests; the attribute
        `dropped` is their number.

Records are made by Rust, without the interpreter, and brought to the handlers by a thread of their own, `penstock-log`,
about 10 ms later. `created` is the time of the event. A handler that is slow or blocks delays other records, and in
the end costs records: at most 8192 wait. It never delays a request.

Attributes of an access record, for formatters (`%(status)d`) and filters:
    peer: `"address:port"` of the client, or `None`.
    protocol: `"http/1.1"`, `"http/2"` or `"grpc"`.
    method, path: of the request; the path as it was sent, without its query.
    status: of the answer, a number; of a call of gRPC, the status of HTTP that means the same.
    grpc_code: of a call of gRPC, the name of its status code, such as `"NOT_FOUND"`; else `None`.
    seconds: from the request's head to its answer.
    request_bytes, response_bytes: of the bodies.
    request_id: what the request is called: its own `id`, else its header `X-Request-Id`, else what the server calls it.
        Its answer says it in `X-Request-Id`.
    trace_id, span_id: where the request stands in a trace, as hexadecimal digits, or `None`. They are those that came
        in `traceparent`, and where the request is recorded as a span, that span's.
    key: the name of the API key that it showed, where keys are asked for, or `None`; never the key.
    client: whom the client's certificate names, where one is asked for, or `None`.
    model: the name of the model that was asked, or `None`.
    rows: rows that the request held, or `None`.
    batch: rows in the batch that it was answered with, or `None`.
    reason: why that batch was cut, or `None`.
    load_seconds, queue_seconds, slot_seconds, gather_seconds, model_seconds, scatter_seconds, encode_seconds: where the
        time went, each or `None`; `load_seconds` where the model was not there when it was asked for.

What a model logs while it runs a batch has `trace_id`, `span_id` and `request_ids`, those of the batch, with
`JsonFormatter` and wherever `BatchFilter` is on a handler.
"""

from __future__ import annotations

import json as _json
import logging
import math
from datetime import UTC, datetime
from typing import IO, Any

from penstock._scope import SCOPE

__all__ = ["BatchFilter", "JsonFormatter", "configure"]

TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"

_OWN_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_handler: logging.Handler | None = None


class BatchFilter(logging.Filter):
    """Gives every record that is logged in a model's call the attributes `trace_id`, `span_id` and `request_ids`.

    They are those of the batch that runs, and `None` and empty outside one. It lets every record through. Put it on a
    handler: `handler.addFilter(penstock.logs.BatchFilter())`.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Adds the attributes, where the record has none of them; always true."""
        if not hasattr(record, "request_ids") and record.name != "penstock.access":
            scope = SCOPE.get()
            record.trace_id = None if scope is None else scope.trace_id
            record.span_id = None if scope is None else scope.span_id
            record.request_ids = [] if scope is None else list(scope.request_ids)
        return True


class JsonFormatter(logging.Formatter):
    """Formats any log record as one line of JSON, by RFC 8259.

    Its members are `time` (UTC, RFC 3339), `level`, `logger` and `message`, then every attribute that the record was
    given (those of an access record, or of `extra=`), `trace_id`, `span_id` and `request_ids` of the batch where it is
    logged in a model's call, and `exception` and `stack` where there are such. Values that
    JSON has no word for are written as text; so are infinities and NaN.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, without an end of line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in vars(record).items():
            if name not in _OWN_ATTRIBUTES and name not in line:
                line[name] = value
        if (scope := SCOPE.get()) is not None:
            line.setdefault("trace_id", scope.trace_id)
            line.setdefault("span_id", scope.span_id)
            line.setdefault("request_ids", list(scope.request_ids))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        elif record.exc_text:
            line["exception"] = record.exc_text
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        try:
            return _json.dumps(line, default=str, allow_nan=False)
        except (TypeError, ValueError):
            # Infinities, NaN, keys that are no text, circles: rare enough to try the fast way first.
            return _json.dumps({name: _plain(value) for name, value in line.items()})


def configure(*, json: bool = False, level: int | str = "INFO", stream: IO[str] | None = None) -> None:
    """Writes everything that is logged in this process, by Penstock or by others, to one stream.

    It gives the root logger a handler and a level. Called again it replaces its own handler; those of others stay.

    Args:
        json: one JSON object a line, by `JsonFormatter`, instead of text.
        level: the lowest level that is written: a number, or a name in either case.
        stream: where to; standard error by default.

    Raises:
        ValueError: for a level that `logging` does not know.
    """
    global _handler  # noqa: PLW0603  there is one for the process, as there is one root logger
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if json else logging.Formatter(TEXT))
    logging.root.setLevel(level.upper() if isinstance(level, str) else level)
    if _handler is not None:
        logging.root.removeHandler(_handler)
    logging.root.addHandler(handler)
    _handler = handler
    from penstock import _logs  # noqa: PLC0415  who only wants the formatter needs no thread

    _logs.refresh_level()


def _look_of(handler: logging.Handler) -> str | None:
    """How a handler's lines look, where that is known without making a record."""
    formatter = handler.formatter
    if type(formatter) is JsonFormatter:
        return "json"
    is_plain = type(formatter) is logging.Formatter and formatter._fmt == TEXT and formatter.datefmt is None  # noqa: SLF001
    return "text" if is_plain and type(handler) is logging.StreamHandler else None


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    try:
        return _json.loads(_json.dumps(value, default=str, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return repr(value)
