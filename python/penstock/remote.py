"""Models that live on other servers: batched, pooled and balanced here, computed there."""

from __future__ import annotations

import threading
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from penstock import _remote_text
from penstock._computed import Computed, Loaded
from penstock._inference import model_path, takes_binary
from penstock._load_terms import load_terms
from penstock._policy import check_choice
from penstock._remote_terms import (
    QUESTION_SECONDS,
    Connected,
    RemoteTerms,
    Upstream,
    check_concurrency,
    check_same,
    described,
)
from penstock.errors import ConfigError, PenstockError
from penstock.models import ModelSpec, check_identity, checked_tensors, served_policy
from penstock.pooling import ClientStats, Timeout, client_stats

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from penstock import _native
    from penstock._cache_context import LoadContext
    from penstock._connecting import Certificate, Verify
    from penstock._headers import HeadersGiven
    from penstock._policy import BatchPolicy
    from penstock.client import Client
    from penstock.models import TensorDeclaration
    from penstock.pooling import Balance, Eject, Pool, Retry

__all__ = ["RemoteModel"]

Task = Literal["tensors", "generate", "embed"]
Api = _remote_text.Api

_CONCURRENCY = 16
"""Batches under way where nobody says how many."""

_TEXT: tuple[dict[str, TensorDeclaration], dict[str, TensorDeclaration]] = (
    {"text_input": ("string", ())},
    {"text_output": ("string", ())},
)
"""Time for an answer to what a server is asked about its models."""

_NO_STREAMS = dict.fromkeys(("streams", "streams_open", "streams_cancelled", "streams_failed", "streams_drained"), 0)


