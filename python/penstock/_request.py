"""Requests: from what a caller says to what the extension sends."""

from __future__ import annotations

import re
from base64 import b64encode
from typing import TYPE_CHECKING, Any, TypedDict, cast

from penstock._body import JSON_TYPE, body_of, json_body
from penstock._headers import merged, sendable, stated_length, without
from penstock._native import VERSION
from penstock._scope import outgoing
from penstock._url import Url, join, pairs_of, parse, with_params, without_dots, without_user
from penstock.errors import ConfigError, ProtocolError
from penstock.pooling import Timeout, check_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import IO

    from penstock import _native
    from penstock._headers import HeadersGiven, Pairs
    from penstock._response import Response
    from penstock._url import Params
    from penstock.pooling import Limits

Prepared = tuple[str, str, "Pairs | None", "bytes | _native.NativeUpload | None", "Limits | None", int]
"""A request as the extension takes it: method, where to, headers, body, time-outs, options."""

Manner = tuple["Pairs | None", "Limits | None", int]
"""How a call of gRPC is sent: metadata, time-outs, options."""

AGAIN, NEVER_AGAIN, UNDECODED, BY_BYTES, AGAIN_IF_SILENT = 1, 2, 4, 8, 16
"""The options of a request: bits of a number. With `BY_BYTES`, time-outs are those of other clients: the head of the
answer comes first, and every byte counts. With the last it is sent again where a connection that had served before
broke without a word of an answer."""

REDIRECTS = frozenset({301, 302, 303, 307, 308})

_METHOD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECRET = frozenset({b"authorization", b"cookie", b"proxy-authorization"})
"""Headers that are not shown to another origin."""
_OF_A_BODY = frozenset({b"content-type", b"content-encoding", b"content-language", b"content-location", b"digest"})
_MOST_TARGETS = 1000

_DEFAULTS: Pairs = [
    (b"accept", b"*/*"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"user-agent", b"penstock/" + VERSION.encode()),
]


class RequestOptions(TypedDict, total=False):
    """What a request can be given besides its method and its URL.

    Attributes:
        params: added to the URL's query: a mapping, pairs, or a string; lists give a parameter several values.
        headers: headers, as a mapping or pairs.
        content: the body: bytes, text, a file, an iterable of bytes. Files and iterators are sent as they come, a
            piece at a time, with their length where it is known, and once: such a request is not tried again once it
            has begun. An asynchronous iterator is for `AsyncClient`, which reads files in a thread. What an iterator
            raises ends the request.
        json: the body, as JSON.
        data: the body, as a form.
        files: the body, as a form with files: a file by name, or `(file name, file[, content type[, headers]])`.
        cookies: cookies to send; a client keeps none of its own.
        auth: user and password; `None` sends those of the client not.
        timeout: seconds for all of it, or a `penstock.Timeout`; `None` is no limit.
        follow_redirects: go where a redirect leads.
        retry: `True` sends it again whatever its method, `False` never; by default the method decides.
    """

    params: Params | None
    headers: HeadersGiven | None
    content: bytes | bytearray | memoryview | str | IO[bytes] | Iterable[bytes] | None
    json: Any
    data: Mapping[str, Any] | None
    files: Any
    cookies: Mapping[str, str] | None
    auth: tuple[str, str] | None
    timeout: float | Timeout | None
    follow_redirects: bool
    retry: bool | None


_KNOWN = frozenset(RequestOptions.__annotations__)


