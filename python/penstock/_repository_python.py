"""`model.py` of a version: run as a module of its own, which declares one model."""

from __future__ import annotations

import importlib.util
import itertools
import logging
import re
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader
from typing import TYPE_CHECKING

from penstock.errors import ConfigError, LoadFailed
from penstock.models import ModelSpec, spec_of

if TYPE_CHECKING:
    from pathlib import Path
    from types import CodeType, ModuleType

LOG = logging.getLogger("penstock.repository")

PREFIX = "penstock_model_"
"""How the names of such modules begin."""

_KEPT = 2
_numbers = itertools.count(1)
_modules: dict[tuple[str, str], list[str]] = {}


class _Source(SourceFileLoader):
    """Reads the source each time: what was compiled before may be of another file with the same time of change."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def declared_in(path: Path, which: tuple[str, str]) -> ModelSpec:
    """Runs a `model.py` and gives what it declares.

    Raises:
        LoadFailed: where it raised; the traceback is logged.
        ConfigError: where it declares no model, or several, or one of another name.
    """
    name = f"{PREFIX}{re.sub('[^A-Za-z0-9]', '_', which[0])}_{which[1]}_{next(_numbers)}"
    try:
        module = load_module(name, path)
        spec = _one_of(module, which[0])
    except BaseException as error:
        forget(name)
        if isinstance(error, ConfigError | KeyboardInterrupt):
            raise
        LOG.exception("model.py of model %s@%s raised", *which)
        raise LoadFailed(f"model.py raised {type(error).__name__}: {error}") from None
    # The one before may still be serving, and import from its own package.
    names = _modules.setdefault(which, [])
    names.append(name)
    while len(names) > _KEPT:
        forget(names.pop(0))
    return spec


def load_module(name: str, path: Path) -> ModuleType:
    """Runs a file as a package of that name, whose modules lie beside it."""
    loader = _Source(name, str(path))
    specification = ModuleSpec(name, loader, origin=str(path), is_package=True)
    specification.has_location = True
    specification.submodule_search_locations = [str(path.parent)]
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    loader.exec_module(module)
    return module


def forget(name: str) -> None:
    """Takes a module, and what lies in its package, out of what is imported."""
    for each in [each for each in sys.modules if each == name or each.startswith(f"{name}.")]:
        sys.modules.pop(each, None)


def spec_in(target: object) -> ModelSpec:
    """The declaration of what was declared.

    Raises:
        ConfigError: where it is no model.
    """
    spec = spec_of(target)
    if spec is None:
        raise ConfigError(f"{target!r} is no model")
    return spec


def _one_of(module: ModuleType, name: str) -> ModelSpec:
    specs = {id(value): spec for value in vars(module).values() if (spec := spec_of(value)) is not None}
    if len(specs) != 1:
        found = ", ".join(spec.name for spec in specs.values()) or "none"
        triton = "; TritonPythonModel is Triton's" if hasattr(module, "TritonPythonModel") else ""
        raise ConfigError(f"model.py must declare one model with @penstock.model, and declares {found}{triton}")
    spec = next(iter(specs.values()))
    if spec.name != name:
        raise ConfigError(f"model.py declares the model '{spec.name}', and its folder is called '{name}'")
    return spec
