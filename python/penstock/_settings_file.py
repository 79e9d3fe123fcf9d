"""`penstock.toml`: where it is found, what stands in it, and on which line."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

LOG = logging.getLogger("penstock.settings")

FILE = "penstock.toml"
"""What it is called in the working directory."""

VARIABLE = "PENSTOCK_CONFIG"
"""Says where the file is; empty, that there is none."""

MODEL = "model"
"""The section of single models: `[model.digits]`."""

_MOST_BYTES = 1 << 20
"""Of the file: who writes one by hand needs a hundredth of it."""

_KEY = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_PATH = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER = re.compile(rf"\s*\[\s*({_PATH})\s*\]")
_ASSIGNMENT = re.compile(rf"\s*({_PATH})\s*=")


class SettingsFile:
    """A file of settings that was read.

    Attributes:
        path: where it is.
        name: what errors call it.
        tables: what stands in it, by section.
    """

    def __init__(self, path: Path, name: str, text: str) -> None:
        import tomllib  # noqa: PLC0415  who has no file does not wait for it

        self.path = path
        self.name = name
        try:
            self.tables: dict[str, Any] = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise ConfigError(f"{name} is not TOML: {error}") from None
        self._lines = _lines_of(text)
        self._told = False

    def section(self, name: str) -> Mapping[str, Any]:
        """What stands in a section.

        Raises:
            ConfigError: where the name is not that of a section but of a value.
        """
        found = self.tables.get(name, {})
        if not isinstance(found, Mapping):
            raise ConfigError(f"{self.where(name)} must be a section, [{name}], not {found!r}")
        return found

    def where(self, *path: str) -> str:
        """What errors call a place in the file: `penstock.toml:12 [server] max_body`."""
        line = next((self._lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self._lines), None)
        *sections, key = path
        place = self.name if line is None else f"{self.name}:{line}"
        return f"{place} [{'.'.join(sections)}] {key}" if sections else f"{place} {key}"

    def tell(self) -> None:
        """Logs once that the file is in force: it may lie where nobody knows of it."""
        if not self._told:
            self._told = True
            LOG.info("settings of %s are in force", self.path)

    def check_names(self, known: Mapping[str, Collection[str]]) -> None:
        """Refuses sections and keys that there are not.

        Args:
            known: the keys of every section, by its name. What stands in `[model.NAME]` is not looked at here.

        Raises:
            ConfigError: for the first of them, with the name that was probably meant.
        """
        for section in self.tables:
            if section == MODEL:
                continue
            if section not in known:
                raise ConfigError(f"{self.where(section)}: {_no_section(section, known)}")
            for key in self.section(section):
                if key not in known[section]:
                    raise ConfigError(f"{self.where(section, key)}: {_no_key(section, key, known)}")


def file_in_force(environment: Mapping[str, str], told: str | None = None) -> SettingsFile | None:
    """The file of settings: the one that was told, else that of `PENSTOCK_CONFIG`, else `penstock.toml` where we are.

    An empty text, told or in the variable, stands for "none".

    Raises:
        ConfigError: where the one that is asked for is not there, where it cannot be read, or where it is no TOML.
    """
    for source, given in (("--config", told), (VARIABLE, environment.get(VARIABLE))):
        if given is not None:
            return _read(Path(given), given, source) if given else None
    path = Path(FILE)
    return _read(path, FILE, FILE) if path.is_file() else None


def nearest(name: str, known: Collection[str]) -> str | None:
    """The known name that was probably meant."""
    import difflib  # noqa: PLC0415  only who mistypes a name pays for it

    return next(iter(difflib.get_close_matches(name, sorted(known), 1)), None)


def _read(path: Path, name: str, source: str) -> SettingsFile:
    try:
        path = path.absolute()
        told = path.stat()
        return _parsed(path, name, (told.st_ino, told.st_mtime_ns, told.st_size))
    except OSError as error:
        subject = f"{source}: {name}" if source != name else name
        raise ConfigError(f"{subject} cannot be read: {error.strerror}") from None


@lru_cache(maxsize=8)
def _parsed(path: Path, name: str, _changed: tuple[int, int, int]) -> SettingsFile:
    """Reads the file, once for each of its states: every client that is made asks for it."""
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ConfigError(f"{name} is larger than {_MOST_BYTES >> 20} MiB")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name} is not TOML: {error}") from None
    return SettingsFile(path, name, text)


def _no_section(section: str, known: Mapping[str, Collection[str]]) -> str:
    every = [*known, MODEL]
    for home, keys in known.items():
        if section in keys:
            return f"this is a setting of [{home}]"
    meant = nearest(section, every)
    told = f"did you mean [{meant}]? " if meant else ""
    return f"there is no section [{section}]; {told}there are {', '.join(f'[{one}]' for one in sorted(every))}"


def _no_key(section: str, key: str, known: Mapping[str, Collection[str]]) -> str:
    homes = [home for home, keys in known.items() if key in keys]
    if homes:
        return f"this is a setting of {' and '.join(f'[{home}]' for home in homes)}, not of [{section}]"
    meant = nearest(key, known[section])
    told = f"did you mean {meant}? " if meant else ""
    return f"there is no such setting; {told}there are {', '.join(sorted(known[section]))}"


def _lines_of(text: str) -> dict[tuple[str, ...], int]:
    """The line of every section and every key, by its path. The parser of the standard library does not say it."""
    found: dict[tuple[str, ...], int] = {}
    section: tuple[str, ...] = ()
    for number, line in _outside_of_texts(text):
        if header := _HEADER.match(line):
            section = _parts(header[1])
            found.setdefault(section, number)
        elif assignment := _ASSIGNMENT.match(line):
            path = (*section, *_parts(assignment[1]))
            for end in range(len(section) + 1, len(path) + 1):
                found.setdefault(path[:end], number)
    return found


def _outside_of_texts(text: str) -> Iterator[tuple[int, str]]:
    """The lines that do not begin within a text of several lines."""
    closing: str | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if closing is not None:
            if closing in line:
                closing = None
            continue
        yield number, line
        for quotes in ('"""', "'''"):
            if line.partition("#")[0].count(quotes) % 2:
                closing = quotes


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in re.findall(_KEY, path))


def environment_or(environment: Mapping[str, str] | None) -> Mapping[str, str]:
    """The environment that was given, else that of the process."""
    return os.environ if environment is None else environment
