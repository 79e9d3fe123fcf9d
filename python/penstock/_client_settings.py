"""What clients are like where the code that makes them does not say it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from penstock._settings_model import Resolved, Settings, setting
from penstock._settings_values import choice_of
from penstock.errors import ConfigError
from penstock.pooling import BALANCES, Eject, Pool, Retry, Timeout

if TYPE_CHECKING:
    from collections.abc import Mapping

_HTTP2: dict[str, bool | Literal["always"]] = {"on": True, "off": False, "always": "always"}
"""What clients call it."""


def _http2(source: str, value: Any) -> str:
    """As a switch, and by one word more."""
    spoken = {True: "on", False: "off", "true": "on", "false": "off"}
    return choice_of(source, spoken.get(value, value) if isinstance(value, bool | str) else value, tuple(_HTTP2))


T = TypeVar("T", Pool, Timeout, Retry, Eject)


@dataclass(frozen=True, kw_only=True)
class ClientSettings(Resolved, section="client", keywords=False, flags=False, prefix="client_"):
    """What `penstock.AsyncClient`, `penstock.Client` and the transports for httpx are like where code does not say it.

    What code says otherwise than it is by default stays. What a client trusts and says of itself (certificates,
    proxies, headers) is said in code only: a file that lies in the working directory must not decide it.

    Attributes:
        connect_timeout: time to open a connection.
        acquire_timeout: time to wait for a connection of the pool.
        first_timeout: time from the request to the head of its answer, or to the first event of a stream.
        idle_timeout: time between two pieces of an answer.
        total_timeout: time for all of it.
        pool_min_size: connections that stay open when nothing happens.
        pool_max_size: connections to one endpoint at most.
        pool_idle_timeout: time after which a connection without work is closed.
        pool_max_age: time after which a connection takes no more requests.
        pool_health_interval: time between two checks of a connection without work.
        retry_attempts: times that a request is sent at most, the first one included.
        eject_failures: failures in a row after which an endpoint is left out for a while.
        eject_time: time until one request tries it again.
        balance: which endpoint gets a request.
        http2: HTTP/2: `"on"` where a server offers it, `"off"`, or `"always"`, without TLS, too.
        follow_redirects: go where redirects lead. Of the clients only: under httpx, that decides it.
        max_redirects: redirects of one request at most, likewise.
        max_response: bytes of an answer at most that is read whole.
        stream_window: bytes of one stream at most that nobody has taken.
        stream_memory: bytes of all streams of a client at most that nobody has taken.
    """

    connect_timeout: float | None = setting(None, "seconds", "time to open a connection", none="5 s")
    acquire_timeout: float | None = setting(None, "seconds", "time to wait for a connection", none="30 s")
    first_timeout: float | None = setting(None, "seconds", "time for the head of an answer", none="30 s")
    idle_timeout: float | None = setting(None, "seconds", "time between two pieces of an answer", none="10 s")
    total_timeout: float | None = setting(None, "seconds", "time for all of a request", none="600 s")
    pool_min_size: int | None = setting(None, "count", "connections that stay open", none="10 (gRPC: 5)")
    pool_max_size: int | None = setting(None, "count", "connections to an endpoint at most", none="100 (gRPC: 50)")
    pool_idle_timeout: float | None = setting(None, "seconds", "time without work before the end", none="300 s")
    pool_max_age: float | None = setting(None, "seconds", "age at which a connection ends", none="600 s")
    pool_health_interval: float | None = setting(None, "seconds", "time between two checks", none="30 s")
    retry_attempts: int | None = setting(None, "count", "times that a request is sent at most", none="3")
    eject_failures: int | None = setting(None, "count", "failures that leave an endpoint out", none="5")
    eject_time: float | None = setting(None, "seconds", "time until it is tried again", none="10 s")
    balance: str | None = setting(None, "choice", "which endpoint gets a request", BALANCES, none="p2c_first_byte")
    http2: str | None = setting(None, "choice", "use HTTP/2", ("on", "off", "always"), none="on", check=_http2)
    follow_redirects: bool | None = setting(None, "switch", "go where redirects lead", none="off")
    max_redirects: int | None = setting(None, "count", "redirects of a request at most", none="20")
    max_response: int | None = setting(None, "size", "bytes of an answer that is read whole at most")
    stream_window: int | None = setting(None, "size", "bytes of a stream that nobody has taken", none="1 MiB")
    stream_memory: int | None = setting(None, "size", "bytes of all streams that nobody has taken", none="10 MiB")


_GROUPS: tuple[tuple[str, type[Any], dict[str, str]], ...] = (
    ("timeout", Timeout, {f"{each.name}_timeout": each.name for each in fields(Timeout)}),
    ("pool", Pool, {f"pool_{each.name}": each.name for each in fields(Pool)}),
    ("retry", Retry, {"retry_attempts": "attempts"}),
    ("eject", Eject, {"eject_failures": "failures", "eject_time": "time"}),
)
_ALONE: dict[str, Any] = {
    "balance": "p2c_first_byte",
    "http2": True,
    "max_response": None,
    "stream_window": 1 << 20,
    "stream_memory": 10 << 20,
}
"""Options that are settings of their own, with their values by default."""
_OF_SOME: dict[str, Any] = {"follow_redirects": False, "max_redirects": 20}
"""The same, of those that have them."""


def client_options(given: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The options of a client with what settings say of those that code has left as they are by default.

    Args:
        given: the options that it is made with.

    Returns:
        The options, and what the client says of itself where a file of settings was read.

    Raises:
        ConfigError: for a setting that cannot be, or where settings and code contradict each other.
    """
    settings = Settings.resolve([ClientSettings], {})
    said = {each.key: each.value for each in settings.values() if each.value is not None}
    if not said:
        return dict(given), ""
    if "http2" in said:
        said["http2"] = _HTTP2[said["http2"]]
    alone = _ALONE | {name: default for name, default in _OF_SOME.items() if name in given}
    options = {
        name: said.get(name, default) if given.get(name, default) == default else given[name]
        for name, default in alone.items()
    }
    try:
        for name, kind, names in _GROUPS:
            own = {field: said[key] for key, field in names.items() if key in said}
            if own and name in given and not isinstance(given[name], kind | None):
                continue
            if own:
                options[name] = _joined(kind, given.get(name), own)
    except ConfigError as error:
        sources = ", ".join(str(each.source) for each in settings.values() if each.value is not None)
        raise ConfigError(f"a client with {sources}: {error}") from None
    return {**given, **options}, settings.shown_file


def _joined(kind: type[T], given: T | None, said: Mapping[str, Any]) -> T:
    """What code said, with what settings say of what it has left as it is by default."""
    if given is None:
        return kind(**said)
    default = kind()
    own = {each.name: getattr(given, each.name) for each in fields(kind)}
    own = {name: value for name, value in own.items() if value != getattr(default, name)}
    return kind(**{**said, **own})
