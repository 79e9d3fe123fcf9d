"""Models that Rust computes: threads without an interpreter take their batches, and no Python has a part in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock import _native
    from penstock._cache_context import LoadContext


class Loaded:
    """One load of such a model.

    Attributes:
        value: what stands for it in the cache, and is lent to the models that require it.
        size: bytes that it takes.
    """

    value: object
    size: int

    def start(self, shift: _native.NativeShift) -> None:
        """Starts the threads that take batches of the shift."""
        raise NotImplementedError

    def end(self, shift: _native.NativeShift, limit: float) -> None:
        """Waits so many seconds for the threads to end, as the shift has; then lets go of what computes."""
        raise NotImplementedError


class Computed:
    """The target of a `ModelSpec` whose batches Rust computes. It is not called: it is opened for each load.

    Attributes:
        passing: what of its requests is passed on as it came, where it is on another server; nothing otherwise.
    """

    passing: str = ""

    def open(self, ctx: LoadContext) -> Loaded:
        """Opens what computes; in a thread of its own, as every load.

        Raises:
            PenstockError: where it cannot be opened.
        """
        raise NotImplementedError
