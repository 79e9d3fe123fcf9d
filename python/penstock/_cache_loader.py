"""A loader as it was registered, and the checks that it passes."""

from __future__ import annotations

import math
import re
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from penstock._policy import check_count, check_seconds
from penstock.errors import ConfigError
from penstock.settings import size_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
"""What a model, a version or an alias may be called: `@` stands between a name and its version."""

_MOST_SECONDS = 366 * 86400.0
_MOST_RETRIES = 1000


@dataclass(frozen=True, kw_only=True)
class Loader:
    """How one version of one model is loaded.

    Attributes:
        name: its name.
        version: its version, as text.
        load: called with a `LoadContext`; gives the model. A coroutine is awaited on Penstock's own loop.
        requires: models that must be loaded before, as references.
        size: bytes that it takes, as far as anyone knew before it was loaded.
        timeout: seconds that one try may take.
        retries: tries after the first that failed.
        backoff: seconds before the first retry, doubled for each further one.
        warmup: called with the model before it is ready.
        sizeof: called with the model; gives the bytes that it takes.
        close: called with the model before it is let go of.
        begin: called with the model when nothing is left but to say that it is ready; gives what is called, without it,
            once that was said. The latter must not fail, nor keep the model.
        pinned: whether it stays once it is loaded.
        fallback: a reference to the model that is given in its place where it cannot be loaded.
        context: the context variables that it runs with.
    """

    name: str
    version: str = "1"
    load: Callable[..., Any]
    requires: tuple[str, ...] = ()
    size: int | None = None
    timeout: float = 30.0
    retries: int = 1
    backoff: float = 0.5
    warmup: Callable[[Any], Any] | None = None
    sizeof: Callable[[Any], Any] | None = None
    close: Callable[[Any], Any] | None = None
    begin: Callable[[Any], Callable[[], None]] | None = None
    pinned: bool = False
    fallback: str | None = None
    context: Context = field(default_factory=copy_context)

    def __post_init__(self) -> None:
        check_name("name", self.name)
        check_name("version", self.version)
        _check_times(self)
        for name in ("warmup", "sizeof", "close"):
            function = getattr(self, name)
            if function is not None and not callable(function):
                raise ConfigError(f"model {self.name!r}: {name} must be a function of the model, not {function!r}")
        if self.fallback is not None:
            check_reference("fallback", self.fallback)
        if not isinstance(self.pinned, bool):
            raise ConfigError(f"model {self.name!r}: pinned must be true or false, not {self.pinned!r}")

    def native(self) -> dict[str, Any]:
        """As the extension reads it."""
        return {
            "name": self.name,
            "version": self.version,
            "requires": list(self.requires),
            "size": self.size,
            "timeout": self.timeout,
            "retries": self.retries,
            "backoff": self.backoff,
            "pinned": self.pinned,
            "fallback": self.fallback,
        }


def loader_of(load: object, name: str, version: object, size: object, requires: object, **settings: Any) -> Loader:
    """A loader of what a person typed: sizes as text, one requirement as a string, a version as a number."""
    if not callable(load):
        raise ConfigError(f"model {name!r}: a loader must be a function, not {load!r}")
    if isinstance(version, int) and not isinstance(version, bool):
        version = str(version)
    check_name("version", version)
    return Loader(
        name=name,
        version=str(version),
        load=load,
        requires=references_of("requires", requires),
        size=None if size is None else size_of(f"model {name!r}: size", size),
        **settings,
    )


def references_of(what: str, given: object) -> tuple[str, ...]:
    """References, from one string or several."""
    several: Iterable[object]
    if isinstance(given, str):
        several = (given,)
    elif isinstance(given, list | tuple | set | frozenset):
        several = given
    else:
        raise ConfigError(f"{what} must be names of models, not {given!r}")
    return tuple(check_reference(what, one) for one in several)


def check_reference(what: str, reference: object) -> str:
    """Refuses what cannot refer to a model: `"head"`, `"head@2"`, `"prod"`, `"head@prod"`."""
    if not isinstance(reference, str):
        raise ConfigError(f"{what} must be the name of a model, not {reference!r}")
    if not is_reference(reference):
        raise ConfigError(f"{what} must be a name, or a name and a version as in 'head@2', not {reference!r}")
    return reference


def is_reference(text: str) -> bool:
    """True for a name, or a name and a version or an alias behind an `@`."""
    name, at, version = text.partition("@")
    return NAME.fullmatch(name) is not None and (not at or NAME.fullmatch(version) is not None)


def check_name(what: str, name: object) -> None:
    """Refuses what cannot be a name or a version."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ConfigError(f"a model's {what} is made of letters, digits, '.', '_', '/' and '-', not {name!r}")


def check_timeout(what: str, value: object) -> None:
    """Refuses what is no time above 0 that the machine can count to."""
    check_seconds(what, value)
    if not (isinstance(value, int | float) and 0 < value <= _MOST_SECONDS and math.isfinite(value)):
        raise ConfigError(f"{what} must be above 0 and at most {_MOST_SECONDS:.0f} seconds, not {value!r}")


def _check_times(loader: Loader) -> None:
    check_timeout(f"model {loader.name!r}: timeout", loader.timeout)
    check_seconds(f"model {loader.name!r}: backoff", loader.backoff)
    if loader.backoff > _MOST_SECONDS:
        raise ConfigError(f"model {loader.name!r}: backoff must be at most {_MOST_SECONDS:.0f} seconds")
    check_count(f"model {loader.name!r}: retries", loader.retries)
    if loader.retries > _MOST_RETRIES:
        raise ConfigError(f"model {loader.name!r}: retries must be at most {_MOST_RETRIES}, not {loader.retries}")
