"""Transports: Penstock's connections under the clients of httpx and httpx2, and of whatever is built upon them.

```python
client = httpx.AsyncClient(transport=penstock.transport.AsyncTransport())
client = openai.AsyncOpenAI(http_client=httpx2.AsyncClient(transport=penstock.transport.AsyncTransport()))
```

The clients keep their own rules for redirects, cookies, authentication and unpacking; their limits of connections and
their proxies count no more, those of the transport do. Neither httpx nor httpx2 needs to be installed for the other.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING, Any

from penstock._client_settings import client_options
from penstock._connecting import Connections, checked_urls, native_client
from penstock._request import BY_BYTES, UNDECODED, RequestBuilder, timeout_of
from penstock.errors import (
    AcquireTimeout,
    Closed,
    ConfigError,
    ConnectFailed,
    ConnectTimeout,
    DeadlineExceeded,
    PenstockError,
    ProtocolError,
    StreamInterrupted,
    TransportError,
    WriteFailed,
)
from penstock.pooling import Timeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator
    from types import ModuleType
    from typing import Unpack

    from penstock import _native
    from penstock._connecting import ConnectionOptions
    from penstock._request import Prepared
    from penstock.pooling import Limits

__all__ = ["AsyncTransport", "Transport"]

_PACKAGES = ("httpx", "httpx2")
_NOT_SENT = frozenset({b"content-length", b"transfer-encoding", b"connection", b"keep-alive"})
"""Headers about the connection and about the length of a body, which are the extension's to write."""

# The first that fits.
_ERRORS = (
    (AcquireTimeout, "PoolTimeout"),
    (ConnectTimeout, "ConnectTimeout"),
    (DeadlineExceeded, "ReadTimeout"),
    (ConnectFailed, "ConnectError"),
    (WriteFailed, "WriteError"),
    (ProtocolError, "RemoteProtocolError"),
    (TransportError, "ReadError"),
    (Closed, "TransportError"),
    (ConfigError, "LocalProtocolError"),
    (PenstockError, "TransportError"),
)


if TYPE_CHECKING:
    import httpx
    import httpx2

    class _AsyncBase(httpx.AsyncBaseTransport, httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: Any) -> Any: ...

    class _Base(httpx.BaseTransport, httpx2.BaseTransport):
        def handle_request(self, request: Any) -> Any: ...

else:
    _AsyncBase = _Base = object


class _BaseTransport(Connections):
    """What both transports have in common."""

    def __init__(self, base_url: str | Iterable[str] | None = None, **options: Unpack[ConnectionOptions]) -> None:
        builder = RequestBuilder(checked_urls(base_url), None, None, None, Timeout())
        self._endpoints = frozenset(builder.origins)
        if "timeout" in options:
            options["timeout"] = timeout_of(options["timeout"])
        chosen, told = client_options(options)
        native = native_client(builder.origins, [], decompress=False, **chosen)
        super().__init__(builder.origins, native, options.get("pool"))
        self._told = told

    def _prepared(self, request: Any, body: bytes) -> Prepared:
        """An httpx request as the extension takes it."""
        url = request.url
        target = url.raw_path.decode("ascii")
        headers = [(name, value) for name, value in request.headers.raw if name.lower() not in _NOT_SENT]
        # What follows from the URL is the extension's to write.
        headers = [pair for pair in headers if pair[0].lower() != b"host" or pair[1] != url.netloc]
        origin = f"{url.scheme}://{url.netloc.decode('ascii')}"
        if origin not in self._endpoints:
            target = origin + target
        return (request.method, target, headers, body or None, _limits(request), UNDECODED | BY_BYTES)


