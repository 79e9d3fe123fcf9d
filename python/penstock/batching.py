"""Request batching: a function over a batch becomes an awaitable over one item."""

from __future__ import annotations

import builtins
import inspect
import math
import threading
import time
import weakref
from collections import Counter, deque
from contextvars import Context, copy_context
from functools import partial, update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, get_args, overload

from penstock import _lifecycle, _native
from penstock._batch_records import explanation_of
from penstock._clock import VirtualClock
from penstock._deadline import DEADLINE
from penstock._display import progress_bar
from penstock._policy import (
    BatchPolicy,
    BatchStats,
    Dispatch,
    Priority,
    Workers,
    check_choice,
    check_count,
    check_seconds,
    check_workers,
    fillers_of,
    policy_from,
)
from penstock._processes import END_SECONDS, Processes, RemoteFunction, launch_of
from penstock._processes import run as run_in_process
from penstock._recording import Recording
from penstock._steps import SlowReader, Stream, driven, driven_async, is_async_stepwise, is_stepwise
from penstock._worker import work
from penstock.errors import Closed, ConfigError, DeadlineExceeded

if TYPE_CHECKING:
    import asyncio
    import os
    from collections.abc import Awaitable, Callable, Iterable
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray

    from penstock._batch_records import BatchExplanation
    from penstock._processes import Launch
    from penstock._steps import Feed

R = TypeVar("R")
_PRIORITIES = {"high": 0, "normal": 1, "low": 2}
_TENANTS_COUNTED = 1000


