"""Event loops: the matrix that async tests run on, and what a batcher asks of a loop."""

from __future__ import annotations

import asyncio
import sys
import threading

import pytest
import uvloop

from penstock import Batcher, batched
from tests.python.support.loops import FACTORIES
from tests.python.support.waiting import Gate, soon


def echo(x: list) -> list:
    return x


def test_every_async_test_is_collected_once_for_each_loop(request: pytest.FixtureRequest) -> None:
    variants: dict[str, list[str]] = {}
    for item in request.session.items:
        if isinstance(item, pytest.Function) and asyncio.iscoroutinefunction(item.obj):
            rest = [part for part in item.callspec.id.split("-") if part]
            loop = next(name for name in FACTORIES if name in item.callspec.id)
            key = item.nodeid.replace(loop, "*")
            variants.setdefault(key, []).append(loop)
            assert rest
    assert variants
    assert {frozenset(loops) for loops in variants.values()} == {frozenset(FACTORIES)}
    assert all(len(loops) == len(FACTORIES) for loops in variants.values())


async def test_an_async_test_runs_on_the_loop_that_its_name_says(request: pytest.FixtureRequest) -> None:
    loop = asyncio.get_running_loop()
    name = request.node.callspec.id
    if name == "uvloop":
        assert isinstance(loop, uvloop.Loop)
    elif name == "asyncio-debug":
        assert isinstance(loop, asyncio.SelectorEventLoop)
        assert loop.get_debug()
    else:
        assert name == "asyncio-eager"
        assert loop.get_task_factory() is asyncio.eager_task_factory


def test_the_matrix_has_eager_tasks_where_python_has_them() -> None:
    assert ("asyncio-eager" in FACTORIES) == (sys.version_info >= (3, 12))
    assert {"asyncio-debug", "uvloop"} <= set(FACTORIES)


def test_awaiting_needs_a_running_loop_and_says_what_to_do_instead() -> None:
    with pytest.raises(RuntimeError, match=r"\.call"):
        batched(echo)("item")


async def test_the_awaitable_is_a_future_of_the_running_loop() -> None:
    future = batched(echo)("item")
    assert asyncio.isfuture(future)
    assert future.get_loop() is asyncio.get_running_loop()
    assert await future == "item"


async def test_a_future_can_be_awaited_many_times_and_by_many() -> None:
    future = batched(echo)("item")
    assert await asyncio.gather(future, asyncio.shield(future)) == ["item", "item"]
    assert await future == "item"


async def test_ten_thousand_awaiters_at_once_get_their_own_rows() -> None:
    double = batched(lambda x: x * 2, max_batch_size=256)
    rows = await asyncio.gather(*(double(number) for number in range(10_000)))
    assert rows == [number * 2 for number in range(10_000)]


async def test_a_chain_of_calls_within_one_task_works() -> None:
    increment = batched(lambda x: x + 1)
    value = 0
    for _ in range(200):
        value = await increment(int(value))
    assert value == 200


async def test_tasks_of_a_task_group_share_a_batch() -> None:
    f = batched(echo)

    async def one(number: int) -> str:
        return await f(str(number))

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(number)) for number in range(50)]
    assert [task.result() for task in tasks] == [str(number) for number in range(50)]
    assert f.stats().batches == 1


async def test_a_tick_with_two_batchers_serves_both() -> None:
    first, second = batched(echo), batched(lambda x: x * 3)
    rows = await asyncio.gather(*(f(number) for number in range(10) for f in (first_number(first), second)))
    assert rows[1::2] == [number * 3 for number in range(10)]
    assert rows[0::2] == [str(number) for number in range(10)]
    assert (first.stats().batches, second.stats().batches) == (1, 1)


def first_number(batcher: Batcher[str]):
    return lambda number: batcher(str(number))


async def test_cancelling_while_the_function_runs_drops_only_that_result(gate: Gate) -> None:
    f = batched(gate.run)
    futures = [f(number) for number in range(3)]
    await gate.is_entered()
    assert futures[1].cancel()
    gate.open()
    assert await asyncio.gather(futures[0], futures[2]) == [0, 20]
    assert futures[1].cancelled()
    assert await f(5) == 50


async def test_a_result_set_by_the_owner_of_the_future_stands(gate: Gate) -> None:
    f = batched(gate.run)
    future = f(1)
    await gate.is_entered()
    future.set_result("mine")
    gate.open()
    assert await f(2) == 20
    assert await future == "mine"


async def test_cancelling_a_task_before_its_batch_keeps_the_item_from_the_function(gate: Gate) -> None:
    f = batched(gate.run)
    blocker = f(0)
    await gate.is_entered()

    async def one() -> int:
        return await f(1)

    task = asyncio.ensure_future(one())
    await soon(lambda: f.stats().queued == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.open()
    assert await blocker == 0
    assert await f(2) == 20
    assert gate.seen == [0, 2]
    assert f.stats().abandoned == 1


async def test_wait_for_that_times_out_leaves_the_batch(gate: Gate) -> None:
    f = batched(gate.run)
    blocker = f(0)
    await gate.is_entered()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(f(1), 0.01)
    gate.open()
    await blocker
    assert await f(2) == 20
    assert gate.seen == [0, 2]


async def test_answers_come_in_the_thread_of_the_loop() -> None:
    f = batched(echo)
    threads = []
    futures = [f(str(number)) for number in range(5)]
    for future in futures:
        future.add_done_callback(lambda _: threads.append(threading.current_thread()))
    await asyncio.gather(*futures)
    await soon(lambda: len(threads) == 5)
    assert set(threads) == {threading.current_thread()}
