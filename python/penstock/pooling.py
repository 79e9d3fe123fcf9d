"""How a client keeps connections: sizes, time-outs, retries, ejection, and what all of it has done so far."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from penstock._display import Table, shown
from penstock._policy import check_count, check_seconds
from penstock.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Balance = Literal["round_robin", "least_outstanding", "p2c", "p2c_first_byte"]
BALANCES: tuple[Balance, ...] = ("round_robin", "least_outstanding", "p2c", "p2c_first_byte")
Limits = tuple[float | None, float | None, float | None, float | None, float | None]
"""The time-outs of a request as the extension takes them: connect, acquire, first, idle, total."""

_MIN_SIZE = 10
_MOST_UNPOOLED = 10_000
"""Connections to an endpoint at a time, where each request has one of its own."""
_FIRST_STATUS, _LAST_STATUS = 400, 599


@dataclass(frozen=True, kw_only=True)
class Pool:
    """How many connections a client keeps to each endpoint, and for how long. Times are in seconds.

    A pool that contradicts itself is refused with `ConfigError`. A connection of gRPC is what gRPC calls a channel. A
    client that is given no pool keeps 5 to 50 of these to each of its `grpc://` endpoints.

    Attributes:
        min_size: connections that stay open when nothing happens, from the first request on: 10, or `max_size` where
            that is less.
        max_size: connections to one endpoint at most. Requests for which there is none wait, first come first served.
        acquire_timeout: time that a request waits for a connection at most; `None` leaves it to `Timeout.acquire`.
        idle_timeout: time after which a connection without work is closed; `min_size` are kept.
        max_age: time after which a connection takes no more requests, less up to 10 % so that not all end at once.
        health_interval: time between two checks of a connection without work; `None` checks none.
        streams_per_connection: requests on one HTTP/2 connection at a time at most, even where the server allows more.
        held_too_long: time after which a connection that is still in use is reported, with where it was taken, by a
            warning of the logger `penstock.pool`; `None` reports none.
    """

    min_size: int | None = None
    max_size: int = 100
    acquire_timeout: float | None = None
    idle_timeout: float | None = 300.0
    max_age: float | None = 600.0
    health_interval: float | None = 30.0
    streams_per_connection: int = 128
    held_too_long: float | None = None

    def __post_init__(self) -> None:
        for name in ("max_size", "streams_per_connection"):
            check_count(name, getattr(self, name))
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.min_size is None:
            object.__setattr__(self, "min_size", min(_MIN_SIZE, self.max_size))
        check_count("min_size", self.min_size)
        if self.min_size is not None and self.min_size > self.max_size:
            raise ConfigError(f"min_size={self.min_size} is more than max_size={self.max_size}")
        for name in ("acquire_timeout", "idle_timeout", "max_age", "health_interval", "held_too_long"):
            check_time(name, getattr(self, name))

    def native_settings(self) -> dict[str, Any]:
        """What the extension calls them."""
        return {each.name: getattr(self, each.name) for each in fields(self)} | {"reuse": True}


def pool_settings(pool: Pool | bool | None, default: Pool) -> dict[str, Any]:
    """What the extension calls the settings of a pool, or of none.

    Raises:
        ConfigError: for what is neither.
    """
    if pool is False:
        alone = Pool(
            min_size=0, max_size=_MOST_UNPOOLED, idle_timeout=None, max_age=None, health_interval=None,
            streams_per_connection=1,
        )  # fmt: skip
        return alone.native_settings() | {"reuse": False}
    if pool is None or pool is True:
        return default.native_settings()
    if not isinstance(pool, Pool):
        raise ConfigError(f"pool must be a penstock.Pool, or False for none, not {pool!r}")
    return pool.native_settings()


@dataclass(frozen=True, kw_only=True)
class Timeout:
    """How long the parts of a request may take, in seconds; `None` is no limit.

    Attributes:
        connect: to open a connection, its TLS handshake included: `ConnectTimeout`. Connections belong to the pool: the
            client's own counts, that of a single request does not.
        acquire: to wait for a connection of the pool: `AcquireTimeout`.
        first: from the request being sent to the head of its answer; of a stream, to its first event, line or bytes,
            for which comments do not count: `FirstChunkTimeout`.
        idle: between two pieces of an answer; of a stream, between two events, lines or pieces, while nothing lies
            ready to be taken: who takes late is not waited for. `IdleTimeout`.
        total: for all of it, retries and redirects included: `DeadlineExceeded`.
    """

    connect: float | None = 5.0
    acquire: float | None = 30.0
    first: float | None = 30.0
    idle: float | None = 10.0
    total: float | None = 600.0

    def __post_init__(self) -> None:
        for each in fields(self):
            check_time(each.name, getattr(self, each.name))

    def native_settings(self) -> Limits:
        """What the extension calls them."""
        return (self.connect, self.acquire, self.first, self.idle, self.total)


@dataclass(frozen=True, kw_only=True)
class Retry:
    """When a request is sent once more.

    A request of which nothing was sent is sent again whatever its method. One that was sent is sent again only if that
    does no harm: GET, HEAD, OPTIONS, PUT, DELETE and TRACE, a request with an `Idempotency-Key`, and one with
    `retry=True`.

    Attributes:
        attempts: times that a request is sent at most, the first one included.
        budget: share of all requests that may be sent again, so that retries cannot bring down what is overloaded.
        per_second: retries a second that are allowed on top of `budget`.
        statuses: HTTP statuses that count as failures of the server, to be tried elsewhere: `(502, 503)`, for example.
    """

    attempts: int = 3
    budget: float = 0.2
    per_second: float = 10.0
    statuses: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_count("attempts", self.attempts)
        if self.attempts < 1:
            raise ConfigError(f"attempts must be at least 1, not {self.attempts}")
        for name in ("budget", "per_second"):
            _check_share(name, getattr(self, name))
        object.__setattr__(self, "statuses", _statuses(self.statuses))

    def native_settings(self) -> dict[str, Any]:
        """What the extension calls them."""
        return {
            "attempts": self.attempts,
            "budget": float(self.budget),
            "per_second": float(self.per_second),
            "statuses": list(self.statuses),
        }


@dataclass(frozen=True, kw_only=True)
class Eject:
    """When an endpoint gets no requests for a while. Never are all of them left out.

    Attributes:
        failures: failures in a row after which it is left out.
        time: seconds until one request tries it again; longer each time that this fails.
    """

    failures: int = 5
    time: float = 10.0

    def __post_init__(self) -> None:
        check_count("failures", self.failures)
        if self.failures < 1:
            raise ConfigError(f"failures must be at least 1, not {self.failures}")
        check_time("time", self.time, may_be_none=False)

    def native_settings(self) -> dict[str, Any]:
        """What the extension calls them."""
        return {"failures": self.failures, "time": float(self.time)}


@dataclass(frozen=True)
class PoolStats(Table):
    """What a client has done with one endpoint so far; a table in a notebook. Times are in seconds.

    Attributes:
        endpoint: where it is; `"all"` for the sum over the endpoints.
        ejected: true while it is left out because of failures.
        outstanding: requests to it that are not over; a stream counts until its end.
        size: connections that are open.
        idle: those of them that carry nothing.
        in_use: those of them that carry a request.
        leases: requests that have a connection; more than `in_use` over HTTP/2.
        waiting: requests that wait for a connection.
        connecting: connections that are being opened.
        created: connections that were opened.
        failed: connections that could not be opened.
        acquired: requests that got a connection, each attempt counted.
        reused: those of them whose connection had carried another before.
        reuse_rate: `reused` as a share of `acquired`.
        waited: those of them that had to wait for it.
        timed_out: requests that waited until their time was up.
        cancelled: requests that left while they waited.
        refused: requests for which no connection could be opened.
        checks_passed: checks of idle connections that went well.
        checks_failed: checks that did not.
        held_too_long: connections that were held for longer than `Pool.held_too_long`.
        wait_mean: the mean wait for a connection; one that was had at once counts as none.
        wait_p50: the wait that half of the requests did not exceed; of several endpoints the longest.
        wait_p99: the wait that 99 % of them did not exceed; of several endpoints the longest.
        wait_max: the longest wait.
        retired: connections that took no more requests, by why.
    """

    endpoint: str
    ejected: bool = False
    outstanding: int = 0
    size: int = 0
    idle: int = 0
    in_use: int = 0
    leases: int = 0
    waiting: int = 0
    connecting: int = 0
    created: int = 0
    failed: int = 0
    acquired: int = 0
    reused: int = 0
    reuse_rate: float = 0.0
    waited: int = 0
    timed_out: int = 0
    cancelled: int = 0
    refused: int = 0
    checks_passed: int = 0
    checks_failed: int = 0
    held_too_long: int = 0
    wait_mean: float = 0.0
    wait_p50: float = 0.0
    wait_p99: float = 0.0
    wait_max: float = 0.0
    retired: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ClientStats(Table):
    """What a client has done so far; a table in a notebook, one row for each endpoint.

    Attributes:
        total: the sum over the endpoints.
        endpoints: `PoolStats` by endpoint.
        streams: answers that were asked for to be read as they come.
        streams_open: those of them that are not over.
        streams_cancelled: those whose caller left before their end; their servers were told.
        streams_failed: those that broke off, ran out of time or never began.
        streams_drained: those whose caller left at `data: [DONE]`, and whose connection serves on.
    """

    total: PoolStats
    endpoints: dict[str, PoolStats] = field(default_factory=dict)
    streams: int = 0
    streams_open: int = 0
    streams_cancelled: int = 0
    streams_failed: int = 0
    streams_drained: int = 0

    def _repr_html_(self) -> str:
        return rows_as_html("ClientStats", [*self.endpoints.values(), self.total])


def client_stats(counters: Iterable[Mapping[str, Any]], streams: Mapping[str, int]) -> ClientStats:
    """The statistics that the extension's counters tell."""
    pools = [PoolStats(**each) for each in counters]
    return ClientStats(_sum(pools), {pool.endpoint: pool for pool in pools}, **streams)


