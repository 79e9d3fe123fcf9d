"""How requests become batches: the policy, its statistics, and the checks that settings pass."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, cast

from penstock import _native
from penstock._display import Table
from penstock._processes import Processes
from penstock.errors import ConfigError

Dispatch = Literal["tick", "window"]
Priority = Literal["high", "normal", "low"]
Workers = int | Processes | Literal["inline"]


@dataclass(frozen=True, kw_only=True)
class Adaptive:
    """A cap on the batch size that is learned while batches run.

    Attributes:
        smallest: requests that a batch may always have, but where memory runs out.
        largest: requests that it never exceeds.
        target: seconds from a call to its result that batches must leave room for. Without it the cap falls only where
            memory runs out.
    """

    smallest: int = 25
    largest: int = 200
    target: float | None = None

    def __post_init__(self) -> None:
        check_count("smallest", self.smallest)
        check_count("largest", self.largest)
        if not 1 <= self.smallest <= self.largest:
            raise ConfigError(f"smallest={self.smallest} must be between 1 and largest={self.largest}")
        if self.target is not None:
            check_seconds("target", self.target)
            if not self.target:
                raise ConfigError("target must be above 0 seconds, not 0")


@dataclass(frozen=True, kw_only=True)
class Pad:
    """Lets items of different lengths share a batch: arrays are filled up along their first axis to the longest.

    A function that has a parameter `mask` is given a bool array `[n, longest]` that is true where an item's own rows
    are; one that has a parameter `lengths` an int64 array `[n]`.

    Attributes:
        value: what arrays are filled up with; each data type has the nearest that it can hold.
        multiple: lengths are rounded up to a multiple of this.
    """

    value: float = 0.0
    multiple: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise ConfigError(f"value must be a number, not {self.value!r}")
        check_count("multiple", self.multiple)
        if self.multiple < 1:
            raise ConfigError(f"multiple must be at least 1, not {self.multiple}")


@dataclass(frozen=True, kw_only=True)
class NativePolicy:
    """A policy as the extension reads it, by the names of its fields."""

    min_size: int
    max_size: int
    adaptive_low: int | None
    adaptive_target: float | None
    preferred: list[int]
    max_wait: float
    dispatch: str
    max_queue: int
    costed: bool
    max_batch_cost: int | None
    max_queue_cost: int | None
    pad_multiple: int | None
    pad_value: float
    aging: float
    weights: list[tuple[str, float]]
    isolate: bool
    single_flight: bool
    cost: Callable[..., int] | None
    key: Callable[..., Hashable] | None


@dataclass(frozen=True, kw_only=True)
class BatchPolicy:
    """How requests become batches. A policy that contradicts itself is refused with `ConfigError`.

    Attributes:
        max_batch_size: requests in one call of the function at most; an `Adaptive` lets it be learned.
        min_batch_size: requests worth a call before `max_wait` has passed; 1 holds nothing back.
        max_wait: seconds that a request is held back for company at most: under `dispatch="window"`, or where
            `min_batch_size` asks for company. Under `"tick"` a free worker never waits.
        dispatch: `"tick"` cuts a batch at the end of the event loop's tick in which a worker is free: a lone request
            never waits, a burst becomes one batch. `"window"` cuts it when it is full or its first request has waited
            `max_wait`, whichever comes first.
        max_queue: requests waiting at most; one more gets `Overloaded`.
        key: called with an item's arguments: only requests with equal answers share a batch.
        cost: what an item costs: a function of its arguments, or `"length"`: the length of its longest array's first
            axis, of its text or bytes, or of its list.
        max_batch_cost: cost of one batch at most. A padded batch costs its rows times its longest row.
        max_queue_cost: cost of all that wait at most; one more gets `Overloaded`.
        pad: a `Pad`, or `True` for its defaults: arrays of different lengths share batches. It implies `cost="length"`.
        preferred_batch_sizes: sizes that the function likes best: a batch is cut to the largest of them that waits.
        aging: seconds after which a waiting request counts as one of the next higher priority.
        weights: shares by tenant where they compete; a tenant that is not named has a share of 1.
        single_flight: identical inputs in flight are computed once, and everyone gets the result.
        on_error: `"isolate"` calls a function that raised again with halves of the batch, until only the requests that
            fail alone have failed; `"fail"` fails the whole batch at once, for functions that must not run twice.
    """

    max_batch_size: int | Adaptive = 100
    min_batch_size: int = 1
    max_wait: float = 0.05
    dispatch: Dispatch = "tick"
    max_queue: int = 10_000
    key: Callable[..., Hashable] | None = None
    cost: Callable[..., int] | Literal["length"] | None = None
    max_batch_cost: int | None = None
    max_queue_cost: int | None = None
    pad: Pad | bool = False
    preferred_batch_sizes: tuple[int, ...] = ()
    aging: float = 1.0
    weights: Mapping[str, float] | None = None
    single_flight: bool = False
    on_error: Literal["isolate", "fail"] = "isolate"

    def __post_init__(self) -> None:
        if not isinstance(self.max_batch_size, Adaptive):
            check_count("max_batch_size", self.max_batch_size)
        for name in ("min_batch_size", "max_queue"):
            check_count(name, getattr(self, name))
        for name in ("max_batch_cost", "max_queue_cost"):
            _check_limit(name, getattr(self, name))
        check_seconds("max_wait", self.max_wait)
        check_seconds("aging", self.aging)
        check_choice("dispatch", self.dispatch, ("tick", "window"))
        check_choice("on_error", self.on_error, ("isolate", "fail"))
        _check_callables(self.key, self.cost)
        _check_sizes(self.preferred_batch_sizes)
        _check_weights(self.weights)
        if not isinstance(self.pad, Pad | bool):
            raise ConfigError(f"pad must be a Pad, or True for its defaults, not {self.pad!r}")
        if self.cost is None and not self.pad and (self.max_batch_cost or self.max_queue_cost):
            raise ConfigError("max_batch_cost and max_queue_cost need cost=, or pad=, to say what a request costs")
        if self.pad and self.cost not in (None, "length"):
            raise ConfigError("a padded batch costs what its lengths make: pad and cost=<function> exclude each other")
        _native.check_policy(self.native())

    def native(self) -> NativePolicy:
        """The policy as the extension reads it."""
        size = self.max_batch_size
        adaptive = size if isinstance(size, Adaptive) else None
        pad = Pad() if self.pad is True else self.pad or None
        return NativePolicy(
            min_size=self.min_batch_size,
            max_size=size.largest if isinstance(size, Adaptive) else size,
            adaptive_low=adaptive.smallest if adaptive else None,
            adaptive_target=None if adaptive is None or adaptive.target is None else float(adaptive.target),
            preferred=sorted(self.preferred_batch_sizes),
            max_wait=float(self.max_wait),
            dispatch=self.dispatch,
            max_queue=self.max_queue,
            costed=self.cost is not None or pad is not None,
            max_batch_cost=self.max_batch_cost,
            max_queue_cost=self.max_queue_cost,
            pad_multiple=pad.multiple if pad else None,
            pad_value=float(pad.value) if pad else 0.0,
            aging=float(self.aging),
            weights=[(tenant, float(weight)) for tenant, weight in (self.weights or {}).items()],
            isolate=self.on_error == "isolate",
            single_flight=bool(self.single_flight),
            cost=self.cost if callable(self.cost) else None,
            key=self.key,
        )


@dataclass(frozen=True)
class BatchStats(Table):
    """What a batcher has done so far; a table in a notebook.

    Attributes:
        requests: requests that were put into a batch.
        batches: batches that were cut.
        mean_batch_size: requests in a batch on average.
        max_batch_size: requests in the largest batch.
        efficiency: share of calls that batching saved: (requests - batches) / requests.
        reasons: batches by the reason they were cut for: `full`, `tick`, `window`, `deadline`, `key`, `budget` or
            `drain`.
        queued: requests waiting now.
        running: batches in the function now.
        failed: requests that got an exception from their batch.
        rejected: requests refused because the queue was full.
        abandoned: requests that left (cancelled, timed out) before the function saw them.
        shared: requests that were answered with what was being computed for another (`single_flight`).
        reruns: calls made to find the guilty in a batch that raised.
        function_seconds: seconds spent in the function.
        restarts: worker processes that took the place of dead ones.
        lock_acquisitions: times that the workers took the interpreter lock.
        lock_wait_seconds: seconds that the workers waited for it.
        hopeless: requests refused because they could not have been answered in time; they are among the rejected.
        expired: requests whose deadline passed while they waited, or could not be met any more; they are among the
            abandoned.
        joined: requests that joined a batch while it ran.
        out_of_memory: times that memory ran out.
        cap: requests that a batch may have now; it moves where it is learned, or memory ran out.
        padding: share of what batches cost that is padding.
        prediction_error: seconds by which the time of a batch was not as predicted, on average; `None` before the first
            prediction.
        waits: seconds that a request spent in each part of its way, on average: `queue` until its batch could be
            taken, `slot` until a worker took it, `gather` until the function was called, `model` in the function, and
            `scatter` until the results were out.
        tenants: requests by the tenant named in `options`.
    """

    requests: int
    batches: int
    mean_batch_size: float
    max_batch_size: int
    efficiency: float
    reasons: dict[str, int]
    queued: int
    running: int
    failed: int
    rejected: int
    abandoned: int
    shared: int
    reruns: int
    function_seconds: float
    restarts: int
    lock_acquisitions: int
    lock_wait_seconds: float
    hopeless: int
    expired: int
    joined: int
    out_of_memory: int
    cap: int
    padding: float
    prediction_error: float | None
    waits: dict[str, float]
    tenants: dict[str, int] = field(default_factory=dict)


def fillers_of(policy: BatchPolicy, function: Callable[..., Any]) -> tuple[bool, bool]:
    """Whether a function wants to be told which places of its rows are filled up: by a `mask`, by `lengths`."""
    if not policy.pad:
        return False, False
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # a function of a C extension does not say
        return False, False
    return "mask" in parameters, "lengths" in parameters


def policy_from(policy: BatchPolicy | None, settings: dict[str, Any]) -> BatchPolicy:
    """The policy given as an object or as keywords."""
    known = {known.name for known in fields(BatchPolicy)}
    for name in settings:
        if name not in known:
            raise ConfigError(f"unknown setting {name!r}; known are {', '.join(sorted(known))}, policy and workers")
    if policy is None:
        return BatchPolicy(**settings)
    if settings:
        raise ConfigError(f"policy and {', '.join(sorted(settings))} exclude each other: put them into the policy")
    if not isinstance(policy, BatchPolicy):
        raise ConfigError(f"policy must be a BatchPolicy, not {policy!r}")
    return policy


def check_workers(workers: object) -> object:
    """Refuses what is neither a number of threads, nor `Processes`, nor `"inline"`."""
    if workers != "inline" and not isinstance(workers, Processes):
        if isinstance(workers, str):
            raise ConfigError(f"workers must be a number of threads, Processes or 'inline', not {workers!r}")
        check_count("workers", workers)
        if cast("int", workers) < 1:
            raise ConfigError(f"workers must be at least 1, not {workers}")
    return workers


def check_count(name: str, value: object) -> None:
    """Refuses what is not a whole number that the machine can count to."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{name} must be a whole number, not {value!r}")
    if not 0 <= value <= sys.maxsize:
        raise ConfigError(f"{name} must be between 1 and {sys.maxsize}, not {value}")


