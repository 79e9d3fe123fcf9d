"""Models for a server: a function or a class over a batch, with declared inputs and outputs."""

from __future__ import annotations

import importlib
import inspect
import re
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from penstock import _lifecycle
from penstock._cache import ModelCache
from penstock._cache_context import LoadContext
from penstock._cache_handles import LoadHandle, LoadSteps, Operation
from penstock._cache_records import (
    Accuracy,
    CacheBytes,
    CachedModelStats,
    CacheStats,
    Eviction,
    Index,
    IndexRow,
    LoadProgress,
    LoadSeconds,
    ModelEntry,
    Predictions,
    Preloads,
    WhatIf,
)
from penstock._computed import Computed
from penstock._generate import ASYNC_WORKERS, as_generator, request_of
from penstock._load_terms import load_terms
from penstock._native import Acquiring, Lease
from penstock._policy import BatchPolicy, fillers_of
from penstock._processes import Processes
from penstock._steps import (
    Inputs,
    driven,
    driven_async,
    driven_each,
    driven_each_async,
    is_async_stepwise,
    is_stepwise,
)
from penstock.errors import ConfigError, LoadFailed, PenstockError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

T = TypeVar("T", bound="Callable[..., Any]")
TensorDeclaration = tuple[str, "Sequence[int]"]

__all__ = [
    "Accuracy",
    "Acquiring",
    "CacheBytes",
    "CacheStats",
    "CachedModelStats",
    "Eviction",
    "Index",
    "IndexRow",
    "Lease",
    "LoadContext",
    "LoadHandle",
    "LoadProgress",
    "LoadSeconds",
    "LoadSteps",
    "LoadedModel",
    "ModelCache",
    "ModelEntry",
    "ModelSpec",
    "Operation",
    "Predictions",
    "Preloads",
    "TensorDeclaration",
    "WhatIf",
    "model",
    "spec_of",
]

_ATTRIBUTE = "__penstock_model__"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class ModelSpec:
    """What `@penstock.model` declared.

    Attributes:
        name: the name that the model is served under.
        version: its version, as text.
        inputs: element type and row axes by name; the batch axis is left out, -1 is an axis of any length.
        outputs: likewise.
        policy: how requests become batches.
        workers: threads that run it, or processes.
        target: the decorated function or class, or an `OnnxModel`.
        task: `"tensors"`, `"generate"` for text piece by piece, or `"embed"` for vectors of texts.
        batched: true for a text model that answers many requests one step at a time.
        requires: references to the models that are loaded before it, and lent to it.
        size: bytes that it takes, as far as it says so.
        load_timeout: seconds that one try to load it may take.
        load_retries: tries after the first that failed.
        warmup: called with the model once it is loaded, before its first batch.
        directory: the folder that it lies in, for a model of a `penstock.ModelDirectory`.
        alone: each request has a batch of its own: batching is switched off.
    """

    name: str
    version: str
    inputs: Mapping[str, TensorDeclaration]
    outputs: Mapping[str, TensorDeclaration]
    policy: BatchPolicy
    workers: int | Processes
    target: Any
    task: str = "tensors"
    batched: bool = False
    requires: tuple[str, ...] = ()
    size: int | None = None
    load_timeout: float = 30.0
    load_retries: int = 1
    warmup: Callable[[Any], Any] | None = None
    directory: Path | None = None
    alone: bool = False

    @property
    def reference(self) -> str:
        """What the model is called among all versions of all models."""
        return f"{self.name}@{self.version}"

    @property
    def is_stepwise(self) -> bool:
        """True where it answers step by step: it is a generator."""
        if isinstance(self.target, Computed):
            return False
        function = getattr(self.target, "predict", self.target)
        return is_stepwise(as_generator(function) if self.task == "generate" and not self.batched else function)


