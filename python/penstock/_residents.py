"""The models of a server in its cache: how they are registered, every load of them, and how all of them end."""

from __future__ import annotations

import logging
import math
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from penstock._cache_loader import loader_of
from penstock._processes import Processes, launch_of
from penstock._resident import Resident
from penstock.errors import ConfigError, ModelNotFound, PenstockError
from penstock.models import LoadedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from penstock import _native
    from penstock._processes import Launch
    from penstock.models import LoadContext, LoadHandle, ModelCache, ModelSpec

LOG = logging.getLogger("penstock.server")

_LAST_SECONDS = 2.0
"""Time for what was cancelled, killed or left behind to be gone, once the time for an end is up."""


class Residents:
    """Every load of every model of one server.

    The cache decides what is loaded and when it leaves; here is what that means for a served model.
    """

    def __init__(
        self, specs: Sequence[ModelSpec], cache: ModelCache, native: Callable[[], _native.NativeServer]
    ) -> None:
        self._specs = specs
        self._cache = cache
        self._native = native
        self._lock = threading.Lock()
        self._loads: list[Resident] = []
        self._registered: list[ModelSpec] = []
        self._deadline: float | None = None

    def register(self) -> None:
        """Tells the cache how each model is loaded.

        Raises:
            ConfigError: where the cache has a model of that name and version, or a function does not fit its inputs.
            ModelNotFound: where one requires what neither the server nor the cache has.
            DependencyCycle: where they require one another in a circle.
        """
        taken = {f"{row.name}@{row.version}" for row in self._cache.index()}
        for spec in self._specs:
            if spec.reference in taken:
                raise ConfigError(f"the cache has a model '{spec.name}' of version '{spec.version}' already")
        try:
            for index, spec in enumerate(self._specs):
                LoadedModel(spec).check()
                self._register(index, spec)
            for spec in self._specs:
                self._check_requires(spec)
        except BaseException:
            self.remove()
            raise

    def _register(self, index: int, spec: ModelSpec) -> None:
        # Where a fresh interpreter could not get at it, that is said at once.
        of_processes = isinstance(spec.workers, Processes)
        launch = _launch_of(spec) if of_processes else None
        loader = loader_of(
            partial(self._load, index, spec, launch),
            spec.name,
            spec.version,
            spec.size,
            spec.requires,
            timeout=spec.load_timeout,
            retries=spec.load_retries,
            warmup=None if spec.warmup is None else self._warm_up,
            sizeof=_size_of_processes if of_processes else None,
            begin=self._begin,
            close=self._end,
        )
        self._cache._register(loader)  # noqa: SLF001  one package
        self._registered.append(spec)

    def _check_requires(self, spec: ModelSpec) -> None:
        for reference in spec.requires:
            try:
                self._cache.progress(reference)
            except ModelNotFound as error:
                raise ModelNotFound(f"model '{spec.name}' requires '{reference}': {error}") from None

    def remove(self) -> None:
        """Has the cache forget the models."""
        registered, self._registered = self._registered, []
        for spec in registered:
            try:
                self._cache.remove(spec.reference)
            except PenstockError as error:  # it was closed, or somebody was faster
                LOG.debug("model %r was not taken out of its cache: %s", spec.reference, error)

    def preload(self, references: Sequence[str] | None) -> LoadHandle | None:
        """Begins to load these models, or all: the server is ready once they have come."""
        wanted = [spec.reference for spec in self._specs] if references is None else list(references)
        if not wanted:
            return None
        return self._cache._preload_at_start(wanted)  # noqa: SLF001  one package

    def close(self, deadline: float, *, whole_cache: bool) -> None:
        """Unloads the models, those that require others first, while there is time; then leaves the rest behind."""
        self._deadline = deadline
        limit = max(0.0, deadline - time.monotonic()) + _LAST_SECONDS
        if whole_cache:
            self._cache.close(timeout=limit)
        else:
            self._unload(time.monotonic() + limit)
        with self._lock:
            left, self._loads = self._loads, []
        for resident in left:
            resident.end(lambda: 0.0)

    def _unload(self, deadline: float) -> None:
        leaving = []
        for spec in self._registered:
            try:
                leaving.append(self._cache.unload(spec.reference, dependents=True))
            except PenstockError as error:
                LOG.debug("model %r was not unloaded: %s", spec.reference, error)
        for operation in leaving:
            try:
                operation.wait(max(0.001, deadline - time.monotonic()))
            except PenstockError as error:
                LOG.warning("a model was not unloaded in time: %s", error)
        self.remove()

    def _load(self, index: int, spec: ModelSpec, launch: Launch | None, ctx: LoadContext) -> Any:
        resident = Resident(spec, self._native().shift(index), launch)
        with self._lock:
            # Those that have ended, or never began, stand for nothing any more.
            self._loads = [load for load in self._loads if load.value is not None]
            self._loads.append(resident)
        return resident.load(ctx)

    def _warm_up(self, value: object) -> Any:
        return self._of(value).warm_up()

    def _begin(self, value: object) -> None:
        self._of(value).begin()

    def _of(self, value: object) -> Resident:
        with self._lock:
            return next(load for load in self._loads if load.value is value)

    def _end(self, value: object) -> None:
        with self._lock:
            resident = next((load for load in self._loads if load.value is value), None)
        if resident is not None:
            resident.end(self._left)
            with self._lock:
                self._loads = [load for load in self._loads if load is not resident]

    def _left(self) -> float:
        return math.inf if self._deadline is None else self._deadline - time.monotonic()


def _launch_of(spec: ModelSpec) -> Launch:
    told = {"name": spec.name, "version": spec.version, "policy": spec.policy, "directory": spec.directory}
    return launch_of("model", spec.target, f"model {spec.name!r}", told)


def _size_of_processes(resident: Resident) -> int:
    return resident.size()
