"""A model cache: what is asked for is loaded once, lent, and let go of."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penstock
from penstock.errors import Closed, ConfigError, DeadlineExceeded, DependencyCycle, ModelNotFound, ModelNotReady
from penstock.models import Lease, LoadContext
from tests.python.support.waiting import PATIENCE, soon, until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def cache() -> Iterator[penstock.ModelCache]:
    with penstock.ModelCache() as cache:
        yield cache


class Counted:
    """A loader that counts, and waits to be let through where it is told to."""

    def __init__(self, *, opened: bool = True) -> None:
        self.loads = 0
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.contexts: list[LoadContext] = []
        if opened:
            self.gate.set()

    def __call__(self, ctx: LoadContext) -> Any:
        self.loads += 1
        self.contexts.append(ctx)
        self.entered.set()
        assert self.gate.wait(PATIENCE)
        return {"name": ctx.name, "load": self.loads}


def state(cache: penstock.ModelCache, name: str) -> str:
    return next(row.state for row in cache.index() if row.name == name)


async def test_a_model_is_loaded_once_and_lent(cache: penstock.ModelCache) -> None:
    load = Counted()
    assert cache.loader("a")(load) is load
    assert state(cache, "a") == "unloaded"
    async with cache.acquire("a") as first:
        assert first == {"name": "a", "load": 1}
        assert cache.index()[0].leases == 1
        async with cache.acquire("a") as second:
            assert second is first
    assert cache.index()[0].leases == 0
    stats = cache.stats()
    assert (stats.misses, stats.hits, stats.loads, load.loads) == (1, 1, 1, 1)
    assert stats.models["a@1"].hits == 1


def test_threads_get_models_too(cache: penstock.ModelCache) -> None:
    cache.loader("a")(Counted())
    with cache.acquire("a") as model:
        assert model["load"] == 1
    lease = cache.acquire("a").wait()
    assert isinstance(lease, Lease)
    assert (lease.value["load"], lease.name, lease.version, lease.cold, lease.waited, lease.fallback) == (
        1,
        "a",
        "1",
        False,
        0.0,
        False,
    )
    lease.release()
    lease.release()
    assert lease.released
    with pytest.raises(Closed, match="was released"):
        _ = lease.value


async def test_a_cold_lease_says_so(cache: penstock.ModelCache) -> None:
    cache.loader("a", version=7)(Counted())
    lease = await cache.acquire("a")
    assert (lease.cold, lease.version) == (True, "7")
    assert lease.waited > 0
    with lease as model:
        assert model["name"] == "a"
    assert lease.released
    assert "a@7 released" in repr(lease)


async def test_a_hit_suspends_nobody(cache: penstock.ModelCache) -> None:
    cache.loader("a")(Counted())
    await await_lease(cache, "a")
    ran = []
    asyncio.get_running_loop().call_soon(ran.append, 1)
    async with cache.acquire("a"):
        pass
    (await cache.acquire("a")).release()
    assert not ran


async def await_lease(cache: penstock.ModelCache, name: str) -> None:
    (await cache.acquire(name)).release()


async def test_a_lease_that_is_dropped_is_released(cache: penstock.ModelCache) -> None:
    cache.loader("a")(Counted())
    lease = await cache.acquire("a")
    assert cache.index()[0].leases == 1
    del lease
    # The loop holds the future, and the future its result, until this callback of it has ended.
    await asyncio.sleep(0)
    assert cache.index()[0].leases == 0


async def test_async_loaders_run_on_penstocks_own_loop(cache: penstock.ModelCache) -> None:
    where = []

    @cache.loader("a")
    async def load(ctx: LoadContext) -> dict[str, str]:
        await asyncio.sleep(0)
        where.append(threading.current_thread().name)
        return {"name": ctx.name}

    async with cache.acquire("a") as model:
        assert model == {"name": "a"}
    assert where == ["penstock-asyncio"]


async def test_loaders_run_in_the_context_in_which_they_were_registered(cache: penstock.ModelCache) -> None:
    from contextvars import ContextVar

    variable: ContextVar[str] = ContextVar("variable")
    variable.set("here")
    cache.loader("a")(lambda ctx: [variable.get(), threading.current_thread().name])
    variable.set("elsewhere")
    async with cache.acquire("a") as model:
        assert model == ["here", "penstock-load-a"]


async def test_a_thousand_acquires_of_a_cold_model_are_one_load(cache: penstock.ModelCache) -> None:
    load = Counted(opened=False)
    cache.loader("a")(load)

    async def one() -> int:
        async with cache.acquire("a") as model:
            return int(model["load"])

    tasks = [asyncio.ensure_future(one()) for _ in range(1000)]
    await soon(load.entered.is_set)
    load.gate.set()
    assert set(await asyncio.gather(*tasks)) == {1}
    stats = cache.stats()
    assert (load.loads, stats.loads, stats.misses, stats.joins) == (1, 1, 1, 999)
    assert cache.index()[0].leases == 0


def test_a_hundred_threads_share_a_load_too(cache: penstock.ModelCache) -> None:
    load = Counted(opened=False)
    cache.loader("a")(load)
    got: list[int] = []

    def one() -> None:
        with cache.acquire("a", timeout=PATIENCE) as model:
            got.append(model["load"])

    threads = [threading.Thread(target=one) for _ in range(100)]
    for thread in threads:
        thread.start()
    until(load.entered.is_set)
    load.gate.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert got == [1] * 100
    assert load.loads == 1


async def test_what_a_model_requires_is_loaded_before_it_and_lent_to_it(cache: penstock.ModelCache) -> None:
    order = []

    @cache.loader("tokenizer")
    def tokenizer(ctx: LoadContext) -> list[str]:
        order.append(ctx.name)
        return ["tokenizer"]

    @cache.loader("encoder", requires="tokenizer")
    def encoder(ctx: LoadContext) -> list[Any]:
        order.append(ctx.name)
        return ["encoder", ctx["tokenizer"]]

    @cache.loader("head", requires=["encoder", "tokenizer@1"])
    def head(ctx: LoadContext) -> list[Any]:
        order.append(ctx.name)
        with pytest.raises(ModelNotFound, match="does not require 'other'"):
            _ = ctx["other"]
        return [ctx["encoder"], ctx["tokenizer@1"]]

    async with cache.acquire("head") as model:
        assert model == [["encoder", ["tokenizer"]], ["tokenizer"]]
        assert model[0][1] is model[1]
    assert order == ["tokenizer", "encoder", "head"]
    with pytest.raises(ConfigError, match="head"):
        await cache.unload("tokenizer")
    await cache.unload("tokenizer", dependents=True)
    assert [row.state for row in cache.index()] == ["unloaded"] * 3


def test_cycles_are_refused_with_their_path(cache: penstock.ModelCache) -> None:
    cache.loader("a", requires="b")(Counted())
    cache.loader("b", requires="c")(Counted())
    with pytest.raises(DependencyCycle, match="->") as caught:
        cache.loader("c", requires="a")(Counted())
    assert all(name in str(caught.value) for name in "abc")
    cache.loader("c")(Counted())
    with cache.acquire("a") as model:
        assert model["name"] == "a"


async def test_an_unknown_model_and_an_unknown_dependency_are_named(cache: penstock.ModelCache) -> None:
    with pytest.raises(ModelNotFound, match="nobody"):
        cache.acquire("nobody")
    cache.loader("head", requires=["encoder"])(Counted())
    with pytest.raises(ModelNotFound, match="encoder"):
        async with cache.acquire("head"):
            pass


async def test_closing_a_model_runs_before_it_is_let_go_of(cache: penstock.ModelCache) -> None:
    closed: list[Any] = []
    cache.loader("a", close=closed.append)(Counted())

    async def close(model: Any) -> None:
        await asyncio.sleep(0)
        closed.append(model)

    cache.loader("b", close=close)(Counted())
    await cache.preload("a", "b")
    await cache.unload("a")
    await cache.unload("b")
    assert [model["name"] for model in closed] == ["a", "b"]


async def test_a_close_that_raises_does_not_keep_the_model(
    cache: penstock.ModelCache, caplog: pytest.LogCaptureFixture
) -> None:
    def close(_model: Any) -> None:
        raise ValueError("stuck")

    cache.loader("a", close=close)(Counted())
    await cache.preload("a")
    await cache.unload("a")
    assert state(cache, "a") == "unloaded"
    assert "raised while it was closed" in caplog.text


async def test_warming_up_belongs_to_the_load(cache: penstock.ModelCache) -> None:
    seen: list[str] = []
    cache.loader("a", warmup=lambda model: seen.append(f"{model['name']} {state(cache, 'a')}"))(Counted())
    async with cache.acquire("a"):
        assert seen == ["a warming"]


async def test_cancelling_gives_up_waiting_and_the_load_goes_on(cache: penstock.ModelCache) -> None:
    load = Counted(opened=False)
    cache.loader("a")(load)

    async def one() -> None:
        async with cache.acquire("a"):
            raise AssertionError("it is not there yet")

    task = asyncio.ensure_future(one())
    await soon(load.entered.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    future = asyncio.ensure_future(await_lease(cache, "a"))
    await asyncio.sleep(0)
    future.cancel()
    load.gate.set()
    await soon(lambda: state(cache, "a") == "ready")
    assert cache.index()[0].leases == 0
    async with cache.acquire("a") as model:
        assert model["load"] == 1


async def test_who_gives_up_before_the_load_began_takes_it_out_of_the_queue() -> None:
    with penstock.ModelCache(max_loads=1) as cache:
        first, second = Counted(opened=False), Counted()
        cache.loader("first")(first)
        cache.loader("second")(second)
        loading = cache.preload("first")
        await soon(first.entered.is_set)
        with pytest.raises(DeadlineExceeded):
            await cache.acquire("second", timeout=0.01)
        assert state(cache, "second") == "unloaded"
        first.gate.set()
        await loading
        assert second.loads == 0


async def test_a_time_out_is_for_waiting_not_for_the_load(cache: penstock.ModelCache) -> None:
    load = Counted(opened=False)
    cache.loader("a")(load)
    with pytest.raises(DeadlineExceeded):
        await cache.acquire("a", timeout=0.05)
    with pytest.raises(DeadlineExceeded):
        await asyncio.to_thread(lambda: cache.acquire("a", timeout=0.05).wait())
    load.gate.set()
    async with cache.acquire("a", timeout=PATIENCE) as model:
        assert model["load"] == 1


async def test_something_that_was_asked_for_is_taken_once(cache: penstock.ModelCache) -> None:
    cache.loader("a")(Counted())
    asked = cache.acquire("a")
    async with asked:
        with pytest.raises(ConfigError, match="taken once"):
            asked.wait()
    with pytest.raises(ConfigError, match="taken once"):
        await asked


async def test_exceptions_pass_through_and_release(cache: penstock.ModelCache) -> None:
    cache.loader("a")(Counted())
    with pytest.raises(ZeroDivisionError):
        async with cache.acquire("a"):
            raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), cache.acquire("a"):
        raise ZeroDivisionError
    assert cache.index()[0].leases == 0


async def test_any_value_is_a_model(cache: penstock.ModelCache) -> None:
    for at, value in enumerate([0, False, (), (1, 2), [], {}, "text", StopIteration(3), np.zeros(2)]):
        cache.loader(f"m{at}")(lambda _ctx, value=value: value)
        async with cache.acquire(f"m{at}") as model:
            assert model is value
        async with cache.acquire(f"m{at}") as model:
            assert model is value


async def test_preloads_can_be_awaited_watched_and_waited_for(cache: penstock.ModelCache) -> None:
    steps = threading.Semaphore(0)

    @cache.loader("a")
    def load(ctx: LoadContext) -> str:
        ctx.progress(0.0, "weights")
        for step in (0.25, 0.5, 1.0):
            assert steps.acquire(timeout=PATIENCE)
            ctx.progress(step)
        ctx.progress(None, "build")
        return "model"

    handle = cache.preload("a", priority="high")
    seen = []
    async for progress in handle.progress():
        seen.append((progress.model, progress.state, progress.fraction))
        steps.release()
    assert ("a@1", "loading", 0.25) in seen
    assert seen[-1][:2] == ("a@1", "ready")
    await handle
    handle.wait()
    assert handle.done
    assert [row.state for row in handle.progress()] == ["ready"]
    assert cache.progress("a").state == "ready"
    assert "done" in repr(handle)


def test_progress_can_be_watched_from_a_thread(cache: penstock.ModelCache) -> None:
    load = Counted(opened=False)
    cache.loader("a")(load)
    handle = cache.preload("a")
    states = []
    for progress in handle.progress():
        states.append(progress.state)
        load.gate.set()
    assert states[-1] == "ready"
    handle.wait(PATIENCE)


async def test_a_preload_raises_what_failed_and_its_progress_ends(cache: penstock.ModelCache) -> None:
    @cache.loader("a", retries=0)
    def load(_ctx: LoadContext) -> None:
        raise ValueError("no weights")

    handle = cache.preload("a")
    assert [row.state async for row in handle.progress()][-1] == "failed"
    with pytest.raises(penstock.errors.LoadFailed, match="no weights"):
        await handle
    with pytest.raises(penstock.errors.LoadFailed, match="no weights"):
        handle.wait()


async def test_a_preload_that_is_cancelled_stops_what_nobody_else_wants(cache: penstock.ModelCache) -> None:
    stopped = threading.Event()

    @cache.loader("a")
    async def load(_ctx: LoadContext) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            stopped.set()

    @cache.loader("b")
    def load_b(ctx: LoadContext) -> None:
        try:
            while not stopped.wait(0.01):
                ctx.progress()
            while True:
                ctx.progress()
        finally:
            ended.set()

    ended = threading.Event()
    handle = cache.preload("a", "b")
    await soon(lambda: state(cache, "a") == state(cache, "b") == "loading")
    handle.cancel()
    with pytest.raises(ModelNotReady):
        await handle
    await soon(stopped.is_set)
    await soon(ended.is_set)


async def test_the_bar_needs_tqdm_and_shows_models(
    cache: penstock.ModelCache, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tqdm")
    cache.loader("a")(Counted())
    await asyncio.to_thread(cache.preload("a").bar)
    assert "loading a" in capsys.readouterr().err


async def test_pinned_models_stay(cache: penstock.ModelCache) -> None:
    cache.loader("a")(Counted())
    cache.pin("a")
    assert cache.index()[0].pinned
    assert state(cache, "a") == "unloaded"
    cache.unpin("a")
    assert not cache.index()[0].pinned
    cache.loader("b", pinned=True)(Counted())
    assert cache.index()[1].pinned


async def test_unloading_waits_for_leases_and_says_when_they_last_too_long(cache: penstock.ModelCache) -> None:
    load = Counted()
    cache.loader("a")(load)
    lease = await cache.acquire("a")
    unloading = cache.unload("a", drain=0.01)
    with pytest.raises(DeadlineExceeded):
        await unloading
    assert state(cache, "a") == "draining"
    later = cache.unload("a")
    with pytest.raises(DeadlineExceeded, match="unloading 'a'"):
        later.wait(0.01)
    assert lease.value["load"] == 1
    lease.release()
    await later
    async with cache.acquire("a") as model:
        assert model["load"] == 2


async def test_versions_aliases_and_references(cache: penstock.ModelCache) -> None:
    for version in ("2", "10"):
        cache.loader("head", version=version)(lambda ctx: [ctx.version])

    async def version_of(reference: str) -> str:
        lease = await cache.acquire(reference)
        assert lease.value == [lease.version]
        return lease.version

    assert await version_of("head") == "10"
    assert await version_of("head@2") == "2"
    await cache.alias("prod", "head@2")
    assert await version_of("prod") == "2"
    assert await version_of("head@prod") == "2"
    await cache.alias("prod", "head@10")
    assert await version_of("prod") == "10"
    await cache.alias("head", "head@2")
    assert await version_of("head") == "2"
    with pytest.raises(ModelNotFound):
        cache.alias("prod", "head@3")
    assert [row.default for row in cache.index()] == [True, False]
    assert [row.aliases for row in cache.index()] == [["head"], ["prod"]]


async def test_vllm_42125_version_key(cache: penstock.ModelCache) -> None:
    """The same name and version registered again is another model, and what was loaded before is not given any more."""
    cache.loader("a")(lambda _ctx: ["old"])
    old = await cache.acquire("a")
    cache.loader("a")(lambda _ctx: ["new"])
    async with cache.acquire("a") as model:
        assert model == ["new"]
        assert old.value == ["old"]


async def test_mlserver_reload_drains_inflight(cache: penstock.ModelCache) -> None:
    """Who uses a model while it is reloaded uses the old one to the end, and it is closed after that."""
    closed: list[Any] = []
    load = Counted()
    cache.loader("a", close=closed.append)(load)
    old = await cache.acquire("a")
    await cache.reload("a")
    async with cache.acquire("a") as model:
        assert model["load"] == 2
    assert not closed
    assert old.value["load"] == 1
    old.release()
    await soon(lambda: closed)
    assert [model["load"] for model in closed] == [1]


async def test_a_reload_that_fails_leaves_the_old_one_serving(cache: penstock.ModelCache) -> None:
    def load(_ctx: LoadContext) -> list[int]:
        loads.append(1)
        if len(loads) > 1:
            raise ValueError("bad weights")
        return loads

    loads: list[int] = []
    cache.loader("a", retries=0)(load)
    await cache.preload("a")
    with pytest.raises(penstock.errors.LoadFailed, match="bad weights"):
        await cache.reload("a")
    async with cache.acquire("a") as model:
        assert model is loads
    row = cache.index()[0]
    assert row.state == "ready"
    assert "bad weights" in (row.reason or "")


async def test_a_model_that_is_removed_is_not_found_and_used_to_the_end(cache: penstock.ModelCache) -> None:
    cache.loader("a")(Counted())
    lease = await cache.acquire("a")
    cache.remove("a")
    with pytest.raises(ModelNotFound):
        cache.acquire("a")
    assert lease.value["load"] == 1
    lease.release()


async def test_closing_refuses_and_unloads_in_reverse_order() -> None:
    closed: list[str] = []
    cache = penstock.ModelCache()
    cache.loader("a", close=lambda model: closed.append(model["name"]))(Counted())
    cache.loader("b", requires="a", close=lambda model: closed.append(model["name"]))(Counted())
    await cache.preload("b")
    await cache.aclose()
    assert closed == ["b", "a"]
    assert cache.closed
    assert "closed" in repr(cache)
    with pytest.raises(Closed):
        await cache.acquire("a")
    with pytest.raises(Closed):
        cache.loader("c")(Counted())
    await cache.aclose()
    cache.close()


async def test_whoever_waits_when_the_cache_closes_gets_closed() -> None:
    load = Counted(opened=False)
    cache = penstock.ModelCache()
    cache.loader("a")(load)
    waiting = asyncio.ensure_future(await_lease(cache, "a"))
    await soon(load.entered.is_set)
    closing = asyncio.ensure_future(cache.aclose())
    with pytest.raises(Closed):
        await waiting
    await soon(lambda: load.contexts[0].cancelled)
    load.gate.set()
    await closing


async def test_a_lease_outlives_closing(caplog: pytest.LogCaptureFixture) -> None:
    cache = penstock.ModelCache()
    closed: list[Any] = []
    cache.loader("a", close=closed.append)(Counted())
    lease = await cache.acquire("a")
    await cache.aclose(timeout=0.05)
    assert "still has a@1" in caplog.text
    assert lease.value["load"] == 1
    lease.release()
    await soon(lambda: closed)
    await cache.aclose()


def test_a_cache_can_be_looked_at_in_a_notebook(cache: penstock.ModelCache) -> None:
    cache.loader("a")(Counted())
    cache.acquire("a").wait()
    assert "<table>" in cache.stats()._repr_html_()
    assert "<td>a</td>" in cache.index()._repr_html_()
    what_if = cache.what_if("1GiB")
    assert what_if.memory == 1 << 30
    assert "hit rate" in what_if._repr_html_()
    assert repr(cache) == "<penstock.ModelCache 1 of 1 models loaded, memory=None>"


async def test_a_policy_of_ones_own_chooses_what_leaves() -> None:
    asked: list[str] = []

    def keep_large_names(entry: penstock.models.ModelEntry) -> float:
        asked.append(entry.name)
        assert (entry.bytes, entry.version) == (10, "1")
        return float(entry.name == "b")

    with penstock.ModelCache(memory=20, policy=keep_large_names) as cache:
        for name in "abc":
            cache.loader(name, sizeof=lambda _model: 10)(Counted())
        await cache.preload("b")
        await cache.preload("a")
        async with cache.acquire("c"):
            assert [row.state for row in cache.index()] == ["unloaded", "ready", "ready"]
        assert sorted(asked) == ["a", "b"]
        assert cache.stats().evictions == {"space": 1}


async def test_a_policy_that_raises_is_done_without(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_entry: penstock.models.ModelEntry) -> float:
        raise ValueError("broken")

    with penstock.ModelCache(memory=10, policy=broken) as cache:
        for name in "ab":
            cache.loader(name, sizeof=lambda _model: 10)(Counted())
        await cache.preload("a")
        async with cache.acquire("b"):
            assert state(cache, "a") == "unloaded"
    assert "policy of a model cache raised" in caplog.text


async def test_a_fallback_is_given_where_a_model_cannot_be_loaded(cache: penstock.ModelCache) -> None:
    @cache.loader("large", retries=0, fallback="small")
    def load(_ctx: LoadContext) -> None:
        raise ValueError("too large")

    cache.loader("small")(Counted())
    lease = await cache.acquire("large")
    assert (lease.name, lease.fallback, lease.value["name"]) == ("small", True, "small")
    async with cache.acquire("large") as model:
        assert model["name"] == "small"


async def test_two_caches_and_two_loops_share_nothing(cache: penstock.ModelCache) -> None:
    cache.loader("a")(Counted())
    await await_lease(cache, "a")

    def elsewhere() -> int:
        async def main() -> int:
            async with cache.acquire("a") as model:
                return int(model["load"])

        return asyncio.run(main())

    assert await asyncio.to_thread(elsewhere) == 1


async def test_what_is_predicted_is_loaded_ahead_and_a_cache_that_predicts_works_as_any_other() -> None:
    with penstock.ModelCache(memory=1000, predict=0.5) as cache:
        for name in "abc":
            cache.loader(name, sizeof=lambda _model: 10)(Counted())
        for _ in range(100):
            for name in "ab":
                async with cache.acquire(name, session="user") as model:
                    assert model["name"] == name
        stats = cache.stats()
        assert (stats.hits, stats.misses, stats.loads) == (198, 2, 2)
        assert stats.predictions is not None
        assert stats.predictions.ever.requests == 200
        assert stats.predictions.sessions_known == 1
        assert "predictions" in stats._repr_html_()