def model(
    name: str,
    *,
    inputs: Mapping[str, TensorDeclaration] | None = None,
    outputs: Mapping[str, TensorDeclaration] | None = None,
    task: str = "tensors",
    batched: bool = False,
    version: str | int = "1",
    workers: int | Processes | None = None,
    requires: str | Sequence[str] | None = None,
    size: int | str | None = None,
    load_timeout: float | None = None,
    load_retries: int | None = None,
    warmup: Callable[[Any], Any] | None = None,
    policy: BatchPolicy | None = None,
    **settings: Any,
) -> Callable[[T], T]:
    """Declares a model for `penstock.Server` and `penstock serve`; calling it directly stays what it was.

    A function is called over a batch. A class is made without arguments when it is loaded: at the start of the server,
    or when the first request comes, and again after it was evicted. `load(self, ctx)`, if it has one, runs in a thread
    of its own before the model is ready, `predict` over each batch, `close(self)` when the model is let go of.
    `ctx["scaler"]` is what it `requires`: the instance of another class, or what a loader of the server's cache gave.

    `async def` runs on a loop of Penstock's own, and `workers` is then the number of batches that may be awaited at a
    time. What still runs when a server that closes has waited long enough is cancelled.

    With `pad=`, rows of different lengths share batches: inputs whose first axis is -1 are filled up to the longest,
    and a function with a parameter `mask` or `lengths` is told which places are theirs.

    A generator function, `async` or not, is given a `penstock.Batch`, with `batch.inputs[i]` by name: a request is
    answered with what it is finished with, or with the values of its last step.

    Each input comes as an array `[n, *axes]` of the declared type, texts as (nested) lists of `str` or `bytes`. Inputs
    are passed by name where the parameters have the inputs' names, by position otherwise. One output may be returned
    as it is, several as a dictionary by name. A list may hold an `ItemError` in a row's place.

    Args:
        name: the name to serve it under: letters, digits, `.`, `_` and `-`.
        inputs: `{"x": ("float32", [64])}`: element type (NumPy's names, `"string"`, `"bytes"`, and `"bfloat16"` where
            the package ml_dtypes is installed) and the axes of one row, without the batch axis; -1 is an axis of any
            length, and rows of different lengths go into batches of their own.
        outputs: likewise.
        task: `"tensors"`; `"generate"` for text that comes token by token; `"embed"` for vectors of texts. The latter
            two are served by OpenAI's endpoints, too.
        batched: true for a text model that answers many requests one step at a time.
        version: its version. Numbers compare as numbers, and the highest is the default.
        workers: threads that run it, 1 by default; of an `async def` model, batches that may overlap.
            `penstock.Processes(n)` runs it in processes, each with an instance of its own: for models that hold the
            interpreter lock, and for those that must go on answering while other Python computes in the server.
        requires: models that are loaded before it and stay as long as it does, as references: `"scaler"`, `"scaler@2"`.
            This and the four that follow may be attributes of the class instead.
        size: bytes that it takes ("1GiB"), where its arrays do not say so: memory of other libraries, of processes.
        load_timeout: seconds that one try to load it may take, 30 by default.
        load_retries: tries after the first that failed, 1 by default.
        warmup: called with the model (the instance, or the function) once it is loaded, before its first batch.
        policy: a `BatchPolicy`, or its fields as keywords, never both.
        **settings: the fields of `BatchPolicy`.

    Raises:
        ConfigError: for a name, a type or settings that cannot be.

    Example:
        >>> @model("double", inputs={"x": ("float32", [3])}, outputs={"y": ("float32", [3])}, max_batch_size=50)
        ... def double(x):
        ...     return x * 2
    """
    check_identity(name, version, workers)
    taken, given = _tensors_of(name, task, inputs, outputs)
    _check_steps(name, task, settings, batched=batched)
    chosen = served_policy(name, policy, settings)
    if task == "generate" and not batched:
        chosen = replace(chosen, max_batch_size=1)

    def decorate(target: T) -> T:
        if not callable(target):
            raise ConfigError(f"a model must be a function or a class, not {target!r}")
        if inspect.isclass(target) and not callable(getattr(target, "predict", None)):
            raise ConfigError(f"model '{name}': the class {target.__name__} has no method predict")
        count = _workers_of(name, task, getattr(target, "predict", target), workers, batched=batched)
        said = {"requires": requires, "size": size, "load_timeout": load_timeout, "load_retries": load_retries}
        terms = load_terms(name, target, {**said, "warmup": warmup})
        if terms["requires"] and isinstance(count, Processes):
            raise ConfigError(f"model '{name}' runs in processes, which models of the server's cannot be lent to")
        spec = ModelSpec(name, str(version), taken, given, chosen, count, target, task, batched, **terms)
        setattr(target, _ATTRIBUTE, spec)
        return target

    return decorate


