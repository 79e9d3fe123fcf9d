"""The server: models behind the Open Inference Protocol, version 2, and OpenAI's API."""

from __future__ import annotations

import builtins
import logging
import os
import threading
import time
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

from penstock import _collections, _lifecycle, _logs, _native
from penstock._batch_records import explanation_of
from penstock._batch_settings import ModelTerms
from penstock._directories import Changes, Directories
from penstock._display import Table
from penstock._parts import Parts
from penstock._pipeline_settings import PipelineSettings
from penstock._policy import check_count, check_seconds
from penstock._recording import Recording
from penstock._served_models import ServedModels
from penstock._tracing import ratio_in_force
from penstock.errors import Closed, ConfigError, ModelNotFound
from penstock.models import ModelCache, ModelSpec, spec_of
from penstock.repository import ModelDirectory
from penstock.settings import SECTIONS, CacheSettings, DoorSettings, SecuritySettings, Settings, TracingSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import Self, TypeAlias

    from penstock._batch_records import BatchExplanation
    from penstock.models import LoadHandle

    _Place: TypeAlias = int | tuple[str, int]
    """The descriptor of a socket that listens, or a host and a port."""


T = TypeVar("T")

LOG = logging.getLogger("penstock.server")

_PATIENCE = 3.0
"""Seconds that a look at a directory waits at most for what is being written, where somebody waits for just that."""

_LAST_CHANGES = 1.0
"""Seconds that closing waits for changes of models that are being carried through."""

_LEAST_END = 0.5
"""Seconds that worker processes have to end, also where the time for closing is up."""


@dataclass(frozen=True)
class ModelStats(Table):
    """What a served model has done so far; the fields are those of `penstock.BatchStats`."""

    requests: int
    batches: int
    mean_batch_size: float
    max_batch_size: int
    efficiency: float
    reasons: dict[str, int]
    queued: int
    rejected: int
    abandoned: int
    shared: int
    reruns: int
    function_seconds: float
    restarts: int
    lock_acquisitions: int
    lock_wait_seconds: float
    hopeless: int
    expired: int
    joined: int
    out_of_memory: int
    cap: int
    padding: float
    prediction_error: float | None
    waits: dict[str, float]


@dataclass(frozen=True)
class ServerStats(Table):
    """What a server has done so far; a table in a notebook.

    Attributes:
        url: where it listens.
        ready: true where every model can answer.
        connections: connections that are open.
        models: `ModelStats` by the name of the model, and its version ("head@2") where it has several.
    """

    url: str
    ready: bool
    connections: int
    models: dict[str, ModelStats] = field(default_factory=dict)


