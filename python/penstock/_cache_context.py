"""What a loader is given: its dependencies, and a way to say how far it is."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock._onnx_terms import terms_of
from penstock.errors import ConfigError, LoadFailed, ModelNotFound
from penstock.safetensors import load_safetensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Unpack

    from numpy.typing import NDArray

    from penstock._onnx_terms import OnnxOptions
    from penstock.onnx import OnnxSession
    from penstock.safetensors import Digests, Mode

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
        directory: the folder of a model that comes from a model directory, that of its version; else `None`.
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

    def safetensors(
        self,
        path: str | os.PathLike[str],
        *,
        mode: Mode = "auto",
        names: Iterable[str] | None = None,
        sha256: Digests | None = None,
        threads: int | None = None,
    ) -> dict[str, NDArray[Any]]:
        """As `penstock.load_safetensors`, saying how far it is, as the phase "weights".

        A relative path lies in `directory`, where the model has one. A load that is no longer wanted stops. It blocks
        its thread: a loader that is `async def` uses `asyncio.to_thread`.

        Raises:
            LoadFailed: where the file cannot be read, or the load is no longer wanted.
            UnsafeFormat, ChecksumMismatch, PathEscape, ConfigError: as `penstock.load_safetensors`.
        """
        self.progress(0.0, "weights")

        def progress(done: int, total: int) -> None:
            self.progress(done / total if total else 1.0)

        place = path
        if self.directory is not None and isinstance(path, str | os.PathLike):
            place = self.directory / path
        return load_safetensors(place, mode=mode, names=names, sha256=sha256, threads=threads, progress=progress)

    def onnx(self, path: str | os.PathLike[str], **options: Unpack[OnnxOptions]) -> OnnxSession:
        """As `penstock.load_onnx`, as the phase "session".

        A relative path lies in `directory`, where the model has one. A load that is no longer wanted stops. It blocks
        its thread: a loader that is `async def` uses `asyncio.to_thread`.

        Raises:
            LoadFailed: where the file cannot be read or run, or the load is no longer wanted.
            UnsafeFormat, ChecksumMismatch, PathEscape, ConfigError: as `penstock.load_onnx`.
        """
        from penstock.onnx import OnnxSession  # noqa: PLC0415  that module is above this one

        place = Path(path) if self.directory is None else Path(self.directory, path)
        check = partial(self.progress, None, "session")
        return OnnxSession._opened(place, terms_of(**options), check)  # noqa: SLF001  one package

    def _cancel(self) -> None:
        self._cancelled = True

    def _forget(self) -> None:
        self._requires.clear()

    def __repr__(self) -> str:
        return f"<penstock.LoadContext {self.name}@{self.version} attempt={self.attempt}>"
