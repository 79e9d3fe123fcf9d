"""Settings of a server: what each is, where its value comes from, and what is wrong with it.

A value given in code is the weakest, then come `penstock.toml` and the environment (`PENSTOCK_MAX_BODY`), and the
command line is the strongest: whoever runs a server has the last word over whoever wrote it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from penstock._batch_settings import BatchSettings
from penstock._client_settings import ClientSettings
from penstock._pipeline_settings import PipelineSettings
from penstock._security_settings import SecuritySettings
from penstock._settings_model import Resolved as _Resolved
from penstock._settings_model import Setting, Settings, Source
from penstock._settings_model import setting as _setting
from penstock._settings_values import choice_of, size_of
from penstock._tracing_settings import TracingSettings
from penstock._upstream_settings import UpstreamSettings

__all__ = [
    "SECTIONS",
    "BatchSettings",
    "CacheSettings",
    "ClientSettings",
    "DoorSettings",
    "ListenSettings",
    "LoggingSettings",
    "PipelineSettings",
    "RepositorySettings",
    "SecuritySettings",
    "Setting",
    "Settings",
    "Source",
    "TracingSettings",
    "UpstreamSettings",
    "size_of",
]

_LEVELS = ("debug", "info", "warning", "error")


def _level(source: str, value: Any) -> str:
    return choice_of(source, value.lower() if isinstance(value, str) else value, _LEVELS)


@dataclass(frozen=True, kw_only=True)
class ListenSettings(_Resolved, section="listen", keywords=False):
    """Where `penstock serve` listens. A server that is made in code is told so by its maker, and by nobody else.

    Attributes:
        host: the address.
        port: the port; 0 takes any that is free.
        grpc_port: a second port, for gRPC alone; 0 takes any that is free.
        workers: processes that share the port. The limits of all sections hold for each of them.
    """

    host: str = _setting("127.0.0.1", "text", "address to listen on", metavar="HOST")
    port: int = _setting(8000, "port", "port; 0 takes any that is free")
    grpc_port: int | None = _setting(None, "port", "a second port, for gRPC alone; 0 takes any that is free")
    workers: int = _setting(1, "count", "processes that share the port")


@dataclass(frozen=True, kw_only=True)
class LoggingSettings(_Resolved, section="logging", keywords=False):
    """What `penstock serve` writes to standard error. In code, `penstock.logs.configure` does it.

    Attributes:
        log_format: how log lines look: `"text"` or `"json"`.
        log_level: the lowest level that is logged: `"debug"`, `"info"`, `"warning"` or `"error"`; `access_log` is apart
            from it.
    """

    log_format: str = _setting("text", "choice", "how log lines look", ("text", "json"))
    log_level: str = _setting(
        "warning", "choice", "the lowest level that is logged; --access-log is apart from it", _LEVELS, check=_level
    )


@dataclass(frozen=True, kw_only=True)
class DoorSettings(_Resolved, section="server", title="limits"):
    """Limits of a server's doors. Times are in seconds, sizes in bytes (or text such as "64MiB").

    Attributes:
        max_body: bytes of a request body, or of a message of gRPC, at most, as sent and as unpacked; more gets status
            413, or RESOURCE_EXHAUSTED.
        max_head: bytes of a request's head at most (at least 8 KiB); more gets status 431.
        max_connections: connections at most; one more gets status 503 and is closed.
        max_in_flight: inference requests at most that are read or answered at a time, all models together; one more
            gets status 503, or RESOURCE_EXHAUSTED. Health and metrics are not counted.
        max_streams: requests at most that one HTTP/2 connection may have open at a time; the client is told the number,
            and waits. Also requests at most that one `ModelStreamInfer` of gRPC has in flight at a time.
        header_timeout: time that a client may take to send a request's head; longer gets status 408. A new connection
            that says nothing is closed without a word.
        body_timeout: time that a client may take to send a body (longer gets status 408), or to take the next bytes of
            an answer (longer, and it is dropped).
        idle_timeout: time that a connection may stay open without a request; then it is closed.
        drain_timeout: time that closing waits for requests that were accepted; what is left is cut off.
        drain_delay: time before that for which a server that closes says "not ready" and goes on as before, so that
            load balancers see it and send elsewhere.
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
    drain_delay: float = _setting(0.0, "pause", "time that stopping says 'not ready' and answers as before")
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
class CacheSettings(_Resolved, section="models"):
    """How the models of a server come and go, where it has a cache of its own. Each process of a server has one.

    Attributes:
        preload: the models that are loaded at the start, as references (`digits` or `digits@2`, with commas between
            them where a person types them); an empty text for none. The others are loaded by the first request.
        memory: bytes that all models together may take.
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
class RepositorySettings(_Resolved, section="models", keywords=False):
    """The models that `penstock serve` finds in a directory, and what of them may be run.

    Attributes:
        models: the directory, as `penstock.ModelDirectory` describes it. The file to serve may then be left out.
        allow_python: run `model.py` of models there.
        allow_pickle: read pickles of models there (`model.joblib`, `model.pkl`), which runs what is in them.
        settle: time for which the files of a version must not have changed before it is taken up.
    """

    models: str | None = _setting(None, "directory", "a directory of models: NAME/VERSION/model.onnx")
    allow_python: bool = _setting(False, "switch", "run model.py of models there")  # noqa: FBT003
    allow_pickle: bool = _setting(False, "switch", "read pickles of models there, which runs what is in them")  # noqa: FBT003
    settle: float = _setting(2.0, "seconds", "time without a change after which a version there is taken up")


SECTIONS: tuple[type[_Resolved], ...] = (
    ListenSettings,
    DoorSettings,
    SecuritySettings,
    TracingSettings,
    RepositorySettings,
    CacheSettings,
    PipelineSettings,
    UpstreamSettings,
    BatchSettings,
    ClientSettings,
    LoggingSettings,
)
"""Every class of settings, in the order in which people are shown them. What stands here is read from everywhere."""
