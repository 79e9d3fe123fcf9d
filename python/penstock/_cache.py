"""Models that come and go: loaded when they are needed, kept while there is room, never taken from who uses them."""

from __future__ import annotations

import logging
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from penstock import _lifecycle, _native
from penstock._cache_handles import LoadHandle, Operation
from penstock._cache_loader import Loader, check_name, check_reference, check_timeout, loader_of
from penstock._cache_records import CacheStats, Index, LoadProgress, ModelEntry, WhatIf, index_of, stats_of
from penstock._cache_work import Loaders, run
from penstock._clock import VirtualClock
from penstock._policy import Priority, check_choice, check_count, check_seconds
from penstock.errors import ConfigError
from penstock.settings import size_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

L = TypeVar("L", bound="Callable[..., Any]")
EvictionPolicy = Literal["lru", "gdsf"]

LOG = logging.getLogger("penstock.models")

_SHARE = 0.25
"""The part of the memory that predictions may take where `predict` is only true."""

_LOOK_AGAIN = 0.05
_CLOSE_SECONDS = 10.0
_MOST_LOADS = 1024


class ModelCache:
    """Models that are loaded in the background when they are needed, and kept while there is memory for them.

    A model is whatever its loader returns. `acquire` lends it: while it is lent, it is neither evicted nor unloaded.
    A model that is loaded is lent at once, whatever else is being loaded; who asks for one that is not waits for its
    load, which everybody shares who asks for it meanwhile.

    Loaders run in threads of their own, `async def` loaders on Penstock's own loop. What a model requires is loaded
    before it, lent to it, and unloaded after it. How many bytes a model takes is measured where it consists of Python
    objects and arrays; for models that live in memory of other libraries, give `size` or `sizeof`.

    Args:
        memory: bytes that all models together may take, as a number or as text such as "8GiB"; `None` for no limit.
        max_loads: loads that run at a time.
        policy: what leaves where there is no room: `"lru"` for what was used least recently; `"gdsf"` for what is worth
            least per byte, by how often it is used and how long it takes to load; or a function that is given a
            `ModelEntry` and returns a number: the lowest leaves first.
        predict: load what is about to be asked for, by what was asked for so far: `True`, or the part of the memory
            that it may take (0.25 for `True`).
        failure_memory: seconds for which a failed load is remembered, doubled for each further failure up to five
            minutes: who asks meanwhile hears of it at once.
        space_timeout: seconds that a load waits at most for memory that is in use.
        clock: a `VirtualClock` to live by, for tests; `None` for the time of the world.

    Raises:
        ConfigError: for settings that cannot be.

    Example:
        >>> import asyncio, penstock
        >>> cache = penstock.ModelCache(memory="1MiB")
        >>> @cache.loader("tokenizer")
        ... def tokenizer(ctx):
        ...     return {"a": 0, "b": 1}
        >>> @cache.loader("head", requires=["tokenizer"])
        ... def head(ctx):
        ...     words = ctx["tokenizer"]
        ...     return lambda text: [words[letter] for letter in text]
        >>> async def main():
        ...     async with cache.acquire("head") as model:
        ...         return model("ab")
        >>> asyncio.run(main())
        [0, 1]
        >>> cache.close()
    """

    def __init__(
        self,
        memory: int | str | None = None,
        *,
        max_loads: int = 3,
        policy: EvictionPolicy | Callable[[ModelEntry], float] = "lru",
        predict: bool | float = False,
        failure_memory: float = 5.0,
        space_timeout: float = 180.0,
        clock: VirtualClock | None = None,
    ) -> None:
        settings = _settings(memory, max_loads, policy, predict)
        check_seconds("failure_memory", failure_memory)
        check_seconds("space_timeout", space_timeout)
        if clock is not None and not isinstance(clock, VirtualClock):
            raise ConfigError(f"clock must be a VirtualClock, not {clock!r}")
        settings |= {"failure_memory": float(failure_memory), "space_timeout": float(space_timeout)}
        self._loaders = Loaders(policy if callable(policy) else None)
        self._threads: list[threading.Thread] = []
        self._native = _native.NativeModelCache(settings, partial(_start, self._threads, self._loaders), clock)
        self.memory: int | None = settings["memory"]
        _lifecycle.close_at_exit(self)

    def loader(
        self,
        name: str,
        *,
        requires: str | list[str] | tuple[str, ...] = (),
        version: str | int = "1",
        size: int | str | None = None,
        timeout: float = 30.0,
        retries: int = 1,
        backoff: float = 0.5,
        warmup: Callable[[Any], Any] | None = None,
        sizeof: Callable[[Any], int | str] | None = None,
        close: Callable[[Any], Any] | None = None,
        pinned: bool = False,
        fallback: str | None = None,
    ) -> Callable[[L], L]:
        """Registers the decorated function as the loader of a model; the function itself stays what it was.

        It is given a `LoadContext` and returns the model, which may be anything but `None`. A name and version that is
        registered again replaces the older one: what is loaded of that is used to its end, and the next acquire loads
        anew.

        Args:
            name: the model's name: letters, digits, `.`, `_`, `/` and `-`.
            requires: models that it needs, as references (`"encoder"`, `"encoder@2"`): they are loaded before it, and
                `ctx["encoder"]` gives them.
            version: its version; numbers compare as numbers, and the highest is the default.
            size: bytes that it will take, until they are measured.
            timeout: seconds that one attempt may take, from its start.
            retries: attempts after the first that failed.
            backoff: seconds before the first retry at most, doubled for each further one; the pause is drawn from below
                it.
            warmup: called with the model before anybody uses it.
            sizeof: called with the model; gives the bytes that it takes, in place of measuring them.
            close: called with the model before it is let go of.
            pinned: never evict it.
            fallback: reference to the model that is lent in its place where it cannot be loaded.

        Raises:
            ConfigError: for a name or a setting that cannot be.
            DependencyCycle: where it would come to require itself.
            CapacityError: where it is pinned, and what is pinned would not fit into the memory.
            Closed: where the cache is closed.
        """
        settings: dict[str, Any] = {
            "timeout": timeout,
            "retries": retries,
            "backoff": backoff,
            "warmup": warmup,
            "sizeof": sizeof,
            "close": close,
            "pinned": pinned,
            "fallback": fallback,
        }

        def register(load: L) -> L:
            self._register(loader_of(load, name, version, size, requires, **settings))
            return load

        return register

    def _register(self, loader: Loader) -> int:
        """Registers a loader, or replaces it; gives the number that its model goes by in the extension."""
        with self._loaders.lock:
            model = self._native.register(loader.native())
            self._loaders.known[model] = loader
        return model

    def _amend(self, loader: Loader) -> Loader:
        """Registers a loader in place of another, whose model goes on serving until it is loaded anew; gives that."""
        with self._loaders.lock:
            model = self._native.amend(loader.native())
            before, self._loaders.known[model] = self._loaders.known[model], loader
        return before

    def remove(self, model: str) -> None:
        """Forgets a model: who waits for it gets `ModelNotFound`, what is loaded of it is used to its end.

        Raises:
            ModelNotFound: where there is none.
        """
        self._native.remove(check_reference("model", model))

    def acquire(
        self,
        model: str,
        *,
        priority: Priority = "normal",
        timeout: float | None = None,
        session: str | None = None,
    ) -> _native.Acquiring:
        """Asks for a model, to be used once in one of these ways.

        * `async with cache.acquire("head") as model:` or `with ...`: the model itself, lent until the block ends;
        * `lease = await cache.acquire("head")` or `lease = cache.acquire("head").wait()`: a `Lease` with `.value`,
          `.version`, `.cold`, `.waited`, `.fallback`, lent until `lease.release()`.

        A model that is loaded is there at once: nothing is suspended. Cancelling gives up waiting; a load that has
        begun goes on, one that nobody waits for any more leaves the queue.

        Args:
            model: a reference: `"head"` (the alias of that name, else the highest version), `"head@2"`, an alias, or
                `"head@alias"`.
            priority: whose load goes first, where several wait.
            timeout: seconds to wait at most.
            session: whose request it is, for predictions.

        Raises:
            ModelNotFound: where there is no such model, or one that it requires is missing.
            LoadFailed: where it, or what it requires, could not be loaded: what the loader raised is the `__cause__`.
                It is remembered for a while (`.retry_after`).
            LoadTimeout: where loading it took longer than its `timeout`.
            CapacityError: where there is no room for it.
            DeadlineExceeded: where `timeout` has passed.
            ModelNotReady: where it is unloaded meanwhile.
            Closed: where the cache is closed, or was used before a fork.
            ConfigError: for arguments that cannot be.
        """
        if timeout is not None:
            check_timeout("timeout", timeout)
        try:
            return self._native.acquire(model, priority, timeout, session)
        except TypeError:
            check_reference("model", model)
            check_choice("priority", priority, get_args(Priority))
            raise ConfigError(f"session must be a string, not {session!r}") from None

    def preload(self, *models: str, priority: Priority = "normal") -> LoadHandle:
        """Begins to load models, and what they require, before anybody asks for them.

        Loads that somebody waits for go first; a preload that somebody comes to wait for becomes one of those.

        Args:
            *models: references.
            priority: which preloads go first.

        Returns:
            A handle: `await` it or block with `wait()`, watch `progress()`, or `cancel()` it.

        Raises:
            ModelNotFound: where there is no such model.
            ConfigError: where none is named.
            Closed: where the cache was used before a fork.
        """
        references = [check_reference("model", model) for model in models]
        if not references:
            raise ConfigError("which models? preload() was given none")
        return self._loading(self._native.preload(references, priority, False), "loading " + ", ".join(references))  # noqa: FBT003

    def _preload_at_start(self, references: Sequence[str]) -> LoadHandle:
        """As `preload`, for what a server waits for before it says that it is ready."""
        checked = [check_reference("preload", model) for model in references]
        return self._loading(self._native.preload(checked, "normal", True), "loading " + ", ".join(checked))  # noqa: FBT003

    def pin(self, model: str) -> None:
        """Keeps a model, and what it requires, from being evicted; it is not loaded by that.

        Raises:
            ModelNotFound: where there is no such model.
            CapacityError: where what is pinned would not fit into the memory.
        """
        self._native.pin(check_reference("model", model), True)  # noqa: FBT003

    def unpin(self, model: str) -> None:
        """Lets a model that was pinned be evicted again.

        Raises:
            ModelNotFound: where there is no such model.
        """
        self._native.pin(check_reference("model", model), False)  # noqa: FBT003

    def unload(self, model: str, *, dependents: bool = False, drain: float | None = None) -> Operation:
        """Unloads a model as soon as nobody uses it. `await` what is returned, or block with `wait()`.

        Who waits for it to be loaded gets `ModelNotReady`; who asks for it later has it loaded again. Waiting raises
        `ConfigError` where models that are loaded require it and `dependents` is false, and `DeadlineExceeded` where it
        is still in use after `drain` seconds; it leaves all the same, later.

        Args:
            model: a reference.
            dependents: unload the models that require it, too, before it.
            drain: seconds that it may stay in use; `None` for as long as it takes.

        Raises:
            ModelNotFound: where there is no such model.
        """
        if drain is not None:
            check_seconds("drain", drain)
        reference = check_reference("model", model)
        return Operation(self._native.unload(reference, dependents, drain), f"unloading {reference!r}")

    def reload(self, model: str) -> LoadHandle:
        """Loads a model anew, and forgives its failures. The old one serves until the new one is ready.

        Where the new one cannot be loaded, the old one stays. Where there is no room for both, the old one goes first.

        Raises:
            ModelNotFound: where there is no such model.
        """
        reference = check_reference("model", model)
        return self._loading(self._native.reload(reference), f"reloading {reference!r}")

    def alias(self, name: str, target: str) -> LoadHandle:
        """Lets a name stand for a model, such as `cache.alias("prod", "head@3")`.

        Where the name stood for a model that is loaded, the new one is loaded first, and the name stays where it was
        until then, and where that fails. Where there is no room for both, it moves at once.

        Args:
            name: the alias; it may be the name of a model, and says then which version is its default.
            target: a reference.

        Raises:
            ModelNotFound: where there is no such model.
            ConfigError: for a name that cannot be one.
            DependencyCycle: where a model that requires the alias would come to require itself.
        """
        check_name("alias", name)
        reference = check_reference("target", target)
        return self._loading(self._native.alias(name, reference), f"alias {name!r} for {reference!r}")

    def index(self) -> Index:
        """Every model and how far it is, in the order of registration; a table in a notebook."""
        return index_of(self._native.index())

    def progress(self, model: str) -> LoadProgress:
        """How far a model is.

        Raises:
            ModelNotFound: where there is no such model.
        """
        row = self._native.progress(check_reference("model", model))
        return LoadProgress(**{**row, "model": self._name_of(row["model"])})

    def stats(self) -> CacheStats:
        """What happened so far; a table in a notebook."""
        return stats_of(self._native.stats())

    def what_if(self, memory: int | str) -> WhatIf:
        """What the last 10,000 accesses would have been with another memory: they are replayed.

        Args:
            memory: bytes, as a number or as text such as "16GiB".

        Raises:
            ConfigError: for what is no size.
        """
        return WhatIf(**self._native.what_if(size_of("memory", memory)))

    @property
    def closed(self) -> bool:
        """True once closing has begun."""
        return self._native.closed

    def close(self, *, timeout: float = _CLOSE_SECONDS) -> None:
        """Admits nothing more, and unloads everything as soon as nobody uses it. Safe to call twice.

        Who waits for a load gets `Closed`, and loads that run are told to stop. Models leave before what they require.

        Args:
            timeout: seconds to wait at most. What is still in use then, or still loads, leaves when it ends.
        """
        check_seconds("timeout", timeout)
        if not self._native.begin_close().wait(timeout):
            self._say_what_is_left(timeout)

    async def aclose(self, *, timeout: float = _CLOSE_SECONDS) -> None:
        """As `close`, without blocking the event loop."""
        import asyncio  # noqa: PLC0415  importing it costs as much as a third of `import numpy`

        check_seconds("timeout", timeout)
        ended = self._native.begin_close().future()
        done, _ = await asyncio.wait([ended], timeout=timeout)
        if not done:
            ended.cancel()
            self._say_what_is_left(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        rows = self._native.index()
        ready = sum(row["state"] == "ready" for row in rows)
        state = " closed" if self.closed else ""
        return f"<penstock.ModelCache{state} {ready} of {len(rows)} models loaded, memory={self.memory}>"

    def _repr_html_(self) -> str:
        from penstock import _reprs  # noqa: PLC0415  a notebook asks for it

        return _reprs.of_cache(self)

    def _loading(self, native: _native.NativeOperation, what: str) -> LoadHandle:
        return LoadHandle(native, what, self._name_of, self._native)

    def _name_of(self, model: int) -> str:
        loader = self._loaders.of(model)
        return f"{loader.name}@{loader.version}"

    def _say_what_is_left(self, timeout: float) -> None:
        left = [f"{row.name}@{row.version}" for row in self.index() if row.state != "unloaded"]
        LOG.warning("after %s s a model cache that closes still has %s", timeout, ", ".join(left) or "views of models")

    def _at_exit(self, deadline: float) -> None:
        # What hangs is left behind: its thread is a daemon. And a lease that is still held will hardly be released.
        closing = self._native.begin_close()
        while not closing.wait(_LOOK_AGAIN) and self._has_work() and time.monotonic() < deadline:
            pass
        for thread in self._threads if closing.done else ():
            thread.join(max(0.0, deadline - time.monotonic()))

    def _has_work(self) -> bool:
        return any(row.state != "unloaded" and not row.leases for row in self.index())


def _start(threads: list[threading.Thread], loaders: Loaders, desk: _native.LoadDesk) -> None:
    thread = threading.Thread(target=run, args=(desk, loaders), name="penstock-loader", daemon=True)
    thread.start()
    threads.append(thread)


def _settings(memory: object, max_loads: object, policy: object, predict: object) -> dict[str, Any]:
    check_count("max_loads", max_loads)
    if not (isinstance(max_loads, int) and 1 <= max_loads <= _MOST_LOADS):
        raise ConfigError(f"max_loads must be between 1 and {_MOST_LOADS}, not {max_loads!r}")
    if not callable(policy):
        check_choice("policy", policy, get_args(EvictionPolicy))
    share: float | None = None
    if isinstance(predict, bool):
        share = _SHARE if predict else None
    elif isinstance(predict, int | float) and 0 < predict <= 1:
        share = float(predict)
    else:
        raise ConfigError(f"predict must be true, false, or a part of the memory above 0 and up to 1, not {predict!r}")
    return {
        "memory": None if memory is None else size_of("memory", memory),
        "max_loads": max_loads,
        "policy": "ranked" if callable(policy) else policy,
        "predict": share,
        "seed": time.time_ns() & 0xFFFF_FFFF,
    }