class RemoteModel(Computed):
    """A model on other servers, for `penstock.Server([...])`: a gateway in front of what exists already.

    Requests are admitted, gathered and answered as those of any model. A batch goes upstream as one request of the Open
    Inference Protocol, over HTTP (with binary tensors where the server knows them) or gRPC, and each request gets its
    rows back. No Python runs on the way.

    Deadlines go along: the upstream is told the time that is left for the last of a batch. When nobody waits for a
    batch any more, its request is dropped, and the upstream told so. A batch that the upstream refuses (status 400) is
    split until the guilty request is found.

    A text model (`task="generate"`, `task="embed"`) is one of a server of OpenAI's API, whose URL may end with `/v1`:
    requests are passed on as they came, but for the model's name, and answers as they come. A client that leaves stops
    the upstream, one that reads slowly pauses it. Plain texts for vectors share requests upstream.

    Without `inputs` and `outputs` the upstream is asked when the model is declared, which blocks. It must be ready, and
    have what was declared, when the model is loaded; after that its health is part of the server's own.

    Args:
        name: the name to serve it under.
        urls: the server's URL, or those of several that serve the same: `http`, `https`, `grpc`, `grpcs`, `unix`.
        upstream_name: what it is called there, if not the same.
        upstream_version: its version there; by default the server's choice.
        version: its version here. Numbers compare as numbers, and the highest is the default.
        task: `"tensors"`, `"generate"` or `"embed"`; by default what the upstream says.
        inputs: as of `penstock.model`; by default what the upstream says.
        outputs: likewise; the upstream is asked for these alone.
        concurrency: batches that are under way at a time at most, 16 by default. Where the upstream gains nothing by
            more, fewer are. Of a text model, requests; by default as many as there may be connections.
        api: how text is asked for: `"openai"`, or `"generate"`, the protocol's extension; by default what the upstream
            has, or else the first.
        binary: send tensors as binary data over HTTP; by default where the server says that it knows them.
        idempotent: send a request once more, also where the upstream may have seen it before its connection broke.
        headers: sent with every request upstream.
        auth: user and password, likewise.
        timeout: a `penstock.Timeout` or seconds for one request upstream; a request's own deadline is stronger where it
            is earlier.
        pool: connections to each server, and how often their health is checked; `False` opens one for each request.
        balance: which server gets a batch, as of `penstock.AsyncClient`; so are `retry` to `max_response`.
        retry: when a batch is sent again.
        eject: when a server is left out for a while.
        verify: check certificates.
        cert: a client certificate.
        proxy: the URL of an HTTP proxy.
        trust_env: use the proxy that the environment names.
        http2: use HTTP/2 where a server offers it; `"always"` without TLS, too.
        max_response: bytes of one answer at most.
        load_timeout: seconds that one try to load it may take, 30 by default.
        load_retries: tries after the first that failed, 1 by default.
        policy: a `BatchPolicy`, or its fields as keywords, never both.
        **settings: the fields of `BatchPolicy`.

    Raises:
        ConfigError: for a name or settings that cannot be, or where the upstream does not say enough of its model.
        ModelNotFound: where it has no such model.
        TransportError, DeadlineExceeded: where it cannot be asked.

    Example:
        ```
        digits = penstock.RemoteModel("digits", ["http://10.0.0.7:8080", "http://10.0.0.8:8080"], max_batch_size=64)
        with penstock.Server([digits]) as server: ...
        ```
    """

    __penstock_model__: ModelSpec
    passing: str

    def __init__(
        self,
        name: str,
        urls: str | Iterable[str],
        *,
        upstream_name: str | None = None,
        upstream_version: str | int | None = None,
        version: str | int = "1",
        task: Task | None = None,
        inputs: Mapping[str, TensorDeclaration] | None = None,
        outputs: Mapping[str, TensorDeclaration] | None = None,
        concurrency: int | None = None,
        api: Api | None = None,
        binary: bool | None = None,
        idempotent: bool = False,
        headers: HeadersGiven | None = None,
        auth: tuple[str, str] | None = None,
        timeout: float | Timeout | None = Timeout(),  # noqa: B008  frozen
        pool: Pool | bool | None = None,
        balance: Balance = "p2c_first_byte",
        retry: Retry | None = None,
        eject: Eject | None = None,
        verify: Verify = True,
        cert: Certificate | None = None,
        proxy: str | None = None,
        trust_env: bool = True,
        http2: bool | Literal["always"] = True,
        max_response: int | None = None,
        load_timeout: float | None = None,
        load_retries: int | None = None,
        policy: BatchPolicy | None = None,
        **settings: Any,
    ) -> None:
        check_identity(name, version, None if concurrency is None else check_concurrency(concurrency))
        if task is not None:
            check_choice("task", task, get_args(Task))
        options = {
            "headers": headers,
            "auth": auth,
            "timeout": timeout,
            "pool": pool,
            "balance": balance,
            "retry": retry,
            "eject": eject,
            "verify": verify,
            "cert": cert,
            "proxy": proxy,
            "trust_env": trust_env,
            "http2": http2,
            "max_response": max_response,
        }
        self._upstream = Upstream.of(urls, name if upstream_name is None else upstream_name, upstream_version, options)
        self._binary = binary
        self._idempotent = bool(idempotent)
        self._lock = threading.Lock()
        self._clients: list[Client] = []
        loading = load_terms(name, self, {"load_timeout": load_timeout, "load_retries": load_retries})
        chosen = served_policy(name, policy, settings)
        one_row, found = False, False
        if task in ("generate", "embed"):
            inputs, outputs = _remote_text.tensors_of(name, task, inputs, outputs)
        elif inputs is None or outputs is None:
            found_task, found_inputs, found_outputs, one_row = self._ask()
            found = task is None
            task = found_task if task is None else task
            inputs = found_inputs if inputs is None else inputs
            outputs = found_outputs if outputs is None else outputs
        self.api: Api | None = _remote_text.api_of(name, task, api, self._upstream, found=found)
        """How text is asked for; nothing of a model of tensors."""
        if self.api is not None:
            is_chosen = "max_batch_size" in settings or policy is not None
            chosen = _remote_text.policy_of(name, task or "", chosen, chosen=is_chosen)
            self.passing = _remote_text.passing_of(task or "", self.api, chosen)
        if concurrency is None:
            concurrency = _remote_text.concurrency_of(pool, self.urls) if self.api is not None else _CONCURRENCY
        taken, given = checked_tensors("inputs", inputs), checked_tensors("outputs", outputs)
        if one_row:
            if chosen.max_batch_size != 1 and ("max_batch_size" in settings or policy is not None):
                raise ConfigError(f"model '{name}' takes one row at a time on its server: max_batch_size must be 1")
            chosen = replace(chosen, max_batch_size=1)
        spec = ModelSpec(name, str(version), taken, given, chosen, concurrency, self, task or "tensors", **loading)
        self.__penstock_model__ = spec

    @classmethod
    def discover(
        cls, urls: str | Iterable[str], *, names: Iterable[str] | None = None, **options: Any
    ) -> list[RemoteModel]:
        """Declares every model that a server lists, under its name there; it blocks.

        It is asked for the index of its model repository, and for the models of OpenAI's API.

        Args:
            urls: the server's URL, or those of several that serve the same.
            names: those that are wanted, if not all.
            **options: as of `RemoteModel`, for each of them.

        Raises:
            ConfigError: where it lists none, or none of a name that is wanted; and as `RemoteModel`.
            TransportError, DeadlineExceeded: where it cannot be asked.
        """
        several = [urls] if isinstance(urls, str) else list(urls)
        from penstock import _remote_index  # noqa: PLC0415  only who looks for models needs it

        return [
            cls(name, several, **{**said, **options}) for name, said in _remote_index.listed(several, names, options)
        ]

    @property
    def name(self) -> str:
        """What it is served under."""
        return self.__penstock_model__.name

    @property
    def urls(self) -> tuple[str, ...]:
        """Where it is."""
        return self._upstream.urls

    @property
    def upstream(self) -> Upstream:
        """Where it is, what it is called there, and how it is reached."""
        return self._upstream

    @property
    def inputs(self) -> Mapping[str, TensorDeclaration]:
        """Element type and axes of one row by name; the batch axis is left out."""
        return self.__penstock_model__.inputs

    @property
    def outputs(self) -> Mapping[str, TensorDeclaration]:
        """Likewise."""
        return self.__penstock_model__.outputs

    def pool_stats(self) -> ClientStats:
        """What its connections have done since it was loaded, for each server; nothing while it is not loaded."""
        with self._lock:
            client = self._clients[-1] if self._clients else None
        return client_stats([], _NO_STREAMS) if client is None else client.stats()

    def pooled(self, pool: Pool | bool, *, always: bool = False) -> RemoteModel:
        """The same model over other connections, as the `pool` of a `penstock.Pipeline` has it.

        What they do is told by `pool_stats` of both.

        Args:
            pool: connections to each server, or `False` for one for each request.
            always: also where the model names connections of its own.
        """
        options = self._upstream.options
        if options.get("pool") is not None and not always:
            return self
        other = copy(self)
        other._upstream = replace(self._upstream, options={**options, "pool": pool})  # noqa: SLF001  of this class
        other.__penstock_model__ = replace(self.__penstock_model__, target=other)
        return other

    def open(self, ctx: LoadContext | None = None) -> Loaded:
        """Connects: the upstream must be ready, and have the model as it was declared.

        Raises:
            ModelNotReady: where it is not ready.
            ModelNotFound: where it has no such model.
            LoadFailed: where it has another than was declared.
            TransportError, DeadlineExceeded: where it cannot be asked.
        """
        spec = self.__penstock_model__
        if ctx is not None:
            ctx.progress(None, "connect")
        if spec.task != "tensors":
            return _remote_text.open_text(self, ctx)
        client = self.new_client()
        try:
            return RemoteLoaded(self, client, self._terms(client))
        except BaseException:
            self.forget(client)
            raise

    def new_client(self) -> Client:
        """A client for one load, whose pools are the model's from now on."""
        client = self._upstream.client()
        with self._lock:
            self._clients.append(client)
        return client

    def forget(self, client: Client) -> None:
        """Closes the client of a load that is over."""
        with self._lock:
            self._clients[:] = [one for one in self._clients if one is not client]
        client.close(drain=False)

    def _ask(self) -> tuple[Task, dict[str, TensorDeclaration], dict[str, TensorDeclaration], bool]:
        """What the upstream says of the model."""
        upstream = self._upstream
        with upstream.client() as client:
            metadata = client.model_metadata(upstream.model, version=upstream.version, timeout=QUESTION_SECONDS)
        if [set(names(metadata.get(what))) for what in ("inputs", "outputs")] == [set(text) for text in _TEXT]:
            return "generate", dict(_TEXT[0]), dict(_TEXT[1]), False
        inputs, outputs, one_row = described(upstream.model, metadata)
        return "tensors", inputs, outputs, one_row

    def _terms(self, client: Client) -> RemoteTerms:
        spec, upstream = self.__penstock_model__, self._upstream
        upstream.check_ready(client)
        metadata = client.model_metadata(upstream.model, version=upstream.version, timeout=QUESTION_SECONDS)
        check_same(spec.name, "inputs", spec.inputs, metadata.get("inputs"))
        check_same(spec.name, "outputs", spec.outputs, metadata.get("outputs"))
        path = model_path(upstream.model, upstream.version)
        builder = client._builder  # noqa: SLF001  one package
        _, target, headers, _, _, _ = builder.prepare("POST", f"{path}/infer", {})
        _, ready, _, _, _, _ = builder.prepare("GET", f"{path}/ready", {})
        return RemoteTerms(
            model=upstream.model,
            version=upstream.version,
            path=target,
            ready_path=ready,
            headers=headers or [],
            binary=_binary(client) if self._binary is None else self._binary,
            idempotent=self._idempotent,
            concurrency=spec.workers if isinstance(spec.workers, int) else 1,
        )

    def __repr__(self) -> str:
        spec = self.__penstock_model__
        return f"<penstock.RemoteModel {spec.reference} {spec.task} at {', '.join(self.urls)}>"

    def _repr_html_(self) -> str:
        from penstock import _reprs  # noqa: PLC0415  a notebook asks for it

        spec = self.__penstock_model__
        rows = {
            "model": spec.reference,
            "task": spec.task,
            "at": ", ".join(self.urls),
            "there": self._upstream.model + ("" if self._upstream.version is None else f"@{self._upstream.version}"),
            **{f"input {name}": f"{kind} {list(axes)}" for name, (kind, axes) in spec.inputs.items()},
            **{f"output {name}": f"{kind} {list(axes)}" for name, (kind, axes) in spec.outputs.items()},
        }
        return _reprs.facts("RemoteModel", rows.items())


class RemoteLoaded(Connected[RemoteTerms]):
    """One load of a `RemoteModel` of tensors."""

    def start(self, shift: _native.NativeShift) -> None:
        """Starts the task that takes batches."""
        shift.start_remote(self.value._native, self._terms)  # noqa: SLF001  one package


def names(tensors: object) -> list[str]:
    """The names of tensors in metadata."""
    several = tensors if isinstance(tensors, list) else []
    return [str(tensor.get("name")) for tensor in several if isinstance(tensor, dict)]


def _binary(client: Client) -> bool:
    """Whether all servers of HTTP that answer know binary tensors."""
    origins = [origin for origin in client._origins if not origin.startswith("grpc")]  # noqa: SLF001  one package
    told = []
    for origin in origins:
        if len(origins) > 1 and origin.startswith("unix"):
            # Behind the path of a socket no other path can stand.
            return False
        try:
            told.append(
                takes_binary(client.get("/v2" if len(origins) == 1 else f"{origin}/v2", timeout=QUESTION_SECONDS))
            )
        except PenstockError:
            continue
    return bool(told) and all(told)
