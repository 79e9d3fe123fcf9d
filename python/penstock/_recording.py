"""Traces of what came to a batcher: writing them, for `penstock tune` to read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from penstock import _native


class Recording:
    """A trace that is being written; made by `Batcher.record`. As a context manager it ends on leaving.

    Attributes:
        path: the file.
    """

    def __init__(self, native: _native.NativeRecording, path: Path) -> None:
        self._native = native
        self.path = path

    @property
    def written(self) -> int:
        """Lines written so far, ten times a second."""
        return self._native.counts()[0]

    @property
    def dropped(self) -> int:
        """Lines left out because the file could not be written as fast as requests came."""
        return self._native.counts()[1]

    def close(self) -> None:
        """Writes what there is and ends the file. Safe to call twice.

        Raises:
            ConfigError: where the file could not be written to its end.
        """
        self._native.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<penstock.Recording {str(self.path)!r} written={self.written} dropped={self.dropped}>"
