"""The API reference has every public name once, and the site's index every guide.

`tools/docs` builds the site itself; this finds what it would lack, without Sphinx.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import penstock

DOCS = Path(__file__).resolve().parents[2] / "docs"
DIRECTIVE = re.compile(r"^\.\. auto(\w+):: (penstock\.[\w.]+)$", re.MULTILINE)
INTERNAL = {"cli", "pytest_plugin"}
"""Modules whose names are no part of the API: the command line, and fixtures, which pytest finds by itself."""


def value_of(name: str) -> object:
    """What a dotted name of the reference stands for."""
    value: object = penstock
    for part in name.split(".")[1:]:
        value = getattr(value, part)
    return value


def is_from(value: object, module: object) -> bool:
    return (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == module.__name__


def public() -> dict[str, object]:
    """Every public name and its value: those of `__all__`, and the classes of modules without one."""
    found = {f"penstock.{name}": getattr(penstock, name) for name in penstock.__all__ if name != "__version__"}
    for each in pkgutil.iter_modules(penstock.__path__):
        if each.name.startswith("_") or each.name in INTERNAL:
            continue
        module = importlib.import_module(f"penstock.{each.name}")
        names = getattr(module, "__all__", None)
        if names is None:
            names = [
                name
                for name, value in vars(module).items()
                if not name.startswith("_") and inspect.isclass(value) and is_from(value, module)
            ]
        found.update({f"{module.__name__}.{name}": getattr(module, name) for name in names})
    return {name: value for name, value in found.items() if not inspect.ismodule(value)}


def documented() -> list[str]:
    """The names of the reference; a whole module stands for what is in its `__all__`."""
    names = []
    for page in sorted((DOCS / "api").glob("*.rst")):
        for kind, name in DIRECTIVE.findall(page.read_text(encoding="utf-8")):
            if kind == "module":
                module = importlib.import_module(name)
                names += [f"{name}.{each}" for each in module.__all__]
            else:
                importlib.import_module(name.rsplit(".", 1)[0])
                names.append(name)
    return names


def test_every_public_name_is_in_the_reference() -> None:
    there = {id(value_of(name)) for name in documented()}
    missing = sorted(name for name, value in public().items() if id(value) not in there)
    assert not missing, f"give each a line in docs/api/*.rst, beside its like: {missing}"


def test_nothing_is_in_the_reference_twice() -> None:
    names = documented()
    assert len({id(value_of(name)) for name in names}) == len(names)


@pytest.mark.parametrize("name", sorted(public()))
def test_public_names_have_docstrings(name: str) -> None:
    value = public()[name]
    if inspect.isclass(value) or inspect.isfunction(value):
        text = inspect.getdoc(value)
        assert text, name
        assert value.__doc__, f"{name} has only the docstring of what it extends"


def test_every_guide_is_in_the_index() -> None:
    index = (DOCS / "index.rst").read_text(encoding="utf-8")
    listed = set(re.findall(r"^   (?:.* <)?([\w/-]+)>?$", index, re.MULTILINE))
    pages = {path.stem for path in [*DOCS.glob("*.md"), *DOCS.glob("*.ipynb")]}
    pages |= {f"site/{path.stem}" for path in (DOCS / "site").iterdir()}
    assert not pages - listed, "a guide that the site does not show"
    assert not listed - pages - {"api/index"}, "the index names what is not there"
