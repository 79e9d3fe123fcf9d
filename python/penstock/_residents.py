"""The models of a server in its cache: how they are registered, every load of them, and how all of them end."""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from penstock._cache_loader import loader_of
from penstock._computed import Computed
from penstock._processes import Processes, launch_of
from penstock._resident import resident_of
from penstock.errors import ConfigError, ModelNotFound, ModelNotReady, PenstockError
from penstock.models import LoadedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from penstock import _native
    from penstock._cache_loader import Loader
    from penstock._processes import Launch
    from penstock._resident import ComputedResident, Resident
    from penstock.models import LoadContext, LoadHandle, ModelCache, ModelSpec

LOG = logging.getLogger("penstock.server")

_LAST_SECONDS = 2.0
"""Time for what was cancelled, killed or left behind to be gone, once the time for an end is up."""


@dataclass(eq=False)
class Served:
    """A model of a server.

    Attributes:
        spec: its declaration.
        index: the number of its queue; nothing before that is open.
        old: the number of the queue that its own takes the place of when its first load is ready.
        given_up: nobody wants that place any more.
        succeeded: it has that place.
    """

    spec: ModelSpec
    index: int | None = None
    old: int | None = None
    given_up: bool = False
    succeeded: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)


class Residents:
    """Every load of every model of one server.

    The cache decides what is loaded and when it leaves; here is what that means for a served model.
    """

    def __init__(self, cache: ModelCache, native: Callable[[], _native.NativeServer]) -> None:
        self._cache = cache
        self._native = native
        self._lock = threading.Lock()
        self._loads: list[Resident | ComputedResident] = []
        self._under_way: list[Resident | ComputedResident] = []
        self._registered: dict[str, ModelSpec] = {}
        self._deadline: float | None = None

    def register(self, models: Sequence[Served], *, check: bool) -> None:
        """Tells the cache how each model is loaded; all of them, or none. With `check`, what they require is, too.

        Raises:
            ConfigError: where the cache has a model of that name and version, or a function does not fit its inputs.
            ModelNotFound: where one requires what neither the server nor the cache has.
            DependencyCycle: where they require one another in a circle.
        """
        taken = {f"{row.name}@{row.version}" for row in self._cache.index()}
        for served in models:
            spec = served.spec
            if spec.reference in taken:
                raise ConfigError(f"the cache has a model '{spec.name}' of version '{spec.version}' already")
        done = []
        try:
            for served in models:
                loader = self.loader(served)
                self._cache._register(loader)  # noqa: SLF001  one package
                self._registered[served.spec.reference] = served.spec
                done.append(served.spec.reference)
            for served in models if check else ():
                self.check_requires(served.spec)
        except BaseException:
            for reference in done:
                self.remove(reference)
            raise

    def replace(self, served: Served, *, load: bool) -> tuple[Loader, LoadHandle | None]:
        """Has a model that is registered loaded by another loader; gives the one of before, and the load, if it begins.

        What is loaded goes on serving until then. Without `load` it leaves, and the next request has the model loaded.

        Raises:
            ConfigError: where a function does not fit its inputs.
            DependencyCycle: where it would come to require itself.
            CapacityError: where it is pinned, and there is no room for what is pinned.
        """
        spec = served.spec
        loader = self.loader(served)
        before = self._cache._amend(loader)  # noqa: SLF001  one package
        try:
            self.check_requires(spec)
        except BaseException:
            self._cache._amend(before)  # noqa: SLF001  one package
            raise
        self._registered[spec.reference] = spec
        if load:
            return before, self._cache.reload(spec.reference)
        self._cache._register(loader)  # noqa: SLF001  one package
        return before, None

    def restore(self, loader: Loader, spec: ModelSpec) -> None:
        """Has a model loaded as before from here on."""
        self._cache._amend(loader)  # noqa: SLF001  one package
        self._registered[spec.reference] = spec

    def loader(self, served: Served) -> Loader:
        """How the cache loads a model.

        Raises:
            ConfigError: where a function does not fit its inputs, or a fresh interpreter could not get at it.
        """
        spec = served.spec
        LoadedModel(spec).check()
        of_processes = isinstance(spec.workers, Processes)
        launch = _launch_of(spec) if of_processes else None
        return loader_of(
            partial(self._load, served, launch),
            spec.name,
            spec.version,
            spec.size,
            spec.requires,
            timeout=spec.load_timeout,
            retries=spec.load_retries,
            warmup=None if spec.warmup is None else self._warm_up,
            sizeof=self._size if of_processes or isinstance(spec.target, Computed) else None,
            begin=partial(self._begin, served),
            close=self._end,
        )

    def check_requires(self, spec: ModelSpec) -> None:
        """Makes sure that what a model requires is there.

        Raises:
            ModelNotFound: where something is not.
        """
        for reference in spec.requires:
            try:
                self._cache.progress(reference)
            except ModelNotFound as error:
                raise ModelNotFound(f"model '{spec.name}' requires '{reference}': {error}") from None

    def remove(self, reference: str) -> None:
        """Has the cache forget a model; what is loaded of it leaves as soon as nobody uses it."""
        if self._registered.pop(reference, None) is None:
            return
        try:
            self._cache.remove(reference)
        except PenstockError as error:  # it was closed, or somebody was faster
            LOG.debug("model %r was not taken out of its cache: %s", reference, error)

    def remove_all(self) -> None:
        """Has the cache forget every model."""
        for reference in list(self._registered):
            self.remove(reference)

    def close(self, deadline: float, *, whole_cache: bool, at_exit: bool = False) -> None:
        """Unloads the models, those that require others first, while there is time; then leaves the rest behind."""
        self._deadline = deadline
        limit = max(0.0, deadline - time.monotonic()) + _LAST_SECONDS
        if whole_cache and at_exit:
            self._cache._at_exit(time.monotonic() + limit)  # noqa: SLF001  nobody is left to be told what hangs
        elif whole_cache:
            self._cache.close(timeout=limit)
        else:
            self._unload(time.monotonic() + limit)
        with self._lock:
            left, self._loads = self._loads, []
        for resident in left:
            resident.end(lambda: 0.0)

    def _unload(self, deadline: float) -> None:
        leaving = []
        for reference in list(self._registered):
            try:
                leaving.append(self._cache.unload(reference, dependents=True))
            except PenstockError as error:
                LOG.debug("model %r was not unloaded: %s", reference, error)
        for operation in leaving:
            try:
                operation.wait(max(0.001, deadline - time.monotonic()))
            except PenstockError as error:
                LOG.warning("a model was not unloaded in time: %s", error)
        self.remove_all()

    def _load(self, served: Served, launch: Launch | None, ctx: LoadContext) -> Any:
        if served.index is None:
            raise ModelNotReady(f"model '{served.spec.name}' is being added to its server")
        resident = resident_of(served.spec, self._native().shift(served.index), launch)
        with self._lock:
            # Those that have ended, or never began, stand for nothing any more; those under way for nothing yet.
            self._loads = [load for load in self._loads if load.value is not None or load in self._under_way]
            self._loads.append(resident)
            self._under_way.append(resident)
        try:
            return resident.load(ctx)
        finally:
            with self._lock:
                self._under_way = [load for load in self._under_way if load is not resident]

    def _warm_up(self, value: object) -> Any:
        return self._of(value).warm_up()

    def _begin(self, served: Served, value: object) -> Callable[[], None]:
        resident = self._of(value)
        begin = resident.begin()
        with served.lock:
            old, served.old = served.old, None
            if old is not None and not served.given_up and served.index is not None:
                # From here on requests come to its queue, and are answered as soon as this load serves.
                self._native().succeed(old, served.index)
                served.succeeded = True
        return begin

    def _size(self, value: object) -> int:
        return self._of(value).size()

    def _of(self, value: object) -> Resident | ComputedResident:
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
    return launch_of("model", spec.target, f"model {spec.name!r}", spec.policy, told)
