"""What a model cache says about itself, as frozen records that a notebook shows as tables."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from penstock._display import Table, shown

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class LoadSeconds(Table):
    """How long the loads took that ended well, in seconds.

    Attributes:
        sum: all together.
        p50: half of them took no longer.
        p95: nineteen of twenty took no longer.
    """

    sum: float = 0.0
    p50: float = 0.0
    p95: float = 0.0

    def __str__(self) -> str:
        return f"sum: {self.sum:.4g}, p50: {self.p50:.4g}, p95: {self.p95:.4g}"


@dataclass(frozen=True)
class CacheBytes(Table):
    """What is in memory, in bytes.

    Attributes:
        used: all that counts: the sum of the four that follow.
        ready: models that can be used.
        reserved: kept for loads that were let in.
        draining: models that leave and are not gone yet.
        viewed: unloaded, but still looked at by somebody.
        memory: the limit; `None` for none.
        deficit: bytes above the limit, because models turned out larger than they were taken to be.
    """

    used: int
    ready: int
    reserved: int
    draining: int
    viewed: int
    memory: int | None
    deficit: int

    def __str__(self) -> str:
        return ", ".join(f"{each.name}: {shown(getattr(self, each.name))}" for each in fields(self))


@dataclass(frozen=True)
class Preloads(Table):
    """Loads that nobody waited for when they were asked for, predicted ones included.

    Attributes:
        issued: loads that began for no other reason.
        used: of those, models that were acquired once they were ready.
        wasted: of those, models that left before anybody acquired them.
        joined: of those, loads that somebody came to wait for.
    """

    issued: int
    used: int
    wasted: int
    joined: int

    def __str__(self) -> str:
        return ", ".join(f"{each.name}: {shown(getattr(self, each.name))}" for each in fields(self))


@dataclass(frozen=True)
class Accuracy(Table):
    """How often what was expected is what came.

    Attributes:
        first: share of requests whose model was the one named first.
        named: share of requests whose model was among the two that were named.
        popular_first: as `first`, where the most popular model is named every time.
        popular_named: as `named`, where the most popular models are named every time.
        requests: requests since the beginning.
    """

    first: float
    named: float
    popular_first: float
    popular_named: float
    requests: int

    def __str__(self) -> str:
        popular = f"{self.popular_first:.3f}, {self.popular_named:.3f}"
        return f"{self.first:.3f}, {self.named:.3f} among two; popular: {popular}"


@dataclass(frozen=True)
class Predictions(Table):
    """What prediction says of itself.

    Attributes:
        on: true while models are loaded because of it: it does better than naming what is popular.
        sessions_on: true while sessions are followed.
        rhythms_on: true while regular times are kept.
        accuracy: how often it was right, over the latest 1,000 requests.
        sessions: the same over requests of sessions.
        rhythms: the same over times at which a request was due; `requests` counts those times.
        ever: how often it was right since the beginning.
        rhythms_known: models that are asked for at regular times.
        sessions_known: sessions that are remembered.
        issued: loads that have begun because of it.
        used: of these, those whose model was asked for before it left.
        wasted: of these, those whose model left, or failed, before anybody asked for it.
        waiting: of these, those that are still to be used.
        waiting_bytes: bytes of those that are still to be used.
        used_share: share of the loads that were used, of those of which it is known; 1 where there is none.
        wasted_byte_seconds: memory that held what was wasted, in byte-seconds.
        wasted_load_seconds: seconds that were spent on loading what was wasted.
        saved_load_seconds: seconds that were spent on loading what was used, and that nobody, or not all, waited for.
    """

    on: bool
    sessions_on: bool
    rhythms_on: bool
    accuracy: Accuracy
    sessions: Accuracy
    rhythms: Accuracy
    ever: Accuracy
    rhythms_known: int
    sessions_known: int
    issued: int
    used: int
    wasted: int
    waiting: int
    waiting_bytes: int
    used_share: float
    wasted_byte_seconds: float
    wasted_load_seconds: float
    saved_load_seconds: float

    def __str__(self) -> str:
        state = "on" if self.on else "off"
        return f"{state}, {self.issued} loads, {self.used} used, {self.wasted} wasted, right: {self.accuracy}"


@dataclass(frozen=True)
class Eviction(Table):
    """How a model left that was loaded.

    Attributes:
        reason: `"space"` (another needed its memory), `"unload"`, `"reload"`, `"replaced"` (registered anew),
            `"too_large"` (larger than the whole memory), `"dead"` (it broke), or `"close"`.
        age: seconds for which it had been ready.
        ago: seconds since then.
    """

    reason: str
    age: float
    ago: float


@dataclass(frozen=True)
class CachedModelStats(Table):
    """What one model of a cache has been through so far.

    Attributes:
        hits: acquires that found it.
        misses: acquires that began a load.
        joins: acquires that waited for a load that was wanted already.
        loads: loads that ended well.
        failures: loads that failed for good, time-outs among them.
        timeouts: loads that took longer than their time-out.
        cancelled: loads that were taken back.
        load_seconds: seconds that a load takes, the latest weighing most; 0 before the first.
        evictions: how often it left, by reason.
        last_eviction: the last time that it left, or `None`.
    """

    hits: int
    misses: int
    joins: int
    loads: int
    failures: int
    timeouts: int
    cancelled: int
    load_seconds: float
    evictions: dict[str, int]
    last_eviction: Eviction | None


@dataclass(frozen=True)
class CacheStats(Table):
    """What a model cache has done so far; a table in a notebook.

    Attributes:
        hits: acquires that found their model.
        misses: acquires that began a load.
        joins: acquires that waited for a load that was wanted already.
        hit_rate: hits among all acquires; 0 before the first.
        byte_hit_rate: the same, with each acquire weighed by the bytes of its model.
        cost_hit_rate: 1 less the seconds spent loading per second that would have been spent if every acquire had begun
            a load.
        loads: loads that ended well.
        failures: loads that failed for good, time-outs among them.
        timeouts: loads that took longer than their time-out.
        retries: attempts beyond the first.
        cancelled: loads that were taken back, while they were queued or while they ran.
        load_seconds: how long the loads took that ended well.
        queue_seconds: seconds that loads waited for their turn, their dependencies and memory, in all.
        queued: loads that wait now.
        loading: loads that run now, those that are stuck not counted.
        stuck: loads that run on though their time is up.
        evictions: models that left, by reason; see `Eviction`.
        bytes: what is in memory.
        preloads: loads that nobody waited for when they were asked for.
        predictions: what prediction says of itself; `None` where nothing is predicted.
        models: `CachedModelStats` by name and version, as `"head@1"`.
    """

    hits: int
    misses: int
    joins: int
    hit_rate: float
    byte_hit_rate: float
    cost_hit_rate: float
    loads: int
    failures: int
    timeouts: int
    retries: int
    cancelled: int
    load_seconds: LoadSeconds
    queue_seconds: float
    queued: int
    loading: int
    stuck: int
    evictions: dict[str, int]
    bytes: CacheBytes
    preloads: Preloads
    predictions: Predictions | None
    models: dict[str, CachedModelStats] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class IndexRow(Table):
    """One model of a cache.

    Attributes:
        name: its name.
        version: its version.
        state: `"unloaded"`, `"queued"`, `"waiting for space"`, `"loading"`, `"warming"`, `"ready"`, `"draining"` or
            `"failed"`; `"ready"` for as long as one of its loads serves, whatever else goes on.
        reason: why it is not ready, where that is known; what became of the last reload, where that failed.
        bytes: what it takes, or is taken to need.
        leases: who uses it now.
        pinned: true where it is not evicted.
        default: true where its name alone leads to it.
        aliases: the aliases that lead to it.
        requires: what it requires, as it was registered.
    """

    name: str
    version: str
    state: str
    reason: str | None
    bytes: int
    leases: int
    pinned: bool
    default: bool
    aliases: list[str]
    requires: list[str]


class Index(list[IndexRow]):
    """The models of a cache in the order of their registration; a table in a notebook."""

    def _repr_html_(self) -> str:
        import html  # noqa: PLC0415  a notebook asks for it, an import of penstock should not pay

        names = [each.name for each in fields(IndexRow)]
        head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(shown(getattr(row, name)))}</td>" for name in names) + "</tr>"
            for row in self
        )
        return f"<table><caption>Index</caption><tr>{head}</tr>{rows}</table>"


@dataclass(frozen=True)
class ModelEntry(Table):
    """A model that could leave, as a policy of one's own sees it.

    Attributes:
        name: its name.
        version: its version.
        bytes: what it takes.
        load_seconds: seconds that a load of it takes, as measured.
        uses: times it was asked for, in all.
        idle: seconds since it was asked for last, or since it was loaded where it never was.
        age: seconds since it was loaded.
    """

    name: str
    version: str
    bytes: int
    load_seconds: float
    uses: int
    idle: float
    age: float


@dataclass(frozen=True)
class WhatIf(Table):
    """What the last accesses would have been with another memory, by replaying them.

    Attributes:
        memory: the memory that was asked about, in bytes.
        accesses: accesses that were replayed.
        hits: how many would have been hits.
        hit_rate: hits among accesses.
        load_seconds: seconds that would have been spent loading.
    """

    memory: int
    accesses: int
    hits: int
    hit_rate: float
    load_seconds: float


@dataclass(frozen=True)
class LoadProgress(Table):
    """How far a model is.

    Attributes:
        model: its name and version, as `"head@1"`.
        state: as in `IndexRow`.
        phase: what its loader says that it does; empty where it says nothing.
        fraction: how much of it is done, from 0 to 1, where its loader says so.
        position: how many loads stand before it in the queue, while it waits there.
        elapsed: seconds since its load began; 0 before.
        eta: seconds until it is ready, where that can be guessed.
    """

    model: str
    state: str
    phase: str
    fraction: float | None
    position: int | None
    elapsed: float
    eta: float | None


def stats_of(counters: dict[str, Any]) -> CacheStats:
    """Statistics of the counters that the extension gives."""
    return CacheStats(
        **{
            **counters,
            "load_seconds": LoadSeconds(**counters["load_seconds"]),
            "bytes": CacheBytes(**counters["bytes"]),
            "preloads": Preloads(**counters["preloads"]),
            "predictions": _predictions_of(counters["predictions"]),
            "models": {name: _model_of(model) for name, model in counters["models"].items()},
        }
    )


def index_of(rows: Iterable[dict[str, Any]]) -> Index:
    """The index of the rows that the extension gives."""
    return Index(IndexRow(**row) for row in rows)


def _predictions_of(report: dict[str, Any] | None) -> Predictions | None:
    if report is None:
        return None
    accuracies = {name: Accuracy(**report[name]) for name in ("accuracy", "sessions", "rhythms", "ever")}
    return Predictions(**{**report, **accuracies})


def _model_of(counters: dict[str, Any]) -> CachedModelStats:
    last = counters["last_eviction"]
    return CachedModelStats(**{**counters, "last_eviction": None if last is None else Eviction(**last)})
