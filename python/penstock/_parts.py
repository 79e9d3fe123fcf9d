"""What the four switches of a pipeline mean for its models and its cache."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from penstock._cache import ModelCache
from penstock._computed import Computed
from penstock._pipeline_settings import PipelineSettings
from penstock._policy import BatchPolicy
from penstock.errors import ConfigError
from penstock.pooling import Pool

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.models import ModelSpec
    from penstock.settings import CacheSettings

_OBJECTS: dict[str, tuple[type[Any], str]] = {
    "pool": (Pool, "pool"),
    "batch": (BatchPolicy, "policy"),
    "load": (ModelCache, "cache"),
}
"""What may stand in the place of a switch, which is on then; and what it is called below."""


@dataclass(frozen=True)
class Parts:
    """The parts of a pipeline.

    Attributes:
        settings: which of them are on.
        pool: the connections to every upstream that names no pool of its own.
        policy: how requests become batches, whatever the models say.
        cache: where the models live.
    """

    settings: PipelineSettings = field(default_factory=PipelineSettings)
    pool: Pool | None = None
    policy: BatchPolicy | None = None
    cache: ModelCache | None = None

    @staticmethod
    def objects_of(keywords: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Keywords with a switch in the place of every object, and the objects as this class has them.

        Raises:
            ConfigError: for what is neither a switch nor what may stand in its place.
        """
        switches, objects = dict(keywords), {}
        for each in fields(PipelineSettings):
            name, value = each.name, keywords.get(each.name)
            kind, place = _OBJECTS.get(name, (None, ""))
            if kind is not None and isinstance(value, kind):
                objects[place], switches[name] = value, True
            elif not (value is None or isinstance(value, bool | str)):
                others = "" if kind is None else f", or a penstock.{kind.__name__}"
                raise ConfigError(f"{name} must be True or False{others}, not {value!r}")
        return switches, objects

    def applied(self, spec: ModelSpec) -> ModelSpec:
        """The declaration of a model as these parts have it served.

        Raises:
            ConfigError: where the policy of all models cannot be that of a served one.
        """
        from penstock.models import served_policy  # noqa: PLC0415  it imports what imports this

        policy = spec.policy
        one_by_one = spec.task == "generate" and not spec.batched
        if self.settings.batch and self.policy is not None and not one_by_one:
            policy = served_policy(spec.name, self.policy, {})
        return replace(spec, policy=policy, target=self._pooled(spec.target), alone=not self.settings.batch)

    def _pooled(self, target: Any) -> Any:
        """A remote model over the connections that are meant; anything else as it is."""
        pooled = getattr(target, "pooled", None) if isinstance(target, Computed) else None
        if pooled is not None and not self.settings.pool:
            return pooled(False, always=True)  # noqa: FBT003  as its maker says it
        return target if pooled is None or self.pool is None else pooled(self.pool)

    def cached(self, settings: CacheSettings) -> CacheSettings:
        """How a cache of the server's own works with these parts."""
        return settings if self.settings.load else replace(settings, preload=(), max_loads=1, predict=False)
