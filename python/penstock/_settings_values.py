"""What a setting may hold: each kind of value, how it is read from a text, and how it is shown."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

_UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_MOST = (1 << 32) - 1
"""Of whatever is counted, seconds included: 136 years."""
_MOST_BYTES = (1 << 63) - 1
_MOST_PORT = (1 << 16) - 1
_MOST_SECRET = 1 << 16
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}
_METAVARS = {
    "directory": "DIR",
    "file": "FILE",
    "names": "MODELS",
    "texts": "TEXT",
    "text": "TEXT",
    "size": "SIZE",
    "count": "N",
    "port": "PORT",
    "share": "SHARE",
    "seconds": "SECONDS",
    "pause": "SECONDS",
    "secret": "file:PATH|env:NAME",
}
_NONE = {"names": "all", "size": "no limit", "count": "no limit", "seconds": "no limit"}


def metavar_of(kind: str) -> str:
    """What stands for a value of this kind in the help of a command."""
    return _METAVARS[kind]


def shown(kind: str, value: Any, none: str | None = None) -> str:
    """A value as people write it. `none` is what no value means, where that is not what it means of this kind."""
    if value is None:
        return _NONE.get(kind, "none") if none is None else none
    if kind in _SHOWN:
        return _SHOWN[kind](value)
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)


def _shown_size(value: int) -> str:
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if value and value % (1 << shift) == 0:
            return f"{value >> shift} {unit}"
    return f"{value:,} bytes"


def _shown_time(value: float) -> str:
    return f"{value:g} s"


_SHOWN: dict[str, Callable[[Any], str]] = {
    "secret": lambda _: "(secret)",
    "switch": lambda value: "on" if value else "off",
    "size": _shown_size,
    "seconds": _shown_time,
    "pause": _shown_time,
    "count": "{:,}".format,
}


def size_of(source: str, value: object) -> int:
    """Bytes, from a whole number or a text such as "4GiB".

    Raises:
        ConfigError: for what is neither, naming `source`.
    """
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        unit = _UNITS.get(match[2].upper()) if match else None
        if match is None or unit is None:
            raise ConfigError(f"{source} must be a size such as 67108864 or '64MiB', not {value!r}")
        value = int(float(match[1]) * unit)
    return _count(source, value, _MOST_BYTES)


def choice_of(source: str, value: Any, choices: tuple[str, ...]) -> str:
    """One of the choices.

    Raises:
        ConfigError: for anything else, naming `source`.
    """
    if value not in choices:
        raise ConfigError(f"{source} must be {' or '.join(map(repr, choices))}, not {value!r}")
    return str(value)


def secret_of(source: str, value: object, *, public: bool) -> str:
    """A secret, or what holds it: `file:PATH`, whose first line it is, or `env:NAME`. No error shows it.

    Args:
        source: where the value was said.
        value: what was said.
        public: whether others may read what was said, as they can a command line. Then it must not be the secret.

    Raises:
        ConfigError: for what is no text, and where the file or the variable is not there or empty.
    """
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{source} must be a secret, file:PATH or env:NAME, not {type(value).__name__}")
    kind, separator, name = value.partition(":")
    if separator and kind == "file":
        return _first_line(source, name)
    if separator and kind == "env":
        if secret := os.environ.get(name):
            return secret
        raise ConfigError(f"{source}: there is nothing in the variable {name}")
    if public:
        raise ConfigError(f"{source} must be file:PATH or env:NAME: others may read what stands here")
    return value


def _first_line(source: str, path: str) -> str:
    try:
        with Path(path).open(encoding="utf-8") as file:
            secret = file.readline(_MOST_SECRET).strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(f"{source}: {path} cannot be read: {why}") from None
    if not secret:
        raise ConfigError(f"{source}: there is nothing in {path}")
    return secret


def port_of(source: str, value: object) -> int:
    """A port.

    Raises:
        ConfigError: for what is none, naming `source`.
    """
    text = str(value).strip()
    whole = isinstance(value, int | str) and not isinstance(value, bool) and text.isascii() and text.isdigit()
    if not whole or int(text) > _MOST_PORT:
        raise ConfigError(f"{source} must be a port between 0 and {_MOST_PORT}, not {value!r}")
    return int(text)


def _names(source: str, value: Any) -> tuple[str, ...]:
    return _several(source, value, "names of models")


def _texts(source: str, value: Any) -> tuple[str, ...]:
    return _several(source, value, "texts")


def _several(source: str, value: Any, what: str) -> tuple[str, ...]:
    several = [value] if isinstance(value, str) else value
    if not isinstance(several, list | tuple | set | frozenset) or not all(isinstance(one, str) for one in several):
        raise ConfigError(f"{source} must be {what}, not {value!r}")
    if isinstance(value, str | list):
        several = [part for one in several for part in one.split(",")]
    return tuple(name for one in several if (name := one.strip()))


def _text(source: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{source} must be a text, not {value!r}")
    return value


def _directory(source: str, value: Any) -> str:
    return _path(source, value, "directory")


def _file(source: str, value: Any) -> str:
    return _path(source, value, "file")


def _path(source: str, value: Any, what: str) -> str:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{source} must be the path of a {what}, not {value!r}")
    return value


def _count(source: str, value: Any, most: int = _MOST) -> int:
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            raise ConfigError(f"{source} must be a whole number, not {value!r}") from None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{source} must be a whole number of at least 1, not {value!r}")
    if value > most:
        raise ConfigError(f"{source} must be at most {most}, not {value!r}")
    return value


def _seconds(source: str, value: Any) -> float:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise ConfigError(f"{source} must be a positive number of seconds, not {value!r}") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{source} must be a positive number of seconds, not {value!r}")
    if value > _MOST:
        raise ConfigError(f"{source} must be at most {_MOST} seconds, not {value!r}")
    return float(value)


def _pause(source: str, value: Any) -> float:
    if isinstance(value, str) and value.strip() in {"0", "0.0"}:
        value = 0.0
    is_zero = isinstance(value, int | float) and not isinstance(value, bool) and value == 0
    return 0.0 if is_zero else _seconds(source, value)


def _share(source: str, value: Any) -> float:
    refused = ConfigError(f"{source} must be a number from 0 to 1, not {value!r}")
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise refused from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise refused
    return float(value)


def _switch(source: str, value: Any) -> bool:
    if isinstance(value, str) and value.lower() in _TRUE | _FALSE:
        return value.lower() in _TRUE
    if not isinstance(value, bool):
        raise ConfigError(f"{source} must be true or false, not {value!r}")
    return value


CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "directory": _directory,
    "file": _file,
    "names": _names,
    "texts": _texts,
    "text": _text,
    "size": size_of,
    "count": _count,
    "port": port_of,
    "share": _share,
    "seconds": _seconds,
    "pause": _pause,
    "switch": _switch,
}
"""What makes a value of each kind of whatever was said, or refuses it. Choices and secrets have checks of their own."""
