"""The models of a server while it is open: they are added, replaced and taken away."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock._computed import Computed
from penstock._processes import Processes
from penstock._residents import Residents, Served
from penstock.errors import ConfigError, ModelNotFound, PenstockError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from penstock import _native
    from penstock._cache_loader import Loader
    from penstock._policy import NativePolicy
    from penstock.models import LoadHandle, ModelCache, ModelSpec

LOG = logging.getLogger("penstock.server")

_NOT_THERE = frozenset({"unloaded", "failed"})
"""States of a model of which nothing is loaded, or being loaded."""

_LOOK = 0.05
"""Seconds after which a wait looks for Ctrl-C."""


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What the extension needs to know of a model, read by its field names."""

    name: str
    version: str
    task: str
    inputs: list[tuple[str, str, list[int]]]
    outputs: list[tuple[str, str, list[int]]]
    policy: NativePolicy
    workers: int
    steps: bool
    passing: str
    alone: bool


def declaration_of(spec: ModelSpec) -> Declaration:
    """What the extension needs to know of a model."""
    return Declaration(
        name=spec.name,
        version=spec.version,
        task=spec.task,
        inputs=[(name, elements, list(axes)) for name, (elements, axes) in spec.inputs.items()],
        outputs=[(name, elements, list(axes)) for name, (elements, axes) in spec.outputs.items()],
        policy=spec.policy.native(),
        workers=spec.workers.count if isinstance(spec.workers, Processes) else spec.workers,
        steps=spec.is_stepwise,
        passing=spec.target.passing if isinstance(spec.target, Computed) else "",
        alone=spec.alone,
    )


