"""Settings of a server: what each is, where its value comes from, and what is wrong with it.

A value given in code is the weakest, then comes the environment (`PENSTOCK_MAX_BODY`), and the command line is the
strongest: whoever runs a server has the last word over whoever wrote it.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from penstock.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from dataclasses import Field
    from typing import Self

_UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_MOST = (1 << 32) - 1
"""Of whatever is counted, seconds included: 136 years."""
_MOST_BYTES = (1 << 63) - 1
_MOST_PORT = (1 << 16) - 1
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


def _setting(default: Any, kind: str, text: str, choices: tuple[str, ...] = ()) -> Any:
    return field(default=default, metadata={"kind": kind, "help": text, "choices": choices})


def _resolved(
    settings: type[Any],
    keywords: Mapping[str, Any],
    command_line: Mapping[str, Any] | None,
    environment: Mapping[str, str] | None,
) -> dict[str, Any]:
    environment = os.environ if environment is None else environment
    known = {each.name for each in fields(settings)}
    if unknown := sorted(set(keywords) - known):
        raise ConfigError(f"unknown settings: {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    values: dict[str, Any] = {}
    for each in fields(settings):
        variable = f"PENSTOCK_{each.name.upper()}"
        flag = "--" + each.name.replace("_", "-")
        for source, given in (
            (each.name, keywords.get(each.name)),
            (variable, environment.get(variable)),
            (flag, (command_line or {}).get(each.name)),
        ):
            if given is not None:
                values[each.name] = _checked(each, source, given)
    return values


class _Resolved:
    """Settings that come from several sources."""

    @classmethod
    def resolve(
        cls,
        keywords: Mapping[str, Any],
        command_line: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Self:
        """Puts the values of all sources together, the strongest last; `None` stands for "not given".

        Raises:
            ConfigError: for a value that cannot be, naming the setting and where it came from, or for a keyword that is
                no setting.
        """
        return cls(**_resolved(cls, keywords, command_line, environment))


@dataclass(frozen=True, kw_only=True)
class DoorSettings(_Resolved):
    """Limits of a server's doors. Times are in seconds, sizes in bytes (or text such as "64MiB").

    Attributes:
        max_body: bytes of a request body, or of a message of gRPC, at most, packed and unpacked; more gets status 413,
            or RESOURCE_EXHAUSTED.
        max_head: bytes of a request's head at most (at least 8 KiB); more gets status 431.
        max_connections: connections at most; one more gets status 503 and is closed.
        max_in_flight: inference requests at most that are read or answered at a time; one more gets status 503, or
            RESOURCE_EXHAUSTED.
        max_streams: requests at most that one HTTP/2 connection may have open at a time; also requests at most that one
            `ModelStreamInfer` of gRPC has in flight at a time.
        header_timeout: time that a client may take to send a request's head; longer gets status 408.
        body_timeout: time that a client may take to send a body (longer gets status 408), or to take the next bytes of
            an answer.
        idle_timeout: time that a connection may stay open without a request.
        drain_timeout: time that closing waits for requests that were accepted.
        access_log: log each request, as `penstock.logs` says.
        server_timing: whether answers carry `Server-Timing`, which says in milliseconds where their time went.
        keep_alive: time without a piece of a streamed answer after which a comment is sent. The head of such an answer
            waits that long for the first piece: until then a failure is a status of its own.
        compression: `"auto"` packs streamed answers with zstd or gzip where the client accepts that and it saves a
            fifth or more, 64 of them at a time at most; `"off"` packs none.
        stream_window: bytes of one streamed answer at most that its reader has not taken yet.
        stream_memory: bytes of all streamed answers together at most that their readers have not taken yet.
        slow_reader: what becomes of a streamed answer whose reader is too slow: `"pause"` gives its request no step
            until there is room, while the others of its batch go on; `"buffer"` lets it have more than `stream_window`,
            as far as `stream_memory` goes; `"drop"` leaves out what has no room, and counts it.
        dashboard: whether `/dashboard` shows the metrics, live, in a browser.
        poll_seconds: time between looks at the model directories that are served; 0 for none but those that calls of
            the model repository, and `Server.poll`, ask for.
        repository: what calls of the model repository may do: `"full"` lists, loads and unloads models, `"read-only"`
            lists them, `"off"` answers none of it.
    """

    max_body: int = _setting(64 << 20, "size", "bytes of a request body at most (413)")
    max_head: int = _setting(64 << 10, "size", "bytes of a request's head at most (431)")
    max_connections: int = _setting(10_000, "count", "connections at most (503)")
    max_in_flight: int = _setting(10_000, "count", "inference requests in flight at most (503)")
    max_streams: int = _setting(128, "count", "open requests of one HTTP/2 connection at most")
    header_timeout: float = _setting(10.0, "seconds", "time for a request's head (408)")
    body_timeout: float = _setting(60.0, "seconds", "time for a body (408), or for taking the next bytes of an answer")
    idle_timeout: float = _setting(75.0, "seconds", "time that a connection may stay open without a request")
    drain_timeout: float = _setting(10.0, "seconds", "time that stopping waits for answers")
    access_log: bool = _setting(False, "switch", "log each request")  # noqa: FBT003
    server_timing: bool = _setting(True, "switch", "say in Server-Timing where the time of an answer went")  # noqa: FBT003
    keep_alive: float = _setting(15.0, "seconds", "time without a piece of a stream before a comment is sent")
    compression: str = _setting("auto", "choice", "whether streams are packed", ("auto", "off"))
    stream_window: int = _setting(1 << 20, "size", "bytes that one stream may hold for its reader")
    stream_memory: int = _setting(10 << 20, "size", "bytes that all streams may hold for their readers")
    slow_reader: str = _setting(
        "pause", "choice", "what a stream does that is read too slowly", ("pause", "buffer", "drop")
    )
    dashboard: bool = _setting(True, "switch", "show the metrics, live, at /dashboard")  # noqa: FBT003
    poll_seconds: float = _setting(0.0, "pause", "time between looks at --models; 0 looks on request only")
    repository: str = _setting("full", "choice", "what calls may do with the models", ("full", "read-only", "off"))


@dataclass(frozen=True, kw_only=True)
class CacheSettings(_Resolved):
    """How the models of a server come and go, where it has a cache of its own. Each process of a server has one.

    Attributes:
        preload: the models that are loaded at the start, as references ("digits" or "digits@2", with commas between
            them where a person types them); `None` for all. The others are loaded by the first request.
        memory: bytes that all models together may take; `None` for no limit.
        max_loads: loads that run at a time.
        eviction: what leaves where there is no room: `"lru"` for what was used least recently, `"gdsf"` for what is
            worth least per byte, by how often it is used and how long it takes to load.
        predict: load what is about to be asked for, by what was asked for so far.
    """

    preload: tuple[str, ...] | None = _setting(None, "names", "models that are loaded at the start, such as a,b")
    memory: int | None = _setting(None, "size", "bytes that all models together may take")
    max_loads: int = _setting(3, "count", "loads that run at a time")
    eviction: str = _setting("lru", "choice", "what leaves where there is no room", ("lru", "gdsf"))
    predict: bool = _setting(False, "switch", "load what is about to be asked for")  # noqa: FBT003


@dataclass(frozen=True, kw_only=True)
class RepositorySettings(_Resolved):
    """The models that `penstock serve` finds in a directory, and what of them may be run.

    Attributes:
        models: the directory, as `penstock.ModelDirectory` describes it; `None` for none.
        allow_python: run `model.py` of models there.
        allow_pickle: read pickles of models there (`model.joblib`, `model.pkl`), which runs what is in them.
        settle: time for which the files of a version must not have changed before it is taken up.
    """

    models: str | None = _setting(None, "directory", "a directory of models: NAME/VERSION/model.onnx")
    allow_python: bool = _setting(False, "switch", "run model.py of models there")  # noqa: FBT003
    allow_pickle: bool = _setting(False, "switch", "read pickles of models there, which runs what is in them")  # noqa: FBT003
    settle: float = _setting(2.0, "seconds", "time without a change after which a version there is taken up")


def worker_count(command_line: str | int | None, environment: Mapping[str, str] | None = None) -> int:
    """Processes that share a server's port: `--workers`, else `PENSTOCK_WORKERS`, else 1.

    Raises:
        ConfigError: for what is no whole number of at least 1, naming where it came from.
    """
    environment = os.environ if environment is None else environment
    count = 1
    for source, given in (
        ("PENSTOCK_WORKERS", environment.get("PENSTOCK_WORKERS")),
        ("--workers", command_line),
    ):
        if given is not None:
            count = _count(source, given)
    return count


def grpc_port_of(command_line: str | int | None, environment: Mapping[str, str] | None = None) -> int | None:
    """The port of a command for gRPC alone: `--grpc-port`, else `PENSTOCK_GRPC_PORT`, else none.

    Raises:
        ConfigError: for what is no port, naming where it came from.
    """
    environment = os.environ if environment is None else environment
    port = None
    for source, given in (
        ("PENSTOCK_GRPC_PORT", environment.get("PENSTOCK_GRPC_PORT")),
        ("--grpc-port", command_line),
    ):
        if given is not None:
            text = str(given).strip()
            if not (text.isascii() and text.isdigit() and int(text) <= _MOST_PORT):
                raise ConfigError(f"{source} must be a port between 0 and {_MOST_PORT}, not {given!r}")
            port = int(text)
    return port


def size_of(source: str, value: object) -> int:
    """Bytes, from a whole number or a text such as "4GiB".

    Raises:
        ConfigError: for what is neither, naming `source`.
    """
    return _size(source, value)


def _checked(setting: Field[Any], source: str, value: Any) -> Any:
    if choices := setting.metadata["choices"]:
        return _choice(source, value, choices)
    return _CHECKS[setting.metadata["kind"]](source, value)


def _choice(source: str, value: Any, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ConfigError(f"{source} must be {' or '.join(map(repr, choices))}, not {value!r}")
    return str(value)


def _size(source: str, value: Any) -> int:
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        unit = _UNITS.get(match[2].upper()) if match else None
        if match is None or unit is None:
            raise ConfigError(f"{source} must be a size such as 67108864 or '64MiB', not {value!r}")
        value = int(float(match[1]) * unit)
    return _count(source, value, _MOST_BYTES)


def _names(source: str, value: Any) -> tuple[str, ...]:
    several = value.split(",") if isinstance(value, str) else value
    if not isinstance(several, list | tuple | set | frozenset) or not all(isinstance(one, str) for one in several):
        raise ConfigError(f"{source} must be names of models, not {value!r}")
    return tuple(name for one in several if (name := one.strip()))


def _directory(source: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{source} must be the path of a directory, not {value!r}")
    return value


def _count(source: str, value: Any, most: int = _MOST) -> int:
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            raise ConfigError(f"{source} must be a whole number, not {value!r}") from None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{source} must be a whole number of at least 1, not {value!r}")
    if value > most:
        raise ConfigError(f"{source} must be at most {most}, not {value!r}")
    return value


def _seconds(source: str, value: Any) -> float:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise ConfigError(f"{source} must be a positive number of seconds, not {value!r}") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{source} must be a positive number of seconds, not {value!r}")
    if value > _MOST:
        raise ConfigError(f"{source} must be at most {_MOST} seconds, not {value!r}")
    return float(value)


def _pause(source: str, value: Any) -> float:
    if isinstance(value, str) and value.strip() in {"0", "0.0"}:
        value = 0.0
    is_zero = isinstance(value, int | float) and not isinstance(value, bool) and value == 0
    return 0.0 if is_zero else _seconds(source, value)


def _switch(source: str, value: Any) -> bool:
    if isinstance(value, str) and value.lower() in _TRUE | _FALSE:
        return value.lower() in _TRUE
    if not isinstance(value, bool):
        raise ConfigError(f"{source} must be true or false, not {value!r}")
    return value


_CHECKS = {
    "directory": _directory,
    "names": _names,
    "size": _size,
    "count": _count,
    "seconds": _seconds,
    "pause": _pause,
    "switch": _switch,
}