class AsyncTransport(_BaseTransport, _AsyncBase):
    """Penstock's connections for `httpx.AsyncClient` and `httpx2.AsyncClient`.

    The time-outs of a request are those that httpx names: `pool` to wait for a connection, `read` for the head of the
    answer and between two pieces of it. Connections belong to the pool, so their `connect` is that of `timeout=` here.
    Failures are httpx's exceptions, Penstock's are their cause. One transport serves several event loops and threads;
    the client that it was given to closes it.

    Args:
        base_url: endpoints over which the requests to any one of them are spread; `None` sends each where it says.
        **options: of `penstock.AsyncClient`: `pool`, `balance`, `retry`, `eject`, `verify`, `cert`, `proxy`,
            `trust_env`, `http2`, `max_response`; and `timeout` for requests that name none.

    Raises:
        ConfigError: for a setting that cannot be.
    """

    async def handle_async_request(self, request: Any) -> Any:
        """Sends a request of httpx or httpx2 and gives its answer as theirs, to be read while it arrives."""
        package = _package_of(request)
        _check_scheme(package, request)
        body = await request.aread()
        with _Translated(package):
            future = self._native.stream(*self._prepared(request, body))
            try:
                stream = await future
            except BaseException:
                self._native.cancel(future)
                raise
        return _response(package, stream, _async_bytes(package)(package, stream))


class Transport(_BaseTransport, _Base):
    """As `AsyncTransport`, blocking, for `httpx.Client` and `httpx2.Client`."""

    def handle_request(self, request: Any) -> Any:
        """Sends a request of httpx or httpx2 and gives its answer as theirs, to be read while it arrives."""
        package = _package_of(request)
        _check_scheme(package, request)
        body = request.read()
        with _Translated(package):
            stream = self._native.stream_blocking(*self._prepared(request, body))
        return _response(package, stream, _bytes(package)(package, stream))


class _Translated:
    """Raises Penstock's errors as those of a package."""

    def __init__(self, package: ModuleType) -> None:
        self._package = package

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: object) -> None:
        found = error.__cause__ if isinstance(error, StreamInterrupted) else error
        for ours, theirs in _ERRORS:
            if isinstance(found, ours):
                raise getattr(self._package, theirs)(str(error)) from error


def _package_of(request: Any) -> ModuleType:
    """Which of the packages a request is of; a user's own subclass is of the package that it extends."""
    for kind in type(request).__mro__:
        name = kind.__module__.partition(".")[0]
        if name in _PACKAGES:
            return sys.modules[name]
    raise ConfigError(f"a request of httpx or httpx2 is expected, not {type(request).__name__}")


def _check_scheme(package: ModuleType, request: Any) -> None:
    if request.url.scheme not in ("http", "https", "http+unix"):
        raise package.UnsupportedProtocol(f"{request.url.scheme!r} is neither http nor https")


def _limits(request: Any) -> Limits | None:
    """The time-outs that httpx has put into a request."""
    given = request.extensions.get("timeout")
    if given is None:
        return None
    read = given.get("read")
    return (given.get("connect"), given.get("pool"), read, read, None)


def _response(package: ModuleType, stream: _native.NativeStream, body: Any) -> Any:
    native = stream.response
    extensions = {"http_version": native.http_version.encode(), "reason_phrase": native.reason.encode("latin-1")}
    return package.Response(native.status, headers=native.raw_headers, stream=body, extensions=extensions)


@cache
def _async_bytes(package: ModuleType) -> type[Any]:
    """A stream of bytes that the package takes for one of its own."""

    class AsyncBytes(package.AsyncByteStream):  # type: ignore[misc, name-defined]  # known when a request comes
        def __init__(self, package: ModuleType, stream: _native.NativeStream) -> None:
            self._package = package
            self._stream = stream

        async def __aiter__(self) -> AsyncIterator[bytes]:
            with _Translated(self._package):
                while (chunk := self._stream.take()) is not None:
                    if chunk is False:
                        await self._stream.wait()
                    else:
                        yield chunk

        async def aclose(self) -> None:
            self._stream.close()

    return AsyncBytes


@cache
def _bytes(package: ModuleType) -> type[Any]:
    """As above, blocking."""

    class Bytes(package.SyncByteStream):  # type: ignore[misc, name-defined]  # known when a request comes
        def __init__(self, package: ModuleType, stream: _native.NativeStream) -> None:
            self._package = package
            self._stream = stream

        def __iter__(self) -> Iterator[bytes]:
            with _Translated(self._package):
                while (chunk := self._stream.take()) is not None:
                    if chunk is False:
                        self._stream.wait_blocking()
                    else:
                        yield chunk

        def close(self) -> None:
            self._stream.close()

    return Bytes
