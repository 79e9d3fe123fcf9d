"""Protobuf's text format, read without a schema.

Its rules are those of https://protobuf.dev/reference/protobuf/textformat-spec/.

A reader of our own, since a library's would have to know every field: one that Triton adds later would be an error
there, and it is a field that is named here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeAlias

from penstock.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

Value: TypeAlias = "str | int | float | Word | Message"
Message: TypeAlias = "dict[str, list[Value]]"
"""The values of each field, in their order: the format does not say which fields may be there once only."""

_MOST_DEPTH = 32
_TOKEN = re.compile(
    r"""(?P<space>(?:[ \t\r\n\f\v]+|\#[^\n]*)+)
    |(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<number>(?:0[xX][0-9a-fA-F]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[fF]?)(?![A-Za-z0-9_.]))
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<mark>[-:{}<>\[\],;])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(
    rb"\\(?:([abfnrtv?\\'\"])|([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|.)"
)
_ESCAPED = dict(zip(b"abfnrtv?\\'\"", b"\a\b\f\n\r\t\v?\\'\"", strict=True))
_CLOSING = {"{": "}", "<": ">"}


class Word(str):
    """A value without quotes: `true`, `KIND_CPU`, `inf`."""

    __slots__ = ()


def read_message(text: bytes, file: str) -> Message:
    """The fields in a text.

    Raises:
        ConfigError: where it is not in the text format, with the line.
    """
    try:
        return _Reader(text.decode("utf-8"), file).whole()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8: {error.reason} at byte {error.start}") from None


class _Reader:
    def __init__(self, text: str, file: str) -> None:
        self._file = file
        self._line = 1
        self._tokens = self._split(text)
        self._kind = self._token = ""
        self._next()

    def whole(self) -> Message:
        message = self._fields("", 0)
        if self._kind:
            raise self._wrong("the name of a field")
        return message

    def _split(self, text: str) -> Iterator[tuple[str, str]]:
        at = 0
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                shown = text[at : at + 10].splitlines()[0]
                raise ConfigError(f"{self._file}, line {self._line}: what is {shown!r}?")
            if match.lastgroup != "space":
                yield str(match.lastgroup), match[0]
            self._line += match[0].count("\n")
            at = match.end()
        yield "", ""

    def _next(self) -> str:
        """Goes to the next token, and gives the one before."""
        before = self._token
        self._kind, self._token = next(self._tokens)
        return before

    def _takes(self, mark: str) -> bool:
        if self._kind != "mark" or self._token != mark:
            return False
        self._next()
        return True

    def _wrong(self, expected: str) -> ConfigError:
        found = repr(self._token) if self._kind else "the end"
        return ConfigError(f"{self._file}, line {self._line}: {expected} was expected, not {found}")

    def _fields(self, closing: str, depth: int) -> Message:
        """The fields up to what closes the message, or to the end."""
        if depth > _MOST_DEPTH:
            raise ConfigError(f"{self._file}, line {self._line}: deeper than {_MOST_DEPTH} messages")
        message: Message = {}
        while self._kind == "word":
            values = message.setdefault(self._next(), [])
            has_colon = self._takes(":")
            values.extend(self._values(depth, has_colon=has_colon))
            if not self._takes(","):
                self._takes(";")
        if closing and not self._takes(closing):
            raise self._wrong(f"the name of a field or {closing!r}")
        return message

    def _values(self, depth: int, *, has_colon: bool) -> list[Value]:
        if not self._takes("["):
            return [self._value(depth, has_colon=has_colon)]
        values: list[Value] = []
        if self._takes("]"):
            return values
        values.append(self._value(depth, has_colon=has_colon))
        while self._takes(","):
            values.append(self._value(depth, has_colon=has_colon))
        if not self._takes("]"):
            raise self._wrong("',' or ']'")
        return values

    def _value(self, depth: int, *, has_colon: bool) -> Value:
        if self._kind == "mark" and self._token in _CLOSING:
            return self._fields(_CLOSING[self._next()], depth + 1)
        if not has_colon:
            raise self._wrong("':' or '{'")
        if self._kind == "text":
            return self._text()
        negative = self._takes("-")
        if self._kind == "number":
            number = _number(self._next())
            if number is None:
                raise self._wrong("a number that C can read")
            return -number if negative else number
        if self._kind == "word":
            return Word("-" * negative + self._next())
        raise self._wrong("a value")

    def _text(self) -> str:
        """Texts that follow one another are one."""
        parts = b""
        while self._kind == "text":
            parts += _ESCAPE.sub(_unescaped, self._next()[1:-1].encode())
        try:
            return parts.decode("utf-8")
        except UnicodeDecodeError:
            raise ConfigError(f"{self._file}, line {self._line}: a text is not UTF-8") from None


def _number(text: str) -> int | float | None:
    if text[:2] in {"0x", "0X"}:
        return int(text, 16)
    if text.isdigit():
        try:
            return int(text, 8) if text.startswith("0") else int(text)
        except ValueError:  # 08 is no number
            return None
    return float(text.rstrip("fF"))


def _unescaped(match: re.Match[bytes]) -> bytes:
    plain, octal, byte, short, long = match.groups()
    if plain is not None:
        return bytes([_ESCAPED[plain[0]]])
    if octal is not None:
        return bytes([int(octal, 8) & 0xFF])
    if byte is not None:
        return bytes([int(byte, 16)])
    code = int(short or long or b"110000", 16)
    # What is no character becomes what is no UTF-8, and is refused with it.
    return chr(code).encode("utf-8", "surrogatepass") if code <= 0x10FFFF else b"\xff"  # noqa: PLR2004  Unicode's last
