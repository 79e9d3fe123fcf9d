"""One load of a served model: its instance, the workers that run it, and how they end."""

from __future__ import annotations

import inspect
import threading
import time
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from penstock import _lifecycle
from penstock._computed import Computed
from penstock._processes import Processes
from penstock._worker import Overlap, work
from penstock.models import LoadedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from penstock import _native
    from penstock._computed import Loaded
    from penstock._processes import Launch
    from penstock.models import LoadContext, ModelSpec

    Left = Callable[[], float]
    """Seconds that are left for an end."""

_LOOK = 0.05
"""Seconds after which a wait looks at what else has happened: Ctrl-C, or that nobody wants a load any more."""

_LEAST_END = 0.5
"""Seconds that worker processes have to end, also where the time for it is up."""


def resident_of(spec: ModelSpec, shift: _native.NativeShift, launch: Launch | None) -> Resident | ComputedResident:
    """One load of a model, which is yet to be loaded."""
    if isinstance(spec.target, Computed):
        return ComputedResident(spec, spec.target, shift)
    return Resident(spec, shift, launch)


class ComputedResident:
    """One load of a model that Rust computes: as `Resident`, with threads of Rust."""

    def __init__(self, spec: ModelSpec, target: Computed, shift: _native.NativeShift) -> None:
        self._spec = spec
        self._target = target
        self._shift = shift
        self._loaded: Loaded | None = None

    @property
    def value(self) -> object:
        """What is lent to the models that require it; nothing before and after."""
        return None if self._loaded is None else self._loaded.value

    def size(self) -> int:
        """Bytes that it takes: what was declared, else what it says."""
        return self._spec.size or (0 if self._loaded is None else self._loaded.size)

    def load(self, ctx: LoadContext) -> object:
        """Opens what computes; gives what stands for the model."""
        self._loaded = self._target.open(ctx)
        return self.value

    def warm_up(self) -> Any:
        """Runs the model for the first time, where it says how. Gives a coroutine where that does.

        What fails is raised, and the model closed.
        """
        if self._spec.warmup is None:
            return None
        try:
            warming = self._spec.warmup(self.value)
        except BaseException:
            self.end(lambda: 0.0)
            raise
        return self._warm_up_async(warming) if inspect.iscoroutine(warming) else None

    async def _warm_up_async(self, warming: Coroutine[Any, Any, Any]) -> None:
        try:
            await warming
        except BaseException:
            self.end(lambda: 0.0)
            raise

    def begin(self) -> Callable[[], None]:
        """Starts the threads: from here on the model is ready. Gives what lets them take batches."""
        if self._loaded is not None:
            try:
                self._loaded.start(self._shift)
            except BaseException:
                self.end(lambda: 0.0)
                raise
        self._shift.announce()
        return self._shift.begin

    def end(self, left: Left) -> None:
        """Has the threads finish what they run, for as long as there is time `left`; then the model closes."""
        self._shift.end()
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            loaded.end(self._shift, max(_LEAST_END, left()))


