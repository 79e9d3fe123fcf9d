"""What cannot be is refused where it is said, with the name of what was wrong."""

from __future__ import annotations

from typing import Any

import pytest

import penstock
from penstock._cache_context import LoadContext
from penstock.errors import ConfigError, LoadFailed, ModelNotFound


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"memory": 0}, "memory"),
        ({"memory": -1}, "memory"),
        ({"memory": "much"}, "memory"),
        ({"memory": 1.5}, "memory"),
        ({"memory": True}, "memory"),
        ({"max_loads": 0}, "max_loads"),
        ({"max_loads": 1.5}, "max_loads"),
        ({"max_loads": 10**6}, "max_loads"),
        ({"policy": "fifo"}, "policy"),
        ({"policy": None}, "policy"),
        ({"predict": 0}, "predict"),
        ({"predict": 1.5}, "predict"),
        ({"predict": "yes"}, "predict"),
        ({"failure_memory": -1}, "failure_memory"),
        ({"failure_memory": float("inf")}, "failure_memory"),
        ({"space_timeout": "long"}, "space_timeout"),
        ({"clock": 3}, "clock"),
    ],
)
def test_settings_of_a_cache(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        penstock.ModelCache(**settings)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"name": ""}, "name"),
        ({"name": "a@1"}, "name"),
        ({"name": 3}, "name"),
        ({"name": "../../etc"}, "name"),
        ({"version": ""}, "version"),
        ({"version": None}, "version"),
        ({"version": 1.5}, "version"),
        ({"version": True}, "version"),
        ({"requires": 3}, "requires"),
        ({"requires": [3]}, "requires"),
        ({"requires": ["a@"]}, "requires"),
        ({"requires": {"a": 1}}, "requires"),
        ({"size": 0}, "size"),
        ({"size": "big"}, "size"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": None}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"timeout": 1e300}, "timeout"),
        ({"retries": -1}, "retries"),
        ({"retries": 0.5}, "retries"),
        ({"retries": 10**9}, "retries"),
        ({"backoff": -1}, "backoff"),
        ({"backoff": 1e300}, "backoff"),
        ({"warmup": 3}, "warmup"),
        ({"sizeof": "1GiB"}, "sizeof"),
        ({"close": 3}, "close"),
        ({"pinned": "yes"}, "pinned"),
        ({"fallback": 3}, "fallback"),
        ({"fallback": "a@@"}, "fallback"),
    ],
)
def test_settings_of_a_loader(settings: dict[str, Any], named: str) -> None:
    with penstock.ModelCache() as cache:
        with pytest.raises(ConfigError, match=named):
            cache.loader(**{"name": "a", **settings})(lambda _ctx: 1)
        assert cache.index() == []


def test_a_loader_is_a_function() -> None:
    with penstock.ModelCache() as cache, pytest.raises(ConfigError, match="function"):
        cache.loader("a")(3)  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"model": 3}, "model"),
        ({"model": None}, "model"),
        ({"model": "a", "priority": "urgent"}, "priority"),
        ({"model": "a", "priority": 1}, "priority"),
        ({"model": "a", "timeout": 0}, "timeout"),
        ({"model": "a", "timeout": -1}, "timeout"),
        ({"model": "a", "timeout": "soon"}, "timeout"),
        ({"model": "a", "timeout": float("inf")}, "timeout"),
        ({"model": "a", "session": 3}, "session"),
    ],
)
def test_arguments_of_acquire(arguments: dict[str, Any], named: str) -> None:
    with penstock.ModelCache() as cache:
        cache.loader("a")(lambda _ctx: 1)
        with pytest.raises(ConfigError, match=named):
            cache.acquire(**arguments)


def test_arguments_of_everything_else() -> None:
    with penstock.ModelCache() as cache:
        cache.loader("a")(lambda _ctx: 1)
        with pytest.raises(ConfigError, match="none"):
            cache.preload()
        with pytest.raises(ConfigError, match="priority"):
            cache.preload("a", priority="urgent")  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="drain"):
            cache.unload("a", drain=-1)
        with pytest.raises(ConfigError, match="alias"):
            cache.alias("a@b", "a")
        with pytest.raises(ConfigError, match="memory"):
            cache.what_if("much")
        with pytest.raises(ConfigError, match="timeout"):
            cache.close(timeout=-1)
        with pytest.raises(ConfigError, match="timeout"):
            cache.preload("a").wait(0)
        for method in ("preload", "pin", "unpin", "unload", "reload", "remove", "progress"):
            with pytest.raises(ModelNotFound, match="nobody"):
                getattr(cache, method)("nobody")
            with pytest.raises(ConfigError, match="name"):
                getattr(cache, method)(3)


def test_a_context_of_ones_own_for_tests_of_loaders() -> None:
    context = LoadContext("a", "1", requires={"b": 2})
    assert (context.name, context.version, context.attempt, context["b"], context.cancelled) == ("a", "1", 1, 2, False)
    context.progress(0.5, "weights")
    for wrong in (-0.1, 1.1, float("nan"), "half"):
        with pytest.raises(ConfigError, match="fraction"):
            context.progress(wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="phase"):
        context.progress(0.5, 3)  # type: ignore[arg-type]
    unwanted = LoadContext("a", "1", report=lambda _phase, _fraction: False)
    with pytest.raises(LoadFailed, match="no longer wanted"):
        unwanted.progress()
    assert unwanted.cancelled
