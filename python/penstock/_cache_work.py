"""What loads and unloads models: one thread takes what is to be done, and each load has a thread of its own.

Loads are rare, may take long and may hang, so none stands in another's way. Only Python stands below a loader: see
`penstock._worker`.
"""

from __future__ import annotations

import gc
import inspect
import logging
import threading
import traceback
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from penstock import _lifecycle
from penstock._cache_context import LoadContext
from penstock._cache_records import ModelEntry
from penstock._cache_sizes import WATCHED_BYTES, measure
from penstock.errors import OutputError, PenstockError
from penstock.settings import size_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future
    from contextvars import Context
    from typing import TypeAlias

    from penstock import _native
    from penstock._cache_loader import Loader

    _Job: TypeAlias = tuple[str, int, Any, Any, Any, Any, Any]
    """What is to be done: its kind, its number, and for a load what there is to know of it."""

LOG = logging.getLogger("penstock.models")


class Loaders:
    """The loaders of a cache by the numbers of their models, and the policy that ranks models."""

    def __init__(self, rank: Callable[[ModelEntry], float] | None = None) -> None:
        self.lock = threading.Lock()
        self.known: dict[int, Loader] = {}
        self.rank = rank

    def of(self, model: int) -> Loader:
        """The loader of a model; who registers one holds the lock until it is in here."""
        with self.lock:
            return self.known[model]


def run(desk: _native.LoadDesk, loaders: Loaders) -> None:
    """Takes what is to be done until the cache is closed."""
    crew = Crew(desk, loaders)
    while (job := desk.next()) is not None:
        try:
            crew.start(job)
        except Exception:
            # Without this thread nothing would be loaded any more.
            LOG.exception("penstock could not begin to %s", job[0])
        # While it waits, the thread must hold on to nothing.
        del job


class Crew:
    """The loads that run, and the models that are loaded."""

    def __init__(self, desk: _native.LoadDesk, loaders: Loaders) -> None:
        self._desk = desk
        self._loaders = loaders
        self._loads: dict[int, _Load] = {}
        self._resident: dict[int, _Resident] = {}

    def start(self, job: _Job) -> None:
        """Starts a job; the ones that are short are done when it comes back."""
        kind, number = job[0], job[1]
        if kind == "load":
            self._start_load(job)
        elif kind == "cancel":
            if (load := self._loads.get(number)) is not None:
                load.cancel()
        elif kind == "unload":
            resident = self._resident.pop(number, None)
            if self._in_thread(f"penstock-unload-{number}", self._unload, number, resident) is not None:
                self._unload(number, resident)
        elif self._in_thread("penstock-rank", self._rank, number, job[6]) is not None:
            self._rank(number, job[6])

    def _start_load(self, job: _Job) -> None:
        _, residency, model, name, version, attempt, requires = job
        desk, loader = self._desk, self._loaders.of(model)
        # Where the model was registered anew meanwhile, this load is not wanted any more, whatever it is given.
        values = dict(zip(loader.requires, map(desk.value, requires), strict=False))

        def report(phase: str, fraction: float | None) -> bool:
            return desk.report(residency, phase, fraction)

        context = LoadContext(name, version, attempt=attempt, requires=values, report=report)
        load = self._loads[residency] = _Load(loader, context, requires)
        if (error := self._in_thread(f"penstock-load-{name}", self._load, residency, load)) is not None:
            del self._loads[residency]
            desk.failed(residency, error, True)  # noqa: FBT003

    def _in_thread(self, name: str, function: Callable[..., None], *args: Any) -> RuntimeError | None:
        try:
            threading.Thread(target=function, args=args, name=name, daemon=True).start()
        except RuntimeError as error:  # there are too many, or the interpreter ends: from then on 3.12 starts none
            if not _lifecycle.is_ending():
                LOG.error("a thread for a model could not be started: %s", error)  # noqa: TRY400  it says all there is
            return error
        return None

    def _load(self, residency: int, load: _Load) -> None:
        try:
            size, open_up = self._make(residency, load)
        except BaseException as error:  # noqa: BLE001  whatever it is, somebody waits for the model
            self._fail(residency, load, error)
        else:
            del self._loads[residency]
            if self._desk.loaded(residency, size) and open_up is not None:
                # Not before: nobody has an answer of a model that is still said to load.
                open_up()
            # A load that outlasts its cache finds nobody else who would let the model go.
            while self._desk.closed and (job := self._desk.next()) is not None:
                self.start(job)

    def _make(self, residency: int, load: _Load) -> tuple[int | None, Callable[[], None] | None]:
        """Makes a model and keeps it; gives its size, and what is to be called once that is said.

        No frame of its own outlives it: it may be unloaded at once.
        """
        loader = load.loader
        value = load.call(loader.load, load.context)
        if value is None:
            raise OutputError(f"the loader of model {loader.name!r} returned None: let it return the model")
        if loader.warmup is not None:
            self._desk.warming(residency)
            load.call(loader.warmup, value)
        size = self._measure(residency, load, value)
        open_up = None if loader.begin is None else load.call(loader.begin, value)
        self._desk.keep(residency, value)
        return size, open_up

    def _measure(self, residency: int, load: _Load, value: object) -> int | None:
        """The size of a model, as exactly as it can be known; its buffers are watched from now on."""
        loader, requires = load.loader, load.requires
        found = measure(value, self._shared(requires))
        size: int | None = found.size
        if loader.sizeof is not None:
            said = load.call(loader.sizeof, value)
            size = 0 if said == 0 else size_of(f"model {loader.name!r}: sizeof", said)
        elif not found.complete:
            size = max(loader.size or 0, found.size) or None
        resident = self._resident[residency] = _Resident(loader, load.variables, requires)
        rest = (size or 0) - sum(nbytes for _, nbytes in found.buffers)
        for what, nbytes in [*found.buffers, (value, rest)]:
            if nbytes >= WATCHED_BYTES and (reference := _watched(self._desk, residency, what, nbytes)) is not None:
                resident.references.append(reference)
                self._desk.watch(residency, nbytes)
        return size

    def _shared(self, requires: Sequence[int]) -> Iterator[object]:
        """What belongs to the models that a model requires, and to those that they require."""
        for residency in requires:
            yield self._desk.value(residency)
            if (resident := self._resident.get(residency)) is not None:
                yield from (what for reference in resident.references if (what := reference()) is not None)
                yield from self._shared(resident.requires)

    def _fail(self, residency: int, load: _Load, error: BaseException) -> None:
        # What a loader had made so far, and what it was given, would live as long as the failure is remembered.
        _forget_locals(error)
        load.context._forget()  # noqa: SLF001  one package
        del self._loads[residency]
        self._resident.pop(residency, None)
        hopeful = isinstance(error, Exception) and not load.context.cancelled
        retry = hopeful and (not isinstance(error, PenstockError) or error.retryable)
        self._desk.failed(residency, error, retry)

    def _unload(self, residency: int, resident: _Resident | None) -> None:
        value = self._desk.take(residency)
        if resident is not None and resident.loader.close is not None:
            try:
                resident.context.run(_blocking, resident.loader.close, value)
            except BaseException:  # the model goes all the same
                LOG.warning("model %r raised while it was closed", resident.loader.name, exc_info=True)
        del value
        if self._desk.viewed(residency):
            # Models are full of cycles: what looks as if it were still in use may only wait for the collector.
            gc.collect()
        self._desk.unloaded(residency)

    def _rank(self, question: int, entries: Sequence[dict[str, Any]]) -> None:
        rank = self._loaders.rank
        try:
            scores = [0.0 if rank is None else float(rank(ModelEntry(**entry))) for entry in entries]
        except BaseException:  # a load waits for the answer
            LOG.warning("the policy of a model cache raised; what was used last stays", exc_info=True)
            scores = [-float(entry["idle"] or 0.0) for entry in entries]
        self._desk.ranked(question, scores)


