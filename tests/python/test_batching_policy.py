"""Settings: what contradicts itself is refused by name, before anything runs."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import pytest

from penstock import BatchPolicy, batched
from penstock.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np


def double(x: np.ndarray) -> np.ndarray:
    return x * 2


CONTRADICTIONS = [
    ({"max_batch_size": 0}, "max_batch_size"),
    ({"max_batch_size": -1}, "max_batch_size"),
    ({"max_batch_size": 2.5}, "max_batch_size"),
    ({"max_batch_size": "10"}, "max_batch_size"),
    ({"max_batch_size": True}, "max_batch_size"),
    ({"max_batch_size": None}, "max_batch_size"),
    ({"max_batch_size": 2**70}, "max_batch_size"),
    ({"min_batch_size": 0}, "min_batch_size"),
    ({"min_batch_size": 101}, "min_batch_size=101"),
    ({"min_batch_size": 2, "max_wait": 0}, "max_wait"),
    ({"max_queue": 0}, "max_queue"),
    ({"max_queue": 5, "min_batch_size": 6}, "max_queue=5"),
    ({"max_wait": -0.1}, "max_wait"),
    ({"max_wait": math.nan}, "max_wait"),
    ({"max_wait": math.inf}, "max_wait"),
    ({"max_wait": 1e300}, "max_wait"),
    ({"max_wait": "1s"}, "max_wait"),
    ({"max_wait": True}, "max_wait"),
    ({"dispatch": "eventually"}, "dispatch"),
    ({"dispatch": ["tick"]}, "dispatch"),
    ({"dispatch": "window", "max_wait": 0}, "dispatch"),
    ({"on_error": "ignore"}, "on_error"),
]


@pytest.mark.parametrize(("settings", "named"), CONTRADICTIONS, ids=str)
def test_a_contradiction_is_refused_by_name_as_keyword_and_as_policy(settings: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        batched(double, **settings)
    with pytest.raises(ConfigError, match=named):
        BatchPolicy(**settings)


@pytest.mark.parametrize("workers", [0, -1, 1.5, "many", None, True, 2**70])
def test_workers_that_make_no_sense_are_refused_by_name(workers: object) -> None:
    with pytest.raises(ConfigError, match="workers"):
        batched(double, workers=workers)


def test_a_policy_and_its_keywords_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match=r"max_wait.*exclude"):
        batched(double, policy=BatchPolicy(), max_wait=1)


def test_a_policy_of_another_type_is_refused() -> None:
    with pytest.raises(ConfigError, match="BatchPolicy"):
        batched(double, policy={"max_wait": 1})


def test_an_unknown_setting_is_refused_and_the_known_ones_are_listed() -> None:
    with pytest.raises(ConfigError, match=r"max_batchsize.*max_batch_size"):
        batched(double, max_batchsize=10)


@pytest.mark.parametrize("thing", [None, 7, "double", [double]])
def test_what_cannot_be_called_is_refused(thing: object) -> None:
    if thing is None:  # batched(None) asks for the decorator: the class says no
        with pytest.raises(ConfigError, match="callable"):
            batched()(thing)
    else:
        with pytest.raises(ConfigError, match="callable"):
            batched(thing)


def test_batching_a_batcher_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"\.fn"):
        batched(batched(double))


def test_an_async_function_inline_is_refused() -> None:
    async def predict(x: np.ndarray) -> np.ndarray:
        return x

    with pytest.raises(ConfigError, match="inline"):
        batched(predict, workers="inline")


def test_a_policy_is_frozen_comparable_and_takes_keywords_alone() -> None:
    policy = BatchPolicy(max_batch_size=5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.max_batch_size = 6  # type: ignore[misc]
    assert policy == BatchPolicy(max_batch_size=5)
    assert dataclasses.replace(policy, max_wait=1) == BatchPolicy(max_batch_size=5, max_wait=1)
    with pytest.raises(TypeError):
        BatchPolicy(5)  # type: ignore[misc]


def test_the_defaults_are_those_of_the_documentation() -> None:
    assert BatchPolicy() == BatchPolicy(
        max_batch_size=100, min_batch_size=1, max_wait=0.05, dispatch="tick", max_queue=10_000, on_error="isolate"
    )


def test_a_refused_batcher_leaves_no_thread_behind() -> None:
    import threading

    before = threading.active_count()
    for settings, _ in CONTRADICTIONS:
        with pytest.raises(ConfigError):
            batched(double, **settings)
    assert threading.active_count() == before
