"""Bodies of requests: what they are made from, and the header that says so."""

from __future__ import annotations

import json
import mimetypes
import re
import secrets
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from penstock._headers import sendable
from penstock._uploads import bytes_of, upload_of
from penstock._url import pairs_of, plain_text
from penstock.errors import ConfigError

if TYPE_CHECKING:
    from penstock import _native
    from penstock._headers import Pairs

JSON_TYPE = (b"content-type", b"application/json")
_FORM_TYPE = (b"content-type", b"application/x-www-form-urlencoded")

_FORM_NAME = re.compile(r'["\\\x00-\x1a\x1c-\x1f]')
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def json_body(value: Any) -> bytes:
    """`value` as JSON without spaces, in UTF-8.

    Raises:
        ConfigError: for what JSON has no words for, NaN and infinities included.
    """
    try:
        return _encode(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"json cannot be encoded: {error}") from error


def body_of(
    options: Mapping[str, Any], stated: int | None = None
) -> tuple[bytes | _native.NativeUpload | None, tuple[bytes, bytes] | None]:
    """The body that `content`, `json`, `data` and `files` stand for, and its content type.

    Args:
        options: the options of a request.
        stated: the length that a header states.

    Raises:
        ConfigError: where several are given, or one cannot be sent.
    """
    content, value = options.get("content"), options.get("json")
    data, files = options.get("data"), options.get("files")
    given = [name for name in ("content", "json", "data", "files") if options.get(name) is not None]
    if len(given) > 1 and given != ["data", "files"]:
        raise ConfigError(f"{' and '.join(given)} exclude each other: a request has one body")
    if content is not None:
        return upload_of(content, stated) or content_body(content), None
    if value is not None:
        return json_body(value), JSON_TYPE
    if data is not None and not isinstance(data, Mapping):
        raise ConfigError("data must be a mapping, it is sent as a form; bytes and text are sent as content=")
    if files is not None:
        return _multipart(data or {}, files)
    if data is not None:
        return urlencode(pairs_of(data)).encode(), _FORM_TYPE
    return None, None


def content_body(content: Any) -> bytes:
    """The bytes of what was given as `content`: text, bytes, what has a buffer, a file, an iterable of bytes.

    Raises:
        ConfigError: for anything else.
    """
    if isinstance(content, bytes):
        return content
    if isinstance(content, str):
        return content.encode()
    if hasattr(content, "read"):
        return bytes_of(content.read(), "the file given as content")
    try:
        return bytes(memoryview(content))
    except TypeError:
        pass
    if not isinstance(content, Iterable) or isinstance(content, Mapping):
        raise ConfigError(f"content must be bytes, text, a file or an iterable of bytes, not {type(content).__name__}")
    return b"".join(bytes_of(part, "an iterable given as content") for part in content)


def _multipart(data: Mapping[str, Any], files: Any) -> tuple[bytes, tuple[bytes, bytes]]:
    """A form with files: RFC 7578, with names quoted as browsers do."""
    boundary = secrets.token_hex(16).encode()
    parts = [_field(name, value) for name, value in _fields(data)]
    try:
        items = list(files.items() if isinstance(files, Mapping) else files)
        parts += [_file(name, value) for name, value in items]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"files must be a mapping or a list of pairs: {error}") from error
    body = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + boundary + b"--\r\n"
    return body, (b"content-type", b"multipart/form-data; boundary=" + boundary)


def _fields(data: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [
        (name, each) for name, value in data.items() for each in (value if isinstance(value, list | tuple) else [value])
    ]


def _field(name: str, value: Any) -> bytes:
    return _head(name, None, []) + (value if isinstance(value, bytes) else plain_text(value).encode())


def _file(name: str, value: Any) -> bytes:
    filename, content_type, headers = None, None, None
    if isinstance(value, tuple):
        filename, file, *rest = value
        content_type = rest[0] if rest else None
        headers = rest[1] if len(rest) > 1 else None
    else:
        file = value
        filename = PurePath(str(getattr(value, "name", "upload"))).name
    more = sendable(headers)
    if content_type is None and filename:
        content_type = mimetypes.guess_type(filename)[0] or "application/octet-stream"
    if content_type is not None and not any(each.lower() == b"content-type" for each, _ in more):
        more = [*more, *sendable({"Content-Type": content_type})]
    return _head(name, filename, more) + content_body(file)


def _head(name: str, filename: str | None, headers: Pairs) -> bytes:
    lines = [b'Content-Disposition: form-data; name="' + _form_name(name) + b'"']
    if filename:
        lines[0] += b'; filename="' + _form_name(filename) + b'"'
    lines += [header + b": " + value for header, value in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _form_name(name: object) -> bytes:
    if not isinstance(name, str):
        raise ConfigError(f"the names of a form are strings, not {name!r}")
    return _FORM_NAME.sub(lambda found: "\\\\" if found[0] == "\\" else f"%{ord(found[0]):02X}", name).encode()
