"""How ONNX graphs are opened: where the library is, and what a person may say of a graph."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, get_args

from penstock._policy import check_choice, check_count
from penstock.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

Provider: TypeAlias = "str | tuple[str, Mapping[str, object]]"
"""An execution provider by the library's name for it, or the name and its options."""

TensorDeclaration: TypeAlias = "tuple[str, Sequence[int]]"
Tensors: TypeAlias = "Iterable[str] | Mapping[str, TensorDeclaration | None]"
"""Inputs or outputs that are wanted, by name; with a declaration where the graph says too little."""

Optimization: TypeAlias = Literal["none", "basic", "extended", "all"]

CPU = ("CPUExecutionProvider",)
_VARIABLE = "PENSTOCK_ONNXRUNTIME"
_NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"
_LIBRARIES = {"darwin": "libonnxruntime*.dylib", "win32": "onnxruntime.dll"}
_REMEDY = f'pip install "penstock[onnx]", or name the library in {_VARIABLE}'

_PLAIN = {"sessions": 1, "threads": 1, "inter_threads": 1, "row_by_row": False, "spin": False, "arena": True}
"""Numbers and switches, and what they are where nothing is said."""


class OnnxOptions(TypedDict, total=False):
    """The keywords of `penstock.load_onnx`, which documents them."""

    inputs: Tensors | None
    outputs: Tensors | None
    row_by_row: bool
    sessions: int
    threads: int
    inter_threads: int
    providers: Iterable[Provider]
    optimization: Optimization
    spin: bool
    arena: bool
    sha256: str | None


def library() -> str:
    """Where the onnxruntime library is: `PENSTOCK_ONNXRUNTIME`, or else inside the installed package.

    Raises:
        ConfigError: where it is nowhere.
    """
    if said := os.environ.get(_VARIABLE):
        if not Path(said).is_file():
            raise ConfigError(f"{_VARIABLE} names no file: {said}")
        return str(Path(said).absolute())
    spec = find_spec("onnxruntime")
    folders = [] if spec is None else [Path(place, "capi") for place in spec.submodule_search_locations or ()]
    if not folders:
        raise ConfigError(f"models in the format ONNX need the package onnxruntime: {_REMEDY}")
    pattern = _LIBRARIES.get(sys.platform, "libonnxruntime.so*")
    found = [file for folder in folders for file in folder.glob(pattern) if "providers" not in file.name]
    if not found:
        raise ConfigError(f"the package onnxruntime has no {pattern} in {folders[0]}: {_REMEDY}")
    return str(max(found, key=_version))


def send_nothing() -> None:
    """Has the library send nothing of what runs to its makers, unless the user has said that it may.

    From 1.29 on it does otherwise, from a thread of its own: a forked child of the process could then not end, because
    it waits for that thread. The variable is read when the library is loaded, and by the package onnxruntime, too.
    """
    os.environ.setdefault(_NO_TELEMETRY, "1")


def _version(file: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", file.name)]


@dataclass(frozen=True, kw_only=True)
class OnnxTerms:
    """How a graph is opened: a record for the extension, read by its field names."""

    inputs: list[tuple[str, str | None, list[int] | None]] | None
    outputs: list[tuple[str, str | None, list[int] | None]] | None
    row_by_row: bool
    sessions: int
    threads: int
    inter_threads: int
    providers: list[tuple[str, list[tuple[str, str]]]]
    optimization: str
    spin: bool
    arena: bool
    sha256: str | None


def terms_of(
    *,
    inputs: Tensors | None = None,
    outputs: Tensors | None = None,
    providers: Iterable[Provider] = CPU,
    optimization: Optimization = "all",
    sha256: str | None = None,
    **plain: Any,
) -> OnnxTerms:
    """What a person said of a graph, checked.

    Raises:
        ConfigError: for what cannot be.
    """
    plain = {**_PLAIN, **plain}
    for name, default in _PLAIN.items():
        if isinstance(default, bool):
            if not isinstance(plain[name], bool):
                raise ConfigError(f"{name} must be true or false, not {plain[name]!r}")
            continue
        check_count(name, plain[name])
        if plain[name] < 1:
            raise ConfigError(f"{name} must be at least 1, not {plain[name]}")
    check_choice("optimization", optimization, get_args(Optimization))
    if sha256 is not None and not (isinstance(sha256, str) and re.fullmatch("[0-9a-fA-F]{64}", sha256)):
        raise ConfigError(f"sha256 must be 64 hexadecimal digits, not {sha256!r}")
    return OnnxTerms(
        inputs=_wanted("inputs", inputs),
        outputs=_wanted("outputs", outputs),
        providers=_providers(providers),
        optimization=optimization,
        sha256=sha256,
        **plain,
    )


def _wanted(what: str, tensors: Tensors | None) -> list[tuple[str, str | None, list[int] | None]] | None:
    if tensors is None:
        return None
    if isinstance(tensors, str) or not isinstance(tensors, Iterable):
        raise ConfigError(f"{what} must be names, or a dict such as {{'x': ('float32', [64])}}, not {tensors!r}")
    given: dict[Any, Any] = dict(tensors) if isinstance(tensors, Mapping) else dict.fromkeys(tensors)
    return [_declared(what, name, declaration) for name, declaration in given.items()]


def _declared(what: str, name: object, declaration: object) -> tuple[str, str | None, list[int] | None]:
    if not isinstance(name, str):
        raise ConfigError(f"{what} are named by strings, not by {name!r}")
    if declaration is None:
        return name, None, None
    whole = isinstance(declaration, tuple | list) and len(declaration) == 2  # noqa: PLR2004  type and axes
    if not isinstance(declaration, tuple | list) or not whole or not isinstance(declaration[0], str):
        raise ConfigError(f"{what}: {name!r} must be declared as ('float32', [64]), not {declaration!r}")
    axes = declaration[1]
    if not isinstance(axes, tuple | list) or not all(type(axis) is int for axis in axes):
        raise ConfigError(f"{what}: the axes of {name!r} must be whole numbers, not {axes!r}")
    return name, declaration[0], list(axes)


def _providers(providers: Iterable[Provider]) -> list[tuple[str, list[tuple[str, str]]]]:
    if isinstance(providers, str) or not isinstance(providers, Iterable):
        raise ConfigError(f"providers must be names such as 'CPUExecutionProvider', not {providers!r}")
    named: list[tuple[str, list[tuple[str, str]]]] = []
    for one in providers:
        name, options = (one, {}) if isinstance(one, str) else (*one, {})[:2]
        if not isinstance(name, str) or not isinstance(options, Mapping):
            raise ConfigError(f"a provider is a name, or a name and a dict of options, not {one!r}")
        named.append((name, [(str(key), str(value)) for key, value in options.items()]))
    if not named:
        raise ConfigError("providers must name one at least, such as 'CPUExecutionProvider'")
    return named
