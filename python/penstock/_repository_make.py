"""A model out of a version's folder: which kind it is, and what its settings make of it."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from penstock import _repository_python as python
from penstock._policy import BatchPolicy
from penstock._processes import Processes
from penstock.errors import ConfigError, UnsafeFormat
from penstock.models import LoadedModel, Placed, check_placed, model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from penstock._repository_files import Tree
    from penstock._repository_settings import Settings
    from penstock.models import LoadContext

_PICKLES = ("model.joblib", "model.pkl", "model.pickle")
_TORCH = ("model.pt", "model.pth", "model.bin", "pytorch_model.bin")

_COMMON = frozenset({"batching", "load_retries", "load_timeout", "pinned", "preload", "size", "workers"})
_OF_GRAPHS = frozenset(
    {"arena", "inputs", "inter_threads", "optimization", "outputs", "providers", "row_by_row", "sha256", "spin"}
    | {"threads", "warmup"}
)
_INTERNAL = frozenset({"file", "whole"})
"""Of config.pbtxt: the file of the graph, and why it cannot be batched."""
_OF_KIND = {
    "an ONNX model": _COMMON | _INTERNAL | _OF_GRAPHS,
    "a model in Python": _COMMON | {"requires"},
    "a pickle": _COMMON | {"inputs", "outputs", "method"},
}


@dataclass(frozen=True)
class Permissions:
    """What may be run of what lies in a directory."""

    python: bool
    pickle: bool


def model_of(tree: Tree, which: tuple[str, str], settings: Settings, permissions: Permissions) -> Any:
    """What a server takes.

    Args:
        tree: the folder of the version.
        which: the name and the version.
        settings: what its files say.
        permissions: what may be run.

    Raises:
        ConfigError: for settings that do not fit it, or where the folder holds no model.
        UnsafeFormat: for what may not be run, and for files that are not what they say.
        LoadFailed: where `model.py` raised.
    """
    files = {file for file in tree.files if "/" not in file}
    onnx = settings.get("file", "model.onnx")
    if "model.py" in files:
        if not permissions.python:
            raise UnsafeFormat("model.py is Python, which is run only with allow_python=True (--allow-python)")
        _check_settings("a model in Python", settings)
        _check_safetensors(tree)
        return _of_python(tree.folder, which, settings)
    if onnx in files:
        _check_settings("an ONNX model", settings)
        return _of_onnx(tree.folder / onnx, which, settings)
    if found := [file for file in _PICKLES if file in files]:
        if not permissions.pickle:
            raise UnsafeFormat(
                f"{found[0]} is a pickle, and to read one is to run it: that needs allow_pickle=True (--allow-pickle)"
            )
        _check_settings("a pickle", settings)
        return _of_pickle(found[0], which, settings, tree.folder)
    raise _nothing_known(tree, files, onnx)


def _nothing_known(tree: Tree, files: set[str], onnx: str) -> Exception:
    if found := [file for file in _TORCH if file in files]:
        return UnsafeFormat(
            f"{found[0]} is a pickle of PyTorch: save its weights as safetensors, with a model.py beside"
        )
    if any(file.endswith(".safetensors") for file in files):
        return ConfigError("safetensors are weights and no program: put a model.py beside them that says what they do")
    if any(file.startswith(f"{onnx}/") for file in tree.files):
        return ConfigError(
            f"{onnx} is a folder: put the file of that name, and what it names, into the version's folder"
        )
    return ConfigError(f"it holds none of {onnx}, model.py, {', '.join(_PICKLES)}")


def _check_settings(kind: str, settings: Settings) -> None:
    if unknown := sorted(set(settings) - _OF_KIND[kind]):
        known = ", ".join(sorted(_OF_KIND[kind] - _INTERNAL))
        raise ConfigError(f"{unknown[0]} is no setting of {kind}; it has {known}")


def _check_safetensors(tree: Tree) -> None:
    """Looks at the headers: a file whose end is still missing is found out before anything is loaded of it."""
    for file in tree.files:
        if file.endswith((".safetensors", ".safetensors.index.json")):
            import_module("penstock.safetensors").open_safetensors(tree.folder / file).close()


def _of_onnx(path: Path, which: tuple[str, str], settings: Settings) -> Any:
    given = _taken(settings, *_OF_GRAPHS, "load_retries", "load_timeout", "size", "workers")
    if "whole" in settings and "max_batch_size" not in settings.get("batching", {}):
        raise ConfigError(settings["whole"])
    if isinstance(given.get("workers"), Processes):
        raise ConfigError("workers of an ONNX model are threads, which never wait for Python: processes add nothing")
    if "batching" in settings:
        given["policy"] = _policy(BatchPolicy(), settings)
    return import_module("penstock.onnx").onnx_model(which[0], path, version=which[1], **given)


def _of_python(folder: Path, which: tuple[str, str], settings: Settings) -> Placed:
    spec = python.declared_in(folder / "model.py", which)
    terms = _taken(settings, "load_retries", "load_timeout", "requires", "size", "workers")
    if "batching" in settings:
        terms["policy"] = _policy(spec.policy, settings)
    placed = replace(spec, version=which[1], directory=folder, **terms)
    check_placed(placed, settings.get("batching", {}))
    LoadedModel(placed).check()
    return Placed(placed)


def _of_pickle(file: str, which: tuple[str, str], settings: Settings, folder: Path) -> Placed:
    inputs, outputs = settings.get("inputs"), settings.get("outputs")
    if not isinstance(inputs, dict) or not isinstance(outputs, dict) or len(inputs) != 1 or len(outputs) != 1:
        raise ConfigError(
            "a pickle does not say what it takes: declare one input and one output in model.toml, "
            "such as x = {type = 'float32', shape = [64]} under [inputs]"
        )
    if isinstance(settings.get("workers"), Processes):
        raise ConfigError("workers of a pickle are threads: for processes, load it in a model.py")
    elements = next(iter(outputs.values()))[0]
    target = _estimator(file, settings.get("method", "predict"), elements)
    terms = _taken(settings, "load_retries", "load_timeout", "size", "workers")
    policy = _policy(BatchPolicy(), settings)
    declared = model(which[0], version=which[1], inputs=inputs, outputs=outputs, policy=policy, **terms)(target)
    return Placed(replace(python.spec_in(declared), directory=folder))


def _estimator(file: str, method: str, elements: str) -> type[Any]:
    """A class that reads an object from a file and calls one method of it."""

    class Estimator:
        def load(self, ctx: LoadContext) -> None:
            self._call = getattr(_unpickled(ctx, file), method)

        def predict(self, rows: Any) -> Any:
            answers = self._call(rows)
            if elements in {"string", "bytes"}:
                return answers if isinstance(answers, list) else answers.tolist()
            # What computes in float64 may have been declared as float32, but no number becomes a class.
            return answers.astype(elements, casting="same_kind", copy=False)

    return Estimator


def _unpickled(ctx: LoadContext, file: str) -> Any:
    if ctx.directory is None:
        raise ConfigError("the model has no directory")
    path = ctx.directory / file
    if file.endswith(".joblib"):
        read: Callable[[Any], Any] = import_module("joblib").load
        return read(path)
    with path.open("rb") as pickled:
        return pickle.load(pickled)  # noqa: S301  whoever serves it has said that it may


def _taken(settings: Settings, *keys: str) -> dict[str, Any]:
    return {key: settings[key] for key in keys if key in settings}


def _policy(base: BatchPolicy, settings: Mapping[str, Any]) -> BatchPolicy:
    try:
        return replace(base, **settings.get("batching", {}))
    except ConfigError as error:
        raise ConfigError(f"batching: {error}") from None
