"""Text models on other servers: what `RemoteModel` hands over where its task is `"generate"` or `"embed"`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from penstock._inference import model_path
from penstock._policy import check_choice
from penstock._remote_terms import QUESTION_SECONDS, Connected
from penstock.errors import ConfigError, LoadFailed, ModelNotFound, ModelNotReady
from penstock.pooling import Pool

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from penstock import _native
    from penstock._cache_context import LoadContext
    from penstock._computed import Loaded
    from penstock._headers import Pairs
    from penstock._policy import BatchPolicy
    from penstock._remote_terms import Upstream
    from penstock.client import Client
    from penstock.models import TensorDeclaration
    from penstock.remote import RemoteModel

Api = Literal["openai", "generate"]

_MAX_EVENT = 1 << 20
"""Bytes of one event of an answer at most."""

"""Time for an answer to what a server is asked about its models."""

_BAD, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _NOT_ALLOWED, _FAILED = 400, 401, 403, 404, 405, 500


@dataclass(frozen=True, kw_only=True)
class TextTerms:
    """How text is asked for: a record for the extension, read by its field names."""

    protocol: str
    prefix: str
    ready_path: str
    model: str
    version: str | None
    headers: Pairs
    concurrency: int
    max_event: int


def tensors_of(
    name: str,
    task: str,
    inputs: Mapping[str, TensorDeclaration] | None,
    outputs: Mapping[str, TensorDeclaration] | None,
) -> tuple[Mapping[str, TensorDeclaration], Mapping[str, TensorDeclaration]]:
    """The inputs and outputs of a text model.

    Raises:
        ConfigError: where it was given some of its own.
    """
    if inputs is not None or outputs is not None:
        raise ConfigError(f"model '{name}': task='{task}' has neither inputs nor outputs of its own")
    if task == "generate":
        return {"text_input": ("string", ())}, {"text_output": ("string", ())}
    return {"text": ("string", ())}, {"embedding": ("float32", (-1,))}


def policy_of(name: str, task: str, policy: BatchPolicy, *, chosen: bool) -> BatchPolicy:
    """The policy of a text model: requests for text go upstream one by one, whatever batches their server makes.

    Raises:
        ConfigError: where its user has chosen another size of batches.
    """
    if task != "generate":
        return policy
    if chosen and policy.max_batch_size != 1:
        raise ConfigError(f"model '{name}': text goes upstream request by request, so max_batch_size must be 1")
    return replace(policy, max_batch_size=1)


def concurrency_of(pool: Pool | bool | None, urls: Sequence[str]) -> int:
    """Requests that may be under way where nobody says it: one for each connection that there may be."""
    return (pool if isinstance(pool, Pool) else Pool()).max_size * len(urls)


def passing_of(task: str, api: str, policy: BatchPolicy) -> str:
    """What of its requests is passed on as it is, as the extension calls that."""
    if api == "generate":
        return "generate"
    return "openai" if task == "embed" and policy.max_batch_size != 1 else "every-openai"


def api_of(name: str, task: str | None, api: object, upstream: Upstream, *, found: bool) -> Api | None:
    """The API that the servers of a model are asked by for text; nothing where it is a model of tensors.

    Args:
        name: what the model is called here.
        task: what it is for.
        api: what its user says.
        upstream: where it is.
        found: whether its servers said what it is for, by the Open Inference Protocol: they may have no other API.

    Raises:
        ConfigError: where there is no such thing, it has no vectors, or there is no way to it.
    """
    if task not in {"generate", "embed"}:
        if api is not None:
            raise ConfigError(f"model '{name}': api is for text: say task='generate' or task='embed', too")
        return None
    if any(url.startswith("grpc") for url in upstream.urls):
        raise ConfigError(f"model '{name}': text is asked for over HTTP: give the URL of that, not {upstream.urls[0]}")
    if api is None and found:
        with upstream.client() as client:
            return "openai" if upstream.model in (names_at(client) or ()) else "generate"
    if api is None:
        return "openai"
    check_choice("api", api, ("openai", "generate"))
    if api == "generate" and task == "embed":
        raise ConfigError(f"model '{name}': api='generate' is for text; vectors of texts are asked for by api='openai'")
    return "generate" if api == "generate" else "openai"


def open_text(model: RemoteModel, ctx: LoadContext | None) -> Loaded:
    """One load of a text model: its server must be there, and have it.

    Raises:
        ModelNotReady: where the server is not ready.
        ModelNotFound: where it has no such model.
        LoadFailed: where it refuses whoever asks.
        TransportError, DeadlineExceeded: where it cannot be asked.
    """
    del ctx
    client = model.new_client()
    try:
        terms = _terms(model, client)
        if model.api == "openai":
            _check_openai(model, client)
        else:
            model.upstream.check_ready(client)
        return TextLoaded(model, client, terms)
    except BaseException:
        model.forget(client)
        raise


def base_of(client: Client) -> str:
    """What stands before the paths of a server, as its URL says."""
    path = "/models"
    builder = client._builder  # noqa: SLF001  one package
    _, target, _, _, _, _ = builder.prepare("GET", path, {})
    return target.removesuffix(path)


def listed(client: Client) -> list[tuple[str, dict[str, Any]]]:
    """The text models that a server lists by OpenAI's API: names, and what `RemoteModel` is told of each."""
    return [(name, {"task": _task_of(name), "api": "openai"}) for name in names_at(client) or []]


