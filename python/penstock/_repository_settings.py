"""What `model.toml` says of a model: its keys, and what is wrong with them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from penstock._cache_loader import check_timeout, references_of
from penstock._policy import Adaptive, BatchPolicy, Pad, check_choice, check_count
from penstock._processes import Processes
from penstock.errors import ConfigError
from penstock.settings import size_of

if TYPE_CHECKING:
    from collections.abc import Callable

Settings: TypeAlias = dict[str, Any]
"""What files say of a model, by the keys of `model.toml`; `batching` is a dictionary of its own."""

MOST_BYTES = 1 << 20
"""Of a file of settings: who writes one by hand needs a thousandth of it."""

_DIGEST = re.compile("[0-9a-fA-F]{64}")
_MOST_VERSION = (1 << 63) - 1
_MOST_ROWS = 1 << 31
_ELEMENTS = frozenset(
    {"bool", "string", "bytes", "float16", "bfloat16", "float32", "float64"}
    | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
)
_ADAPTIVE = frozenset(each.name for each in fields(Adaptive))
_PAD = frozenset(each.name for each in fields(Pad))
# The two that would be functions are Python's.
BATCHING = frozenset(each.name for each in fields(BatchPolicy)) - {"key"}
"""What can be said of batches in a file."""


def read_toml(text: bytes, file: str, *, of_version: bool) -> Settings:
    """The settings in a `model.toml`.

    Args:
        text: what is in it.
        file: what errors call it.
        of_version: whether it lies in a version's folder, where it cannot say which versions there are.

    Raises:
        ConfigError: for what is no TOML, for a key that there is not, and for a value that cannot be.
    """
    try:
        said = tomllib.loads(text.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{file} is not TOML: {error}") from None
    if of_version and "versions" in said:
        raise ConfigError(f"{file}: versions are said in the model.toml of the model, not in one of a version")
    if unknown := sorted(set(said) - set(_KEYS)):
        raise ConfigError(f"{file}: there is no setting {unknown[0]!r}; there are {', '.join(sorted(_KEYS))}")
    return {key: _KEYS[key](f"{file}: {key}", value) for key, value in said.items()}


def merged(weaker: Settings, stronger: Settings) -> Settings:
    """Both, key by key; those of `batching` one by one."""
    both = {**weaker, **stronger}
    if "batching" in weaker and "batching" in stronger:
        both["batching"] = {**weaker["batching"], **stronger["batching"]}
    return both


def checked_key(what: str, key: str, value: object) -> Any:
    """The value of one key, also of those of `batching`.

    Raises:
        ConfigError: for a value that cannot be, naming `what`.
    """
    if key not in BATCHING:
        return _KEYS[key](what, value)
    if key == "cost" and value != "length":
        raise ConfigError(f"{what} must be 'length', not {value!r}")
    form: Any = _BATCHING_FORMS.get(key, _as_it_is)(what, value)
    try:
        # Alone, so that what is wrong with it is said of it.
        replace(BatchPolicy(max_batch_size=_MOST_ROWS, cost="length"), **{key: form})
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from None
    return form


def versions_of(what: str, value: object) -> str | dict[str, int] | list[int]:
    """A version policy: `"all"`, `{"latest": n}`, or numbers.

    Raises:
        ConfigError: for what is none of them, naming `what`.
    """
    if value == "all":
        return "all"
    if isinstance(value, Mapping) and set(value) == {"latest"}:
        check_count(f"{what}: latest", value["latest"])
        if value["latest"] >= 1:
            return {"latest": value["latest"]}
    elif isinstance(value, Sequence) and not isinstance(value, str) and value and all(map(_is_version, value)):
        return list(value)
    raise ConfigError(f"{what} must be 'all', {{'latest': n}} with n at least 1, or numbers of versions, not {value!r}")


def _is_version(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST_VERSION


def _count(what: str, value: object) -> int:
    check_count(what, value)
    if not isinstance(value, int) or value < 1:
        raise ConfigError(f"{what} must be at least 1, not {value}")
    return value


def _retries(what: str, value: object) -> object:
    check_count(what, value)
    return value


def _seconds(what: str, value: Any) -> float:
    check_timeout(what, value)
    return float(value)


def _flag(what: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{what} must be true or false, not {value!r}")
    return value


def _name(what: str, value: object) -> str:
    if not isinstance(value, str) or not value.isidentifier() or value.startswith("_"):
        raise ConfigError(f"{what} must be the name of a method, not {value!r}")
    return value


def _warmup(what: str, value: object) -> bool | int:
    return value if isinstance(value, bool) else _count(what, value)


def _workers(what: str, value: object) -> int | Processes:
    if isinstance(value, dict):
        if set(value) != {"processes"}:
            raise ConfigError(f"{what} must be a number of threads, or {{processes = n}}, not {value!r}")
        return Processes(_count(f"{what}.processes", value["processes"]))
    return _count(what, value)


def _providers(what: str, value: object) -> tuple[str | tuple[str, dict[str, Any]], ...]:
    if not isinstance(value, list) or not value:
        raise ConfigError(f"{what} must be names such as ['CPUExecutionProvider'], not {value!r}")
    return tuple(_provider(what, one) for one in value)


def _provider(what: str, value: object) -> str | tuple[str, dict[str, Any]]:
    name, options = value if isinstance(value, list) and len(value) == 2 else (value, {})  # noqa: PLR2004  and options
    if not isinstance(name, str) or not name or not isinstance(options, dict):
        raise ConfigError(
            f"{what} must be names such as 'CPUExecutionProvider', or ['name', {{options}}], not {value!r}"
        )
    return (name, options) if options else name


def _optimization(what: str, value: object) -> object:
    check_choice(what, value, ("none", "basic", "extended", "all"))
    return value


def _digest(what: str, value: object) -> str:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise ConfigError(f"{what} must be 64 hexadecimal digits, not {value!r}")
    return value


def _tensors(what: str, value: object) -> list[str] | dict[str, tuple[str, tuple[int, ...]]]:
    """Names to keep, or declarations by name."""
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        return list(value)
    if not isinstance(value, dict) or not value:
        raise ConfigError(f"{what} must be names, or tables such as x = {{type = 'float32', shape = [64]}}")
    return {name: _tensor(f"{what}.{name}", said) for name, said in value.items()}


def _tensor(what: str, said: object) -> tuple[str, tuple[int, ...]]:
    if not isinstance(said, dict) or set(said) != {"type", "shape"} or not isinstance(said["type"], str):
        raise ConfigError(f"{what} must be a table such as {{type = 'float32', shape = [64]}}, not {said!r}")
    if said["type"] not in _ELEMENTS:
        raise ConfigError(f"{what}.type must be one of {', '.join(sorted(_ELEMENTS))}, not {said['type']!r}")
    shape = said["shape"]
    axes = isinstance(shape, list) and all(isinstance(axis, int) and not isinstance(axis, bool) for axis in shape)
    if not axes or not all(-1 <= axis <= _MOST_VERSION for axis in shape):
        raise ConfigError(f"{what}.shape must be the axes of one row, -1 for any length, not {shape!r}")
    return said["type"], tuple(shape)


def _batching(what: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{what} must be a table, not {value!r}")
    if unknown := sorted(set(value) - BATCHING):
        raise ConfigError(f"{what}: there is no setting {unknown[0]!r}; there are {', '.join(sorted(BATCHING))}")
    if not isinstance(value.get("cost", "length"), str):
        raise ConfigError(f"{what}.cost must be 'length', not {value['cost']!r}")
    return {key: _BATCHING_FORMS.get(key, _as_it_is)(f"{what}.{key}", given) for key, given in value.items()}


def _as_it_is(_what: str, value: object) -> object:
    return value


def _list(_what: str, value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _adaptive(what: str, value: object) -> object:
    return _record(what, value, Adaptive, _ADAPTIVE) if isinstance(value, dict) else value


def _pad(what: str, value: object) -> object:
    return _record(what, value, Pad, _PAD) if isinstance(value, dict) else _flag(what, value)


def _record(what: str, value: dict[str, Any], kind: Callable[..., Any], known: frozenset[str]) -> object:
    if unknown := sorted(set(value) - known):
        raise ConfigError(f"{what}: there is no setting {unknown[0]!r}; there are {', '.join(sorted(known))}")
    try:
        return kind(**value)
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from None


_BATCHING_FORMS: dict[str, Callable[[str, Any], object]] = {
    "max_batch_size": _adaptive,
    "pad": _pad,
    "preferred_batch_sizes": _list,
    "single_flight": _flag,
}

_KEYS: dict[str, Callable[[str, Any], Any]] = {
    "arena": _flag,
    "batching": _batching,
    "inputs": _tensors,
    "inter_threads": _count,
    "load_retries": _retries,
    "load_timeout": _seconds,
    "method": _name,
    "optimization": _optimization,
    "outputs": _tensors,
    "pinned": _flag,
    "preload": _flag,
    "providers": _providers,
    "requires": references_of,
    "row_by_row": _flag,
    "sha256": _digest,
    "size": size_of,
    "spin": _flag,
    "threads": _count,
    "versions": versions_of,
    "warmup": _warmup,
    "workers": _workers,
}
