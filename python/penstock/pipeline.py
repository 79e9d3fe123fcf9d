"""The pipeline: admit, batch, model, infer, stream; in this process, and behind both doors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from penstock._inference import InferResult, check_terms, result_of_message
from penstock._pipeline_settings import PipelineSettings
from penstock._pipeline_stream import PipelineStream
from penstock._scope import of_batch, of_caller
from penstock.errors import Closed, ConfigError
from penstock.pooling import check_time
from penstock.server import Server, ServerStats, check_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from penstock import _native
    from penstock._batch_records import BatchExplanation
    from penstock._policy import BatchPolicy, Priority
    from penstock.models import ModelCache
    from penstock.pooling import Pool

__all__ = ["Pipeline", "PipelineSettings", "PipelineStream"]


class Pipeline:
    """Models with all that a server has, in the process that asks them: no socket, no HTTP, no JSON between.

    A request is admitted, waits for company in its model's queue, is answered by one call of the model for all of a
    batch, and comes back. Each of the four parts can be switched off, and answers stay what they were:

    * `pool`: connections to upstreams are kept and shared. Off, every request opens one and closes it.
    * `batch`: requests that wait together are answered by one call. Off, a call holds the rows of one request.
    * `stream`: pieces come as the model makes them. Off, they come together, when the last of them is there.
    * `load`: models are loaded at the start, in the background, several at a time. Off, the first request for a model
      loads it, one model after another.

    `serve` puts the same pipeline behind both doors: callers of this process and clients from elsewhere share queues,
    batches and limits.

    As a context manager it loads its models on entering and closes on leaving; `start` and `close` do the same by hand.
    Every method may be called by many threads and from several event loops at once.

    Args:
        models: as of `penstock.Server`: functions and classes decorated with `@penstock.model`, remote models,
            directories.
        pool: `True`, `False`, or a `penstock.Pool` for the upstreams that name none of their own.
        batch: `True`, `False`, or a `penstock.BatchPolicy` that all models get in place of their own.
        stream: `True` or `False`.
        load: `True`, `False`, or a `penstock.ModelCache` that the models live in.
        cache: the same as a cache for `load`.
        preload: references to the models that are loaded before `start` comes back, all of them for `None`.
        **settings: limits and time-outs, as of `penstock.Server`. The environment (`PENSTOCK_BATCH=off`,
            `PENSTOCK_MAX_IN_FLIGHT`, ...) is stronger than what is said here, of the switches, too.

    Raises:
        ConfigError: for something that is no model, a name and version that are used twice, or a setting that cannot
            be.

    Example:
        >>> import asyncio, numpy as np, penstock
        >>> @penstock.model("double", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
        ... def double(x):
        ...     return x * 2
        >>> async def main():
        ...     async with penstock.Pipeline(double) as pipeline:
        ...         asked = [pipeline.infer("double", {"x": [[n, n]]}) for n in range(3)]
        ...         return [result["y"].tolist() for result in await asyncio.gather(*asked)]
        >>> asyncio.run(main())
        [[[0.0, 0.0]], [[2.0, 2.0]], [[4.0, 4.0]]]
    """

    def __init__(
        self,
        models: Iterable[Any] | Callable[..., Any],
        *,
        pool: bool | Pool = True,
        batch: bool | BatchPolicy = True,
        stream: bool = True,
        load: bool | ModelCache = True,
        cache: ModelCache | None = None,
        preload: str | Iterable[str] | None = None,
        **settings: Any,
    ) -> None:
        for name in ("host", "port", "grpc_port"):
            if name in settings:
                raise ConfigError(f"{name} is for serve(): a pipeline listens nowhere until then")
        self._server = Server(
            models, cache=cache, preload=preload, pool=pool, batch=batch, stream=stream, load=load, **settings
        )
        self._inside: _native.NativePipeline | None = None
        self._trace = of_batch

    def start(self) -> Self:
        """Loads the models of `preload`, and comes back when they are ready. Safe to call twice.

        Raises:
            LoadFailed: where a model's `load` raised.
            LoadTimeout: where one took longer than its `load_timeout`.
            CapacityError: where there is no room for one.
            ModelNotFound: where `preload`, or a model's `requires`, names what there is not.
            Closed: where it was closed before.
        """
        self._server._start_without_door()  # noqa: SLF001  one package
        if self._inside is None:
            self._inside = self._server._running().inside()  # noqa: SLF001  as above
            self._trace = of_caller if self._server._traced else of_batch  # noqa: SLF001  as above
        return self

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        outputs: Iterable[str] | None = None,
        version: str | int | None = None,
        timeout: float | None = None,
        priority: Priority | None = None,
        tenant: str | None = None,
        request_id: str | None = None,
    ) -> InferResult:
        """Asks a model, and waits for its outputs.

        The arrays are copied when this is called; the event loop is woken once for all answers that are there.
        Cancelling takes the request out of the queue; rows already with the model are answered to nobody.

        Args:
            model: its name, or an alias.
            inputs: arrays by name, batch axis first. Arrays must have the declared type; lists become arrays of it.
                Texts are lists or arrays of `str` or `bytes`.
            outputs: the outputs that are wanted; all by default.
            version: its version; what the name means by default.
            timeout: seconds that the answer may take.
            priority: `"high"`, `"normal"` or `"low"`: who goes first.
            tenant: on whose behalf.
            request_id: what the request is called in `explain` and in the result.

        Returns:
            The outputs, a mapping of arrays of their own memory. Texts are arrays of objects: `str` where the model
            declares `"string"`, `bytes` where it declares `"bytes"`. `timing` says where the time went.

        Raises:
            ItemError: for inputs that do not fit, and what the model refuses.
            ModelNotFound: where there is no such model.
            Overloaded: where its queue is full, or `max_in_flight` requests are under way.
            DeadlineExceeded: where `timeout` has passed.
            ModelError: with what the model raised, in words; the traceback is in the log `penstock.server`.
            OutputError: where the model returned the wrong thing.
            ConfigError: for arguments that cannot be.
            Closed: where the pipeline is closed, or was not started.
        """
        native = self._native()
        future = native.infer(
            _asked(model, inputs, outputs, version), self._terms(timeout, priority, tenant, request_id)
        )
        try:
            name, served, called, tensors, timing = await future
        except BaseException:
            native.cancel(future)
            raise
        return result_of_message((name, served, called or "", tensors), timing)

    def call(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        outputs: Iterable[str] | None = None,
        version: str | int | None = None,
        timeout: float | None = None,
        priority: Priority | None = None,
        tenant: str | None = None,
        request_id: str | None = None,
    ) -> InferResult:
        """As `infer`, from a thread or a notebook cell: it blocks, with the interpreter's lock given back.

        Ctrl-C ends the waiting and takes the request out of the queue.
        """
        name, served, called, tensors, timing = self._native().infer_blocking(
            _asked(model, inputs, outputs, version), self._terms(timeout, priority, tenant, request_id)
        )
        return result_of_message((name, served, called or "", tensors), timing)

    def stream(
        self,
        model: str,
        inputs: Mapping[str, Any] | None = None,
        *,
        prompt: str | None = None,
        messages: Sequence[Mapping[str, Any]] | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        stop: str | Sequence[str] | None = None,
        seed: int | None = None,
        user: str | None = None,
        metadata: Mapping[str, str] | None = None,
        version: str | int | None = None,
        timeout: float | None = None,
        priority: Priority | None = None,
        tenant: str | None = None,
        request_id: str | None = None,
    ) -> PipelineStream:
        """Asks a model for an answer step by step: `async for`, or `for` in a thread.

        Of a text model come texts, of any other that is a generator the outputs of each step: a dictionary of arrays
        with one row. A reader who is slow holds up his own request only; with `stream=False` all pieces come together
        at the end.

        Args:
            model: its name, or an alias.
            inputs: one row of arrays by name, for a model of tensors.
            prompt: the text that is to be gone on with, for a model of text; or
            messages: the conversation, each with `role` and `content`.
            max_tokens: tokens of the answer at most.
            temperature: from 0, always the likeliest, to 2.
            top_p: the share of the likeliest tokens that is chosen from, 0 to 1.
            stop: a text that ends the answer, or up to four.
            seed: what chance is to begin with.
            user: for whom it is asked.
            metadata: what else there is to say to the model, by name.
            version: its version; what the name means by default.
            timeout: seconds that all of the answer may take, from its first piece being asked for.
            priority: as of `infer`.
            tenant: as of `infer`.
            request_id: as of `infer`.

        Raises:
            ConfigError: where not exactly one of `inputs`, `prompt` and `messages` is given, and for other arguments
                that cannot be. Everything else is raised by the first piece that is asked for: what `infer` raises, and
                what the model fails with later.
        """
        given = [each is not None for each in (inputs, prompt, messages)]
        if sum(given) != 1:
            raise ConfigError("a stream needs inputs, a prompt or messages, and one of them only")
        terms = self._terms(timeout, priority, tenant, request_id)
        text = {
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "stop": [stop] if isinstance(stop, str) else stop,
            "seed": seed,
            "user": user,
            "metadata": metadata,
        }
        said = {name: value for name, value in text.items() if value is not None}
        if inputs is not None:
            if said:
                raise ConfigError(f"{', '.join(said)}: that is for a model of text, with a prompt or messages")
            asked = _asked(model, inputs, None, version)
            return PipelineStream(lambda: self._native().steps(asked, terms))
        if prompt is not None and not isinstance(prompt, str):
            raise ConfigError(f"prompt must be a text, not {type(prompt).__name__}")
        subject = {"prompt": prompt} if messages is None else {"messages": list(messages)}
        try:
            body = json.dumps({"model": model, **subject, **said, "stream": True}).encode()
        except (TypeError, ValueError) as error:
            raise ConfigError(f"a request for text is of numbers and texts: {error}") from error
        question = (model, None if version is None else str(version), body, messages is not None)
        return PipelineStream(lambda: self._native().text(question, terms))

    def serve(self, *, host: str = "127.0.0.1", port: int = 8000, grpc_port: int | None = None) -> Server:
        """Puts this pipeline behind both doors, once; starts it where that was not done before.

        Args:
            host: the address to listen on; loopback by default.
            port: the port for HTTP and gRPC; 0 takes any that is free.
            grpc_port: a second port, for gRPC alone; 0 takes any that is free, `None` opens none.

        Returns:
            The server. It is this pipeline: whoever closes one has closed the other.

        Raises:
            ConfigError: for an address that cannot be used, and where it is served already.
            PenstockError: what `start` raises.
        """
        check_port(port)
        places = ((host, port), None if grpc_port is None else (host, check_port(grpc_port, "grpc_port")))
        self.start()
        self._server._listen(places)  # noqa: SLF001  one package
        return self._server

    @property
    def names(self) -> list[str]:
        """Names of the models, in their order; with its version ("head@2") where a name has several."""
        return self._server.names

    @property
    def ready(self) -> bool:
        """True where every model can answer."""
        return self._server.ready

    @property
    def cache(self) -> ModelCache:
        """The cache that the models live in."""
        return self._server.cache

    @property
    def parts(self) -> PipelineSettings:
        """Which of the four parts are on."""
        return self._server.parts

    def stats(self) -> ServerStats:
        """What happened so far, by callers of this process and, where it is served, by all others."""
        return self._server.stats()

    def explain(self, model: str | None = None, *, request_id: str | None = None, last: int = 10) -> BatchExplanation:
        """Why the last batches of a model were as they were, as `Server.explain`."""
        return self._server.explain(model, request_id=request_id, last=last)

    def metrics(self) -> str:
        """The text that `/metrics` would answer with."""
        return self._server.metrics()

    def close(self, *, drain: bool = True, timeout: float | None = None) -> None:
        """Answers what was accepted, then closes the models, as `Server.close`. Safe to call twice.

        Args:
            drain: answer what waits; else it gets `Closed`.
            timeout: seconds to wait at most; `drain_timeout` by default.
        """
        self._server.close(drain=drain, timeout=timeout)
        self._inside = None

    async def aclose(self, *, drain: bool = True, timeout: float | None = None) -> None:
        """As `close`, without blocking the event loop."""
        await self._server.aclose(drain=drain, timeout=timeout)
        self._inside = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close(drain=kind is None)

    async def __aenter__(self) -> Self:
        import asyncio  # noqa: PLC0415  importing it costs as much as a third of `import numpy`

        # Loading may take long, and may itself need the loop to go on.
        return await asyncio.get_running_loop().run_in_executor(None, self.start)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose(drain=kind is None)

    def __repr__(self) -> str:
        off = [name for name, on in vars(self.parts).items() if not on]
        without = f" without {', '.join(off)}" if off else ""
        return f"<penstock.Pipeline {', '.join(self.names)}{without} {self._server._state}>"  # noqa: SLF001  one package

    def _repr_html_(self) -> str:
        from penstock import _reprs  # noqa: PLC0415  a notebook asks for it

        return _reprs.of_server(self._server, "Pipeline")

    def _terms(
        self, timeout: float | None, priority: Priority | None, tenant: str | None, request_id: str | None
    ) -> _native._InsideTerms:
        if timeout is not None:
            check_time("timeout", timeout)
        if priority is not None or tenant is not None:
            check_terms(priority, tenant)
        return (timeout, priority, tenant, request_id, self._trace())

    def _native(self) -> _native.NativePipeline:
        native = self._inside
        if native is None:
            if self._server._state == "closed":  # noqa: SLF001  one package
                raise Closed("this pipeline was closed: make another one")
            raise Closed("this pipeline was not started: use it as a context manager, or call start()")
        return native


def _asked(
    model: str, inputs: Mapping[str, Any], outputs: Iterable[str] | None, version: str | int | None
) -> tuple[str, str | None, dict[str, Any], list[str] | None]:
    if type(inputs) is not dict:
        try:
            inputs = dict(inputs)
        except (TypeError, ValueError):
            raise ConfigError(f"inputs must be a mapping of arrays by name, not {type(inputs).__name__}") from None
    wanted = None if outputs is None else list(outputs)
    return (model, None if version is None else str(version), inputs, wanted)
