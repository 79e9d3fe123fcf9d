"""Loaders that raise, hang, lie or end: an error that names the model and the chain, and a cache that stays right."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penstock
from penstock.errors import (
    CapacityError,
    ChecksumMismatch,
    Closed,
    ConfigError,
    DeadlineExceeded,
    LoadFailed,
    LoadTimeout,
    ModelNotReady,
    OutputError,
)
from tests.python.support.waiting import PATIENCE, soon, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.models import LoadContext


@pytest.fixture
def cache() -> Iterator[penstock.ModelCache]:
    with penstock.ModelCache() as cache:
        yield cache


def state(cache: penstock.ModelCache, name: str) -> str:
    return next(row.state for row in cache.index() if row.name == name)


async def failure(cache: penstock.ModelCache, name: str) -> BaseException:
    with pytest.raises(penstock.PenstockError) as caught:
        await cache.acquire(name)
    return caught.value


async def test_what_a_loader_raised_is_the_cause_also_when_it_is_remembered(cache: penstock.ModelCache) -> None:
    loads = []
    raised = ValueError("no such file")

    @cache.loader("a", retries=0)
    def load(_ctx: LoadContext) -> None:
        loads.append(1)
        raise raised

    first, second = await failure(cache, "a"), await failure(cache, "a")
    for error in (first, second):
        assert isinstance(error, LoadFailed)
        assert str(error) == "model 'a' failed to load: ValueError: no such file"
        assert error.__cause__ is raised
        assert error.retry_after is not None
        assert 0 < error.retry_after <= 5
    assert first is not second
    assert len(loads) == 1
    assert state(cache, "a") == "failed"
    with pytest.raises(LoadFailed) as caught:
        cache.acquire("a").wait()
    assert caught.value.__cause__ is raised


async def test_the_error_names_the_chain(cache: penstock.ModelCache) -> None:
    @cache.loader("tokenizer", retries=0)
    async def load(_ctx: LoadContext) -> None:
        raise KeyError("vocab")

    cache.loader("encoder", requires="tokenizer")(lambda _ctx: 1)
    cache.loader("head", requires="encoder")(lambda _ctx: 1)
    error = await failure(cache, "head")
    assert str(error) == (
        "model 'head' needs 'encoder', which needs 'tokenizer', which failed to load: KeyError: 'vocab'"
    )
    assert isinstance(error.__cause__, KeyError)


async def test_everybody_who_waits_gets_an_error_of_his_own(cache: penstock.ModelCache) -> None:
    gate = threading.Event()

    @cache.loader("a", retries=0)
    def load(_ctx: LoadContext) -> None:
        gate.wait(PATIENCE)
        raise ValueError("no")

    tasks = [asyncio.ensure_future(failure(cache, "a")) for _ in range(50)]
    await soon(lambda: state(cache, "a") == "loading")
    gate.set()
    errors = await asyncio.gather(*tasks)
    assert len(set(map(id, errors))) == 50
    assert len({id(error.__cause__) for error in errors}) == 1


async def test_a_load_is_tried_again_within_one_request(cache: penstock.ModelCache) -> None:
    attempts = []

    @cache.loader("a", retries=2, backoff=0.001)
    def load(ctx: LoadContext) -> str:
        attempts.append(ctx.attempt)
        if ctx.attempt < 3:
            raise OSError("flaky")
        return "model"

    async with cache.acquire("a") as model:
        assert model == "model"
    assert attempts == [1, 2, 3]
    assert cache.stats().retries == 2
    assert cache.stats().failures == 0


async def test_vera_134_failure_expires() -> None:
    clock = penstock.VirtualClock()
    with penstock.ModelCache(failure_memory=5, clock=clock) as cache:
        broken = [True]

        @cache.loader("a", retries=0)
        def load(_ctx: LoadContext) -> str:
            if broken:
                raise ValueError("no")
            return "model"

        await failure(cache, "a")
        broken.clear()
        assert isinstance(await failure(cache, "a"), LoadFailed)
        clock.advance(5)
        async with cache.acquire("a") as model:
            assert model == "model"


async def test_a_reload_forgives(cache: penstock.ModelCache) -> None:
    broken = [True]

    @cache.loader("a", retries=0)
    def load(_ctx: LoadContext) -> str:
        if broken:
            raise ValueError("no")
        return "model"

    await failure(cache, "a")
    broken.clear()
    await cache.reload("a")
    async with cache.acquire("a") as model:
        assert model == "model"


async def test_a_loader_that_returns_none_is_refused_and_not_tried_again(cache: penstock.ModelCache) -> None:
    loads = []
    cache.loader("a", retries=3)(loads.append)
    error = await failure(cache, "a")
    assert isinstance(error, LoadFailed)
    assert isinstance(error.__cause__, OutputError)
    assert "returned None" in str(error)
    assert len(loads) == 1


@pytest.mark.parametrize("end", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
async def test_a_loader_that_ends_its_thread_fails_like_any_other(
    end: BaseException, cache: penstock.ModelCache
) -> None:
    @cache.loader("a")
    def load(_ctx: LoadContext) -> None:
        raise end

    error = await failure(cache, "a")
    assert isinstance(error, LoadFailed)
    assert error.__cause__ is end
    cache.loader("b")(lambda _ctx: "model")
    async with cache.acquire("b") as model:
        assert model == "model"


async def test_errors_of_penstocks_own_keep_their_cause(cache: penstock.ModelCache) -> None:
    @cache.loader("a", retries=2)
    def load(_ctx: LoadContext) -> None:
        raise ChecksumMismatch("not the file that was promised")

    error = await failure(cache, "a")
    assert isinstance(error.__cause__, ChecksumMismatch)
    assert "not the file that was promised" in str(error)
    assert cache.stats().retries == 0


async def test_a_warmup_that_raises_is_a_load_that_failed(cache: penstock.ModelCache) -> None:
    def warmup(_model: Any) -> None:
        raise ValueError("cold")

    cache.loader("a", warmup=warmup, retries=0)(lambda _ctx: "model")
    assert "cold" in str(await failure(cache, "a"))


@pytest.mark.parametrize("size", [-1, "many", 1.5, None, True])
async def test_a_sizeof_that_gives_no_size_is_a_load_that_failed(size: Any, cache: penstock.ModelCache) -> None:
    cache.loader("a", sizeof=lambda _model: size, retries=0)(lambda _ctx: "model")
    error = await failure(cache, "a")
    assert isinstance(error, LoadFailed)
    assert isinstance(error.__cause__, ConfigError)
    assert "sizeof" in str(error)


@pytest.mark.parametrize("where", ["load", "warmup", "sizeof"])
async def test_a_failed_load_holds_on_to_nothing(where: str, cache: penstock.ModelCache) -> None:
    made: list[weakref.ref[Any]] = []

    def array() -> np.ndarray:
        made.append(weakref.ref(new := np.zeros(10)))
        return new

    def fails(_model: Any) -> None:
        raise ValueError("no")

    cache.loader("b")(lambda _ctx: array())

    def load(ctx: LoadContext) -> Any:
        half = [array(), ctx["b"]]
        if where == "load":
            fails(half)
        return half

    cache.loader("a", requires="b", retries=0, **({} if where == "load" else {where: fails}))(load)
    error = await failure(cache, "a")
    await cache.unload("b")
    gc.collect()
    await soon(lambda: [each() for each in made] == [None, None])
    assert isinstance(error.__cause__, ValueError)


async def test_exceptions_are_let_go_of_with_what_was_remembered(cache: penstock.ModelCache) -> None:
    class Trackable(Exception):
        pass

    kept: list[weakref.ref[Any]] = []

    @cache.loader("a", retries=0)
    def load(_ctx: LoadContext) -> str:
        if kept:
            return "model"
        error = Trackable()
        kept.append(weakref.ref(error))
        raise error

    await failure(cache, "a")
    assert kept[0]() is not None
    await cache.reload("a")
    await cache.unload("a")
    for _ in range(3):
        await cache.reload("a")
    gc.collect()
    assert kept[0]() is None


async def test_a_loader_that_hangs_times_out_and_is_told(cache: penstock.ModelCache) -> None:
    gate, cancelled = threading.Event(), threading.Event()

    @cache.loader("a", timeout=0.05, retries=0)
    def load(ctx: LoadContext) -> str:
        until(lambda: ctx.cancelled)
        with pytest.raises(LoadFailed, match="no longer wanted"):
            ctx.progress(0.5)
        cancelled.set()
        gate.wait(PATIENCE)
        return "late"

    error = await failure(cache, "a")
    assert isinstance(error, LoadTimeout)
    assert "'a'" in str(error)
    await soon(cancelled.is_set)
    stats = cache.stats()
    assert (stats.timeouts, stats.stuck) == (1, 1)
    gate.set()


async def test_an_async_loader_that_hangs_is_cancelled(cache: penstock.ModelCache) -> None:
    cancelled = threading.Event()

    @cache.loader("a", timeout=0.05, retries=0)
    async def load(_ctx: LoadContext) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    assert isinstance(await failure(cache, "a"), LoadTimeout)
    await soon(cancelled.is_set)
    await soon(lambda: not cache.stats().stuck)


async def test_roboflow_2947_late_completion_sets_ready(cache: penstock.ModelCache) -> None:
    gate = threading.Event()

    @cache.loader("a", timeout=0.05, retries=0)
    def load(_ctx: LoadContext) -> str:
        gate.wait(PATIENCE)
        return "late"

    assert isinstance(await failure(cache, "a"), LoadTimeout)
    gate.set()
    await soon(lambda: state(cache, "a") == "ready")
    async with cache.acquire("a") as model:
        assert model == "late"


async def test_ollama_14578_hit_not_blocked_by_load(cache: penstock.ModelCache) -> None:
    gate = threading.Event()
    cache.loader("resident")(lambda _ctx: "model")
    await cache.preload("resident")
    for at in range(5):
        cache.loader(f"slow{at}")(lambda _ctx: gate.wait(PATIENCE))
    loads = cache.preload(*(f"slow{at}" for at in range(5)))
    await soon(lambda: cache.stats().loading == 3)
    ran: list[int] = []
    asyncio.get_running_loop().call_soon(ran.append, 1)
    for _ in range(100):
        async with cache.acquire("resident") as model:
            assert model == "model"
    assert not ran
    gate.set()
    await loads


async def test_unload_during_load_tells_who_waits(cache: penstock.ModelCache) -> None:
    gate = threading.Event()
    cache.loader("a")(lambda _ctx: gate.wait(PATIENCE))
    waiting = asyncio.ensure_future(failure(cache, "a"))
    await soon(lambda: state(cache, "a") == "loading")
    unloading = cache.unload("a")
    assert isinstance(await waiting, ModelNotReady)
    gate.set()
    await unloading
    assert state(cache, "a") == "unloaded"


async def test_triton_3583_unload_between_load_and_use(cache: penstock.ModelCache) -> None:
    """Who has asked for a model has it, whoever unloads it meanwhile."""
    closed: list[Any] = []
    cache.loader("a", close=closed.append)(lambda _ctx: ["model"])
    for _ in range(50):
        lease = await cache.acquire("a")
        unloading = cache.unload("a")
        assert lease.value == ["model"]
        assert not closed
        lease.release()
        await unloading
        assert len(closed) == 1
        closed.clear()


async def test_lswap_946_request_during_ttl_unload(cache: penstock.ModelCache) -> None:
    """A request that comes while a model is being unloaded is answered by a new load, and does not hang."""
    gate = threading.Event()
    loads: list[int] = []

    def load(_ctx: LoadContext) -> list[int]:
        loads.append(1)
        return [len(loads)]

    cache.loader("a", close=lambda _model: gate.wait(PATIENCE))(load)
    await cache.preload("a")
    unloading = cache.unload("a")
    asked = asyncio.ensure_future(acquired(cache, "a"))
    await asyncio.sleep(0.05)
    gate.set()
    await unloading
    assert await asked == [2]


async def acquired(cache: penstock.ModelCache, name: str) -> Any:
    async with cache.acquire(name, timeout=PATIENCE) as model:
        return model


async def test_a_loader_that_asks_for_itself_times_out(cache: penstock.ModelCache) -> None:
    @cache.loader("a", timeout=0.2, retries=0)
    def load(_ctx: LoadContext) -> Any:
        return cache.acquire("a").wait().value

    assert isinstance(await failure(cache, "a"), LoadTimeout)


def test_ray_evicted_before_return() -> None:
    """A model that was loaded for somebody is his before it can be evicted, with room for one and many who ask."""
    with penstock.ModelCache(memory=10) as cache:
        for name in "abcd":
            cache.loader(name, sizeof=lambda _model: 10)(lambda ctx: [ctx.name])
        wrong: list[Any] = []

        def work(name: str) -> None:
            for _ in range(20):
                with cache.acquire(name, timeout=PATIENCE) as model:
                    if model != [name]:
                        wrong.append(model)

        threads = [threading.Thread(target=work, args=(name,)) for name in "abcd" * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE * 2)
            assert not thread.is_alive()
        assert not wrong
        assert cache.stats().bytes.used <= 10


async def test_llamacpp_28443_two_cold_one_slot() -> None:
    with penstock.ModelCache(memory=10, max_loads=1) as cache:
        for name in "ab":
            cache.loader(name, sizeof=lambda _model: 10)(lambda ctx: [ctx.name])
        both = await asyncio.wait_for(asyncio.gather(acquired(cache, "a"), acquired(cache, "b")), PATIENCE)
        assert both == [["a"], ["b"]]


async def test_llamacpp_18373_all_pinned_errors() -> None:
    with penstock.ModelCache(memory=10) as cache:
        cache.loader("a", size=10, pinned=True, sizeof=lambda _model: 10)(lambda _ctx: 1)
        cache.loader("b", size=5)(lambda _ctx: 1)
        await cache.preload("a")
        error = await failure(cache, "b")
        assert isinstance(error, CapacityError)
        assert "'b'" in str(error)
        assert "pinned" in str(error)
        assert state(cache, "a") == "ready"


async def test_a_model_larger_than_the_memory_is_refused_by_what_it_says_and_by_what_it_is() -> None:
    with penstock.ModelCache(memory="1MiB") as cache:
        loads: list[int] = []
        cache.loader("says", size="2MiB")(loads.append)
        assert isinstance(await failure(cache, "says"), CapacityError)
        assert not loads
        closed: list[Any] = []
        cache.loader("is", retries=0, close=closed.append)(lambda _ctx: np.zeros(1 << 20))
        assert isinstance(await failure(cache, "is"), CapacityError)
        await soon(lambda: closed)
        closed.clear()
        gc.collect()
        await soon(lambda: cache.stats().bytes.used == 0)


async def test_modelmesh_511_underprediction_does_not_evict_only_model() -> None:
    with penstock.ModelCache(memory=100) as cache:
        cache.loader("a", size=10, sizeof=lambda _model: 90)(lambda _ctx: ["model"])
        async with cache.acquire("a") as model:
            assert model == ["model"]
        assert state(cache, "a") == "ready"
        assert cache.stats().bytes.ready == 90


async def test_modelmesh_341_cyclic_scan() -> None:
    with penstock.ModelCache(memory=30) as cache:
        for name in "abcd":
            cache.loader(name, sizeof=lambda _model: 10)(lambda ctx: [ctx.name])
        for _ in range(3):
            for name in "abcd":
                assert await acquired(cache, name) == [name]
        stats = cache.stats()
        assert stats.failures == 0
        assert stats.hits + stats.misses == 12


async def test_ollama_17408_resurrected_victim() -> None:
    """Requests for models that are being evicted, over and over: nobody waits for ever, and the cache stays well."""
    with penstock.ModelCache(memory=20, max_loads=2) as cache:
        for name in "abc":
            cache.loader(name, sizeof=lambda _model: 10)(lambda ctx: [ctx.name])

        async def work(offset: int) -> None:
            for at in range(60):
                name = "abc"[(at + offset) % 3]
                async with cache.acquire(name, timeout=PATIENCE) as model:
                    assert model == [name]
                    await asyncio.sleep(0)

        await asyncio.wait_for(asyncio.gather(*(work(offset) for offset in range(2))), PATIENCE * 2)
        await soon(lambda: cache.stats().bytes.reserved == 0)
        assert cache.stats().bytes.used <= 20


async def test_triton_7018_double_load_dag(cache: penstock.ModelCache) -> None:
    """Two models that share a dependency, asked for at once, load it once."""
    loads: list[str] = []

    def load(ctx: LoadContext) -> str:
        loads.append(ctx.name)
        return ctx.name

    cache.loader("shared")(load)
    cache.loader("a", requires="shared")(load)
    cache.loader("b", requires="shared")(load)
    await asyncio.gather(acquired(cache, "a"), acquired(cache, "b"), acquired(cache, "shared"))
    assert sorted(loads) == ["a", "b", "shared"]


async def test_shutdown_with_loads_in_flight_tells_everybody() -> None:
    gate = threading.Event()
    cache = penstock.ModelCache(max_loads=2)
    for at in range(6):
        cache.loader(f"m{at}")(lambda _ctx: gate.wait(PATIENCE))
    waiting = [asyncio.ensure_future(failure(cache, f"m{at}")) for at in range(6)]
    await soon(lambda: cache.stats().loading == 2)
    closing = asyncio.ensure_future(cache.aclose(timeout=PATIENCE))
    errors = await asyncio.gather(*waiting)
    assert all(isinstance(error, Closed) for error in errors)
    gate.set()
    await closing
    assert cache.stats().bytes.used == 0


async def test_a_load_that_outlasts_its_cache_is_closed_and_let_go_of() -> None:
    gate, closed = threading.Event(), threading.Event()
    made: list[weakref.ref[Any]] = []

    def load(_ctx: LoadContext) -> np.ndarray:
        gate.wait(PATIENCE)
        made.append(weakref.ref(model := np.zeros(10)))
        return model

    cache = penstock.ModelCache()
    cache.loader("a", timeout=0.05, retries=0, close=lambda _model: closed.set())(load)
    assert isinstance(await failure(cache, "a"), LoadTimeout)
    await cache.aclose()
    gate.set()
    await soon(closed.is_set)
    await soon(lambda: made[0]() is None)


async def test_waiting_for_memory_that_is_in_use_ends_when_the_time_is_up() -> None:
    with penstock.ModelCache(memory=10, space_timeout=0.05) as cache:
        for name in "ab":
            cache.loader(name, size=10, sizeof=lambda _model: 10, retries=0)(lambda _ctx: 1)
        async with cache.acquire("a"):
            error = await failure(cache, "b")
        assert isinstance(error, CapacityError | DeadlineExceeded)
        assert "'b'" in str(error)