class _Load:
    """A load that runs."""

    def __init__(self, loader: Loader, context: LoadContext, requires: Sequence[int]) -> None:
        self.loader = loader
        self.context = context
        self.requires = requires
        # A context can be entered by one thread at a time.
        self.variables = loader.context.copy()
        self._coroutine: Future[Any] | None = None

    def call(self, function: Callable[..., Any], argument: object) -> Any:
        """Calls a function, and waits for the coroutine that it may have made."""
        return self.variables.run(self._call, function, argument)

    def cancel(self) -> None:
        """Has the loader hear that nobody wants the model any more."""
        self.context._cancel()  # noqa: SLF001  one package
        if self._coroutine is not None:
            self._coroutine.cancel()

    def _call(self, function: Callable[..., Any], argument: object) -> Any:
        result = function(argument)
        if not inspect.iscoroutine(result):
            return result
        self._coroutine = _lifecycle.own_loop().submit(result)
        if self.context.cancelled:
            self._coroutine.cancel()
        try:
            return self._coroutine.result()
        finally:
            self._coroutine = None


@dataclass
class _Resident:
    """A model that is loaded: how it is closed, what it requires, and the buffers of it that are watched."""

    loader: Loader
    context: Context
    requires: Sequence[int]
    references: list[weakref.ref[Any]] = field(default_factory=list)


_WATCHED: dict[int, weakref.ref[Any]] = {}
"""References that tell of an end must outlive what they refer to, whoever unloads the model and whoever closes."""


def _watched(desk: _native.LoadDesk, residency: int, what: object, size: int) -> weakref.ref[Any] | None:
    """Has the cache hear when a buffer is gone; nothing where that cannot be known."""

    def died(reference: weakref.ref[Any]) -> None:
        _WATCHED.pop(id(reference), None)
        desk.died(residency, size)

    try:
        reference = weakref.ref(what, died)
    except TypeError:
        return None
    _WATCHED[id(reference)] = reference
    return reference


def _blocking(function: Callable[[Any], Any], value: object) -> None:
    """Calls a function, and waits for the coroutine that it may have made."""
    result = function(value)
    if inspect.iscoroutine(result):
        _lifecycle.own_loop().run(result)


def _forget_locals(error: BaseException) -> None:
    """Lets go of what the frames of an exception, and of those behind it, hold."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        traceback.clear_frames(one.__traceback__)
        one = one.__cause__ or one.__context__
