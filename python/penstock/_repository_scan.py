"""One look at a repository on disk after another: what is to be served, and why the rest is not."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock import _repository_make as make
from penstock._repository_files import UNFINISHED, Tree, hidden, inside, is_folder, leads_nowhere, read_small, tree_of
from penstock._repository_settings import MOST_BYTES, Settings, merged, read_toml
from penstock._repository_triton import read_pbtxt
from penstock.errors import ConfigError, LoadFailed, PenstockError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock._repository_make import Permissions

LOG = logging.getLogger("penstock.repository")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VERSION = re.compile(r"[1-9][0-9]{0,18}")
_MODEL_FILES = (".onnx", ".safetensors", ".joblib", ".pkl", ".pickle")
_NOWHERE = "it is a symbolic link that leads nowhere"
_MOST_REASON = 2000
"""Characters: what an exception of somebody's code says may be a whole file."""
_AGAIN_SECONDS = 30.0
"""After that time a version that failed is tried again, though nothing in its folder changed: what it needs may have
come meanwhile, such as a package."""


@dataclass(frozen=True)
class Found:
    """A version of a model that is to be served.

    Attributes:
        name: its name, which is that of its folder.
        version: its version, as text.
        model: what `penstock.Server` takes.
        directory: its folder, without links.
        fingerprint: differs where its files or its settings have changed.
        pinned: whether it stays once it is loaded.
        preload: whether it is loaded as soon as it is known, where the server leaves that open.
        warnings: what its settings ask for that is not done, in words.
    """

    name: str
    version: str
    model: Any
    directory: Path
    fingerprint: str
    pinned: bool = False
    preload: bool = True
    warnings: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        """What it is called among all versions of all models."""
        return f"{self.name}@{self.version}"


@dataclass
class Seen:
    """What one look has seen so far."""

    found: dict[str, Found] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    settling: float = 0.0
    gone: bool = False


class _NotYetError(Exception):
    """Nothing is made of a version now; another look is worth it after so many seconds, where that is known."""

    def __init__(self, why: str, seconds: float = 0.0) -> None:
        super().__init__(why)
        self.seconds = seconds


@dataclass
class _Memory:
    """What is known of a version: since when its files are as they are, and what was made of it then."""

    fingerprint: str
    since: float
    found: Found | None = None
    why: str | None = None
    tried: float = -math.inf


class Look:
    """Looks at a directory, again and again. What was made of a version is kept until its files change."""

    def __init__(self, path: Path, permissions: Permissions, versions: Any, settle: float) -> None:
        self._path = path
        self._permissions = permissions
        self._versions = versions
        self._settle = settle
        self._memory: dict[str, _Memory] = {}
        self._last: dict[str, Found] = {}
        self._looked: set[str] = set()
        self._place: tuple[int, int] | None = None

    def around(self) -> Seen:
        """Looks at everything once."""
        seen = Seen()
        try:
            root = self._path.resolve(strict=True)
            names = _names(root)
            place = root.stat()
        except (OSError, RuntimeError) as error:
            return self._gone(f"the directory cannot be read: {_said(error)}")
        here = (place.st_dev, place.st_ino)
        if not names and self._last and self._place not in (None, here):
            # What was mounted here is not there any more, or not yet again.
            return self._gone("another directory is in its place, and it is empty")
        self._looked = set()
        for name in names:
            self._model(root, name, seen)
        seen.skipped = {shown(place): why for place, why in seen.skipped.items()}
        self._place, self._last = here, dict(seen.found)
        self._memory = {place: known for place, known in self._memory.items() if place in self._looked}
        return seen

    def _gone(self, why: str) -> Seen:
        return Seen(dict(self._last), {".": f"{why}; what was found before stays"}, 0.0, gone=True)

    def _model(self, root: Path, name: str, seen: Seen) -> None:
        if not is_folder(root / name):
            if name.endswith(_MODEL_FILES):
                seen.skipped[name] = f"a model is a folder: put it into NAME/VERSION/, such as {Path(name).stem}/1/"
            elif leads_nowhere(root / name):
                seen.skipped[name] = _NOWHERE
            return
        try:
            _check_name(name)
            folder = inside(root / name, root)
            settings, warnings = _settings_of(root / name, root, name)
            numbers = _numbers(folder, name, seen)
        except (PenstockError, OSError, RuntimeError, _NotYetError) as error:
            self._skip(seen, name, error)
            seen.found.update({key: one for key, one in self._last.items() if one.name == name and _exists(one)})
            self._looked.update(place for place in self._memory if place.startswith(f"{name}/"))
            return
        wanted = settings.pop("versions", self._versions)
        if not numbers:
            seen.skipped[name] = "it has no version: a version is a folder whose name is a number above 0, such as 1"
        taken = 0
        for number in _candidates(numbers, wanted, name, seen):
            taken += self._version(root, (name, number), (settings, warnings), seen)
            if isinstance(wanted, dict) and taken == wanted["latest"]:
                break

    def _version(self, root: Path, which: tuple[str, int], said: tuple[Settings, list[str]], seen: Seen) -> bool:
        """Whether this version is to be served, in whatever form."""
        place = f"{which[0]}/{which[1]}"
        reference = f"{which[0]}@{which[1]}"
        try:
            found = self._found(root, which, said)
        except (PenstockError, OSError, RuntimeError, _NotYetError) as error:
            self._skip(seen, place, error)
            before = self._last.get(reference)
            if before is None or not _exists(before):
                return False
            found = before
        seen.found[reference] = found
        return True

    def _found(self, root: Path, which: tuple[str, int], said: tuple[Settings, list[str]]) -> Found:
        name, number = which
        place = f"{name}/{number}"
        self._looked.add(place)
        tree = tree_of(root / name / str(number), root)
        settings, warnings = merged(said[0], _toml(tree.folder, root, place, of_version=True)), said[1]
        fingerprint = hashlib.sha256(repr((tree.fingerprint, sorted(settings.items()))).encode()).hexdigest()
        now = time.monotonic()
        known = self._memory.get(place)
        if known is None or known.fingerprint != fingerprint:
            known = self._memory[place] = _Memory(fingerprint, now)
        if known.found is not None:
            return known.found
        if known.why is not None and now - known.tried < _AGAIN_SECONDS:
            raise _NotYetError(known.why)
        self._check_finished(tree, now - known.since)
        known.tried = now
        try:
            model = _made(tree, (name, str(number)), settings, self._permissions)
        except PenstockError as error:
            known.why = _reason(error)
            raise
        told = {"pinned": settings.get("pinned", False), "preload": settings.get("preload", True)}
        for warning in warnings:
            LOG.warning("model %s: %s", place, warning)
        known.found = Found(name, str(number), model, tree.folder, fingerprint, **told, warnings=tuple(warnings))
        return known.found

    def _check_finished(self, tree: Tree, unchanged: float) -> None:
        """Refuses what is still being written. A clock that is wrong holds nothing back for ever."""
        if tree.unfinished is not None:
            raise _NotYetError(f"{tree.unfinished} in it is still being written, as its name says")
        if not tree.files:
            raise _NotYetError("it is empty")
        left = self._settle - max(time.time() - tree.changed, unchanged)
        if left > 0:
            raise _NotYetError(f"its files changed less than {self._settle:g} seconds ago", min(left, self._settle))

    def _skip(self, seen: Seen, place: str, error: BaseException) -> None:
        seen.skipped[place] = _reason(error)
        if isinstance(error, _NotYetError) and error.seconds:
            seen.settling = max(seen.settling, error.seconds)


