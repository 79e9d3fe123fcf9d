"""How requests become batches where a model does not say it, and what `penstock.toml` says of single models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from penstock._computed import Computed
from penstock._policy import BatchPolicy
from penstock._settings_file import MODEL, nearest
from penstock._settings_model import Resolved, Setting, Source, setting, settings_of
from penstock.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from penstock._settings_file import SettingsFile
    from penstock._settings_model import Settings
    from penstock.models import ModelSpec

_AS_DECLARED = "as declared"
_DECLARED = Source("keyword", "the model's declaration")
_DEFAULT = Source("default", "default")
_OF_SPEC = ("workers", "load_timeout", "load_retries")


@dataclass(frozen=True, kw_only=True)
class BatchSettings(Resolved, section="batch", title="batches"):
    """How requests become batches, for models that do not say it: in the place of `penstock.BatchPolicy`'s defaults.

    What a model declares otherwise than it is by default stays; `[model.NAME]` has the last word.

    Attributes:
        max_batch_size: requests in one call of a model at most.
        min_batch_size: requests worth a call before `max_wait` has passed.
        max_wait: time that a request is held back for company at most.
        dispatch: `"tick"` takes what is there when a worker is free; `"window"` waits for `max_wait` or a full batch.
        max_queue: requests that wait for a model at most; one more is refused.
        aging: time after which a waiting request counts as one of the next higher priority.
        single_flight: identical inputs in flight are computed once.
        on_error: `"isolate"` calls a model that raised again with halves of the batch; `"fail"` fails the whole batch.
    """

    max_batch_size: int | None = setting(None, "count", "requests in one call at most", none=_AS_DECLARED)
    min_batch_size: int | None = setting(None, "count", "requests worth a call", none=_AS_DECLARED)
    max_wait: float | None = setting(None, "pause", "time that a request is held back at most", none=_AS_DECLARED)
    dispatch: str | None = setting(None, "choice", "when a batch is cut", ("tick", "window"), none=_AS_DECLARED)
    max_queue: int | None = setting(None, "count", "requests that wait for a model at most", none=_AS_DECLARED)
    aging: float | None = setting(None, "pause", "time after which a priority rises", none=_AS_DECLARED)
    single_flight: bool | None = setting(None, "switch", "compute identical inputs once", none=_AS_DECLARED)
    on_error: str | None = setting(None, "choice", "what a failure does", ("isolate", "fail"), none=_AS_DECLARED)


class ModelTerms:
    """What settings say of single models: `[batch]` where a model is silent, `[model.NAME]` whatever it says.

    A value of a declaration that is as by default counts as silence.

    Raises:
        ConfigError: where `[model.NAME]` holds what it cannot.
    """

    def __init__(self, settings: Settings) -> None:
        given: dict[str, list[tuple[Source, Any]]] = {}
        for each in settings_of(BatchSettings):
            found = settings.get(each.name)
            if found is not None and found.value is not None:
                given[each.name] = [*reversed(found.shadowed), (found.source, found.value)]
        self._of_all = given
        file = settings._file  # noqa: SLF001  one package
        self._of_models = {} if file is None else _tables_of(file)

    @property
    def said(self) -> dict[str, dict[str, Any]]:
        """The values of `[model.NAME]`, by model and by setting."""
        return {name: {key: value for key, (_, value) in table.items()} for name, table in self._of_models.items()}

    def applied(self, spec: ModelSpec) -> ModelSpec:
        """The declaration of a model with what settings say of it.

        Raises:
            ConfigError: where that cannot be, naming the settings.
        """
        said = {
            name: given[-1] for name, given in self._given(spec).items() if given[-1][0] not in (_DECLARED, _DEFAULT)
        }
        if not said:
            return spec
        from penstock.models import check_placed  # noqa: PLC0415  it imports what imports this

        try:
            policy = {name: value for name, (_, value) in said.items() if name not in _OF_SPEC}
            terms = {name: value for name, (_, value) in said.items() if name in _OF_SPEC}
            if "workers" in terms and isinstance(spec.target, Computed):
                raise ConfigError("workers are said where it is declared")  # noqa: TRY301  it gets its sources below
            placed = replace(spec, policy=replace(spec.policy, **policy), **terms)
            check_placed(placed, {name: value for name, (source, value) in said.items() if source.kind == "file"})
        except ConfigError as error:
            sources = ", ".join(str(source) for source, _ in said.values())
            raise ConfigError(f"model '{spec.name}' with {sources}: {error}") from None
        return placed

    def explained(self, spec: ModelSpec) -> list[Setting]:
        """What can be said of a model in settings, with its value and where that came from."""
        return [
            Setting(
                name=f"{spec.reference}.{name}",
                section=f"{MODEL}.{spec.name}",
                key=name,
                variable="",
                flag=None,
                value=given[-1][1],
                source=given[-1][0],
                default=given[0][1],
                shadowed=tuple(reversed(given[:-1])),
                text="",
                kind="text",
                secret=False,
            )
            for name, given in self._given(spec).items()
        ]

    def idle(self, specs: Iterable[ModelSpec]) -> list[str]:
        """What to say of sections that are for none of these models."""
        names = {name for spec in specs for name in (spec.name, spec.reference)}
        found = []
        for name, table in self._of_models.items():
            if name not in names:
                meant = nearest(name, names)
                told = f"; did you mean [model.{meant}]?" if meant else ""
                where = next((str(source).rpartition(" ")[0] for source, _ in table.values()), f"[model.{name}]")
                found.append(f"{where}: there is no model {name!r}{told}")
        return found

    def _given(self, spec: ModelSpec) -> dict[str, list[tuple[Source, Any]]]:
        """The values of every setting of a model, the weakest first."""
        declared = {each.name: (each.default, getattr(spec.policy, each.name)) for each in fields(BatchPolicy)}
        declared |= {
            each.name: (each.default, getattr(spec, each.name)) for each in fields(spec) if each.name in _OF_SPEC
        }
        declared["workers"] = (1, spec.workers)
        every: dict[str, list[tuple[Source, Any]]] = {}
        for name, (default, value) in declared.items():
            given = [(_DEFAULT, default), *self._of_all.get(name, [])]
            if value != default:
                given.append((_DECLARED, value))
            tables = (self._of_models.get(one, {}) for one in (spec.name, spec.reference))
            every[name] = given + [table[name] for table in tables if name in table]
        return every


def _tables_of(file: SettingsFile) -> dict[str, dict[str, tuple[Source, Any]]]:
    """What the file says of single models, by their names."""
    from penstock._repository_settings import BATCHING, checked_key  # noqa: PLC0415  who has no file does not need it

    known = {*BATCHING, *_OF_SPEC}
    tables: dict[str, dict[str, tuple[Source, Any]]] = {}
    for name, table in file.section(MODEL).items():
        if not isinstance(table, Mapping):
            raise ConfigError(f"{file.where(MODEL, name)}: what is said of a model stands in [{MODEL}.NAME]")
        tables[name] = {}
        for key, value in table.items():
            where = file.where(MODEL, name, key)
            if key not in known:
                raise ConfigError(f"{where}: {_no_key(name, key, value, known)}")
            tables[name][key] = (Source("file", where), checked_key(where, key, value))
    return tables


def _no_key(name: str, key: str, value: object, known: Collection[str]) -> str:
    if isinstance(value, Mapping):
        return f'there is no such setting; a name with dots stands in quotes: [{MODEL}."{name}.{key}"]'
    meant = nearest(key, known)
    told = f"did you mean {meant}? " if meant else ""
    return f"there is no such setting; {told}there are {', '.join(sorted(known))}"
