"""What owns connections: its settings, checked and as the extension takes them, a look at its pools, and its end."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from penstock import _lifecycle, _logs, _native
from penstock._explanation import Explanation
from penstock._policy import check_choice, check_count
from penstock._request import timeout_of
from penstock.errors import ConfigError
from penstock.pooling import (
    BALANCES,
    GRPC_POOL,
    Balance,
    ClientStats,
    Eject,
    Pool,
    Retry,
    Timeout,
    client_stats,
    pool_settings,
)

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from penstock._headers import Pairs

    Verify = bool | str | os.PathLike[str] | bytes
    Certificate = str | os.PathLike[str] | tuple[str | os.PathLike[str], str | os.PathLike[str]]


class ConnectionOptions(TypedDict, total=False):
    """What a client can be told about its connections; `penstock.AsyncClient` says what each is."""

    timeout: float | Timeout | None
    pool: Pool | bool | None
    balance: Balance
    retry: Retry | None
    eject: Eject | None
    verify: Verify
    cert: Certificate | None
    proxy: str | None
    trust_env: bool
    http2: bool | Literal["always"]
    max_response: int | None
    stream_window: int
    stream_memory: int


class Connections:
    """Who owns the extension's client: it looks at the pools, and closes them.

    Requests that are sent in a forked child go over connections of its own.
    """

    def __init__(self, origins: list[str], native: _native.NativeClient, pool: Pool | bool | None = None) -> None:
        self._origins = origins
        self._native = native
        self._told = ""
        """Where a file of settings had a say: a file in the working directory must not change a client unseen."""
        # What the core reports reaches `logging` through a thread, which only who asked for reports needs.
        reports = isinstance(pool, Pool) and pool.held_too_long is not None
        self._journal = _logs.acquire() if reports else None
        _lifecycle.close_at_exit(self)

    @property
    def closed(self) -> bool:
        """True after `close` or `aclose`."""
        return self._native.closed

    def stats(self) -> ClientStats:
        """What happened so far, for each endpoint, and what became of the streams."""
        return client_stats(self._native.counters(), self._native.streams())

    def explain(self) -> Explanation:
        """What the pools hold now, and why requests wait; it shows itself as text, in a notebook as a table."""
        return Explanation(self._native.explain())

    def metrics(self) -> str:
        """The pools' numbers in the OpenMetrics format, for Prometheus."""
        return self._native.metrics()

    def close(self, *, drain: bool = True, timeout: float | None = None) -> None:
        """Takes no more requests, waits for those on their way, and closes all connections. Safe to call twice.

        Args:
            drain: wait for what is on its way; without it, whoever waits for an answer gets `Closed`.
            timeout: seconds to wait at most, or `None` for as long as it takes. What is not answered then gets
                `Closed`.
        """
        self._begin_close(drain=drain)
        if not self._native.wait_closed(math.inf if timeout is None else timeout):
            self._native.give_up()
            self._native.wait_closed(math.inf)
        self._release_journal(_logs.CLOSE_SECONDS)

    async def aclose(self, *, drain: bool = True, timeout: float | None = None) -> None:
        """As `close`, without blocking the event loop."""
        self._begin_close(drain=drain)
        if not await self._native.wait_closed_async(math.inf if timeout is None else timeout):
            self._native.give_up()
            await self._native.wait_closed_async(math.inf)
        self._release_journal(0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.close(drain=exc_type is None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose(drain=exc_type is None)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return " ".join([f"<penstock.{type(self).__name__}", *self._origins, f"{state}{self._told}>"])

    def _repr_html_(self) -> str:
        from penstock import _reprs  # noqa: PLC0415  a notebook asks for it

        return _reprs.of_client(self)

    def _begin_close(self, *, drain: bool) -> None:
        self._native.begin_close()
        if not drain:
            self._native.give_up()

    def _release_journal(self, limit: float) -> None:
        journal, self._journal = self._journal, None
        if journal is not None:
            _logs.release(journal, limit)

    def _at_exit(self, deadline: float) -> None:
        self._begin_close(drain=False)
        self._native.wait_closed(max(0.0, deadline - time.monotonic()))


def native_client(
    origins: list[str],
    defaults: Pairs,
    *,
    decompress: bool,
    timeout: float | Timeout | None = Timeout(),  # noqa: B008  frozen
    pool: Pool | bool | None = None,
    balance: Balance = "p2c_first_byte",
    retry: Retry | None = None,
    eject: Eject | None = None,
    verify: Verify = True,
    cert: Certificate | None = None,
    proxy: str | None = None,
    trust_env: bool = True,
    http2: bool | Literal["always"] = True,
    max_response: int | None = None,
    stream_window: int = 1 << 20,
    stream_memory: int = 10 << 20,
) -> _native.NativeClient:
    """The extension's client.

    Raises:
        ConfigError: for a setting that cannot be.
    """
    check_choice("balance", balance, BALANCES)
    if max_response is not None:
        check_count("max_response", max_response)
    for name, size in (("stream_window", stream_window), ("stream_memory", stream_memory)):
        check_count(name, size)
        if size < 1:
            raise ConfigError(f"{name} must be at least 1 byte, not {size}")
    settings = {
        "headers": defaults,
        "pool": pool_settings(pool, Pool()),
        "grpc_pool": pool_settings(pool, GRPC_POOL),
        "timeout": timeout_of(timeout).native_settings(),
        "balance": balance,
        "retry": _of_kind("retry", retry, Retry).native_settings(),
        "eject": _of_kind("eject", eject, Eject).native_settings(),
        "tls": {**_trusted(verify), **_shown_to_servers(cert)},
        "proxy": _proxy(proxy, trust_env=trust_env),
        "http2": _http2(http2),
        "decompress": decompress,
        "max_response": max_response,
        "stream_window": stream_window,
        "stream_memory": stream_memory,
    }
    return _native.NativeClient(origins, settings)


def _of_kind(name: str, given: Any, kind: type[Any]) -> Any:
    if given is None:
        return kind()
    if not isinstance(given, kind):
        raise ConfigError(f"{name} must be a penstock.{kind.__name__}, not {given!r}")
    return given


def _trusted(verify: Verify) -> dict[str, Any]:
    if isinstance(verify, bool):
        return {"verify": verify, "ca_file": None, "ca_data": None}
    if isinstance(verify, bytes):
        return {"verify": True, "ca_file": None, "ca_data": verify}
    if isinstance(verify, str | os.PathLike):
        return {"verify": True, "ca_file": os.fspath(verify), "ca_data": None}
    raise ConfigError(
        f"verify must be True, False, the path of a PEM file of authorities, or its bytes, not {type(verify).__name__}"
    )


def _shown_to_servers(cert: Certificate | None) -> dict[str, Any]:
    if cert is None:
        return {"cert_file": None, "key_file": None}
    if isinstance(cert, str | os.PathLike):
        return {"cert_file": os.fspath(cert), "key_file": os.fspath(cert)}
    if isinstance(cert, tuple) and len(cert) == 2 and all(isinstance(each, str | os.PathLike) for each in cert):  # noqa: PLR2004
        return {"cert_file": os.fspath(cert[0]), "key_file": os.fspath(cert[1])}
    raise ConfigError(
        "cert must be the path of a PEM file with certificate and key, or a pair of paths: certificate, key"
    )


def _proxy(proxy: str | None, *, trust_env: bool) -> str | None:
    if not isinstance(trust_env, bool):
        raise ConfigError(f"trust_env must be True or False, not {trust_env!r}")
    if proxy is None:
        return "environment" if trust_env else None
    if not isinstance(proxy, str) or "://" not in proxy:
        raise ConfigError("proxy must be the URL of a proxy, http://host:port")
    return proxy


def _http2(choice: bool | Literal["always"]) -> str:
    if choice == "always":
        return "always"
    if not isinstance(choice, bool):
        raise ConfigError(f"http2 must be True, False or 'always', not {choice!r}")
    return "alpn" if choice else "never"


def checked_urls(base_url: object) -> str | list[str] | None:
    """One base URL, several, or none.

    Raises:
        ConfigError: for anything else.
    """
    if base_url is None or base_url == "":
        return None
    if isinstance(base_url, str):
        return base_url
    if not isinstance(base_url, Iterable) or isinstance(base_url, bytes):
        raise ConfigError(f"base_url must be a URL or a list of URLs, not {base_url!r}")
    urls = list(base_url)
    if not urls:
        raise ConfigError("base_url must not be an empty list")
    return urls
