"""URLs as httpx reads, joins and quotes them, by RFC 3986: <https://www.rfc-editor.org/rfc/rfc3986>."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote, urlencode, urljoin

from penstock.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Params = str | Mapping[str, Any] | Sequence[tuple[str, Any]]

_MOST_CHARACTERS = 65_536
_PARTS = re.compile(
    r"(?:(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*):)?(?://(?P<authority>[^/?#]*))?"
    r"(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?:#.*)?",
    re.DOTALL,
)
_AUTHORITY = re.compile(r"(?:(?P<user>.*)@)?(?P<host>\[.*\]|[^:@]*)(?::(?P<port>.*))?", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NUMERIC_HOST = re.compile(r"[0-9]+(\.[0-9]+){3}")
_HOST = re.compile(r"[a-z0-9\-._~!$&'()*+,;=%]+")
_DIFFER = re.compile("[\u00df\u03c2\u200c\u200d]")
"""Characters for which the old and the new rules of IDNA lead to different hosts."""

# The sets of <https://url.spec.whatwg.org/#percent-encoded-bytes>, without letters, digits and "-._~".
_PATH_SAFE = "!$%&'()*+,/:;=@[\\]^|"
_QUERY_SAFE = "!$%&'()*+,/:;=?@[\\]^`{|}"

_PORTS = {"http": 80, "https": 443, "grpc": 80, "grpcs": 443}
_LAST_PORT = 65_535
SCHEMES = ("http", "https", "unix", "http+unix", "grpc", "grpcs", "grpc+unix")


class Url(NamedTuple):
    """The parts of a URL, quoted. A relative one has neither a scheme nor a host."""

    scheme: str
    credentials: tuple[str, str] | None
    host: str
    port: int | None
    path: str
    query: str | None

    @property
    def is_relative(self) -> bool:
        """True where it leads to whatever it is joined with."""
        return not self.scheme and not self.host

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return self.scheme + "://" + self.netloc

    @property
    def netloc(self) -> str:
        """Host and port; no port where it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def target(self) -> str:
        """Path and query, as they stand in a request."""
        path = self.path or "/"
        return path if self.query is None else f"{path}?{self.query}"

    def __str__(self) -> str:
        return self.target if self.is_relative else self.origin + self.target


def parse(text: object) -> Url:
    """The parts of a URL; a fragment is left out, it is nobody's but the reader's.

    Raises:
        ConfigError: for what is no URL, without telling a password.
    """
    if not isinstance(text, str):
        raise ConfigError(f"a URL must be a string, not {text!r}")
    if len(text) > _MOST_CHARACTERS:
        raise ConfigError(f"a URL of {len(text)} characters is longer than the limit of {_MOST_CHARACTERS}")
    if control := _CONTROL.search(text):
        raise ConfigError(f"the URL has a control character, {control[0]!r}, at position {control.start()}")
    parts = _PARTS.fullmatch(text)
    if parts is None:
        raise ConfigError("the URL cannot be read")
    scheme = (parts["scheme"] or "").lower()
    if scheme and scheme not in SCHEMES:
        raise ConfigError(
            f"a URL begins with http://, https://, unix:///, grpc:// or grpcs://; {without_user(text)!r} does not"
        )
    credentials, host, port = _authority(parts["authority"] or "", scheme)
    path = _checked_path(parts["path"], is_relative=not scheme and not host)
    query = None if parts["query"] is None else quoted(parts["query"], _QUERY_SAFE)
    return Url(scheme, credentials, host, port, path, query)


def join(base: Url, location: str) -> Url:
    """Where `location` leads from `base`: RFC 3986, section 5.2."""
    there = parse(location)
    if there.host:
        return there._replace(scheme=there.scheme or base.scheme)
    if there.scheme:
        # "https:/path", as some servers say it.
        return there._replace(host=base.host, port=base.port)
    # What stands for the origin is known to `urljoin`.
    joined = parse(urljoin(f"http://origin{base.target}", there.target if there.path else f"?{there.query or ''}"))
    return base._replace(credentials=None, path=joined.path, query=joined.query)


