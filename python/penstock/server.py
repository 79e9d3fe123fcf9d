"""The server: models behind the Open Inference Protocol, version 2, and OpenAI's API."""

from __future__ import annotations

import builtins
import logging
import os
import time
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from penstock import _lifecycle, _logs, _native
from penstock._batch_records import explanation_of
from penstock._display import Table
from penstock._policy import check_count
from penstock._processes import Processes
from penstock._recording import Recording
from penstock._residents import Residents
from penstock.errors import Closed, ConfigError
from penstock.models import ModelCache, ModelSpec, spec_of
from penstock.settings import CacheSettings, DoorSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import Self, TypeAlias

    from penstock._batch_records import BatchExplanation
    from penstock._policy import NativePolicy

    _Place: TypeAlias = int | tuple[str, int]
    """The descriptor of a socket that listens, or a host and a port."""


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

    Paths: `/v2/health/live`, `/v2/health/ready`, `/v2`, `/v2/models/NAME[/versions/V]`, `.../ready`, `.../infer`,
    `.../generate`, `.../generate_stream`, and `/metrics` in the OpenMetrics format. Models of text and of embeddings
    are served by OpenAI's API, too: `/v1/models`, `/v1/embeddings`, `/v1/completions`, `/v1/chat/completions`.

    Calls of gRPC are answered on the same port, over HTTP/2 without TLS: `inference.GRPCInferenceService`, the standard
    health service `grpc.health.v1.Health`, and reflection. `grpc_port` adds a port for gRPC alone. All of them share
    limits, queues and batches.

    Args:
        models: a function or a class decorated with `@penstock.model`, or several of them.
        host: the address to listen on; loopback by default.
        port: the port; 0 takes any that is free.
        grpc_port: a second port, for gRPC alone; 0 takes any that is free, `None` opens none.
        cache: a `ModelCache` that the models live in, and that goes on living when the server closes; `None` for one of
            the server's own, with no limit unless the environment or the command line gives one.
        preload: references to the models that are loaded before `start` comes back, all of them for `None`. The others
            are loaded by the first request for them, which waits meanwhile.
        **settings: the fields of `penstock.settings.DoorSettings`: limits, time-outs, what answers say. The environment
            (`PENSTOCK_MAX_BODY`, ...) is stronger than these.

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
        self._specs = [_spec(model) for model in _several(models)]
        if not self._specs:
            raise ConfigError("a server needs at least one model")
        self._host = host
        self._port = check_port(port)
        self._grpc_port = None if grpc_port is None else check_port(grpc_port, "grpc_port")
        self._settings = DoorSettings.resolve(settings)
        self._journal: _native.NativeJournal | None = None
        self._native: _native.NativeServer | None = None
        if cache is not None and not isinstance(cache, ModelCache):
            raise ConfigError(f"cache must be a penstock.ModelCache, not {cache!r}")
        if isinstance(preload, Iterable) and not isinstance(preload, str):
            preload = list(preload)
        self._shared_cache = cache
        self._cache_settings = CacheSettings.resolve({"preload": preload})
        self._cache = _cache_of(self._cache_settings) if cache is None else cache
        self._residents: Residents | None = None
        self._process = os.getpid()
        self._closed = False
        self._record_path: Path | None = None
        self._recordings: list[Recording] = []

    @classmethod
    def _of_command(
        cls,
        models: Iterable[Any],
        place: tuple[str, int, int | None],
        command_line: Mapping[str, Any],
        record: Path | None = None,
    ) -> Self:
        host, port, grpc_port = place
        server = cls(models, host=host, port=port, grpc_port=grpc_port)
        server._record_path = record
        server._settings = DoorSettings.resolve({}, command_line)
        server._cache_settings = CacheSettings.resolve({}, command_line)
        server._cache = _cache_of(server._cache_settings)
        return server

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

    def _start_without_door(self) -> bool:
        """Loads the models, where that was not done before; answers whether this call did it."""
        if self._closed:
            raise Closed("this server was closed: make another one")
        if self._native is not None:
            return False
        self._open((None, None), accepting=False)
        return True

    def _open(
        self,
        places: tuple[_Place | None, _Place | None],
        *,
        accepting: bool,
        siblings: tuple[str, str] | None = None,
    ) -> None:
        models = [declaration_of(spec) for spec in self._specs]
        self._journal = _logs.acquire()
        if self._settings.access_log and not logging.getLogger(_logs.ACCESS).level:
            logging.getLogger(_logs.ACCESS).setLevel(logging.INFO)
        journal = self._journal if self._settings.access_log else None
        residents = Residents(self._specs, self._cache, _native_of(weakref.ref(self)))
        try:
            residents.register()
            self._native = _native.NativeServer(
                (models, self._cache._native),  # noqa: SLF001  one package
                places=places,
                accepting=False,
                limits=self._settings,
                journal=journal,
                siblings=siblings,
            )
        except BaseException:
            residents.remove()
            if self._shared_cache is None:
                # Its thread ends, and the server may be started again.
                self._cache.close(timeout=0.0)
                self._cache = _cache_of(self._cache_settings)
            self._release_journal()
            raise
        self._residents = residents
        _lifecycle.close_at_exit(self)
        try:
            if self._record_path is not None:
                self._record(self._record_path)
            # Before anybody can ask: from here on it is known that the server is not ready yet.
            loading = residents.preload(self._cache_settings.preload)
            if accepting:
                self._native.accept()
            if loading is not None:
                loading.wait()
        except BaseException:
            self.close(drain=False)
            raise

    def _record(self, path: Path) -> None:
        """Has what comes to each model written down; where there are several, each has a file of its own."""
        for index, name in enumerate(self.names):
            own = path if len(self.names) == 1 else path.with_name(f"{path.stem}-{name}{path.suffix}")
            self._recordings.append(Recording(self._running().begin_record(index, own), own))

    def _accept(self) -> None:
        self._running().accept()

    @property
    def names(self) -> list[str]:
        """Names of the models, in their order; with its version ("head@2") where a name has several."""
        names = [spec.name for spec in self._specs]
        return [spec.name if names.count(spec.name) == 1 else spec.reference for spec in self._specs]

    @property
    def cache(self) -> ModelCache:
        """The cache that the models live in."""
        return self._cache

    @property
    def url(self) -> str:
        """Where it listens, as `http://host:port`."""
        address = self._running().address
        if address is None:
            raise Closed("this server listens nowhere: it is reached by penstock.testing.TestClient")
        return url_of(*address)

    @property
    def grpc_url(self) -> str:
        """Where it answers gRPC, as `grpc://host:port`: on the port for gRPC alone where there is one."""
        native = self._running()
        address = native.grpc_address or native.address
        if address is None:
            raise Closed("this server listens nowhere: it is reached by penstock.testing.TestClient")
        return url_of(*address, "grpc")

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
            if len(self._specs) > 1:
                raise ConfigError(f"which model? there are {', '.join(self.names)}")
            model = self.names[0]
        check_count("last", last)
        return explanation_of(self._running().explain(model, request_id, last))

    def metrics(self) -> str:
        """The text that `/metrics` answers with."""
        return self._running().metrics()

    def close(self, *, drain: bool = True, timeout: float | None = None) -> None:
        """Stops accepting, answers what was accepted, then closes the models. Safe to call twice.

        Health says "not ready" first. Without `drain`, requests that wait for a batch get status 503. Coroutines of
        `async def` models that still run when the time is up are cancelled, worker processes killed, and streamed
        answers ended with an error as their last event.

        Args:
            drain: answer what was accepted.
            timeout: seconds to wait at most; `drain_timeout` by default.
        """
        self._closed = True
        if self._native is not None:
            limit = self._settings.drain_timeout if timeout is None else timeout
            deadline = time.monotonic() + limit
            self._native.close(drain, limit)
            self._end(deadline)

    async def aclose(self, *, drain: bool = True, timeout: float | None = None) -> None:
        """As `close`, without blocking the event loop."""
        import asyncio  # noqa: PLC0415  importing it costs as much as a third of `import numpy`

        self._closed = True
        if self._native is not None:
            limit = self._settings.drain_timeout if timeout is None else timeout
            deadline = time.monotonic() + limit
            await self._native.close_async(drain, limit)
            await asyncio.get_running_loop().run_in_executor(None, self._end, deadline)

    def _end(self, deadline: float) -> None:
        residents, self._residents = self._residents, None
        # In a forked child the threads, and what they loaded, are the parent's.
        if residents is not None and self._process == os.getpid():
            residents.close(deadline, whole_cache=self._shared_cache is None)
            if self._native is not None:
                self._native.end_processes(_LEAST_END)
        self._end_recordings()
        self._release_journal()

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
        names = ", ".join(self.names)
        if self._closed:
            return f"<penstock.Server {names} closed>"
        if self._native is None:
            return f"<penstock.Server {names} not started>"
        return f"<penstock.Server {names} {self.url if self._native.address else 'in process'}>"

    def _running(self) -> _native.NativeServer:
        if self._native is None:
            raise Closed("this server was not started: use it as a context manager, or call start()")
        return self._native

    def _release_journal(self) -> None:
        journal, self._journal = self._journal, None
        if journal is not None:
            _logs.release(journal)

    def _at_exit(self, deadline: float) -> None:
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


def declaration_of(spec: ModelSpec) -> _Declaration:
    """What the extension needs to know of a model."""
    return _Declaration(
        name=spec.name,
        version=spec.version,
        task=spec.task,
        inputs=[(name, elements, list(axes)) for name, (elements, axes) in spec.inputs.items()],
        outputs=[(name, elements, list(axes)) for name, (elements, axes) in spec.outputs.items()],
        policy=spec.policy.native(),
        workers=spec.workers.count if isinstance(spec.workers, Processes) else spec.workers,
        steps=spec.is_stepwise,
    )


@dataclass(frozen=True, kw_only=True)
class _Declaration:
    """A record for the extension, read by its field names."""

    name: str
    version: str
    task: str
    inputs: list[tuple[str, str, list[int]]]
    outputs: list[tuple[str, str, list[int]]]
    policy: NativePolicy
    workers: int
    steps: bool


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
    key = tuple(server.names)
    older = _cells.get(key, lambda: None)()
    if older is not None and older is not server:
        older.close()
    _cells[key] = weakref.ref(server)
