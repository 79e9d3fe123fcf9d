"""What `penstock serve app.py`, or `module:object`, names."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.errors import ConfigError
from penstock.models import spec_of

if TYPE_CHECKING:
    from types import ModuleType


def find_models(target: str) -> list[Any]:
    """The models that a file or `module:object` names.

    Raises:
        ConfigError: where there is no such thing, or no model in it.
    """
    if target.endswith(".py") and ":" not in target:
        module = _load_file(Path(target))
        found = getattr(module, "models", None)
        models = list(found) if found is not None else _declared_in(module)
    else:
        models = _named(target)
    if not models:
        raise ConfigError(f"there is no model in {target}: decorate a function or class with @penstock.model(...)")
    return models


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    sys.path.insert(0, str(path.resolve().parent))
    specification = importlib.util.spec_from_file_location(path.stem, path)
    if specification is None or specification.loader is None:
        raise ConfigError(f"{path} cannot be loaded as a module")
    module = importlib.util.module_from_spec(specification)
    sys.modules[path.stem] = module
    specification.loader.exec_module(module)
    return module


def _named(target: str) -> list[Any]:
    name, _, path = target.partition(":")
    sys.path.insert(0, "")
    try:
        found: Any = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise
        raise ConfigError(f"there is no module {name!r}; give a file (app.py) or module:object") from error
    if not path:
        models = getattr(found, "models", None)
        return list(models) if models is not None else _declared_in(found)
    for part in path.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"{name!r} has no object {path!r}")
        found = getattr(found, part)
    return [found] if spec_of(found) is not None or not isinstance(found, list | tuple) else list(found)


def _declared_in(module: ModuleType) -> list[Any]:
    return [value for value in vars(module).values() if spec_of(value) is not None]