def check_identity(name: object, version: object, workers: object) -> None:
    """Refuses what no model can be called, and what cannot be its workers.

    Raises:
        ConfigError: for either.
    """
    _check_name("name", name)
    _check_name("version", str(version))
    _check_workers(workers)


def served_policy(name: str, policy: BatchPolicy | None, settings: Mapping[str, Any]) -> BatchPolicy:
    """The policy of a served model, whole or of its fields.

    Raises:
        ConfigError: where it is both, or cannot be kept without running Python for each request.
    """
    if policy is not None and settings:
        raise ConfigError(f"policy and {', '.join(sorted(settings))} exclude each other: put them into the policy")
    try:
        policy = BatchPolicy(**settings) if policy is None else policy
    except TypeError as error:
        raise ConfigError(f"unknown setting of a model: {error}") from error
    if policy.key is not None or callable(policy.cost):
        raise ConfigError(
            f"model '{name}': key= and cost=<function> would run Python for each request; use cost='length'"
        )
    return policy


def spec_of(target: object) -> ModelSpec | None:
    """The declaration of a model, or `None`; a subclass of a declared class is not declared."""
    spec = vars(target).get(_ATTRIBUTE) if hasattr(target, "__dict__") else None
    return spec if isinstance(spec, ModelSpec) else None


class Placed:
    """A declaration that was changed: by what `model.toml` says, say. What was decorated keeps its own."""

    def __init__(self, spec: ModelSpec) -> None:
        vars(self)[_ATTRIBUTE] = spec

    def __repr__(self) -> str:
        return f"<penstock model {vars(self)[_ATTRIBUTE].reference}>"


def check_placed(spec: ModelSpec, settings: Mapping[str, Any]) -> None:
    """Refuses what a declaration was changed to where `model` would not have taken it.

    Raises:
        ConfigError: likewise.
    """
    _check_steps(spec.name, spec.task, settings, batched=spec.batched)
    function = getattr(spec.target, "predict", spec.target)
    _workers_of(spec.name, spec.task, function, spec.workers, batched=spec.batched)
    if spec.requires and isinstance(spec.workers, Processes):
        raise ConfigError(f"model '{spec.name}' runs in processes, which models of the server's cannot be lent to")


