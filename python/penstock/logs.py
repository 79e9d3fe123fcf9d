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
    request_id: what the client calls the request, or `None`.
    key: the name of the API key that it showed, where keys are asked for, or `None`; never the key.
    client: whom the client's certificate names, where one is asked for, or `None`.
    model: the name of the model that was asked, or `None`.
    rows: rows that the request held, or `None`.
    batch: rows in the batch that it was answered with, or `None`.
    reason: why that batch was cut, or `None`.
    load_seconds, queue_seconds, slot_seconds, gather_seconds, model_seconds, scatter_seconds, encode_seconds: where the
        time went, each or `None`; `load_seconds` where the model was not there when it was asked for.
"""

from __future__ import annotations

import json as _json
import logging
import math
from datetime import UTC, datetime
from typing import IO, Any

__all__ = ["JsonFormatter", "configure"]

TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"

_OWN_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_handler: logging.Handler | None = None


class JsonFormatter(logging.Formatter):
    """Formats any log record as one line of JSON, by RFC 8259.

    Its members are `time` (UTC, RFC 3339), `level`, `logger` and `message`, then every attribute that the record was
    given (those of an access record, or of `extra=`), and `exception` and `stack` where there are such. Values that
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


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    try:
        return _json.loads(_json.dumps(value, default=str, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return repr(value)