def _sum(pools: list[PoolStats]) -> PoolStats:
    sums: dict[str, Any] = {
        each.name: sum(getattr(pool, each.name) for pool in pools) for each in fields(PoolStats) if each.type == "int"
    }
    for name in ("wait_p50", "wait_p99", "wait_max"):
        sums[name] = max((getattr(pool, name) for pool in pools), default=0.0)
    sums["retired"] = {
        reason: sum(pool.retired.get(reason, 0) for pool in pools) for pool in pools for reason in pool.retired
    }
    acquired = max(sums["acquired"], 1)
    sums["reuse_rate"] = sums["reused"] / acquired
    sums["wait_mean"] = sum(pool.wait_mean * pool.acquired for pool in pools) / acquired
    return PoolStats(endpoint="all", ejected=bool(pools) and all(pool.ejected for pool in pools), **sums)


def rows_as_html(caption: str, rows: list[Any]) -> str:
    """Frozen dataclasses of one kind as a table: a row for each, a column for each field."""
    import html  # noqa: PLC0415  a notebook asks for it, an import of penstock should not pay

    names = [each.name for each in fields(rows[0])]
    head = "".join(f"<th>{html.escape(name.replace('_', ' '))}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(shown(getattr(row, name)))}</td>" for name in names) + "</tr>"
        for row in rows
    )
    return f"<table><caption>{html.escape(caption)}</caption><tr>{head}</tr>{body}</table>"


def check_time(name: str, value: object, *, may_be_none: bool = True) -> None:
    """Refuses what is no length of time after which something could end."""
    if value is None and may_be_none:
        return
    check_seconds(name, value)
    if value == 0:
        raise ConfigError(f"{name} must be more than 0 s" + ("; None is no limit" if may_be_none else ""))


def _check_share(name: str, value: object) -> None:
    try:
        check_seconds(name, value)
    except ConfigError:
        raise ConfigError(f"{name} must be a number that is finite and not negative, not {value!r}") from None


def _statuses(given: object) -> tuple[int, ...]:
    refused = ConfigError(f"statuses must be HTTP statuses from {_FIRST_STATUS} to {_LAST_STATUS}, not {given!r}")
    if not isinstance(given, list | tuple | set | frozenset | range):
        raise refused
    statuses = tuple(given)
    for status in statuses:
        if isinstance(status, bool) or not isinstance(status, int) or not _FIRST_STATUS <= status <= _LAST_STATUS:
            raise refused
    return statuses


GRPC_POOL = Pool(min_size=5, max_size=50)
"""What an endpoint of gRPC has where a client is given no pool."""
