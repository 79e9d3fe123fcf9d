"""The model directories of a server: what a look finds is added, replaced and taken away while it serves."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from penstock._display import Table
from penstock.errors import PenstockError
from penstock.models import spec_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from penstock._served_models import Replacement, ServedModels
    from penstock.models import LoadHandle, ModelCache, ModelSpec
    from penstock.repository import Found, ModelDirectory, Scan

LOG = logging.getLogger("penstock.server")


@dataclass(frozen=True)
class Changes(Table):
    """What a look at a server's model directories has changed; a table in a notebook.

    Attributes:
        added: what is served since, as references ("digits@2").
        changed: what was replaced, because its files have changed.
        removed: what is served no more.
        skipped: why something that is there is not served, or not as it is there now, by its path in its directory.
    """

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


@dataclass
class _Report:
    """What one look comes to, while it is being found out."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    tasks: list[threading.Thread] = field(default_factory=list)

    def changes(self) -> Changes:
        return Changes(tuple(self.added), tuple(self.changed), tuple(self.removed), dict(self.skipped))


@dataclass(eq=False)
class _Place:
    """A directory, and what of it is served."""

    directory: ModelDirectory
    known: dict[str, Found] = field(default_factory=dict)


class Directories:
    """Keeps a server as its directories are, whenever it is told to look."""

    def __init__(
        self,
        directories: Sequence[ModelDirectory],
        models: ServedModels,
        cache: ModelCache,
        preload: Sequence[str] | None,
        drain: float,
        *,
        adapt: Callable[[ModelSpec], ModelSpec],
    ) -> None:
        self._places = [_Place(directory) for directory in directories]
        self._models = models
        self._cache = cache
        self._preload = preload
        self._drain = drain
        self._adapt = adapt
        self._lock = threading.Lock()
        self._aliased: set[str] = set()
        """Names that were given to a version because a newer one is being loaded."""
        self._tasks: list[threading.Thread] = []

    def __bool__(self) -> bool:
        return bool(self._places)

    def knows(self, reference: str) -> bool:
        """True for the name of a model that comes from a directory, and for its name and version."""
        return any(reference in (known, found.name) for place in self._places for known, found in place.known.items())

    def poll(self, *, patience: float, wait: bool) -> Changes:
        """Looks at every directory and serves what is there, one look at a time.

        Args:
            patience: seconds to wait at most for what is being written.
            wait: come back when all is done; else loads go on, and so does what leaves when they are done.
        """
        report = _Report()
        with self._lock:
            for place in self._places:
                self._look(place, place.directory.scan(wait=patience), report)
            changes = report.changes()
            self._tasks = [task for task in self._tasks if task.is_alive()] + report.tasks
        if not wait:
            return changes
        for task in report.tasks:
            task.join()
        return report.changes()

    def settle(self, limit: float | None = None) -> None:
        """Waits until the changes of every look so far have been carried through, or have failed."""
        until = None if limit is None else time.monotonic() + limit
        for task in self._tasks:
            task.join(None if until is None else max(0.0, until - time.monotonic()))

    def skipped(self, changes: Changes) -> list[tuple[str, str, str]]:
        """Name, version and reason of what is skipped."""
        return [(*_named(path), why) for path, why in changes.skipped.items()]

    def _look(self, place: _Place, scan: Scan, report: _Report) -> None:
        for path, why in scan.skipped.items():
            report.skipped[self._path(place, path)] = why
        changed = [name for name, found in scan.found.items() if self._has_changed(place, name, found)]
        for name in changed:
            self._change(place, scan.found[name], report)
        # What is taken up before what it replaces leaves.
        new = {name: found for name, found in scan.found.items() if name not in place.known}
        waited_for = self._add(place, new, report)
        gone = [name for name in place.known if name not in scan.found]
        for name in gone:
            self._remove(place, name, scan, waited_for, report)
        for name, (loading, leaving) in waited_for.items():
            self._begin(report, name, partial(self._when_loaded, place, name, loading, leaving, report))

    def _has_changed(self, place: _Place, name: str, found: Found) -> bool:
        known = place.known.get(name)
        return known is not None and known.fingerprint != found.fingerprint

    def _spec(self, found: Found) -> ModelSpec:
        spec = spec_of(found.model)
        if spec is None:
            raise PenstockError(f"{found.reference} is no model")
        return self._adapt(spec)

    def _path(self, place: _Place, path: str) -> str:
        """What something is called among what is skipped: its directory is named where there are several."""
        return path if len(self._places) == 1 else str(place.directory.path / path)

    def _skip(self, place: _Place, report: _Report, name: str, why: object) -> None:
        report.skipped[self._path(place, name.replace("@", "/"))] = str(why)

    # What is new.

    def _add(self, place: _Place, new: dict[str, Found], report: _Report) -> dict[str, tuple[LoadHandle, list[str]]]:
        """Serves what is new; gives what is loaded by that, and what waits to leave for it, by names of models."""
        free = {}
        for name, found in new.items():
            if self._models.is_busy(name):
                self._skip(place, report, name, "what was of its name and version is still leaving")
            elif name in self._models.references:
                self._skip(place, report, name, "a model of that name and version is served already")
            else:
                free[name] = found
        for name in {found.name for found in free.values()}:
            self._hold_default(name, free)
        for name in self._register(place, free, report):
            place.known[name] = free[name]
            report.added.append(name)
            if free[name].pinned:
                self._pin(place, name, report)
        return self._load([free[name] for name in report.added if name in free])

    def _register(self, place: _Place, free: dict[str, Found], report: _Report) -> list[str]:
        """Serves all that can be: one that cannot does not keep the others away."""
        try:
            self._models.add([self._spec(found) for found in free.values()])
        except PenstockError:
            pass
        else:
            return list(free)
        added: list[str] = []
        left, why = dict(free), dict[str, PenstockError]()
        while left:
            before = len(left)
            # One may require another that comes after it.
            for name in list(left):
                try:
                    self._models.add([self._spec(left[name])])
                except PenstockError as error:
                    why[name] = error
                else:
                    added.append(name)
                    del left[name]
            if len(left) == before:
                break
        for name in left:
            LOG.warning("model %r of %s is not served: %s", name, place.directory.path, why[name])
            self._skip(place, report, name, why[name])
        return added

    def _pin(self, place: _Place, name: str, report: _Report) -> None:
        try:
            self._cache.pin(name)
        except PenstockError as error:
            LOG.warning("model %r of %s is not pinned: %s", name, place.directory.path, error)
            self._skip(place, report, name, f"it is served, and not pinned: {error}")

    def _load(self, added: Sequence[Found]) -> dict[str, tuple[LoadHandle, list[str]]]:
        loads: dict[str, tuple[LoadHandle, list[str]]] = {}
        for found in sorted(added, key=lambda one: _number(one.version)):
            if not self._is_wanted(found):
                continue
            highest = max(_number(one.version) for one in added if one.name == found.name)
            if found.name in self._aliased and _number(found.version) == highest:
                # The name goes over to it as soon as it is loaded, and stays where it was if that fails.
                loads[found.reference] = (self._cache.alias(found.name, found.reference), [])
            else:
                loads[found.reference] = (self._cache.preload(found.reference), [])
        return loads

    def _is_wanted(self, found: Found) -> bool:
        if self._preload is None:
            return found.preload
        return found.name in self._preload or found.reference in self._preload

    def _hold_default(self, name: str, new: dict[str, Found]) -> None:
        """Lets a name mean the version that it means now until a higher one is loaded."""
        rows = [row for row in self._cache.index() if row.name == name]
        default = next((row for row in rows if row.default), None)
        if default is None or default.state != "ready" or name not in {one.partition("@")[0] for one in self._known()}:
            return
        named = any(name in row.aliases for row in rows)
        if named and name not in self._aliased:
            # Somebody has said which version it means.
            return
        higher = [one for one in new.values() if one.name == name and self._is_wanted(one)]
        if any(_number(one.version) > _number(default.version) for one in higher):
            self._cache.alias(name, f"{name}@{default.version}").wait()
            self._aliased.add(name)

    def _known(self) -> list[str]:
        return [name for place in self._places for name in place.known]

    # What has changed.

    def _change(self, place: _Place, found: Found, report: _Report) -> None:
        name = found.reference
        if self._models.is_busy(name):
            self._skip(place, report, name, "it is being replaced or taken away: the next look sees to it")
            return
        # Where it fails, the next look does not try again: not before its files change.
        place.known[name] = found
        try:
            replacement = self._models.replace(self._spec(found), load=self._is_wanted(found))
        except PenstockError as error:
            LOG.warning("model %r of %s has changed and goes on as it was: %s", name, place.directory.path, error)
            self._skip(place, report, name, error)
            return
        report.changed.append(name)
        self._begin(report, name, partial(self._when_replaced, place, name, replacement, report))

    def _when_replaced(self, place: _Place, name: str, replacement: Replacement, report: _Report) -> None:
        try:
            replacement.finish(self._drain)
        except PenstockError as error:
            LOG.warning("model %r of %s has changed and goes on as it was: %s", name, place.directory.path, error)
            self._skip(place, report, name, error)
            report.changed.remove(name)

    # What is gone.

    def _remove(
        self,
        place: _Place,
        name: str,
        scan: Scan,
        waited_for: dict[str, tuple[LoadHandle, list[str]]],
        report: _Report,
    ) -> None:
        if self._models.is_busy(name):
            return
        model = place.known[name].name
        for newer, (_, leaving) in waited_for.items():
            if newer.partition("@")[0] == model:
                # It goes on serving until that is loaded.
                leaving.append(name)
                return
        others = [found for found in scan.found.values() if found.name == model and found.reference in place.known]
        is_last = self._is_ready(name) and not any(self._is_ready(found.reference) for found in others)
        if is_last and any(self._is_wanted(found) for found in others):
            self._skip(place, report, name, "it goes on serving until another version of it could be loaded")
            return
        self._take_away(place, name, report)

    def _is_ready(self, name: str) -> bool:
        return any(f"{row.name}@{row.version}" == name and row.state == "ready" for row in self._cache.index())

    def _take_away(self, place: _Place, name: str, report: _Report) -> None:
        try:
            leaving = self._models.withdraw([name])
        except PenstockError as error:
            LOG.warning("model %r is gone from %s and goes on serving: %s", name, place.directory.path, error)
            self._skip(place, report, name, error)
            return
        del place.known[name]
        report.removed.append(name)
        self._begin(report, name, partial(self._models.leave, leaving, self._drain))

    def _when_loaded(
        self, place: _Place, name: str, loading: LoadHandle, leaving: Sequence[str], report: _Report
    ) -> None:
        try:
            loading.wait()
        except PenstockError as error:
            LOG.warning("model %r of %s is served as soon as it can be loaded: %s", name, place.directory.path, error)
            self._skip(place, report, name, error)
            return
        tasks = _Report()
        with self._lock:
            for older in leaving:
                if older in place.known and not self._models.is_busy(older):
                    self._take_away(place, older, tasks)
        for task in tasks.tasks:
            task.join()
        report.removed += tasks.removed
        report.skipped |= tasks.skipped

    def _begin(self, report: _Report, name: str, task: Callable[[], None]) -> None:
        thread = threading.Thread(target=_guarded, args=(name, task), name=f"penstock-change-{name}", daemon=True)
        report.tasks.append(thread)
        thread.start()


def _guarded(name: str, task: Callable[[], None]) -> None:
    try:
        task()
    except PenstockError as error:  # the server closes
        LOG.debug("a change of model %r was not carried through: %s", name, error)
    except Exception:
        LOG.exception("a change of model %r was not carried through", name)


def _number(version: str) -> int:
    """A version of a directory; -1 for one of another model's, which is no number."""
    return int(version) if version.isascii() and version.isdigit() else -1


def _named(path: str) -> tuple[str, str]:
    """The name and the version that a path is for; the whole path where it is for neither."""
    name, _, version = path.partition("/")
    return (name, version) if "/" not in version else (path, "")