def with_params(url: Url, params: Sequence[tuple[str, str]]) -> Url:
    """The URL with more in its query."""
    if not params:
        return url
    more = quoted(urlencode(params), _QUERY_SAFE)
    return url._replace(query=f"{url.query}&{more}" if url.query else more)


def pairs_of(params: Params | None) -> list[tuple[str, str]]:
    """Parameters of a query, one pair for each value.

    Raises:
        ConfigError: for what is no mapping, no sequence of pairs and no string.
    """
    if not params:
        return []
    if isinstance(params, str):
        from urllib.parse import parse_qsl  # noqa: PLC0415  rarely asked for

        return parse_qsl(params, keep_blank_values=True)
    try:
        items = list(params.items() if hasattr(params, "items") else params)
        pairs: list[tuple[str, str]] = []
        for name, value in items:
            values = value if isinstance(value, list | tuple) else [value]
            pairs.extend((plain_text(name), plain_text(each)) for each in values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"params must be a mapping, a list of pairs or a string, not {params!r}") from error
    return pairs


def without_user(text: str) -> str:
    """A URL as it may be shown: without the password that it may hold."""
    return re.sub(r"//[^/?#]*@", "//", text)


def plain_text(value: object) -> str:
    """A value of a query or a form, as httpx writes it: `true`, `false`, nothing for `None`."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return value.decode()
    return str(value)


def quoted(text: str, safe: str) -> str:
    """`text` percent-encoded; a percent sign is left as it is, whatever follows it."""
    try:
        return quote(text, safe=safe)
    except UnicodeEncodeError as error:
        raise ConfigError("the URL has a lone surrogate, which is no character") from error


def _authority(text: str, scheme: str) -> tuple[tuple[str, str] | None, str, int | None]:
    parts = _AUTHORITY.fullmatch(text)
    if parts is None:
        raise ConfigError("the URL has an authority that cannot be read")
    credentials = None
    if parts["user"] is not None:
        name, _, password = parts["user"].partition(":")
        credentials = (unquote(name), unquote(password))
    port = _port(parts["port"])
    return credentials, _host(parts["host"], scheme), None if port == _PORTS.get(scheme) else port


def _host(host: str, scheme: str) -> str:
    if not host or scheme == "http+unix":
        return host
    try:
        if host.startswith("["):
            ipaddress.IPv6Address(host[1:-1])
            return host[1:-1]
        if _NUMERIC_HOST.fullmatch(host):
            return str(ipaddress.IPv4Address(host))
    except ipaddress.AddressValueError as error:
        raise ConfigError(f"{host!r} is no IP address: {error}") from error
    name = host.lower() if host.isascii() else _international(host)
    if not _HOST.fullmatch(name):
        raise ConfigError(f"{host!r} is no name of a host")
    return name


def _international(host: str) -> str:
    if found := _DIFFER.search(host):
        raise ConfigError(
            f"the host {host!r} has a {found[0]!r}, which leads elsewhere by old rules: give its xn-- form"
        )
    try:
        return host.encode("idna").decode("ascii").lower()
    except UnicodeError as error:
        raise ConfigError(f"{host!r} is no international name of a host: {error}") from error


def _port(text: str | None) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or not 0 < int(text) <= _LAST_PORT:
        raise ConfigError(f"{text!r} is no port")
    return int(text)


def _checked_path(path: str, *, is_relative: bool) -> str:
    if is_relative and path.startswith(("//", ":")):
        raise ConfigError(f"a relative URL cannot begin with {path[:2]!r}")
    if not is_relative and path and not path.startswith("/"):
        raise ConfigError("the path of a URL must begin with a slash")
    return quoted(path if is_relative else without_dots(path), _PATH_SAFE)


def without_dots(path: str) -> str:
    """An absolute `path` without its segments `.` and `..`, which never lead above its root: RFC 3986, 5.2.4."""
    if "." not in path:
        return path
    kept: list[str] = []
    segments = path.split("/")
    for segment in segments:
        if segment == "..":
            if len(kept) > 1:
                kept.pop()
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/".join(kept)
