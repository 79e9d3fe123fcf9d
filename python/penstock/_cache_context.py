"""What a loader is given: its dependencies, and a way to say how far it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.errors import ConfigError, LoadFailed, ModelNotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Report = Callable[[str, float | None], bool]
    """Says how far a load is, as a phase and a share of the whole; false where nobody wants the load any more."""


class LoadContext:
    """What a model's `load` is given.

    `ctx["encoder"]` is what the loader of "encoder" returned, for each model in `requires`, by the words that
    `requires` uses. It is lent to the model that is being loaded for as long as that lives.

    Attributes:
        name: the model's name.
        version: its version.
        attempt: 1 for the first try, one more for each retry.
        directory: the folder of a model of a `penstock.ModelDirectory`, and `None` for others.
    """

    __slots__ = ("_cancelled", "_report", "_requires", "attempt", "directory", "name", "version")

    def __init__(
        self,
        name: str,
        version: str,
        *,
        attempt: int = 1,
        requires: Mapping[str, Any] | None = None,
        report: Report | None = None,
        directory: Path | None = None,
    ) -> None:
        self.name: str = name
        self.version: str = version
        self.attempt: int = attempt
        self.directory: Path | None = directory
        self._requires = dict(requires or {})
        self._report = report
        self._cancelled = False

    def __getitem__(self, reference: str) -> Any:
        """The value of a model that this one requires.

        Raises:
            ModelNotFound: where it is not in `requires`.
        """
        try:
            return self._requires[reference]
        except KeyError:
            known = ", ".join(map(repr, self._requires)) or "nothing"
            raise ModelNotFound(f"model {self.name!r} does not require {reference!r}; it requires {known}") from None

    @property
    def cancelled(self) -> bool:
        """True once the load is no longer wanted: its time is up, it was cancelled, or its cache closes."""
        return self._cancelled

    def progress(self, fraction: float | None = None, phase: str = "") -> None:
        """Says how far the load is, to whoever waits for it; cheap enough for every file, not for every byte.

        Args:
            fraction: the part that is done, from 0 to 1; `None` where that is not known.
            phase: what is being done, such as `"weights"`; empty for the same as before.

        Raises:
            LoadFailed: where the load is no longer wanted: let it end the loader.
            ConfigError: for what is no part of a whole.
        """
        if fraction is not None and not (isinstance(fraction, int | float) and 0 <= fraction <= 1):
            raise ConfigError(f"fraction must be between 0 and 1, not {fraction!r}")
        if not isinstance(phase, str):
            raise ConfigError(f"phase must be a string, not {phase!r}")
        if self._report is not None and not self._report(phase, fraction):
            self._cancelled = True
        if self._cancelled:
            raise LoadFailed(f"the load of model {self.name!r} is no longer wanted")

    def _cancel(self) -> None:
        self._cancelled = True

    def _forget(self) -> None:
        self._requires.clear()

    def __repr__(self) -> str:
        return f"<penstock.LoadContext {self.name}@{self.version} attempt={self.attempt}>"
