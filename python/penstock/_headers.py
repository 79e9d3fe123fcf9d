"""Headers: those of an answer as a mapping, those of a request as pairs of bytes that are safe to send."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from penstock.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

Pairs = list[tuple[bytes, bytes]]
HeadersGiven = Mapping[str, str | bytes] | Mapping[bytes, str | bytes] | Iterable[tuple[str | bytes, str | bytes]]

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NOT_IN_A_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_OF_THE_BODY = {b"content-length", b"transfer-encoding"}
"""The extension says how long a body is: two answers to that question are how requests are smuggled."""


class Headers(Mapping[str, str]):
    """Headers of an answer, whatever the case of their names; those that came several times are joined by commas.

    Args:
        pairs: names and values, in the order in which they came.
    """

    __slots__ = ("_pairs", "_values")

    def __init__(self, pairs: Iterable[tuple[str | bytes, str | bytes]]) -> None:
        self._pairs = [(_bytes_of(name), _bytes_of(value)) for name, value in pairs]
        self._values: dict[str, str] = {}
        for name, value in self.multi_items():
            self._values[name] = f"{self._values[name]}, {value}" if name in self._values else value

    @property
    def raw(self) -> Pairs:
        """Names and values as they came."""
        return list(self._pairs)

    def multi_items(self) -> list[tuple[str, str]]:
        """Names in lower case and values, one pair for each that came."""
        return [(_text_of(name).lower(), _text_of(value)) for name, value in self._pairs]

    def get_list(self, name: str, *, split_commas: bool = False) -> list[str]:
        """The values that came under a name, one for each that came.

        Args:
            name: the name, in any case.
            split_commas: take values apart that one header names together.
        """
        values = [value for each, value in self.multi_items() if each == name.lower()]
        return [part.strip() for value in values for part in value.split(",")] if split_commas else values

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Headers):
            return sorted(self.multi_items()) == sorted(other.multi_items())
        if isinstance(other, Mapping):
            return self._values == {str(name).lower(): value for name, value in other.items()}
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as every mapping

    def __repr__(self) -> str:
        return f"Headers({self._values})"


def sendable(given: HeadersGiven | None) -> Pairs:
    """Headers of a request as pairs of bytes. What tells the length of a body is left out: it is known without.

    Raises:
        ConfigError: for a name that is no token, or a value that cannot stand in a header.
    """
    if not given:
        return []
    items: Any = given.raw if isinstance(given, Headers) else given
    is_mapping = type(items) is dict or isinstance(items, Mapping)
    try:
        pairs = [(name, value) for name, value in (items.items() if is_mapping else items)]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"headers must be a mapping or a list of pairs, not {given!r}") from error
    named = [(_known_name(name) if type(name) is str else _name(name), value) for name, value in pairs]
    sent = [(name, _value(name, value)) for name, value in named]
    return [(name, value) for name, value in sent if name.lower() not in _OF_THE_BODY]


def stated_length(given: HeadersGiven | None) -> int | None:
    """The length of the body that the caller states himself."""
    pairs: Any = given.items() if isinstance(given, Mapping) else given or ()
    for name, value in pairs:
        if _bytes_of(name).lower() == b"content-length" and _bytes_of(value).isdigit():
            return int(value)
    return None


def merged(defaults: Pairs, own: Pairs) -> Pairs:
    """Both; where both name a header, those of `own`."""
    if not defaults or not own:
        return defaults or own
    named = {name.lower() for name, _ in own}
    return [pair for pair in defaults if pair[0].lower() not in named] + own


def without(pairs: Pairs, names: Iterable[bytes]) -> Pairs:
    """The pairs of other names; the names are in lower case."""
    left_out = set(names)
    return [pair for pair in pairs if pair[0].lower() not in left_out]


@lru_cache(maxsize=512)
def _known_name(name: str) -> bytes:
    """The few names that a program uses are looked at once."""
    return _name(name)


def _name(name: object) -> bytes:
    try:
        encoded = name.encode("ascii") if isinstance(name, str) else name
    except UnicodeEncodeError:
        encoded = None
    if not isinstance(encoded, bytes) or not _NAME.fullmatch(encoded):
        raise ConfigError(f"{name!r} is no name of a header")
    return encoded


def _value(name: bytes, value: object) -> bytes:
    # Values may be secrets, so the errors do not tell them.
    if not isinstance(value, str | bytes):
        raise ConfigError(f"header {name.decode()} must be a string or bytes, not of type {type(value).__name__}")
    try:
        encoded = value.encode("latin-1") if isinstance(value, str) else value
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"header {name.decode()} has {value[error.start]!r} at position {error.start}: "
            "only latin-1 can be sent, encode it to bytes yourself"
        ) from None
    if found := _NOT_IN_A_VALUE.search(encoded):
        raise ConfigError(f"header {name.decode()} has a control character, {found[0]!r}, at position {found.start()}")
    return encoded.strip(b" \t")


def _bytes_of(text: str | bytes) -> bytes:
    return text.encode("utf-8") if isinstance(text, str) else text


def _text_of(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")