class LoadedModel:
    """A model that a server runs: its instance, and the function that takes columns."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.is_async: bool = False
        self.steps: bool = False
        self.fillers: tuple[bool, bool] = (False, False)
        self.value: Any = None
        self._instance: Any = None

    def check(self) -> None:
        """Looks at a model that was not made yet.

        Raises:
            ConfigError: where its parameters do not fit its inputs.
        """
        spec = self.spec
        function = getattr(spec.target, "predict", spec.target)
        if isinstance(function, Computed) or (spec.task == "generate" and not spec.batched):
            return
        if is_stepwise(function):
            _inputs_of(spec)
        else:
            _by_columns(spec, function)

    def make(self) -> None:
        """Makes the model, without loading it."""
        target = self.spec.target
        if inspect.isclass(target):
            self._instance = self.value = target()
        else:
            # Each load is a thing of its own, and not the function that lives on.
            self.value = partial(target)

    def loads(self) -> Callable[[LoadContext], Any] | None:
        """What loads the model that was made, if it has anything to load; a coroutine function where that is one."""
        return getattr(self._instance, "load", None)

    def function(self) -> Callable[..., Any]:
        """The function to call with its input columns, in their declared order, once the model is loaded.

        Where `is_async`, the function gives a coroutine.

        Raises:
            ConfigError: where its parameters do not fit its inputs.
        """
        spec = self.spec
        function: Callable[..., Any] = spec.target if self._instance is None else self._instance.predict
        if spec.task == "generate" and not spec.batched:
            function = as_generator(function)
        self.is_async = _is_async(function)
        self.steps = is_stepwise(function)
        if self.steps:
            self.is_async = is_async_stepwise(function)
            inputs = _inputs_of(spec)
            if spec.task == "generate" and not spec.batched:
                return driven_each_async(function, inputs) if self.is_async else driven_each(function, inputs)
            return driven_async(function, inputs) if self.is_async else driven(function, inputs)
        self.fillers = fillers_of(spec.policy, function)
        return _by_columns(spec, function)

    def load(self, ctx: LoadContext) -> Callable[..., Any]:
        """Makes, loads and warms the model in this thread; gives its `function`.

        Raises:
            LoadFailed: with what the model raised as its cause.
            ConfigError: where its parameters do not fit its inputs.
        """
        try:
            self.make()
            if (load := self.loads()) is not None:
                blocking(load)(ctx)
            self.warm_up()
        except PenstockError:
            raise
        except Exception as error:
            name = self.spec.name
            raise LoadFailed(f"model '{name}' failed to load: {type(error).__name__}: {error}") from error
        return self.function()

    def warm_up(self) -> None:
        """Runs the model for the first time, where it says how."""
        if self.spec.warmup is not None:
            blocking(self.spec.warmup)(self.value)

    def forget(self) -> None:
        """Lets go of a model that could not be loaded."""
        self._instance = self.value = None

    def close(self) -> None:
        """Lets the model close what it opened."""
        close = getattr(self._instance, "close", None)
        self.forget()
        if close is not None:
            blocking(close)()


def blocking(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which waits for the coroutine that it may give."""
    return _lifecycle.on_own_loop(function) if _is_async(function) else function


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _by_columns(spec: ModelSpec, function: Callable[..., Any]) -> Callable[..., Any]:
    names = tuple(spec.inputs)
    target: Any = spec.target
    original = getattr(target, "predict", target)
    try:
        parameters = inspect.signature(original).parameters
    except (TypeError, ValueError):  # a function of a C extension does not say
        return function
    named = {name for name, one in parameters.items() if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    if len(names) > 1 and named.issuperset(names):
        return lambda *columns, **told: function(**dict(zip(names, columns, strict=True)), **told)
    told = {"mask", "lengths"} if spec.policy.pad else set()
    positional = [one for one in parameters.values() if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    positional = [one for one in positional if one.name not in told]
    count = len(positional) - inspect.isclass(spec.target)
    if count < len(names) and not any(one.kind is one.VAR_POSITIONAL for one in parameters.values()):
        raise ConfigError(f"model '{spec.name}' has inputs {list(names)}, but its function takes {count} arguments")
    return function


def _inputs_of(spec: ModelSpec) -> Inputs:
    names = tuple(spec.inputs)
    padded = [at for at, (_, axes) in enumerate(spec.inputs.values()) if axes and axes[0] == -1]
    if spec.task == "generate":
        return Inputs(names, None, request_of)
    if not spec.policy.pad:
        return Inputs(names, None)
    if len(padded) > 1:
        raise ConfigError(f"model '{spec.name}' is a generator: with pad it may have one input of any length")
    return Inputs(names, padded[0] if padded else None)


def _check_name(what: str, name: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"a model's {what} is made of letters, digits, '.', '_' and '-', not {name!r}")


def _check_workers(workers: object) -> None:
    whole = isinstance(workers, int) and not isinstance(workers, bool) and workers >= 1
    if workers is not None and not isinstance(workers, Processes) and not whole:
        raise ConfigError(f"workers must be a whole number of at least 1, or penstock.Processes, not {workers!r}")


def _workers_of(
    name: str, task: str, function: Callable[..., Any], workers: int | Processes | None, *, batched: bool
) -> int | Processes:
    """How many run a model, where its function can be run so."""
    if isinstance(workers, Processes) and (task == "generate" or is_stepwise(function)):
        raise ConfigError(f"model '{name}' is a generator, which runs step by step in this process: give it threads")
    if batched and not is_stepwise(function):
        raise ConfigError(f"model '{name}' is no generator: with batched=True it must be one, over a penstock.Batch")
    if workers is not None:
        return workers
    return ASYNC_WORKERS if task == "generate" and not batched and is_async_stepwise(as_generator(function)) else 1


def _check_steps(name: str, task: str, settings: Mapping[str, Any], *, batched: bool) -> None:
    if batched and task != "generate":
        raise ConfigError(f"model '{name}': batched=True is for task='generate'; models of tensors always are")
    if task == "generate" and not batched and "max_batch_size" in settings:
        raise ConfigError(f"model '{name}' answers one request at a time: max_batch_size is for batched=True")


def _tensors_of(
    name: str, task: str, inputs: object, outputs: object
) -> tuple[dict[str, TensorDeclaration], dict[str, TensorDeclaration]]:
    """The inputs and outputs of a model, or those of its task."""
    if task == "generate":
        if inputs is not None or outputs is not None:
            raise ConfigError(f"model '{name}': task='generate' has neither inputs nor outputs of its own")
        return {"text_input": ("string", ())}, {"text_output": ("string", ())}
    if task == "embed":
        inputs = {"text": ("string", ())} if inputs is None else inputs
        outputs = {"embedding": ("float32", (-1,))} if outputs is None else outputs
    elif task != "tensors":
        raise ConfigError(f"model '{name}': task must be 'tensors', 'generate' or 'embed', not {task!r}")
    taken, given = _check_tensors("inputs", inputs), _check_tensors("outputs", outputs)
    if task == "embed":
        is_text = [(elements, len(axes)) for elements, axes in taken.values()] == [("string", 0)]
        is_vector = [(elements, len(axes)) for elements, axes in given.values()] == [("float32", 1)]
        if not is_text or not is_vector:
            raise ConfigError(
                f"model '{name}': task='embed' takes one input ('string', []) and gives one ('float32', [n])"
            )
    return taken, given


def _check_tensors(what: str, tensors: object) -> dict[str, TensorDeclaration]:
    declared = checked_tensors(what, tensors)
    for name, (elements, _) in declared.items():
        if elements == "bfloat16" and not _knows_bfloat16():
            raise ConfigError(f"{what}: {name!r} is bfloat16, which NumPy has from a package: pip install ml_dtypes")
    return declared


def checked_tensors(what: str, tensors: object) -> dict[str, TensorDeclaration]:
    """Inputs or outputs of a model, as they were declared.

    Raises:
        ConfigError: for what is no declaration.
    """
    if not isinstance(tensors, dict) or not tensors:
        raise ConfigError(f"{what} must be a dict like {{'x': ('float32', [64])}}, not {tensors!r}")
    for name, declared in tensors.items():
        whole = isinstance(declared, tuple | list) and len(declared) == 2  # noqa: PLR2004  type and axes
        if not isinstance(name, str) or not whole or not isinstance(declared[0], str):
            raise ConfigError(f"{what}: {name!r} must be declared as ('float32', [64]), not {declared!r}")
        if not isinstance(declared[1], tuple | list) or not all(isinstance(axis, int) for axis in declared[1]):
            raise ConfigError(f"{what}: the axes of {name!r} must be whole numbers, not {declared[1]!r}")
    return dict(tensors)


def _knows_bfloat16() -> bool:
    try:
        importlib.import_module("ml_dtypes")
    except ImportError:
        return False
    return True