class ServedModels:
    """The models of one server, by what they are called. Every method may be called by any thread."""

    def __init__(self, cache: ModelCache, native: Callable[[], _native.NativeServer]) -> None:
        self.residents = Residents(cache, native)
        self._cache = cache
        self._native = native
        self._served: dict[str, Served] = {}
        self._busy: set[str] = set()
        """What is being replaced or taken away: whoever wants to do so, too, waits."""
        self._changed = threading.Condition(threading.RLock())

    @property
    def references(self) -> list[str]:
        """What is served, in the order in which it came."""
        with self._changed:
            return list(self._served)

    @property
    def all(self) -> list[Served]:
        """The same with all that is known of it."""
        with self._changed:
            return list(self._served.values())

    def register(self, specs: Iterable[ModelSpec], *, check: bool) -> list[Declaration]:
        """Tells the cache of the models that a server begins with; gives what its queues are made of, in their order.

        Without `check`, what they require is looked for later, by `check_requires`.

        Raises:
            ConfigError: where two have the same name and version, and as `Residents.register` does.
        """
        served = [Served(spec, index) for index, spec in enumerate(specs)]
        seen: set[str] = set()
        for one in served:
            if one.spec.reference in seen:
                name, version = one.spec.name, one.spec.version
                raise ConfigError(f"two models are named '{name}' and have version '{version}'")
            seen.add(one.spec.reference)
        self.residents.register(served, check=check)
        self._served = {one.spec.reference: one for one in served}
        return [declaration_of(one.spec) for one in served]

    def check_requires(self, specs: Iterable[ModelSpec]) -> None:
        """Makes sure that what models require is there.

        Raises:
            ModelNotFound: where something is not.
        """
        for spec in specs:
            self.residents.check_requires(spec)

    def add(self, specs: Sequence[ModelSpec]) -> None:
        """Serves models that may require one another; all of them, or none. Nothing is loaded.

        Raises:
            ConfigError: where one of that name and version is there, and as `Residents.register` does.
            Closed: where the server was closed.
        """
        with self._changed:
            for spec in specs:
                self._wait_for(spec.reference)
                if spec.reference in self._served:
                    raise ConfigError(f"a model '{spec.name}' of version '{spec.version}' is served already")
            served = [Served(spec) for spec in specs]
            self.residents.register(served, check=True)
            native = self._native()
            try:
                for one in served:
                    one.index = native.add_model(declaration_of(one.spec))
                for one in served:
                    self._publish(native, one)
            except BaseException:
                for one in served:
                    self._served.pop(one.spec.reference, None)
                    self.residents.remove(one.spec.reference)
                    if one.index is not None:
                        native.remove_model(one.index)
                raise

    def _publish(self, native: _native.NativeServer, served: Served) -> None:
        if served.index is not None:
            native.publish(served.index)
        self._served[served.spec.reference] = served

    def _wait_for(self, reference: str) -> None:
        while reference in self._busy:
            self._changed.wait(_LOOK)

    def replace(self, spec: ModelSpec, *, load: bool = True) -> Replacement:
        """Begins to load a model in place of the one of its name and version, which goes on serving meanwhile.

        What it gives must be finished. Without `load`, one that is not loaded now is loaded by the next request.

        Raises:
            ModelNotFound: where there is none.
            ConfigError: where a function does not fit its inputs.
            DependencyCycle: where it would come to require itself.
            CapacityError: where it is pinned, and there is no room for what is pinned.
        """
        with self._changed:
            self._wait_for(spec.reference)
            before = self._named(spec.reference)
            after = Served(spec, before.index)
            native = self._native()
            if declaration_of(spec) != declaration_of(before.spec):
                after.index, after.old = native.add_model(declaration_of(spec)), before.index
            # What is loaded would go on answering until it is gone, so it is replaced by what is loaded, too.
            load = load or self._cache.progress(spec.reference).state not in _NOT_THERE
            try:
                loader, loading = self.residents.replace(after, load=load)
                if loading is None and after.old is not None and after.index is not None:
                    native.succeed(after.old, after.index)
                    after.old = None
            except BaseException:
                if after.index is not None and after.index != before.index:
                    native.remove_model(after.index)
                raise
            self._busy.add(spec.reference)
        return Replacement(self, before, after, loader, loading)

    def _replaced(self, done: Replacement, *, keep: bool) -> None:
        before, after = done.before, done.after
        reference = before.spec.reference
        try:
            with self._changed:
                if keep:
                    self._served[reference] = after
                else:
                    self._give_up(done)
            gone = before if keep else after
            if before.index != after.index and gone.index is not None:
                native = self._native()
                if keep:
                    native.drain(gone.index, done.drain)
                native.remove_model(gone.index)
        finally:
            self._no_longer_busy([reference])

    def _give_up(self, done: Replacement) -> None:
        before, after = done.before, done.after
        with after.lock:
            after.given_up = True
            if after.succeeded and before.index is not None and after.index is not None:
                self._native().succeed(after.index, before.index)
        try:
            self.residents.restore(done.loader, before.spec)
        except PenstockError as error:  # the cache was closed
            LOG.debug("model %r was not restored: %s", before.spec.reference, error)

    def remove(self, name: str, version: str | None, drain: float) -> list[str]:
        """Serves a model no more, or every version of it; comes back when what had come was answered and it is gone.

        Args:
            name: its name, or its name and version ("head@2").
            version: its version; every one for `None`.
            drain: seconds that answers may take; what waits then is refused.

        Returns:
            What was served and is not any more.

        Raises:
            ModelNotFound: where there is none.
            ConfigError: where others require it.
        """
        leaving = self.withdraw(self.meant(name, version))
        self.leave(leaving, drain)
        return [served.spec.reference for served in leaving]

    def meant(self, name: str, version: str | None) -> list[str]:
        """What a name stands for: every version of it, or that one.

        Raises:
            ModelNotFound: where there is none.
        """
        with self._changed:
            wanted = name if version is None else f"{name}@{version}"
            if found := [each for each, served in self._served.items() if wanted in (each, served.spec.name)]:
                return found
            known = ", ".join(self._served) or "none"
            raise ModelNotFound(f"there is no model '{wanted}' to take away; there are {known}")

    def withdraw(self, references: Sequence[str]) -> list[Served]:
        """Lets requests find models no more. They are to `leave` then.

        Raises:
            ModelNotFound: where one is not there.
            ConfigError: where others require one.
        """
        with self._changed:
            for reference in references:
                self._wait_for(reference)
            leaving = [self._named(reference) for reference in references]
            self._check_required(set(references))
            native = self._native()
            for served in leaving:
                del self._served[served.spec.reference]
                self._busy.add(served.spec.reference)
                if served.index is not None:
                    native.withdraw(served.index)
        return leaving

    def leave(self, leaving: Sequence[Served], drain: float) -> None:
        """Waits for the answers of models that were withdrawn, at most so many seconds; then they are gone."""
        until = time.monotonic() + drain
        try:
            for served in leaving:
                self._leave(served, until)
        finally:
            self._no_longer_busy([served.spec.reference for served in leaving])

    def _leave(self, served: Served, until: float) -> None:
        native, reference = self._native(), served.spec.reference
        if served.index is not None:
            native.drain(served.index, _left(until))
            native.remove_model(served.index)
        try:
            self._cache.unload(reference, dependents=True).wait(max(_LOOK, _left(until)))
        except PenstockError as error:
            LOG.warning("model %r was taken away and leaves when nobody uses it any more: %s", reference, error)
        self.residents.remove(reference)

    def _no_longer_busy(self, references: Iterable[str]) -> None:
        with self._changed:
            self._busy.difference_update(references)
            self._changed.notify_all()

    def _check_required(self, leaving: set[str]) -> None:
        """Refuses to take away what a model that stays requires."""
        rows = self._cache.index()
        names = {row.name for row in rows if f"{row.name}@{row.version}" not in leaving}
        for row in rows:
            if f"{row.name}@{row.version}" in leaving:
                continue
            for reference in row.requires:
                name = reference.partition("@")[0]
                if reference in leaving or (name not in names and any(one.startswith(f"{name}@") for one in leaving)):
                    raise ConfigError(
                        f"model '{row.name}' requires '{reference}', which cannot be taken away before it"
                    )

    def _named(self, reference: str) -> Served:
        found = self._served.get(reference)
        if found is None:
            raise ModelNotFound(f"there is no model '{reference}'; there are {', '.join(self._served) or 'none'}")
        return found

    def is_busy(self, reference: str) -> bool:
        """True while a model is replaced or taken away."""
        with self._changed:
            return reference in self._busy


class Replacement:
    """A model that is being loaded to take another's place."""

    def __init__(
        self, models: ServedModels, before: Served, after: Served, loader: Loader, loading: LoadHandle | None
    ) -> None:
        self.before = before
        self.after = after
        self.loader = loader
        """Of the model of before."""
        self.drain = 0.0
        self._models = models
        self._loading = loading

    def finish(self, drain: float) -> None:
        """Waits until the new model serves; the old one leaves when all that had come to it was answered.

        Args:
            drain: seconds that those answers may take.

        Raises:
            PenstockError: why the new model could not be loaded; the old one goes on serving then.
        """
        self.drain = drain
        try:
            if self._loading is not None:
                self._loading.wait()
        except BaseException:
            self._settle(keep=False)
            raise
        self._settle(keep=True)

    def _settle(self, *, keep: bool) -> None:
        self._models._replaced(self, keep=keep)  # noqa: SLF001  one module


def _left(until: float) -> float:
    return max(0.0, until - time.monotonic())