def names_at(client: Client) -> list[str] | None:
    """The models that a server lists by OpenAI's API; nothing where it lists none so."""
    answer = client.get(_within(client, "/models"), timeout=QUESTION_SECONDS)
    if answer.status_code >= _BAD:
        return None
    try:
        said = answer.json()
        return [str(row["id"]) for row in said["data"]]
    except (ValueError, LookupError, TypeError):
        return None


def _task_of(name: str) -> str:
    """The protocol does not say what a model is for. Whatever it is taken for, requests of both kinds are passed on."""
    return "embed" if "embed" in name.lower() else "generate"


def _within(client: Client, path: str) -> str:
    """A path of OpenAI's API at a server: its URL may end with `/v1`, as that of OpenAI's own does."""
    return path if base_of(client).endswith("/v1") else f"/v1{path}"


def _check_openai(model: RemoteModel, client: Client) -> None:
    name, where = model.upstream.model, ", ".join(model.urls)
    answer = client.get(_within(client, f"/models/{quote(name, safe='')}"), timeout=QUESTION_SECONDS)
    status = answer.status_code
    if status in {_UNAUTHORIZED, _FORBIDDEN}:
        raise LoadFailed(
            f"{where} refuses whoever asks, with status {status}: headers={{'Authorization': ...}} says who"
        )
    if status >= _FAILED:
        raise ModelNotReady(f"{where} is not ready: it answers with status {status}")
    if status not in {_NOT_FOUND, _NOT_ALLOWED}:
        return
    # Not every server knows that path; one that lists no models either is believed.
    names = names_at(client)
    if names is not None and name not in names:
        raise ModelNotFound(f"there is no model '{name}' at {where}; there are {', '.join(names) or 'none'}")


def _terms(model: RemoteModel, client: Client) -> TextTerms:
    spec, upstream = model.__penstock_model__, model.upstream
    prefix = base_of(client).removesuffix("/v1")
    builder = client._builder  # noqa: SLF001  one package
    _, _, headers, _, _, _ = builder.prepare("POST", "/v1/completions", {})
    own = model_path(upstream.model, upstream.version)
    return TextTerms(
        protocol=model.api or "openai",
        prefix=prefix,
        ready_path=prefix + ("/v1/models" if model.api == "openai" else f"{own}/ready"),
        model=upstream.model,
        version=upstream.version,
        headers=headers or [],
        concurrency=spec.workers if isinstance(spec.workers, int) else 1,
        max_event=_MAX_EVENT,
    )


class TextLoaded(Connected[TextTerms]):
    """One load of a text model on other servers."""

    def start(self, shift: _native.NativeShift) -> None:
        """Starts the task that takes requests."""
        shift.start_text(self.value._native, self._terms)  # noqa: SLF001  one package
