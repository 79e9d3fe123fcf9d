"""The files of a repository on disk: what lies in a folder, where links lead, and whether it has changed.

Nothing here follows a link out of the directory, opens a pipe, or reads more of a file than it says.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.errors import PathEscape, UnsafeFormat

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UNFINISHED = (".tmp", ".part", ".incomplete")
"""How files and folders end that somebody is still writing."""

_MOST_FILES = 10_000
_MOST_DEPTH = 16
_LEFT_OUT = frozenset({"__pycache__"})


@dataclass(frozen=True)
class Tree:
    """The files of a version's folder.

    Attributes:
        folder: the folder, with no link left in its path.
        files: their paths below it, sorted.
        fingerprint: differs where a file was added, removed, replaced or written.
        changed: when the last of them changed, or one was added or removed, in seconds since 1970.
        unfinished: a file among them that is still being written, by its name.
    """

    folder: Path
    files: tuple[str, ...]
    fingerprint: str
    changed: float
    unfinished: str | None


def hidden(name: str) -> bool:
    """True for what is no part of a repository: what begins with a dot, and what Python leaves behind."""
    return name.startswith(".") or name in _LEFT_OUT


def is_folder(path: Path) -> bool:
    """True for a folder, or a link to one; where that cannot be known it is taken for none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def leads_nowhere(path: Path) -> bool:
    """True for a link to what there is not, or to what cannot be looked at."""
    return path.is_symlink() and not os.path.exists(path)  # noqa: PTH110  pathlib's raises for some of them


def inside(path: Path, root: Path) -> Path:
    """The path without links, which must lie in the directory.

    Raises:
        PathEscape: where it leads out of it.
        OSError: where a link leads nowhere, or in a circle.
    """
    real = path.resolve(strict=True)
    if not real.is_relative_to(root):
        raise PathEscape(f"{_below(path, root)} leads out of the directory, to {real}")
    return real


def read_small(path: Path, root: Path, most: int) -> bytes | None:
    """What is in a file of settings, or `None` where there is none.

    Raises:
        PathEscape: where it leads out of the directory.
        UnsafeFormat: where it is no file, or longer than `most`.
        OSError: where it cannot be read.
    """
    if not os.path.lexists(path):
        return None
    real = inside(path, root)
    # A pipe in its place would have the open wait for a writer.
    with os.fdopen(os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise UnsafeFormat(f"{_below(path, root)} is no file")
        text = file.read(most + 1)
    if len(text) > most:
        raise UnsafeFormat(f"{_below(path, root)} is longer than {most} bytes")
    return text


def tree_of(folder: Path, root: Path) -> Tree:
    """Looks at every file of a version.

    Raises:
        PathEscape: where a link leads out of the directory.
        UnsafeFormat: where it holds a pipe, a socket or a device, or more files, or deeper ones, than a model has.
        OSError: where something cannot be looked at.
    """
    real = inside(folder, root)
    digest = hashlib.sha256()
    files: list[str] = []
    changed, unfinished = real.stat().st_ctime, None
    for count, (path, status) in enumerate(_walk(real, root, _MOST_DEPTH), 1):
        if count > _MOST_FILES:
            raise UnsafeFormat(f"{_below(folder, root)} holds more than {_MOST_FILES} files and folders")
        changed = max(changed, status.st_ctime)
        name = path.relative_to(real).as_posix()
        if path.name.endswith(UNFINISHED):
            unfinished = unfinished or name
        if stat.S_ISDIR(status.st_mode):
            continue
        if not stat.S_ISREG(status.st_mode):
            raise UnsafeFormat(f"{_below(path, root)} is a pipe, a socket or a device")
        files.append(name)
        digest.update(repr((name, status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev)).encode())
    digest.update(repr(str(real)).encode())
    return Tree(real, tuple(files), digest.hexdigest(), changed, unfinished)


def _walk(folder: Path, root: Path, depth: int) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything below a folder, links as what they lead to, in the order of their names."""
    if depth == 0:
        raise UnsafeFormat(f"{_below(folder, root)} is deeper than {_MOST_DEPTH} folders")
    with os.scandir(folder) as found:
        names = sorted(entry.name for entry in found if not hidden(entry.name))
    for name in names:
        path = folder / name
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            status = inside(path, root).stat()
        yield path, status
        if stat.S_ISDIR(status.st_mode):
            yield from _walk(path, root, depth - 1)


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