class Server:
    """Serves models over HTTP and gRPC by the Open Inference Protocol, version 2.

    As a context manager it starts on entering and closes on leaving; `start` and `close` do the same by hand. Requests
    are accepted, parsed, gathered and answered by Rust; the interpreter is used once a batch.

    Paths: `/v2/health/live`, `/v2/health/started`, `/v2/health/ready`, `/v2`, `/v2/models/NAME[/versions/V]`,
    `.../ready`, `.../infer`, `.../generate`, `.../generate_stream`, `/metrics` in the OpenMetrics format, and
    `/openapi.json`, which describes all of them. Models of
    text and of embeddings are served by OpenAI's API, too: `/v1/models`, `/v1/embeddings`, `/v1/completions`,
    `/v1/chat/completions`.

    Calls of gRPC are answered on the same port, over HTTP/2: `inference.GRPCInferenceService`, the standard
    health service `grpc.health.v1.Health`, and reflection. `grpc_port` adds a port for gRPC alone. All of them share
    limits, queues and batches.

    Args:
        models: a function or a class decorated with `@penstock.model`, a `penstock.ModelDirectory`, or several of them.
        host: the address to listen on; loopback by default.
        port: the port; 0 takes any that is free.
        grpc_port: a second port, for gRPC alone; 0 takes any that is free, `None` opens none.
        cache: a `ModelCache` that the models live in, and that goes on living when the server closes; `None` for one of
            the server's own, with no limit unless the environment or the command line gives one.
        preload: references to the models that are loaded before `start` comes back, all of them for `None`. The others
            are loaded by the first request for them, which waits meanwhile.
        **settings: the fields of the classes of `penstock.settings.SECTIONS` that servers take: limits, time-outs, what
            answers say, and the four switches `pool`, `batch`, `stream` and `load` of a `penstock.Pipeline`.
            `penstock.toml` and the environment (`PENSTOCK_MAX_BODY`, ...) are stronger than these; `Server.settings`
            says what is in force, and why.

    Raises:
        ConfigError: for something that is no model, a name and version that are used twice, a setting that cannot be,
            or an address that cannot be used.
    """

    def __init__(
        self,
        models: Iterable[Any] | Callable[..., Any],
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        grpc_port: int | None = None,
        cache: ModelCache | None = None,
        preload: str | Iterable[str] | None = None,
        **settings: Any,
    ) -> None:
        settings, objects = Parts.objects_of(settings)
        if cache is not None and not isinstance(cache, ModelCache):
            raise ConfigError(f"cache must be a penstock.ModelCache, not {cache!r}")
        if cache is not None and "cache" in objects:
            raise ConfigError("cache and load=<a ModelCache> exclude each other: both say where the models live")
        cache = objects.get("cache", cache)
        if isinstance(preload, Iterable) and not isinstance(preload, str):
            preload = list(preload)
        if cache is not None:
            _refuse_beside_cache(settings)
        classes = [kind for kind in SECTIONS if kind.keywords]
        resolved = Settings.resolve(classes, {**settings, "preload": preload})
        self._set_up(models, (host, port, grpc_port), cache, resolved, objects)

    @classmethod
    def _of_command(
        cls,
        models: Iterable[Any],
        place: tuple[str, int, int | None],
        settings: Settings,
        record: Path | None = None,
    ) -> Self:
        server = cls.__new__(cls)
        server._set_up(models, place, None, settings)  # noqa: SLF001  one class
        server._record_path = record  # noqa: SLF001  as above
        return server

    def _set_up(
        self,
        models: Iterable[Any] | Callable[..., Any],
        place: tuple[str, int, int | None],
        cache: ModelCache | None,
        settings: Settings,
        objects: Mapping[str, Any] | None = None,
    ) -> None:
        given = list(_several(models))
        self._places = [one for one in given if isinstance(one, ModelDirectory)]
        self._parts = Parts(settings.of(PipelineSettings), **(objects or {}))
        self._terms = ModelTerms(settings)
        specs = [_spec(model) for model in given if not isinstance(model, ModelDirectory)]
        self._given = [self._placed(spec) for spec in specs]
        if not given:
            raise ConfigError("a server needs at least one model, or a penstock.ModelDirectory")
        host, port, grpc_port = place
        self._host = host
        self._port = check_port(port)
        self._grpc_port = None if grpc_port is None else check_port(grpc_port, "grpc_port")
        self._every_setting = settings
        self._settings = settings.of(DoorSettings)
        self._security = settings.of(SecuritySettings)
        self._delay = self._settings.drain_delay
        self._cache_settings = self._parts.cached(settings.of(CacheSettings))
        self._traced = False
        self._shared_cache = cache
        self._cache = _cache_of(self._cache_settings) if cache is None else cache
        self._journal: _native.NativeJournal | None = None
        self._native: _native.NativeServer | None = None
        self._models: ServedModels | None = None
        self._directories: Directories | None = None
        self._process = os.getpid()
        self._closed = False
        self._ended = False
        self._exiting = False
        self._record_path: Path | None = None
        self._recordings: list[Recording] = []

    def start(self) -> Self:
        """Opens the door, loads the models of `preload`, and comes back when they are ready.

        Health is "live" from the beginning. Where it fails, the server is closed again.

        Raises:
            LoadFailed: where a model's `load` raised.
            LoadTimeout: where one took longer than its `load_timeout`.
            CapacityError: where there is no room for one.
            ModelNotFound: where `preload`, or a model's `requires`, names what there is not.
            DependencyCycle: where models require one another in a circle.
            ConfigError: where the address cannot be listened on, or the cache has such a model already.
            Closed: where it was closed before.
        """
        if self._closed:
            raise Closed("this server was closed: make another one")
        if self._native is not None:
            return self
        _close_older_cell(self)
        grpc_place = None if self._grpc_port is None else (self._host, self._grpc_port)
        self._open(((self._host, self._port), grpc_place), accepting=True)
        return self

    def _placed(self, spec: ModelSpec) -> ModelSpec:
        """The declaration of a model as it is served here: what `penstock.toml` says of it has the last word."""
        return self._terms.applied(self._parts.applied(spec))

    def _start_without_door(self) -> bool:
        """Loads the models, where that was not done before; answers whether this call did it."""
        if self._closed:
            raise Closed("this server was closed: make another one")
        if self._native is not None:
            return False
        self._open((None, None), accepting=False)
        return True

    def _listen(self, places: tuple[_Place | None, _Place | None]) -> None:
        """Opens the door of a server that was started without one."""
        self._running().listen(places)

    def _open(
        self,
        places: tuple[_Place | None, _Place | None],
        *,
        accepting: bool,
        siblings: tuple[str, str] | None = None,
    ) -> None:
        self._journal = _logs.acquire()
        # A server that nobody refers to any more closes, and says so to nobody.
        self._unheard = weakref.finalize(self, _logs.abandon, self._journal)
        self._unheard.atexit = False
        if self._settings.access_log and not logging.getLogger(_logs.ACCESS).level:
            logging.getLogger(_logs.ACCESS).setLevel(logging.INFO)
        journal = self._journal if self._settings.access_log else None
        models = ServedModels(self._cache, _native_of(weakref.ref(self)))
        try:
            # What they require may be in a directory.
            declarations = models.register(self._given, check=not self._places)
            self._native = _native.NativeServer(
                (declarations, self._cache._native),  # noqa: SLF001  one package
                places=places,
                accepting=False,
                limits=self._settings,
                security=self._security,
                switches=self._parts.settings,
                journal=journal,
                siblings=siblings,
            )
            self._report_to(self._native, self._journal)
        except BaseException:
            models.residents.remove_all()
            if self._shared_cache is None:
                # Its thread ends, and the server may be started again.
                self._cache.close(timeout=0.0)
                self._cache = _cache_of(self._cache_settings)
            self._release_journal()
            raise
        self._models = models
        _collections.watch()
        self._uncounted = weakref.finalize(self, _collections.leave)
        _lifecycle.close_at_exit(self)
        try:
            if self._places:
                self._begin_to_look(self._native, models)
            if self._record_path is not None:
                self._record(self._record_path, models)
            # Before anybody can ask: from here on it is known that the server is not ready yet.
            loading = self._preload_at_start()
            if accepting:
                self._native.accept()
            if loading is not None:
                loading.wait()
            if self._directories is not None:
                self._directories.settle()
                self._native.set_starting(False)
        except BaseException:
            self.close(drain=False)
            raise

    def _report_to(self, native: _native.NativeServer, journal: _native.NativeJournal) -> None:
        """Has what is recorded brought to where it is wanted."""
        native.count_dropped(journal)
        tracing = self._every_setting.of(TracingSettings)
        ratio = ratio_in_force(tracing)
        self._traced = ratio is not None
        if ratio is not None:
            native.trace_by(journal, ratio, tracing.trace_limit)

    def _begin_to_look(self, native: _native.NativeServer, models: ServedModels) -> None:
        """Serves what is in the directories, and has calls of the model repository look at them again."""
        native.set_starting(True)
        preload, drain = self._cache_settings.preload, self._settings.drain_timeout
        adapt = self._placed
        self._directories = Directories(self._places, models, self._cache, preload, drain, adapt=adapt)
        self._directories.poll(patience=_PATIENCE, wait=False)
        models.check_requires(self._given)
        arguments = (weakref.ref(self), native.begin_polls(), self._settings.poll_seconds or None)
        threading.Thread(target=_look_when_asked, args=arguments, name="penstock-repository", daemon=True).start()

    def _preload_at_start(self) -> LoadHandle | None:
        """Begins to load what the server waits for before it is ready. A directory's models it does not wait for so."""
        wanted: Iterable[str] | None = self._cache_settings.preload
        if wanted is None:
            wanted = [spec.reference for spec in self._given]
        elif self._directories is not None:
            own = {name for spec in self._given for name in (spec.name, spec.reference)}
            for name in set(wanted) - own:
                if not self._directories.knows(name):
                    LOG.warning("preload: there is no model %r in any directory yet", name)
            wanted = [name for name in wanted if name in own]
        references = list(wanted)
        return self._cache._preload_at_start(references) if references else None  # noqa: SLF001  one package

    def _record(self, path: Path, models: ServedModels) -> None:
        """Has what comes to each model written down; where there are several, each has a file of its own."""
        for served, name in zip(models.all, self.names, strict=True):
            own = path if len(self.names) == 1 else path.with_name(f"{path.stem}-{name}{path.suffix}")
            if served.index is not None:
                self._recordings.append(Recording(self._running().begin_record(served.index, own), own))

    def add(self, model: object, *, preload: bool = True, replace: bool = False, drain: float | None = None) -> None:
        """Serves one more model; before the server was started, one more from the start.

        It comes back when the model can answer. Where it cannot be loaded, it is taken away again. What metrics call it
        is its name, and its name and version ("head@2") where another version of the name was served before.

        With `replace` it takes the place of the model of its name and version, which serves until the new one is
        loaded, and stays where that fails. Requests go over from one to the next. Where both declare the same, requests
        that wait stay where they are. Where they do not, each is answered by the model that it was read for; only where
        that is not loaded, requests that wait for it get status 503.

        Args:
            model: a function or a class decorated with `@penstock.model`, or another model that a server takes.
            preload: load it, and come back when that is done; else the first request has it loaded. What takes the
                place of a model that is loaded is always loaded. With `load=False`, the first request has it loaded.
            replace: take the place of the model of that name and version, where there is one.
            drain: seconds that answers of a model that is replaced may take; `drain_timeout` by default.

        Raises:
            ConfigError: for what is no model; where one of its name and version is there and `replace` is false.
            ModelNotFound: where it requires what there is not.
            DependencyCycle: where it would come to require itself.
            LoadFailed: where its `load` raised.
            LoadTimeout: where that took longer than its `load_timeout`.
            CapacityError: where there is no room for it.
            Closed: where the server is closed.
        """
        spec = self._placed(_spec(model))
        models = self._open_models()
        preload = preload and self._parts.settings.load
        if models is None:
            known = [one.reference for one in self._given]
            if spec.reference in known and not replace:
                raise ConfigError(f"a model '{spec.name}' of version '{spec.version}' is there already")
            self._given = [one for one in self._given if one.reference != spec.reference] + [spec]
        elif replace and spec.reference in models.references:
            models.replace(spec, load=preload).finish(self._drain(drain))
        else:
            models.add([spec])
            if preload:
                self._load_added(models, spec.reference)

    def _load_added(self, models: ServedModels, reference: str) -> None:
        try:
            self._cache.preload(reference).wait()
        except BaseException:
            if not self._closed:
                models.leave(models.withdraw([reference]), 0.0)
            raise

    async def aadd(
        self, model: object, *, preload: bool = True, replace: bool = False, drain: float | None = None
    ) -> None:
        """As `add`, without blocking the event loop. Cancelled, it waits no longer; the model is added all the same."""
        await _in_thread(lambda: self.add(model, preload=preload, replace=replace, drain=drain))

    def remove(self, name: str, version: str | int | None = None, *, drain: float | None = None) -> None:
        """Serves a model no more.

        From now on who asks for it gets status 404. What has come before is answered, for `drain` seconds at most; what
        waits then gets status 503. It comes back when the model was closed, or will be as soon as what runs has ended.

        Args:
            name: its name, for every version of it, or its name and version ("head@2").
            version: the version that is meant.
            drain: seconds that answers may take; `drain_timeout` by default.

        Raises:
            ModelNotFound: where there is none.
            ConfigError: where a model that stays requires it.
            Closed: where the server is closed.
        """
        drain = self._drain(drain)
        models = self._open_models()
        if models is not None:
            models.remove(name, None if version is None else str(version), drain)
            return
        wanted = name if version is None else f"{name}@{version}"
        left = [spec for spec in self._given if wanted not in (spec.name, spec.reference)]
        if len(left) == len(self._given):
            raise ModelNotFound(
                f"there is no model '{wanted}' to take away; there are {', '.join(self.names) or 'none'}"
            )
        self._given = left

    async def aremove(self, name: str, version: str | int | None = None, *, drain: float | None = None) -> None:
        """As `remove`, without blocking the event loop. Cancelled, it waits no longer; the model leaves anyway."""
        await _in_thread(lambda: self.remove(name, version, drain=drain))

    def poll(self) -> Changes:
        """Looks at the model directories, and serves what is there now; comes back when that is done.

        What is new is served, and loaded where it is to be. What has changed is loaded anew and serves until then as it
        was, and also where the new files cannot be loaded. A new version is what its name means as soon as it is
        loaded. What is gone leaves when its requests are answered, and not before another version of it that is there
        could be loaded. What is wrong with one model is said in `skipped`, and leaves the others alone.

        Calls that list or load models over the model repository, and `poll_seconds`, do the same, and do not wait for
        loads.

        Raises:
            Closed: where the server is closed, or was not started.
        """
        self._running()
        self._open_models()
        directories = self._directories
        return Changes() if directories is None else directories.poll(patience=_PATIENCE, wait=True)

    async def apoll(self) -> Changes:
        """As `poll`, without blocking the event loop. Who cancels it waits no longer; the look goes on."""
        return await _in_thread(self.poll)

    def _look(self, *, patient: bool) -> list[tuple[str, str, str]]:
        """Looks at the directories for somebody who lists or loads models; gives what of them is not served."""
        directories = self._directories
        if directories is None or self._closed:
            return []
        return directories.skipped(directories.poll(patience=_PATIENCE if patient else 0.0, wait=False))

    def reload_certificates(self) -> bool:
        """Reads the files of certificates and keys again, now; answers whether anything has changed.

        They are looked at every `tls_reload_seconds` anyway. Connections that are open stay as they are; requests on
        them have to show a key that is known now.

        Raises:
            ConfigError: where a file cannot be read or does not hold what it should. What was before stays in force.
            Closed: where the server was not started.
        """
        return self._running().reload_security()

    def _open_models(self) -> ServedModels | None:
        """What is served; nothing before the server was started."""
        if self._closed:
            raise Closed("this server was closed: make another one")
        return self._models

    def _drain(self, drain: float | None) -> float:
        if drain is None:
            return self._settings.drain_timeout
        check_seconds("drain", drain)
        return drain

    def _accept(self) -> None:
        self._running().accept()

    def _hand_over(self, seconds: float) -> bool:
        """Leaves what comes to the other processes on the same port; answers whether nobody is connected any more."""
        return self._running().hand_over(seconds)

    @property
    def names(self) -> list[str]:
        """Names of the models, in their order; with its version ("head@2") where a name has several."""
        if self._models is not None and self._native is not None:
            labels = [(self._native.label(served.index or 0), served.spec) for served in self._models.all]
            return [label or spec.reference for label, spec in labels]
        names = [spec.name for spec in self._given]
        return [spec.name if names.count(spec.name) == 1 else spec.reference for spec in self._given]

    @property
    def parts(self) -> PipelineSettings:
        """Which of the four parts of the pipeline are on."""
        return self._parts.settings

    @property
    def _specs(self) -> list[ModelSpec]:
        """Declarations of the models, in their order."""
        return self._given if self._models is None else [served.spec for served in self._models.all]

    @property
    def settings(self) -> Settings:
        """The settings that are in force, each with where its value came from; a table in a notebook."""
        return self._every_setting

    @property
    def cache(self) -> ModelCache:
        """The cache that the models live in."""
        return self._cache

    @property
    def url(self) -> str:
        """Where it listens, as `http://host:port`; `https` where it speaks TLS."""
        address = self._running().address
        if address is None:
            raise Closed("this server listens nowhere: it is reached by penstock.testing.TestClient")
        return url_of(*address, self._security.url_scheme("http"))

    @property
    def grpc_url(self) -> str:
        """Where it answers gRPC, as `grpc://host:port`, or `grpcs`: on the port for gRPC alone where there is one."""
        native = self._running()
        address = native.grpc_address or native.address
        if address is None:
            raise Closed("this server listens nowhere: it is reached by penstock.testing.TestClient")
        return url_of(*address, self._security.url_scheme("grpc"))

    @property
    def ready(self) -> bool:
        """True where every model can answer."""
        return self._native is not None and self._native.ready

    def stats(self) -> ServerStats:
        """What happened so far."""
        native = self._running()
        models = {name: ModelStats(**counters) for name, counters in native.counters().items()}
        url = self.url if native.address else ""
        return ServerStats(url=url, ready=native.ready, connections=native.connections, models=models)

    def explain(self, model: str | None = None, *, request_id: str | None = None, last: int = 10) -> BatchExplanation:
        """Why the last batches of a model were as they were, and where their time went; a table, and words.

        Args:
            model: its name; not needed where there is one model only.
            request_id: only batches that carried a request of that `id`. Failed ones are among them; those that never
                reached the model are not.
            last: batches at most, of the last 256.

        Raises:
            ConfigError: where there are several models and none is named.
            ModelNotFound: where there is no model of that name.
        """
        if model is None:
            names = self.names
            if len(names) != 1:
                raise ConfigError(f"which model? there are {', '.join(names) or 'none'}")
            model = names[0]
        check_count("last", last)
        return explanation_of(self._running().explain(model, request_id, last))

    def metrics(self) -> str:
        """The text that `/metrics` answers with."""
        return self._running().metrics()

    def close(self, *, drain: bool = True, timeout: float | None = None) -> None:
        """Stops accepting, answers what was accepted, then closes the models. Safe to call twice.

        Health says "not ready" first, for `drain_delay` seconds before anything else happens. Without `drain`, there is
        no such pause, and requests that wait for a batch get status 503. Coroutines of `async def` models that still
        run when the time is up are cancelled, worker processes killed, and streamed
        answers ended with an error as their last event.

        Args:
            drain: answer what was accepted.
            timeout: seconds to wait at most; `drain_timeout` by default.
        """
        self._closed = True
        if self._native is not None:
            limit = self._settings.drain_timeout if timeout is None else timeout
            time.sleep(self._leave(drain=drain))
            deadline = time.monotonic() + limit
            self._native.close(drain, limit)
            self._end(deadline)

    async def aclose(self, *, drain: bool = True, timeout: float | None = None) -> None:
        """As `close`, without blocking the event loop."""
        import asyncio  # noqa: PLC0415  importing it costs as much as a third of `import numpy`

        self._closed = True
        if self._native is not None:
            limit = self._settings.drain_timeout if timeout is None else timeout
            await asyncio.sleep(self._leave(drain=drain))
            deadline = time.monotonic() + limit
            await self._native.close_async(drain, limit)
            await asyncio.get_running_loop().run_in_executor(None, self._end, deadline)

    def _leave(self, *, drain: bool) -> float:
        """Says "not ready", where closing is to be seen before it begins, and for how many seconds; once."""
        delay, self._delay = self._delay, 0.0
        if not drain or not delay or self._native is None or self._process != os.getpid():
            return 0.0
        self._native.begin_leave()
        return delay

    def _end(self, deadline: float) -> None:
        models, directories, self._directories = self._models, self._directories, None
        # In a forked child the threads, and what they loaded, are the parent's.
        if models is not None and not self._ended and self._process == os.getpid():
            self._ended = True
            whole = self._shared_cache is None
            models.residents.close(deadline, whole_cache=whole, at_exit=self._exiting)
            if directories is not None:
                directories.settle(_LAST_CHANGES)
            if self._native is not None:
                self._native.end_processes(_LEAST_END)
        self._end_recordings()
        self._release_journal()
        if self._native is not None:
            self._uncounted()

    def _end_recordings(self) -> None:
        for recording in self._recordings:
            recording.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close(drain=kind is None)

    async def __aenter__(self) -> Self:
        import asyncio  # noqa: PLC0415  as above

        # Loading may take long, and may itself need the loop to go on.
        return await asyncio.get_running_loop().run_in_executor(None, self.start)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose(drain=kind is None)

    def __repr__(self) -> str:
        # A file in the working directory must not change a server unseen.
        told = "" if self._closed else self._every_setting.shown_file
        return f"<penstock.Server {', '.join(self.names)} {self._state}{told}>"

    def _repr_html_(self) -> str:
        from penstock import _reprs  # noqa: PLC0415  a notebook asks for it

        return _reprs.of_server(self, "Server")

    @property
    def _state(self) -> str:
        """In a word: where it listens, if it does."""
        if self._closed:
            return "closed"
        if self._native is None:
            return "not started"
        return self.url if self._native.address else "in process"

    def _running(self) -> _native.NativeServer:
        if self._native is None:
            raise Closed("this server was not started: use it as a context manager, or call start()")
        return self._native

    def _release_journal(self) -> None:
        journal, self._journal = self._journal, None
        if journal is not None:
            self._unheard.detach()
            _logs.release(journal)

    def _at_exit(self, deadline: float) -> None:
        self._exiting = True
        self.close(drain=False, timeout=max(0.0, deadline - time.monotonic()))


