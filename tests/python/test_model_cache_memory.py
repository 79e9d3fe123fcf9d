"""Bytes: what a model takes is measured, what is still looked at is counted, and what is over is given back."""

from __future__ import annotations

import asyncio
import gc
import resource
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penstock
from tests.python.support.waiting import soon

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.models import LoadContext

MIB = 1 << 20


@pytest.fixture
def cache() -> Iterator[penstock.ModelCache]:
    with penstock.ModelCache() as cache:
        yield cache


def used(cache: penstock.ModelCache) -> int:
    gc.collect()
    return cache.stats().bytes.used


class Model:
    def __init__(self, nbytes: int) -> None:
        self.weights = np.zeros(nbytes, dtype=np.uint8)
        self.me = self


async def test_a_model_is_measured(cache: penstock.ModelCache) -> None:
    cache.loader("a", size=17)(lambda _ctx: {"weights": np.zeros(MIB, dtype=np.uint8)})
    assert cache.index()[0].bytes == 17
    await cache.preload("a")
    assert MIB <= cache.index()[0].bytes < MIB + 4096
    assert cache.stats().bytes.ready == cache.index()[0].bytes


async def test_what_can_not_be_seen_is_taken_from_what_was_said(cache: penstock.ModelCache) -> None:
    cache.loader("more", size="2MiB")(lambda _ctx: [object(), np.zeros(MIB, dtype=np.uint8)])
    cache.loader("less", size=10)(lambda _ctx: [object(), np.zeros(MIB, dtype=np.uint8)])
    cache.loader("exact", size=10, sizeof=lambda _model: "3MiB")(lambda _ctx: [object()])
    await cache.preload("more", "less", "exact")
    more, less, exact = (row.bytes for row in cache.index())
    assert more == 2 * MIB
    assert MIB <= less < MIB + 4096
    assert exact == 3 * MIB


async def test_what_models_share_counts_once(cache: penstock.ModelCache) -> None:
    cache.loader("encoder")(lambda _ctx: Model(MIB))

    @cache.loader("head", requires="encoder")
    def head(ctx: LoadContext) -> Any:
        return {"encoder": ctx["encoder"], "tied": ctx["encoder"].weights[10:]}

    cache.loader("top", requires="head")(lambda ctx: [ctx["head"]["tied"][1:]])
    await cache.preload("top")
    assert MIB <= cache.stats().bytes.used < MIB + 10_000


async def test_memory_is_given_back_when_a_model_is_unloaded(cache: penstock.ModelCache) -> None:
    made: list[weakref.ref[Any]] = []

    @cache.loader("a")
    def load(_ctx: LoadContext) -> Model:
        model = Model(MIB)
        made.append(weakref.ref(model))
        return model

    await cache.preload("a")
    await cache.unload("a")
    assert made[0]() is None
    assert cache.stats().bytes.used == 0


async def test_bytes_that_somebody_still_looks_at_stay_counted_until_they_die(cache: penstock.ModelCache) -> None:
    cache.loader("a")(lambda _ctx: Model(MIB))
    async with cache.acquire("a") as model:
        view = model.weights[5:10]
    del model
    await cache.unload("a")
    stats = cache.stats()
    assert stats.bytes.viewed == stats.bytes.used
    assert MIB <= stats.bytes.viewed < MIB + 4096
    assert cache.index()[0].state == "unloaded"
    del view
    await soon(lambda: used(cache) == 0)


async def test_a_whole_model_that_is_kept_stays_counted(cache: penstock.ModelCache) -> None:
    cache.loader("a", sizeof=lambda _model: 3 * MIB)(lambda _ctx: Model(MIB))
    async with cache.acquire("a") as model:
        pass
    await cache.unload("a")
    assert cache.stats().bytes.viewed == 3 * MIB
    del model
    await soon(lambda: used(cache) == 0)


async def test_no_more_is_said_to_be_viewed_than_the_model_took(cache: penstock.ModelCache) -> None:
    cache.loader("a", sizeof=lambda _model: MIB // 2)(lambda _ctx: Model(MIB))
    async with cache.acquire("a") as model:
        pass
    await cache.unload("a")
    assert cache.stats().bytes.viewed == MIB // 2
    del model
    await soon(lambda: used(cache) == 0)


async def test_a_load_waits_for_bytes_that_are_still_viewed() -> None:
    with penstock.ModelCache(memory=3 * MIB // 2) as cache:
        for name in "ab":
            cache.loader(name, size=MIB)(lambda _ctx: Model(MIB))
        async with cache.acquire("a") as model:
            view = model.weights[1:]
        del model
        loading = cache.preload("b")
        await soon(lambda: cache.stats().bytes.viewed >= MIB)
        await asyncio.sleep(0.05)
        assert cache.progress("b").state == "waiting for space"
        del view
        gc.collect()
        await loading
        assert cache.stats().bytes.used < 3 * MIB // 2


async def test_what_leaves_is_what_was_used_least_recently() -> None:
    with penstock.ModelCache(memory=20) as cache:
        for name in "abc":
            cache.loader(name, sizeof=lambda _model: 10)(lambda ctx: [ctx.name])
        for name in "abac":
            (await cache.acquire(name)).release()
        assert [row.state for row in cache.index()] == ["ready", "unloaded", "ready"]
        stats = cache.stats()
        assert stats.evictions == {"space": 1}
        last = stats.models["b@1"].last_eviction
        assert last is not None
        assert (last.reason, last.age > 0, last.ago >= 0) == ("space", True, True)
        assert stats.hit_rate == 0.25


def rss() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  it is read a thousand times
        return int(file.read().split()[1]) * resource.getpagesize()


@pytest.mark.timeout(300)
async def test_a_thousand_loads_and_unloads_leave_memory_flat(cache: penstock.ModelCache) -> None:
    cache.loader("tokenizer")(lambda _ctx: {"a": 1})
    # Without a cycle in it: each would cost a run of the collector.
    cache.loader("a", requires="tokenizer")(lambda _ctx: {"weights": np.zeros(MIB, dtype=np.uint8)})

    @cache.loader("broken", retries=0)
    def broken(_ctx: LoadContext) -> None:
        raise ValueError(np.zeros(MIB, dtype=np.uint8))

    async def rounds(count: int) -> None:
        for _ in range(count):
            async with cache.acquire("a"):
                pass
            with pytest.raises(penstock.errors.LoadFailed):
                await cache.reload("broken")
            await cache.unload("tokenizer", dependents=True)

    await rounds(100)
    gc.collect()
    before = rss()
    await rounds(900)
    gc.collect()
    assert rss() - before < 8 * MIB
    assert cache.stats().loads == 2000
    assert cache.stats().bytes.used == 0
