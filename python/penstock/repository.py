"""Models in a directory: which there are, in which versions, and what has changed since.

```
models/
├── digits/
│   ├── model.toml            how it is served; may be left out
│   ├── 1/model.onnx
│   └── 2/model.onnx
└── head/
    └── 1/
        ├── model.py          one `@penstock.model`; needs allow_python=True
        └── weights.safetensors
```
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from penstock._directories import Changes
from penstock._policy import check_seconds
from penstock._repository_make import Permissions
from penstock._repository_scan import Found, Look
from penstock._repository_settings import versions_of
from penstock.errors import ConfigError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

__all__ = ["Changes", "Found", "ModelDirectory", "Scan", "Versions"]

Versions: TypeAlias = "Literal['all'] | Mapping[str, int] | Sequence[int]"
"""Which versions of a model are served: `"all"`, `{"latest": n}`, or these numbers."""

LOG = logging.getLogger("penstock.repository")

_MOST_SETTLE = 3600.0


@dataclass(frozen=True)
class Scan:
    """What is to be served of a directory, as it was found to be.

    A version that was found before stays in `found` while what is in its place cannot be taken up: while its files are
    being written, where they are wrong now, and where the whole directory is gone. A version that was deleted is gone
    from `found`.

    Attributes:
        found: what is to be served, by reference ("digits@2").
        skipped: why something is not taken up, by its path below the directory ("digits/3"; "." for the directory).
        settling: seconds after which another look may find more, because something was written a moment ago; 0.0 where
            nothing was.
        gone: true where the directory itself cannot be read.
    """

    found: Mapping[str, Found] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    settling: float = 0.0
    gone: bool = False


class ModelDirectory:
    """The models of a directory, for `penstock.Server` and `penstock serve --models`.

    Below it lie `NAME/VERSION/`; a version is a whole number above 0. In it lies one of these:

    - `model.onnx`, with the files that it names: served without the interpreter (`penstock[onnx]`).
    - `model.py`, with whatever it reads: it declares one model with `@penstock.model`, and finds its files by
      `ctx.directory`. It is run only with `allow_python`, as a module of its own that other versions do not see;
      `from . import helper` finds `helper.py` beside it.
    - `model.joblib`, `model.pkl` or `model.pickle`: an object with a method `predict`, such as scikit-learn's. It is
      read only with `allow_pickle`, since to read a pickle is to run what is in it.

    `model.toml` in `NAME/`, in `NAME/VERSION/` (stronger), or both, says how it is served; Triton's `NAME/config.pbtxt`
    is understood for ONNX models. Without any of them the highest version is served.

    Nothing is followed out of the directory: a symbolic link that leads elsewhere, a pipe or a device keeps its version
    from being served. What is wrong with one version says nothing of the others.

    Args:
        path: the directory. It may be a symbolic link itself, and may lead elsewhere later.
        allow_python: whether `model.py` is run.
        allow_pickle: whether pickles are read.
        versions: which versions are served where `model.toml` does not say it: `{"latest": 1}`, `"all"` or numbers.
        settle: seconds for which the files of a version must not have changed before it is taken up.

    Raises:
        ConfigError: where there is no such directory, or for settings that cannot be.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        allow_python: bool = False,
        allow_pickle: bool = False,
        versions: Versions | None = None,
        settle: float = 2.0,
    ) -> None:
        for name, flag in (("allow_python", allow_python), ("allow_pickle", allow_pickle)):
            if not isinstance(flag, bool):
                raise ConfigError(f"{name} must be true or false, not {flag!r}")
        check_seconds("settle", settle)
        if settle > _MOST_SETTLE:
            raise ConfigError(f"settle must be at most {_MOST_SETTLE:.0f} seconds, not {settle}")
        self._path = Path(path).absolute()
        if not self._path.is_dir():
            raise ConfigError(f"there is no directory {self._path}")
        permissions = Permissions(python=allow_python, pickle=allow_pickle)
        chosen = versions_of("versions", {"latest": 1} if versions is None else versions)
        self._look = Look(self._path, permissions, chosen, float(settle))
        self._lock = threading.Lock()
        self._told: dict[str, str] = {}
        self._scan = Scan()

    @property
    def path(self) -> Path:
        """The directory, as an absolute path."""
        return self._path

    def scan(self, *, wait: float = 0.0) -> Scan:
        """Looks at the directory. One look at a time; versions that did not change are the very `Found` of before.

        It changes no server. It reads files, asks the ONNX library what a model takes, and runs a `model.py` that is
        new, so it may take as long as these do.

        Args:
            wait: seconds to wait at most for what is being written.

        Raises:
            ConfigError: for a time that cannot be.
        """
        check_seconds("wait", wait)
        until = time.monotonic() + wait
        with self._lock:
            self._scan = self._once()
            while self._scan.settling and (left := until - time.monotonic()) > 0:
                time.sleep(min(left, self._scan.settling))
                self._scan = self._once()
            self._tell(self._scan.skipped)
            return self._scan

    def _once(self) -> Scan:
        seen = self._look.around()
        return Scan(seen.found, seen.skipped, seen.settling, seen.gone)

    def _tell(self, skipped: Mapping[str, str]) -> None:
        """Logs what is new among what is skipped."""
        for path, why in skipped.items():
            if self._told.get(path) != why:
                LOG.warning("%s of the models in %s is not taken up: %s", path, self._path, why)
        self._told = dict(skipped)

    def __repr__(self) -> str:
        models = ", ".join(self._scan.found) or "nothing found yet"
        return f"<penstock.ModelDirectory {str(self._path)!r}: {models}>"

    def __getstate__(self) -> Any:
        raise TypeError("a ModelDirectory cannot be pickled: make one from its path")