def _check_limit(name: str, value: object) -> None:
    if value is not None:
        check_count(name, value)
        if value == 0:
            raise ConfigError(f"{name} must be at least 1, not 0")


def _check_callables(key: object, cost: object) -> None:
    if key is not None and not callable(key):
        raise ConfigError(f"key must be a function of an item, not {key!r}")
    if cost is not None and cost != "length" and not callable(cost):
        raise ConfigError(f"cost must be a function of an item or 'length', not {cost!r}")


def _check_sizes(sizes: object) -> None:
    if not isinstance(sizes, tuple | list):
        raise ConfigError(f"preferred_batch_sizes must be a tuple of whole numbers, not {sizes!r}")
    for size in sizes:
        check_count("preferred_batch_sizes", size)


def _check_weights(weights: object) -> None:
    if weights is None:
        return
    if not isinstance(weights, Mapping):
        raise ConfigError(f"weights must be a mapping from tenants to their shares, not {weights!r}")
    for tenant, weight in weights.items():
        if not isinstance(tenant, str):
            raise ConfigError(f"weights: a tenant is a string, not {tenant!r}")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
            raise ConfigError(f"weights: the share of {tenant!r} must be a number above 0, not {weight!r}")


def check_seconds(name: str, value: object) -> None:
    """Refuses what is no length of time."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{name} must be a number of seconds, not {value!r}")
    if not (math.isfinite(value) and value >= 0):
        raise ConfigError(f"{name} must be finite and not negative, not {value}")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuses what is none of the choices."""
    if value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")
