"""What is known of a model on another server: how it is reached, and what it says that it takes and gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from penstock import _oip
from penstock._computed import Loaded
from penstock._connecting import checked_urls
from penstock._policy import check_count
from penstock.client import Client
from penstock.errors import ConfigError, LoadFailed, ModelNotReady

if TYPE_CHECKING:
    from penstock import _native
    from penstock._headers import Pairs
    from penstock.models import TensorDeclaration
    from penstock.remote import RemoteModel

T = TypeVar("T")

QUESTION_SECONDS = 10.0
"""How long a server may take to say what it has, and whether it is ready."""

ELEMENTS = {**_oip.ELEMENTS, "BYTES": "bytes"}
"""Element types by the protocol's names for them."""

Declared = dict[str, "TensorDeclaration"]


@dataclass(frozen=True)
class Upstream:
    """Where a model is, and how it is reached.

    Attributes:
        urls: its endpoints.
        model: what it is called there.
        version: its version there, or `None` for the one that the endpoints choose.
        options: the keywords of a `penstock.Client`.
    """

    urls: tuple[str, ...]
    model: str
    version: str | None
    options: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, urls: object, model: object, version: object, options: Mapping[str, Any]) -> Upstream:
        """What a person said, checked: also the settings of its client.

        Raises:
            ConfigError: for what cannot be.
        """
        given = checked_urls(urls)
        if given is None:
            raise ConfigError("a remote model needs the URL of its server, such as 'http://10.0.0.7:8000'")
        if not isinstance(model, str) or not model:
            raise ConfigError(f"upstream_name must be the model's name on its server, not {model!r}")
        if version is not None and not isinstance(version, str | int):
            raise ConfigError(f"upstream_version must be a version such as '2', not {version!r}")
        several = (given,) if isinstance(given, str) else tuple(given)
        upstream = cls(several, model, None if version is None else str(version), dict(options))
        upstream.client().close()
        return upstream

    def client(self) -> Client:
        """A client of the endpoints, with connections of its own; nothing is opened before its first request."""
        return Client(list(self.urls), **self.options)

    def check_ready(self, client: Client) -> None:
        """Asks whether the model is ready there.

        Raises:
            ModelNotReady: where it is not.
            TransportError, DeadlineExceeded: where that cannot be asked.
        """
        if not client.is_ready(self.model, version=self.version, timeout=QUESTION_SECONDS):
            raise ModelNotReady(f"model '{self.model}' is not ready at {', '.join(self.urls)}")


class Connected(Loaded, Generic[T]):
    """One load of a `RemoteModel`: connections to its servers. Models that require it are lent their client."""

    def __init__(self, model: RemoteModel, client: Client, terms: T) -> None:
        # A thing of its own for each load: that is what a cache knows loads by.
        self.value: Client = client
        self.size: int = 0
        self._model = model
        self._terms = terms

    def end(self, shift: _native.NativeShift, limit: float) -> None:
        """Waits for what is under way, for so many seconds; then closes the connections."""
        shift.end_remote(limit)
        self._model.forget(self.value)


@dataclass(frozen=True, kw_only=True)
class RemoteTerms:
    """How batches are asked for: a record for the extension, read by its field names."""

    model: str
    version: str | None
    path: str
    ready_path: str
    headers: Pairs
    binary: bool
    idempotent: bool
    concurrency: int


def check_concurrency(concurrency: object) -> int:
    """The number of batches that may be under way.

    Raises:
        ConfigError: where it is none.
    """
    check_count("concurrency", concurrency)
    if not isinstance(concurrency, int) or concurrency < 1:
        raise ConfigError(f"concurrency must be at least 1, not {concurrency}")
    return concurrency


def described(name: str, metadata: Mapping[str, Any]) -> tuple[Declared, Declared, bool]:
    """Inputs and outputs, from the metadata of a model; and whether it takes one row at a time.

    Raises:
        ConfigError: where the metadata does not say enough of them.
    """
    inputs, fixed = _tensors(name, "inputs", metadata.get("inputs"))
    outputs, _ = _tensors(name, "outputs", metadata.get("outputs"))
    return inputs, outputs, fixed


def _tensors(name: str, what: str, given: object) -> tuple[Declared, bool]:
    hint = f"declare {what}={{'x': ('float32', [64])}}"
    if not isinstance(given, Iterable) or not (several := list(given)):
        raise ConfigError(f"the server of model '{name}' does not say what {what} it has: {hint}")
    tensors: Declared = {}
    fixed = False
    for tensor in several:
        try:
            key, datatype, shape = str(tensor["name"]), str(tensor["datatype"]), [int(axis) for axis in tensor["shape"]]
        except (LookupError, TypeError, ValueError):
            raise ConfigError(f"the server of model '{name}' says of its {what} what cannot be read: {hint}") from None
        if datatype not in ELEMENTS:
            raise ConfigError(f"model '{name}': '{key}' has datatype {datatype}, which cannot be served")
        if not shape or shape[0] not in (-1, 1):
            raise ConfigError(f"model '{name}': '{key}' has shape {shape}, without a batch axis: {hint}")
        fixed |= shape[0] == 1
        tensors[key] = (ELEMENTS[datatype], [axis if axis >= 0 else -1 for axis in shape[1:]])
    return tensors, fixed


def check_same(name: str, what: str, declared: Mapping[str, TensorDeclaration], given: object) -> None:
    """Makes sure that a server's model has what was declared. A server that says nothing is believed.

    Raises:
        LoadFailed: where it has not.
    """
    if not isinstance(given, Iterable) or not (several := list(given)):
        return
    there = {str(tensor.get("name")): tensor for tensor in several if isinstance(tensor, Mapping)}
    for key, (elements, axes) in declared.items():
        if key not in there:
            raise LoadFailed(f"model '{name}' was declared with '{key}' among its {what}; its server has {list(there)}")
        tensor = there[key]
        shape = list(tensor.get("shape", ()))[1:]
        wanted = "bytes" if elements == "string" else elements
        fits = len(shape) == len(axes) and all(
            -1 in (one, other) or one == other for one, other in zip(shape, axes, strict=True)
        )
        if ELEMENTS.get(str(tensor.get("datatype"))) != wanted or not fits:
            raise LoadFailed(
                f"model '{name}' was declared with '{key}' as {elements} of rows {list(axes)}; its server has "
                f"{tensor.get('datatype')} of shape {tensor.get('shape')}"
            )
