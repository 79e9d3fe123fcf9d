"""How requests become batches: the policy, its statistics, and the checks that settings pass."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field, fields
from typing import Any, Literal, cast

from penstock import _native
from penstock._display import Table
from penstock.errors import ConfigError

Dispatch = Literal["tick", "window"]
Priority = Literal["high", "normal", "low"]
Workers = int | Literal["inline"]


@dataclass(frozen=True, kw_only=True)
class BatchPolicy:
    """How requests become batches. A policy that contradicts itself is refused with `ConfigError`.

    Attributes:
        max_batch_size: requests in one call of the function at most.
        min_batch_size: requests worth a call before `max_wait` has passed; 1 holds nothing back.
        max_wait: seconds that a request is held back for company at most: under `dispatch="window"`, or where
            `min_batch_size` asks for company. Under `"tick"` a free worker never waits.
        dispatch: `"tick"` cuts a batch at the end of the event loop's tick in which a worker is free: a lone request
            never waits, a burst becomes one batch. `"window"` cuts it when it is full or its first request has waited
            `max_wait`, whichever comes first.
        max_queue: requests waiting at most; one more gets `Overloaded`.
        on_error: `"isolate"` calls a function that raised again with halves of the batch, until only the requests that
            fail alone have failed; `"fail"` fails the whole batch at once, for functions that must not run twice.
    """

    max_batch_size: int = 100
    min_batch_size: int = 1
    max_wait: float = 0.05
    dispatch: Dispatch = "tick"
    max_queue: int = 10_000
    on_error: Literal["isolate", "fail"] = "isolate"

    def __post_init__(self) -> None:
        for name in ("max_batch_size", "min_batch_size", "max_queue"):
            check_count(name, getattr(self, name))
        check_seconds("max_wait", self.max_wait)
        check_choice("dispatch", self.dispatch, ("tick", "window"))
        check_choice("on_error", self.on_error, ("isolate", "fail"))
        _native.check_policy(**self.native_settings())

    def native_settings(self) -> dict[str, Any]:
        """What the extension calls them."""
        return {
            "min_size": self.min_batch_size,
            "max_size": self.max_batch_size,
            "max_wait": float(self.max_wait),
            "window": self.dispatch == "window",
            "max_queue": self.max_queue,
        }


@dataclass(frozen=True)
class BatchStats(Table):
    """What a batcher has done so far; a table in a notebook.

    Attributes:
        requests: requests that were put into a batch.
        batches: batches that were cut.
        mean_batch_size: requests in a batch on average.
        max_batch_size: requests in the largest batch.
        efficiency: share of calls that batching saved: (requests - batches) / requests.
        reasons: batches by the reason they were cut for: `full`, `tick`, `window`, `drain`.
        queued: requests waiting now.
        running: batches in the function now.
        failed: requests that got an exception from their batch.
        rejected: requests refused because the queue was full.
        abandoned: requests that left (cancelled, timed out) before the function saw them.
        reruns: calls made to find the guilty in a batch that raised.
        function_seconds: seconds spent in the function.
        lock_acquisitions: times that the workers took the interpreter lock.
        lock_wait_seconds: seconds that the workers waited for it.
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
    reruns: int
    function_seconds: float
    lock_acquisitions: int
    lock_wait_seconds: float
    tenants: dict[str, int] = field(default_factory=dict)


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
    """Refuses what is neither a number of threads nor `"inline"`."""
    if workers != "inline":
        if isinstance(workers, str):
            raise ConfigError(f"workers must be a number of threads or 'inline', not {workers!r}")
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