class Resident:
    """One load of a served model.

    Its workers, threads or processes, take batches of the model's queue, which was there before and stays.
    """

    def __init__(self, spec: ModelSpec, shift: _native.NativeShift, launch: Launch | None) -> None:
        self._spec = spec
        self._launch = launch
        self._shift = shift
        self._loaded = LoadedModel(spec)
        self._function: Callable[..., Any] | None = None
        self._threads: list[threading.Thread] = []
        self._overlap: Overlap | None = None
        self._ended = False

    @property
    def value(self) -> object:
        """What stands for the model: the instance of a class, or the function; nothing before and after."""
        if isinstance(self._spec.workers, Processes):
            return None if self._ended else self
        return self._loaded.value

    def size(self) -> int:
        """Bytes that its worker processes take, pages that they share with others in parts; else what was declared."""
        sizes = [_bytes_of(number) for number in self._shift.process_numbers()]
        measured = sum(size for size in sizes if size is not None)
        return measured or self._spec.size or 0

    def load(self, ctx: LoadContext) -> Any:
        """Makes the model and loads it; gives what stands for it, or a coroutine that does.

        Raises:
            LoadFailed: where a worker process could not load it.
        """
        workers = self._spec.workers
        ctx.directory = self._spec.directory
        if self._launch is not None and isinstance(workers, Processes):
            self._start_processes(self._launch, workers.count, ctx)
            return self.value
        try:
            self._loaded.make()
            load = self._loaded.loads()
            loading = None if load is None else load(ctx)
            return self._load_async(loading) if inspect.iscoroutine(loading) else self._made()
        except BaseException:
            self._loaded.forget()
            raise

    async def _load_async(self, loading: Coroutine[Any, Any, Any]) -> Any:
        try:
            await loading
            return self._made()
        except BaseException:
            self._loaded.forget()
            raise

    def _made(self) -> object:
        self._function = self._loaded.function()
        return self.value

    def _start_processes(self, launch: Launch, count: int, ctx: LoadContext) -> None:
        try:
            self._shift.start_processes(launch, count)
            while not self._shift.wait_processes(_LOOK):
                ctx.progress(None, "processes")
        except BaseException:
            self._ended = True
            self._shift.end_processes(0.0)
            raise

    def warm_up(self) -> Any:
        """Runs the model for the first time, where it says how. Gives a coroutine where that does.

        What fails is raised, and the model closed.
        """
        warmup = self._spec.warmup
        if self._function is None or warmup is None:
            return None
        try:
            warming = warmup(self.value)
        except BaseException:
            self._loaded.close()
            raise
        return self._warm_up_async(warming) if inspect.iscoroutine(warming) else None

    async def _warm_up_async(self, warming: Coroutine[Any, Any, Any]) -> None:
        try:
            await warming
        except BaseException:
            self._loaded.close()
            raise

    def begin(self) -> Callable[[], None]:
        """Starts the workers: from here on the model is ready. Gives what lets them take batches."""
        function, count = self._function, self._spec.workers
        if function is not None and not isinstance(count, Processes):
            try:
                self._start_threads(function, count)
            except BaseException:
                self.end(lambda: 0.0)
                raise
        self._shift.announce()
        # A method of the shift's: it keeps the workers' place, and not the model.
        return self._shift.begin

    def _start_threads(self, function: Callable[..., Any], count: int) -> None:
        loaded = self._loaded
        workers = [self._shift.worker(function, loaded.fillers, loaded.steps) for _ in range(count)]
        if loaded.is_async:
            self._overlap = Overlap(workers, _lifecycle.own_loop())
            works = [self._overlap.work]
        else:
            works = [partial(work, worker) for worker in workers]
        for number, each in enumerate(works):
            # A context can be entered by one thread at a time, so each has a copy.
            run = partial(copy_context().run, each)
            name = f"penstock-{self._spec.name}-{number}"
            self._threads.append(threading.Thread(target=run, name=name, daemon=True))
            self._threads[-1].start()

    def end(self, left: Left) -> None:
        """Has the workers finish what they run, for as long as there is time `left`; then the model closes.

        Coroutines that still run then are cancelled, processes killed, and threads left behind.
        """
        self._shift.end()
        self._ended = True
        if isinstance(self._spec.workers, Processes):
            self._shift.end_processes(max(_LEAST_END, left()))
            return
        self._join(left)
        overlap, self._overlap = self._overlap, None
        if overlap is not None:
            while overlap.is_busy and left() > 0:
                time.sleep(0.001)
            overlap.cancel()
        self._function = None
        self._loaded.close()

    def _join(self, left: Left) -> None:
        threads, self._threads = self._threads, []
        for thread in threads:
            while thread is not threading.current_thread() and thread.is_alive() and (wait := left()) > 0:
                thread.join(min(wait, _LOOK))


def _bytes_of(number: int) -> int | None:
    """The proportional share of memory of a process, where the system says so."""
    try:
        with open(f"/proc/{number}/smaps_rollup", encoding="ascii") as lines:  # noqa: PTH123  no import for one file
            shares = [line.split()[1] for line in lines if line.startswith("Pss:")]
    except OSError:
        return None
    return int(shares[0]) << 10 if shares else None