def _made(tree: Tree, which: tuple[str, str], settings: Settings, permissions: Permissions) -> Any:
    try:
        return make.model_of(tree, which, settings, permissions)
    except (PenstockError, OSError):
        raise
    except Exception as error:
        LOG.exception("model %s@%s could not be looked at", *which)
        raise LoadFailed(f"{type(error).__name__}: {error}") from error


def _check_name(name: str) -> None:
    if name.endswith(UNFINISHED):
        raise _NotYetError("its name says that it is still being written")
    if not _NAME.fullmatch(name):
        raise ConfigError("a model's name is made of letters, digits, '.', '_' and '-'")


def _names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not hidden(entry.name))


def _numbers(folder: Path, name: str, seen: Seen) -> list[int]:
    """The versions of a model, the highest first."""
    numbers = []
    for each in _names(folder):
        if not is_folder(folder / each):
            if _VERSION.fullmatch(each) and leads_nowhere(folder / each):
                seen.skipped[f"{name}/{each}"] = _NOWHERE
            continue
        if _VERSION.fullmatch(each):
            numbers.append(int(each))
        elif each.endswith(UNFINISHED):
            seen.skipped[f"{name}/{each}"] = "its name says that it is still being written"
        elif _holds_a_model(folder / each):
            seen.skipped[f"{name}/{each}"] = "a version is a whole number above 0, without zeros before it"
    return sorted(numbers, reverse=True)


def _holds_a_model(folder: Path) -> bool:
    try:
        return any(name.endswith((*_MODEL_FILES, ".py")) for name in _names(folder))
    except OSError:  # it is no version anyway
        return False


def _candidates(numbers: list[int], wanted: Any, name: str, seen: Seen) -> Iterator[int]:
    if not isinstance(wanted, list):
        yield from numbers
        return
    for number in sorted(set(wanted), reverse=True):
        if number in numbers:
            yield number
        else:
            seen.skipped[f"{name}/{number}"] = "its settings ask for this version, which there is not"


def _settings_of(folder: Path, root: Path, name: str) -> tuple[Settings, list[str]]:
    """What lies beside the versions of a model, and what of it is not done."""
    text = read_small(folder / "config.pbtxt", root, MOST_BYTES)
    said, warnings = ({}, []) if text is None else read_pbtxt(text, name)
    return merged(said, _toml(folder, root, name, of_version=False)), warnings


def _toml(folder: Path, root: Path, place: str, *, of_version: bool) -> Settings:
    text = read_small(folder / "model.toml", root, MOST_BYTES)
    return {} if text is None else read_toml(text, f"{place}/model.toml", of_version=of_version)


def _exists(found: Found) -> bool:
    return is_folder(found.directory)


def shown(text: str) -> str:
    """A text that any encoding can say: names of files may be of bytes that are no text."""
    return text.encode("utf-8", "backslashreplace").decode()


def _reason(error: BaseException) -> str:
    if isinstance(error, _NotYetError):
        return str(error)
    return shown(f"{type(error).__name__}: {_said(error)}"[:_MOST_REASON])


def _said(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}"
    return str(error)