class RequestBuilder:
    """What all requests of a client have in common, and how one becomes what the extension sends.

    Attributes:
        origins: the endpoints, for the extension.
        speaks_grpc: whether any of them speaks gRPC.
        speaks_http: whether any of them speaks HTTP, or there are none.
        defaults: headers that the extension sends with every request that does not name them.

    Raises:
        ConfigError: for what cannot be sent.
    """

    def __init__(
        self,
        base_url: str | Iterable[str] | None,
        params: Params | None,
        headers: HeadersGiven | None,
        auth: tuple[str, str] | None,
        timeout: Timeout,
        *,
        api_key: str | None = None,
    ) -> None:
        bases = [_base(text) for text in ([base_url] if isinstance(base_url, str) else base_url or ())]
        self.origins = [origin for origin, _, _ in bases]
        speaks_grpc = [origin.startswith("grpc") for origin in self.origins]
        self.speaks_grpc = any(speaks_grpc)
        self.speaks_http = not all(speaks_grpc) or not speaks_grpc
        self._prefix = _common("paths", [prefix for _, prefix, _ in bases], "/")
        credentials = _common("users", [credentials for _, _, credentials in bases], None)
        self._params = pairs_of(params)
        self._timeout = timeout
        own = merged(_DEFAULTS, sendable(headers))
        self.defaults = without(own, _SECRET)
        self._secrets = [pair for pair in own if pair[0].lower() in _SECRET]
        if (auth := credentials if auth is None else auth) is not None:
            self._secrets = [*without(self._secrets, [b"authorization"]), _basic(auth)]
        if api_key is not None:
            if auth is not None or _names(b"authorization", self._secrets):
                raise ConfigError("api_key, auth and a header named authorization exclude one another")
            self._secrets = [*self._secrets, _bearer(api_key)]
        named = any(name.lower() == b"content-type" for name, _ in self.defaults)
        self._plain = self._secrets or None
        self._with_json = self._plain if named else [*self._secrets, JSON_TYPE]
        self._targets: dict[str, str] = {}

    def prepare(self, method: str, url: str, options: Mapping[str, Any]) -> Prepared:
        """A request, ready to be sent, in the trace of whoever asks."""
        prepared = self._prepare_known(method, url, options)
        if not (trace := outgoing()):
            return prepared
        method, target, headers, body, limits, bits = prepared
        return (method, target, merged(trace, headers or []), body, limits, bits)

    def _prepare_known(self, method: str, url: str, options: Mapping[str, Any]) -> Prepared:
        if method in _METHODS:
            target = self._targets.get(url) if isinstance(url, str) else None
            if target is not None:
                if not options:
                    return (method, target, self._plain, None, None, 0)
                if len(options) == 1 and (value := options.get("json")) is not None:
                    return (method, target, self._with_json, json_body(value), None, 0)
                if type(body := options.get("content")) is bytes:
                    if len(options) == 1:
                        return (method, target, self._plain, body, None, 0)
                    if len(options) == 2 and (headers := options.get("headers")) is not None:  # noqa: PLR2004
                        return (method, target, merged(self._secrets, sendable(headers)) or None, body, None, 0)
        return self._prepare(method, url, options)

    def manner(self, timeout: object, metadata: HeadersGiven | None = None, bits: int = 0) -> Manner:
        """How a call of gRPC is sent; `...` is the client's own time-out."""
        headers = self._plain if metadata is None else merged(self._secrets, sendable(metadata)) or None
        if trace := outgoing():
            headers = merged(trace, headers or [])
        return (headers, None if timeout is ... else limits_of(timeout, self._timeout), bits)

    def silent(self) -> Timeout:
        """The client's own time-outs for an answer that may last, and say nothing for long."""
        own = self._timeout
        return Timeout(connect=own.connect, acquire=own.acquire, first=own.first, idle=None, total=None)

    def lasting(self, timeout: object, metadata: HeadersGiven | None = None) -> Manner:
        """How a stream is opened that lasts as long as it must; `...` limits no more than opening it."""
        headers, limits, bits = self.manner(timeout, metadata)
        own = self._timeout
        return (headers, (own.connect, own.acquire, None, None, None) if limits is None else limits, bits)

    def _prepare(self, method: str, url: str, options: Mapping[str, Any]) -> Prepared:
        if unknown := sorted(options.keys() - _KNOWN):
            raise TypeError(
                f"unknown options of a request: {', '.join(unknown)}; there are {', '.join(sorted(_KNOWN))}"
            )
        if not isinstance(method, str) or not _METHOD.fullmatch(method):
            raise ConfigError(f"{method!r} is no method of HTTP")
        target, credentials = self._target(url, options.get("params"))
        own = sendable(options.get("headers"))
        body, content_type = body_of(options, stated_length(options.get("headers")) if "content" in options else None)
        if content_type is not None and not _names(b"content-type", self.defaults, own):
            own = [*own, content_type]
        if cookies := options.get("cookies"):
            if _names(b"cookie", own):
                raise ConfigError("cookies and a header named cookie exclude each other")
            own = [*own, *sendable({"cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())})]
        headers = merged(self._secrets, own)
        if (auth := options.get("auth", credentials)) is not None or "auth" in options:
            headers = [*without(headers, [b"authorization"]), *([] if auth is None else [_basic(auth)])]
        limits = limits_of(options["timeout"], self._timeout) if "timeout" in options else None
        return (method.upper(), target, headers or None, body, limits, retry_bits(options.get("retry")))

    def _target(self, text: str, params: Params | None) -> tuple[str, tuple[str, str] | None]:
        """Where a request goes: a path at the endpoints or a whole URL; and the user that the URL names."""
        if not params and isinstance(text, str) and (known := self._targets.get(text)) is not None:
            return known, None
        url = parse(text)
        if url.is_relative:
            if not self.origins:
                raise ConfigError(f"{text!r} is no whole URL, and the client has no base_url to begin it with")
            url = url._replace(path=without_dots(self._prefix + url.path.lstrip("/")))
        elif url.scheme == "unix" or not url.host:
            raise ConfigError(f"the URL {without_user(text)!r} has no host")
        target = str(with_params(url, [*_not_named(self._params, pairs_of(params)), *pairs_of(params)]))
        if not params and url.credentials is None:
            if len(self._targets) >= _MOST_TARGETS:
                self._targets.clear()
            self._targets[text] = target
        return target, url.credentials

    def redirected(self, prepared: Prepared, response: Response, spent: float) -> Prepared:
        """The request that a redirect asks for: RFC 9110, section 15.4.

        Args:
            prepared: the request that was sent.
            response: the redirect.
            spent: seconds that the call has taken so far.

        Raises:
            ProtocolError: where it leads nowhere.
        """
        method, _, headers, body, limits, options = prepared
        at_socket = response.endpoint.startswith("unix:")
        # Behind a Unix socket stands a server that knows itself by other names.
        here = parse(response.url.replace(response.endpoint, "http://unix", 1) if at_socket else response.url)
        try:
            there = join(here, response.headers["location"])
        except ConfigError as error:
            raise ProtocolError(f"the redirect of {response.url} leads nowhere: {error}") from error
        if there.scheme not in ("http", "https", here.scheme) or not there.host:
            raise ProtocolError(f"the redirect of {response.url} leads to {there.scheme!r}, which is not HTTP")
        pairs = headers or []
        if not _may_see_secrets(here, there):
            pairs = without(pairs, _SECRET | {b"host"})
        if _becomes_get(method, response.status_code):
            method, body, pairs = "GET", None, without(pairs, _OF_A_BODY)
        elif body is not None and not isinstance(body, bytes):
            raise ConfigError(
                f"the redirect of {response.url} asks for the body again, which a file or an iterator gives once: "
                "give it as bytes, or follow_redirects=False"
            )
        total = self._timeout.total if limits is None else limits[4]
        if total is not None:
            limits = (*(limits or self._timeout.native_settings())[:4], max(total - spent, 1e-3))
        target = there.target if at_socket and there.origin == here.origin else str(there)
        return (method, target, pairs or None, body, limits, options)


def with_bits(prepared: Prepared, bits: int) -> Prepared:
    """The request, with more options."""
    method, target, headers, body, limits, options = prepared
    return (method, target, headers, body, limits, options | bits)


def limits_of(given: object, otherwise: Timeout) -> Limits:
    """The time-outs that `timeout=` stands for.

    A number is the total of a call: of the others, the time to connect stays, so that another endpoint can be tried.
    """
    if isinstance(given, Timeout):
        return given.native_settings()
    if given is None:
        return (None, None, None, None, None)
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise ConfigError(f"timeout must be a number of seconds, a penstock.Timeout or None, not {given!r}")
    check_time("timeout", given)
    return (otherwise.connect, None, None, None, float(given))


def timeout_of(given: object) -> Timeout:
    """The time-outs of a client, from its `timeout=`."""
    if isinstance(given, Timeout):
        return given
    connect, acquire, first, idle, total = limits_of(given, Timeout())
    return Timeout(connect=connect, acquire=acquire, first=first, idle=idle, total=total)


def _base(text: str) -> tuple[str, str, tuple[str, str] | None]:
    """The origin, the path that all requests begin with, and the user of a base URL."""
    if isinstance(text, str) and text.startswith(("unix:", "grpc+unix:")):
        return text, "/", None
    url = parse(text)
    if not url.scheme or not url.host:
        raise ConfigError(
            f"base_url must begin with http://, https://, unix:///, grpc:// or grpcs:// and a host, "
            f"not {without_user(text)!r}"
        )
    if url.query is not None:
        raise ConfigError("base_url cannot have a query: give it as params=")
    if url.scheme.startswith("grpc") and url.path not in ("", "/"):
        raise ConfigError(f"the base_url {without_user(text)!r} has a path, and calls of gRPC have their own")
    return url.origin, url.path if url.path.endswith("/") else url.path + "/", url.credentials


def _common(what: str, values: list[Any], otherwise: Any) -> Any:
    if any(value != values[0] for value in values):
        raise ConfigError(f"the base URLs have different {what}: a request can go to any of them")
    return values[0] if values else otherwise


def _not_named(defaults: list[tuple[str, str]], own: list[tuple[str, str]]) -> list[tuple[str, str]]:
    named = {name for name, _ in own}
    return [pair for pair in defaults if pair[0] not in named] if named else defaults


def _names(header: bytes, *several: Pairs) -> bool:
    return any(name.lower() == header for pairs in several for name, _ in pairs)


def _basic(auth: object) -> tuple[bytes, bytes]:
    if not (isinstance(auth, tuple) and len(auth) == 2 and all(isinstance(each, str) for each in auth)):  # noqa: PLR2004
        raise ConfigError("auth must be a pair of strings: user and password")
    return (b"authorization", b"Basic " + b64encode(":".join(cast("tuple[str, str]", auth)).encode()))


def _bearer(api_key: object) -> tuple[bytes, bytes]:
    # It is a secret, so the error does not tell it.
    if (
        not isinstance(api_key, str)
        or not api_key.isascii()
        or not api_key.isprintable()
        or " " in api_key
        or not api_key
    ):
        raise ConfigError("api_key must be a text of printable characters of ASCII, without blanks")
    return (b"authorization", b"Bearer " + api_key.encode())


def retry_bits(retry: object, otherwise: int = 0) -> int:
    """The options that `retry=` stands for.

    Raises:
        ConfigError: where it is none of `True`, `False` and `None`.
    """
    if retry is None:
        return otherwise
    if not isinstance(retry, bool):
        raise ConfigError(f"retry must be True, False or None, not {retry!r}")
    return AGAIN if retry else NEVER_AGAIN


def _may_see_secrets(here: Url, there: Url) -> bool:
    """The same origin; or the same host with TLS, which many servers insist on."""
    if here.origin == there.origin:
        return True
    upgraded = here.scheme == "http" and there.scheme == "https" and here.port is None and there.port is None
    return here.host == there.host and upgraded


def _becomes_get(method: str, status: int) -> bool:
    """What browsers do, and with them everyone."""
    if status == 303 or status == 302:  # noqa: PLR1714, PLR2004  two rules that happen to agree
        return method not in ("GET", "HEAD")
    return status == 301 and method == "POST"  # noqa: PLR2004
