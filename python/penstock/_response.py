"""Answers, shaped as those of httpx."""

from __future__ import annotations

import codecs
import json as json_format
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock._headers import Headers
from penstock.errors import RemoteError

if TYPE_CHECKING:
    from typing import Self

    from penstock import _native

_SHOWN = 200
"""Characters of a body in an error."""


class Answer:
    """What a `Response` and a stream both know of an answer: its head, and how it came."""

    __slots__: tuple[str, ...] = ("_headers", "_native", "history")

    _native: _native.NativeResponse | SavedResponse
    _headers: Headers | None
    history: tuple[Response, ...]
    """The redirects that led here, in their order."""

    @property
    def status_code(self) -> int:
        """The HTTP status."""
        return self._native.status

    @property
    def reason_phrase(self) -> str:
        """What the server says that the status means; nothing over HTTP/2."""
        return self._native.reason

    @property
    def http_version(self) -> str:
        """`"HTTP/1.1"`, or `"HTTP/2"`."""
        return self._native.http_version

    @property
    def headers(self) -> Headers:
        """The headers, by names in any case."""
        if self._headers is None:
            self._headers = Headers(self._native.raw_headers)
        return self._headers

    @property
    def url(self) -> str:
        """Where the answer came from."""
        return self._native.url

    @property
    def endpoint(self) -> str:
        """Which of the endpoints has answered."""
        return self._native.endpoint

    @property
    def reused(self) -> bool:
        """True where the connection had carried a request before."""
        return self._native.reused

    @property
    def attempts(self) -> int:
        """Times that the request was sent."""
        return self._native.attempts

    @property
    def first_byte(self) -> float:
        """Seconds from the call to the head of the answer."""
        return self._native.first_byte

    @property
    def is_informational(self) -> bool:
        """True for a status of 100 to 199."""
        return self._native.status // 100 == 1

    @property
    def is_success(self) -> bool:
        """True for a status of 200 to 299."""
        return self._native.status // 100 == 2  # noqa: PLR2004

    @property
    def is_redirect(self) -> bool:
        """True for a status of 300 to 399."""
        return self._native.status // 100 == 3  # noqa: PLR2004

    @property
    def is_client_error(self) -> bool:
        """True for a status of 400 to 499."""
        return self._native.status // 100 == 4  # noqa: PLR2004

    @property
    def is_server_error(self) -> bool:
        """True for a status of 500 to 599."""
        return self._native.status // 100 == 5  # noqa: PLR2004

    @property
    def is_error(self) -> bool:
        """True for a status of 400 to 599."""
        return self._native.status // 100 in (4, 5)

    @property
    def has_redirect_location(self) -> bool:
        """True for a redirect that says where to."""
        return self._native.status in (301, 302, 303, 307, 308) and "location" in self.headers

    def __repr__(self) -> str:
        native = self._native
        return f"<{type(self).__name__} [{native.status} {native.reason}]>".replace(" ]", "]")

    def _charset(self) -> str:
        """The encoding that the content type names, where Python knows it; else UTF-8."""
        _, _, parameters = (self._native.header("content-type") or "").partition(";")
        for parameter in parameters.split(";"):
            name, _, value = parameter.partition("=")
            if name.strip().lower() == "charset" and _is_text_encoding(value.strip().strip("\"'")):
                return value.strip().strip("\"'").lower()
        return "utf-8"

    def _error(self, content: bytes, text: str) -> RemoteError:
        native = self._native
        words = f"{native.status} {native.reason}".rstrip()
        shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
        error = RemoteError(f"{words} for url {native.url}" + (f": {shown}" if shown else ""))
        error.status, error.body = native.status, content
        return error


class Response(Answer):
    """The answer to a request, read to its end. It can be pickled.

    Attributes:
        history: the redirects that led here, in their order.
    """

    __slots__: tuple[str, ...] = ("_encoding",)

    def __init__(self, native: _native.NativeResponse | SavedResponse) -> None:
        self._native = native
        self._headers = None
        self._encoding: str | None = None
        self.history: tuple[Response, ...] = ()

    @property
    def content(self) -> bytes:
        """The body, unpacked where it was packed."""
        return self._native.content

    @property
    def encoding(self) -> str:
        """The encoding of `text`: what the content type says, else UTF-8. It can be set."""
        return self._encoding or self._charset()

    @encoding.setter
    def encoding(self, name: str) -> None:
        codecs.lookup(name)
        self._encoding = name

    @property
    def text(self) -> str:
        """The body as text; what cannot be decoded is replaced."""
        return self._native.content.decode(self.encoding, errors="replace")

    @property
    def elapsed(self) -> float:
        """Seconds from the call to the last byte of the answer."""
        return self._native.elapsed

    def json(self, **options: Any) -> Any:
        """The body, parsed as JSON.

        Args:
            **options: those of `json.loads`.

        Raises:
            json.JSONDecodeError: where it is none.
        """
        return json_format.loads(self._native.content, **options)

    @property
    def retry_after(self) -> float | None:
        """Seconds for which the server asks to be left alone: `Retry-After`, in seconds or as a date."""
        return self._native.retry_after

    def error(self) -> RemoteError:
        """The error that `raise_for_status` raises."""
        return self._error(self.content, self.text)

    def raise_for_status(self) -> Self:
        """Itself, where the status is below 400.

        Raises:
            RemoteError: otherwise, with the status and the body.
        """
        if self.is_error:
            raise self.error()
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (SavedResponse.of(self._native), self._encoding, self.history)


@dataclass(frozen=True)
class SavedResponse:
    """What the extension knows of an answer, for pickling."""

    status: int
    reason: str
    http_version: str
    url: str
    endpoint: str
    elapsed: float
    first_byte: float
    reused: bool
    attempts: int
    retry_after: float | None
    content: bytes
    raw_headers: list[tuple[bytes, bytes]]

    @classmethod
    def of(cls, native: _native.NativeResponse | SavedResponse) -> SavedResponse:
        """A copy."""
        return cls(**{name: getattr(native, name) for name in cls.__dataclass_fields__})

    def header(self, name: str) -> str | None:
        """As `NativeResponse.header`."""
        return Headers(self.raw_headers).get(name)


def _restored(saved: SavedResponse, encoding: str | None, history: tuple[Response, ...]) -> Response:
    response = Response(saved)
    response._encoding = encoding  # noqa: SLF001  one module
    response.history = history
    return response


def _is_text_encoding(name: str) -> bool:
    try:
        return codecs.lookup(name)._is_text_encoding  # noqa: SLF001  what str.encode itself asks
    except (LookupError, ValueError):
        return False