def check_port(port: object, name: str = "port") -> int:
    """`port`, where it is one.

    Raises:
        ConfigError: where it is none.
    """
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:  # noqa: PLR2004
        raise ConfigError(f"{name} must be between 0 and 65535, not {port!r}")
    return port


def url_of(host: str, port: int, scheme: str = "http") -> str:
    """Where a server at this address is reached."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _several(models: Iterable[Any] | Callable[..., Any]) -> Iterable[Any]:
    return models if spec_of(models) is None and isinstance(models, Iterable) else [models]


def _spec(model: object) -> ModelSpec:
    spec = spec_of(model)
    if spec is None:
        raise ConfigError(f"{model!r} is no model: decorate the function or class with @penstock.model(...)")
    return spec


async def _in_thread(function: Callable[[], T]) -> T:
    import asyncio  # noqa: PLC0415  importing it costs as much as a third of `import numpy`

    return await asyncio.get_running_loop().run_in_executor(None, function)


def _look_when_asked(reference: weakref.ref[Server], desk: _native.PollDesk, seconds: float | None) -> None:
    """Looks at the directories of a server whenever somebody lists or loads models, or so many seconds have passed."""
    while (patient := desk.next(seconds)) is not None:
        server = reference()
        if server is None:
            return
        skipped: list[tuple[str, str, str]] = []
        try:
            skipped = server._look(patient=patient)  # noqa: SLF001  one module
        except Closed:
            LOG.debug("the models of a server that closes were not looked at")
        except Exception:
            LOG.exception("the model directories of a server could not be looked at")
        desk.polled(skipped)
        # While it waits, the thread must not keep the server.
        del server


def _refuse_beside_cache(settings: Mapping[str, Any]) -> None:
    """Refuses settings of a cache where the server is given one that has its own."""
    if both := sorted({each.name for each in fields(CacheSettings)} & {name for name in settings if settings[name]}):
        raise ConfigError(f"cache and {', '.join(both)} exclude each other: give them to the penstock.ModelCache")


def _cache_of(settings: CacheSettings) -> ModelCache:
    policy: Any = settings.eviction
    return ModelCache(settings.memory, max_loads=settings.max_loads, policy=policy, predict=settings.predict)


def _native_of(server: weakref.ref[Server]) -> Callable[[], _native.NativeServer]:
    """Finds what runs a model. A server that nobody refers to any more closes, so its models must not refer to it."""

    def native() -> _native.NativeServer:
        found = server()
        if found is None or found._native is None:  # noqa: SLF001  one module
            raise Closed("the server of this model was closed")
        return found._native  # noqa: SLF001  as above

    return native


_cells: dict[tuple[str, ...], weakref.ref[Server]] = {}


def _close_older_cell(server: Server) -> None:
    """Running a notebook cell again starts its server again: the older one must leave its port and its threads."""
    if not hasattr(builtins, "get_ipython"):
        return
    key = (*server.names, *(str(place.path) for place in server._places))  # noqa: SLF001  one module
    older = _cells.get(key, lambda: None)()
    if older is not None and older is not server:
        older.close()
    _cells[key] = weakref.ref(server)