class Batcher(_native.NativeBatcher, Generic[R]):
    """A function over a batch, called with one item at a time and run on many at once.

    `await batcher(item)` gives the item's own result. Items of many callers share one call of the function:

    * arrays of equal shape and data type are gathered into one contiguous array `[n, ...]`; numbers into an array
      `[n]`; tuples and dictionaries part by part; tensors of other libraries through DLPack; everything else (strings,
      bytes, lists, any object) comes as a list of `n`;
    * items of other shapes, types or keyword arguments go into batches of their own: nothing is ever cast;
    * the function returns one row for each item: an array `[n, ...]`, a list of `n`, or a dictionary or tuple of
      those. An `ItemError` in a row's place fails that request and no other.

    A generator function, `async` or not, is given a `Batch` instead and answers step by step: see there.

    Cancelling the awaitable takes the request out of its batch before the function sees it; while the function runs,
    only the result is dropped.

    Args:
        fn: the function; `async def` runs on a loop of Penstock's own, never on the caller's.
        policy: a `BatchPolicy`, or its fields as keywords, never both.
        workers: threads that run the function; `Processes` for functions that hold the interpreter lock; or `"inline"`
            to run it on the event loop, which it blocks: the least delay for functions that take microseconds.
        clock: a `VirtualClock` to live by, for tests; `None` for the time of the world.
        **settings: the fields of `BatchPolicy`.

    Raises:
        ConfigError: for a function that cannot be called, or settings that contradict one another.
    """

    fn: Callable[..., Any]
    policy: BatchPolicy
    workers: Workers
    clock: VirtualClock | None
    _threads: list[threading.Thread]
    _remotes: list[RemoteFunction]
    _runs_alone: bool
    _steps: bool
    _tenants: Counter[str]
    _recordings: list[Recording]

    def __new__(
        cls,
        fn: Callable[..., Any],
        policy: BatchPolicy | None = None,
        *,
        workers: Workers = 1,
        clock: VirtualClock | None = None,
        **settings: Any,
    ) -> Self:
        """Makes the native half."""
        if clock is not None and not isinstance(clock, VirtualClock):
            raise ConfigError(f"clock must be a VirtualClock, not {clock!r}")
        policy = policy_from(policy, settings)
        _check_function(fn)
        inline = check_workers(workers) == "inline"
        context = copy_context()
        steps = is_stepwise(fn)
        runs_alone = _runs_on_own_loop(fn, workers)
        whole: Callable[..., Any] = (driven_async(fn) if runs_alone else driven(fn)) if steps else fn
        called = _lifecycle.on_own_loop(whole) if runs_alone else whole
        name = str(getattr(fn, "__qualname__", type(fn).__name__))
        threads: list[threading.Thread] = []
        remotes: list[RemoteFunction] = []
        count = workers.count if isinstance(workers, Processes) else 1 if inline else cast("int", workers)
        start: Callable[[_native.Worker], None] | None = partial(_start_threads, threads, count, name, context)
        if isinstance(workers, Processes):
            start = partial(
                _start_processes,
                (threads, remotes),
                count,
                name,
                partial(launch_of, "function", fn, f"the function {name!r}", policy),
            )
        self = super().__new__(
            cls,
            _in_context(called, context) if inline else called,
            None if inline else start,
            policy=policy.native(),
            workers=count,
            fillers=(False, False) if steps else fillers_of(policy, fn),
            steps=steps,
            clock=clock,
        )
        self.fn = fn
        self.policy = policy
        self.workers = workers
        self.clock = clock
        self._threads = threads
        self._remotes = remotes
        self._runs_alone = runs_alone
        self._steps = steps
        self._tenants = Counter()
        self._recordings = []
        return self

    def __init__(self, *_args: Any, **_settings: Any) -> None:
        update_wrapper(self, self.fn, updated=())
        _lifecycle.close_at_exit(self)
        _close_older_cell(self)

    if TYPE_CHECKING:

        def __call__(self, *args: Any, **kwargs: Any) -> asyncio.Future[R]:
            """Adds one item to the next batch; the future is the item's own result."""

    def call(self, *args: Any, **kwargs: Any) -> R:
        """As calling, from a thread or a notebook cell: blocks until the result is there. Ctrl-C leaves the batch.

        Raises:
            ConfigError: where it would wait for itself: inside the function, or for an `async def` function on
                Penstock's own loop.
        """
        return cast("R", self._blocking(args, kwargs, "normal", None))

    def stream(self, *args: Any, **kwargs: Any) -> Stream[Any]:
        """Adds one item to the next batch of a generator function: an async iterator over the values of its steps.

        Raises:
            ConfigError: for a function that is no generator.
        """
        return Options(self).stream(*args, **kwargs)

    async def map(self, *items: Iterable[Any], progress: bool = False) -> list[R]:
        """Runs the function over items and keeps their order; with several iterables, over several arguments.

        At most `max_queue` items wait at once. The first failure cancels what has not run and is raised.

        Args:
            *items: the items; each iterable is one positional argument.
            progress: show a bar (needs `pip install penstock[notebook]`).
        """
        return await Options(self).map(*items, progress=progress)

    def options(
        self,
        *,
        priority: Priority = "normal",
        tenant: str | None = None,
        timeout: float | None = None,
        slow_reader: SlowReader = "pause",
    ) -> Options[R]:
        """This batcher with other terms for the calls made through it.

        Args:
            priority: `"high"` is put into a batch before `"normal"`, and that before `"low"`; within one, first come
                first served.
            tenant: on whose behalf; counted in `stats().tenants`.
            timeout: seconds until the result must be there; then the call raises `DeadlineExceeded` and leaves its
                batch.
            slow_reader: what a stream does whose reader is 1024 values behind: `"pause"` leaves its request out of the
                steps until it has caught up, and goes on with the others; `"buffer"` keeps everything; `"drop"` leaves
                out what comes until there is room.
        """
        return Options(self, priority=priority, tenant=tenant, timeout=timeout, slow_reader=slow_reader)

    def stats(self) -> BatchStats:
        """What happened so far."""
        return BatchStats(**self.counters(), tenants=dict(self._tenants))

    def explain(self, last: int = 10) -> BatchExplanation:
        """Why the `last` batches were as they were, and where their time went; a table, and words. 256 are kept."""
        check_count("last", last)
        return explanation_of(self.explain_batches(last))

    def record(self, path: str | os.PathLike[str]) -> Recording:
        """Writes what comes, and how long the function takes, into a file from here on, for `penstock tune`.

        One JSON object a line: when requests came, what they cost and by when they must be answered, and how long each
        batch took; never the items themselves. A request never waits for the file: what cannot be written in time is
        left out and counted. It ends with `close` of what is returned, or of the batcher.

        Args:
            path: the file; one of that name is replaced.

        Raises:
            ConfigError: where it cannot be written.
        """
        path = Path(path)
        self._recordings.append(recording := Recording(self.begin_record(path), path))
        return recording

    def close(self, *, drain: bool = True, timeout: float | None = None) -> None:
        """Accepts nothing more and waits for what runs. Safe to call twice.

        Args:
            drain: run what waits; without it, whoever waits gets `Closed`.
            timeout: seconds to wait at most, or `None` for as long as it takes. Processes that still run then are
                killed; threads are left alone.
        """
        self._begin_close(drain=drain)
        if not self._waits_for_itself():
            self._end_processes(idle=self.wait_idle(math.inf if timeout is None else timeout))
        self._end_recordings()

    async def aclose(self, *, drain: bool = True, timeout: float | None = None) -> None:
        """As `close`, without blocking the event loop."""
        self._begin_close(drain=drain)
        if not self._waits_for_itself():
            idle = await self.wait_idle_async(math.inf if timeout is None else timeout)
            if self._remotes:
                import asyncio  # noqa: PLC0415  importing it costs as much as a third of `import numpy`

                await asyncio.get_running_loop().run_in_executor(None, partial(self._end_processes, idle=idle))
        self._end_recordings()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close(drain=kind is None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose(drain=kind is None)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        policy = self.policy
        return (
            f"<penstock.Batcher {getattr(self, '__qualname__', '?')} {state} "
            f"max_batch_size={policy.max_batch_size} dispatch={policy.dispatch!r} workers={self.workers!r}>"
        )

    def _repr_html_(self) -> str:
        from penstock import _reprs  # noqa: PLC0415  a notebook asks for it

        return _reprs.of_batcher(self, getattr(self, "__qualname__", "?"))

    def _blocking(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        priority: Priority,
        timeout: float | None,
        tenant: str | None = None,
    ) -> Any:
        if self._waits_for_itself():
            raise ConfigError(
                "call() here would wait for itself: inside the function use .fn, on penstock's own loop await the call"
            )
        # An inline function may run right here, and must not see the context of whoever calls.
        run = Context().run if self.workers == "inline" else _plainly
        seconds = -1.0 if timeout is None else timeout
        return run(self.submit_blocking, args, kwargs, (_PRIORITIES[priority], tenant, seconds))

    def _begin_close(self, *, drain: bool) -> None:
        (Context().run if self.workers == "inline" else _plainly)(self.begin_close, drain)

    def _end_processes(self, *, idle: bool, limit: float = END_SECONDS) -> None:
        """Waits until the processes have ended; kills them where a batch still runs, or they do not end in time."""
        remotes, deadline = self._remotes, time.monotonic() + limit
        if not idle:
            for remote in remotes:
                remote.keeper.kill()
        for thread in self._threads if remotes else ():
            thread.join(max(0.0, deadline - time.monotonic()))
        for remote in remotes:
            remote.keeper.kill()

    def _end_recordings(self) -> None:
        for recording in self._recordings:
            recording.close()

    def _waits_for_itself(self) -> bool:
        return self.runs_here() or (self._runs_alone and threading.current_thread() is _lifecycle.own_loop().thread)

    def _count_tenant(self, tenant: str) -> None:
        known = tenant in self._tenants or len(self._tenants) < _TENANTS_COUNTED
        self._tenants[tenant if known else "(others)"] += 1

    def _at_exit(self, deadline: float) -> None:
        self._begin_close(drain=False)
        left = max(0.0, deadline - time.monotonic())
        # A process can be killed, and its thread needs a moment to see that.
        idle = self.wait_idle(left / 2 if self._remotes else left)
        self._end_processes(idle=idle, limit=max(0.0, deadline - time.monotonic()) / 2)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._end_recordings()


class Options(Generic[R]):
    """A batcher with terms of one's own; made by `Batcher.options`."""

    def __init__(
        self,
        batcher: Batcher[R],
        *,
        priority: Priority = "normal",
        tenant: str | None = None,
        timeout: float | None = None,
        slow_reader: SlowReader = "pause",
    ) -> None:
        check_choice("priority", priority, tuple(_PRIORITIES))
        check_choice("slow_reader", slow_reader, get_args(SlowReader))
        if timeout is not None:
            check_seconds("timeout", timeout)
        if tenant is not None and not isinstance(tenant, str):
            raise ConfigError(f"tenant must be a string, not {tenant!r}")
        self._batcher = batcher
        self._priority: Priority = priority
        self._tenant = tenant
        self._timeout = timeout
        self._slow_reader: SlowReader = slow_reader

    def __call__(self, *args: Any, **kwargs: Any) -> asyncio.Future[R]:
        """Adds one item to the next batch; the future is the item's own result."""
        return self._submit(args, kwargs)

    def stream(self, *args: Any, **kwargs: Any) -> Stream[Any]:
        """As `Batcher.stream`; `timeout` is for the whole stream."""
        if not self._batcher._steps:  # noqa: SLF001  one module
            raise ConfigError("only a generator function has steps to stream: yield the values of each step")
        return Stream(partial(self._submit, args, kwargs), self._slow_reader, self._batcher.ring)

    def _submit(self, args: tuple[Any, ...], kwargs: dict[str, Any], feed: Feed | None = None) -> asyncio.Future[R]:
        self._count()
        seconds = -1.0 if self._timeout is None else self._timeout
        future = self._batcher.submit(args, kwargs, (_PRIORITIES[self._priority], self._tenant, seconds), feed)
        if self._timeout is not None:
            clock, loop = self._batcher.clock, future.get_loop()
            later = loop.call_later if clock is None else partial(clock._call_later, loop)  # noqa: SLF001  one package
            timer = later(self._timeout, _expire, future, self._timeout)
            future.add_done_callback(lambda _: timer.cancel())
        return future

    def call(self, *args: Any, **kwargs: Any) -> R:
        """As `Batcher.call`."""
        self._count()
        return cast("R", self._batcher._blocking(args, kwargs, self._priority, self._timeout, self._tenant))  # noqa: SLF001

    async def map(self, *items: Iterable[Any], progress: bool = False) -> list[R]:
        """As `Batcher.map`."""
        waiting: deque[asyncio.Future[R]] = deque()
        results: list[R] = []
        limit = self._batcher.policy.max_queue
        with progress_bar(items, shown=progress) as bar:
            try:
                for arguments in zip(*items, strict=len(items) > 1):
                    while len(waiting) >= limit:
                        results.append(await waiting.popleft())
                        bar.update()
                    waiting.append(self(*arguments))
                while waiting:
                    results.append(await waiting.popleft())
                    bar.update()
            except BaseException:
                for future in waiting:
                    if not future.cancel() and not future.cancelled():
                        future.exception()  # seen: asyncio need not complain about it
                raise
        return results

    def _count(self) -> None:
        if self._tenant is not None:
            self._batcher._count_tenant(self._tenant)  # noqa: SLF001  one module


@overload
def batched(fn: Callable[..., Awaitable[list[R]]], /) -> Batcher[R]: ...
@overload
def batched(fn: Callable[..., Awaitable[Any]], /) -> Batcher[Any]: ...
@overload
def batched(fn: Callable[..., list[R]], /) -> Batcher[R]: ...
@overload
def batched(fn: Callable[..., NDArray[Any]], /) -> Batcher[NDArray[Any]]: ...
@overload
def batched(fn: Callable[..., Any], /) -> Batcher[Any]: ...
@overload
def batched(
    fn: None = None,
    /,
    *,
    policy: BatchPolicy | None = None,
    workers: Workers = 1,
    clock: VirtualClock | None = None,
    max_batch_size: int = ...,
    min_batch_size: int = ...,
    max_wait: float = ...,
    dispatch: Dispatch = ...,
    max_queue: int = ...,
    on_error: Literal["isolate", "fail"] = ...,
) -> Callable[[Callable[..., Any]], Batcher[Any]]: ...
def batched(fn: Callable[..., Any] | None = None, /, **settings: Any) -> Any:
    """Decorates a function over a batch: calling it with one item gives an awaitable for that item's result.

    `@batched` and `@batched(max_batch_size=100, ...)` both work; the keywords are those of `Batcher`, which says what
    the function is given and what it may return. `batched(...)(fn)` is `Batcher(fn, ...)`.

    Example:
        >>> import asyncio, numpy as np, penstock
        >>> @penstock.batched(max_batch_size=100)
        ... def double(x: np.ndarray) -> np.ndarray:      # x: [n, 3]
        ...     return x * 2
        >>> async def main():
        ...     rows = await asyncio.gather(*(double(np.full(3, i)) for i in range(50)))
        ...     return rows[7], double.stats().batches
        >>> asyncio.run(main())
        (array([14, 14, 14]), 1)
    """
    if fn is None:
        return partial(Batcher, **settings)
    return Batcher(fn, **settings)


def _plainly(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


def _expire(future: asyncio.Future[Any], timeout: float) -> None:
    if not future.done():
        future.set_exception(DeadlineExceeded(f"no answer came within timeout={timeout} s"))


def _start_threads(
    threads: list[threading.Thread],
    count: int,
    name: str,
    context: Context,
    first: _native.Worker,
) -> None:
    for number in range(count):
        # A context can be entered by one thread at a time, so each has a copy of the decorator's.
        run = partial(context.copy().run, work, first if number == 0 else first.another())
        _start(threads, threading.Thread(target=run, name=f"penstock-{name}-{number}", daemon=True))


def _start_processes(
    started: tuple[list[threading.Thread], list[RemoteFunction]],
    count: int,
    name: str,
    launch: Callable[[], Launch],
    first: _native.Worker,
) -> None:
    threads, remotes = started
    launched = launch()
    remotes.extend(RemoteFunction(launched) for _ in range(count))
    for number, remote in enumerate(remotes):
        worker = first if number == 0 else first.another()
        run = partial(run_in_process, worker, remote)
        _start(threads, threading.Thread(target=run, name=f"penstock-{name}-{number}", daemon=True))


def _start(threads: list[threading.Thread], thread: threading.Thread) -> None:
    try:
        thread.start()
    except RuntimeError as error:
        # Python 3.12 and later start no thread in a handler of `atexit`.
        if "interpreter shutdown" not in str(error):
            raise
        raise Closed("the interpreter ends, and the function's threads had not been started") from error
    threads.append(thread)


def _in_context(fn: Callable[..., Any], context: Context) -> Callable[..., Any]:
    if not context:
        return fn

    def run(*args: Any, **kwargs: Any) -> Any:
        inner = context.copy()
        inner.run(DEADLINE.set, DEADLINE.get())
        return inner.run(fn, *args, **kwargs)

    return run


def _runs_on_own_loop(fn: Callable[..., Any], workers: Workers) -> bool:
    """Whether a function is awaited on Penstock's own loop; refuses it where these workers cannot run it."""
    if isinstance(workers, Processes):
        if is_stepwise(fn):
            raise ConfigError("a generator cannot run in processes: the requests of its batch come and go in this one")
        return False
    awaited = inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__)
    awaited = awaited or is_async_stepwise(fn)
    if awaited and workers == "inline":
        raise ConfigError("an async def function cannot run inline: its loop would wait for itself; use workers=1")
    return awaited


def _check_function(fn: object) -> None:
    if not callable(fn):
        raise ConfigError(f"a batched function must be callable, not {fn!r}")
    if isinstance(fn, Batcher):
        raise ConfigError("the function is batched already; give the plain function (its .fn)")


_cells: dict[str, weakref.ref[Batcher[Any]]] = {}


def _close_older_cell(batcher: Batcher[Any]) -> None:
    """Running a notebook cell again defines its functions again: the older one's threads would stay for ever."""
    name = getattr(batcher.fn, "__qualname__", "<")
    defined_here = inspect.isfunction(batcher.fn) and batcher.fn.__module__ == "__main__" and "<" not in name
    if not defined_here or not hasattr(builtins, "get_ipython"):
        return
    older = _cells.get(name, lambda: None)()
    if older is not None and older.fn is not batcher.fn:
        older.begin_close(drain=True)
    _cells[name] = weakref.ref(batcher)
