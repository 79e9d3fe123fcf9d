"""One load of a served model: its instance, the workers that run it, and how they end."""

from __future__ import annotations

import threading
import time
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from penstock import _lifecycle
from penstock._processes import END_SECONDS, Processes, launch_of
from penstock._worker import Overlap, work
from penstock.models import LoadedModel

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    from penstock import _native
    from penstock.models import LoadContext, ModelSpec

_LOOK = 0.05
"""Seconds after which a wait looks at what else has happened: Ctrl-C, a load that nobody wants any more."""

_LEAST_END = 0.5
"""Seconds that worker processes have to end, also where the time for it is up."""


class Resident:
    """One load of a served model.

    Its workers, threads or processes, take batches of the model's queue, which was there before and stays.
    """

    def __init__(self, spec: ModelSpec, shift: _native.NativeShift, context: Context) -> None:
        self._spec = spec
        self._shift = shift
        self._context = context
        self._loaded = LoadedModel(spec)
        self._function: Callable[..., Any] | None = None
        self._threads: list[threading.Thread] = []
        self._overlap: Overlap | None = None

    def load(self, ctx: LoadContext) -> Any:
        """Makes the model and loads it; gives what stands for it: the class's instance, or the function.

        Raises:
            LoadFailed: with what the model raised as its cause.
            ConfigError: where its parameters do not fit its inputs, or it cannot be run in a process.
        """
        workers = self._spec.workers
        if isinstance(workers, Processes):
            self._start_processes(workers, ctx)
            return self
        self._function = self._context.run(self._loaded.load, ctx)
        return self._loaded.value

    def _start_processes(self, processes: Processes, ctx: LoadContext) -> None:
        launch = launch_of("model", self._spec.target, f"model {self._spec.name!r}")
        try:
            self._shift.start_processes(launch, processes.count)
            while not self._shift.wait_processes(_LOOK):
                ctx.progress(None, "starting processes")
        except BaseException:
            self._shift.end()
            self._shift.end_processes(0.0)
            raise

    def begin(self) -> None:
        """Warms the model up and starts its workers: from here on it is ready."""
        function = self._function
        if function is not None:
            self._context.run(self._loaded.warm_up)
            self._start_threads(function, self._spec.workers)
        self._shift.begin()

    def _start_threads(self, function: Callable[..., Any], count: int | Processes) -> None:
        loaded = self._loaded
        assert isinstance(count, int)
        workers = [self._shift.worker(function, loaded.fillers, loaded.steps) for _ in range(count)]
        if loaded.is_async:
            self._overlap = Overlap(workers, _lifecycle.own_loop())
            works = [self._overlap.work]
        else:
            works = [partial(work, worker) for worker in workers]
        for number, each in enumerate(works):
            # A context can be entered by one thread at a time, so each has a copy.
            run = partial(self._context.run(copy_context).run, each)
            name = f"penstock-{self._spec.name}-{number}"
            self._threads.append(threading.Thread(target=run, name=name, daemon=True))
            self._threads[-1].start()

    def end(self, left: Callable[[], float]) -> None:
        """Has the workers finish what they run, for as long as there is time `left`; then the model closes.

        Coroutines that still run then are cancelled, processes killed, and threads left behind.
        """
        self._shift.end()
        if isinstance(self._spec.workers, Processes):
            self._end_processes(left)
            return
        self.join(left)
        overlap, self._overlap = self._overlap, None
        if overlap is not None:
            while overlap.is_busy and left() > 0:
                time.sleep(0.001)
            overlap.cancel()
        self._loaded.close()

    def _end_processes(self, left: Callable[[], float]) -> None:
        self._shift.end_processes(max(_LEAST_END, left()))

    def join(self, left: Callable[[], float]) -> None:
        """Waits for its threads, for as long as there is time `left`."""
        for thread in self._threads:
            while thread is not threading.current_thread() and thread.is_alive() and (wait := left()) > 0:
                thread.join(min(wait, _LOOK))
