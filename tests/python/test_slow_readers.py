"""Readers of streams that are too slow: their requests pause, and nobody else's."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import TYPE_CHECKING, Any

import pytest

from penstock import Batch, Batcher, Stream, batched
from penstock._steps import STREAM_BUFFER
from penstock.errors import Closed, ConfigError, StreamError
from tests.python.support.waiting import PATIENCE, outcomes, soon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

MANY = 3 * STREAM_BUFFER


def count_up(batch: Batch) -> Iterator[dict[int, int]]:
    """Counts to the number of each request; what it knows of a request it keeps until that is finished."""
    at = dict.fromkeys(batch, 0)
    while batch.live:
        step = {i: at[i] + 1 for i in batch}
        at.update(step)
        yield step
        for i, value in step.items():
            if value >= batch_item(batch, i, value):
                batch.finish(i)
        at.update(dict.fromkeys(batch.join(), 0))


def batch_item(batch: Batch, index: int, otherwise: int) -> int:
    """The number of a request; one that has left is at its end."""
    if index in batch or index in batch.paused:
        number: int = batch[index]
        return number
    return otherwise


async def count_up_async(batch: Batch) -> AsyncIterator[dict[int, int]]:
    for step in count_up(batch):
        yield step


def never_joins(batch: Batch) -> Iterator[dict[int, int]]:
    at = dict.fromkeys(batch, 0)
    while batch.live:
        step = {i: at[i] + 1 for i in batch}
        at.update(step)
        yield step
        for i, value in step.items():
            if value >= batch_item(batch, i, value):
                batch.finish(i)


KINDS = [count_up, count_up_async, never_joins]


@pytest.mark.parametrize("function", KINDS)
async def test_a_slow_reader_pauses_its_own_request_and_nobody_elses(function: Any) -> None:
    steps = Batcher[Any](function, max_batch_size=8)
    async with steps:
        slow, quick = steps.stream(MANY), [steps.stream(MANY) for _ in range(3)]
        whole = steps(MANY)
        assert await anext(slow) == 1
        seen = await asyncio.wait_for(asyncio.gather(*(everything(stream) for stream in quick)), PATIENCE)
        assert seen == [list(range(1, MANY + 1))] * 3
        assert len(await asyncio.wait_for(whole, PATIENCE)) == MANY
        # It was held up where it was, within a few steps, and goes on from there.
        assert len(slow._feed.values) <= STREAM_BUFFER + 4
        assert await asyncio.wait_for(everything(slow), PATIENCE) == list(range(2, MANY + 1))


@pytest.mark.parametrize("function", KINDS)
async def test_where_all_are_slow_the_batch_waits_for_them(function: Any) -> None:
    steps = Batcher[Any](function, max_batch_size=8)
    async with steps:
        streams = [steps.stream(MANY) for _ in range(3)]
        firsts = [await asyncio.wait_for(anext(stream), PATIENCE) for stream in streams]
        assert firsts == [1, 1, 1]
        await soon(lambda: all(len(stream._feed.values) >= STREAM_BUFFER - 1 for stream in streams))
        await asyncio.sleep(0.05)
        assert all(len(stream._feed.values) <= STREAM_BUFFER + 2 for stream in streams)
        seen = await asyncio.wait_for(asyncio.gather(*(everything(stream) for stream in streams)), PATIENCE)
        assert seen == [list(range(2, MANY + 1))] * 3


@pytest.mark.parametrize("function", [count_up, count_up_async])
async def test_others_join_a_batch_whose_readers_are_all_slow(function: Any) -> None:
    steps = Batcher[Any](function, max_batch_size=8)
    async with steps:
        slow = [steps.stream(MANY) for _ in range(2)]
        for stream in slow:
            assert await asyncio.wait_for(anext(stream), PATIENCE) == 1
        await soon(lambda: all(len(stream._feed.values) >= STREAM_BUFFER - 1 for stream in slow))
        for number in (5, 7, 9):
            assert await asyncio.wait_for(steps(number), PATIENCE) == list(range(1, number + 1))
        assert all(len(stream._feed.values) <= STREAM_BUFFER + 8 for stream in slow)
        for stream in slow:
            assert await asyncio.wait_for(everything(stream), PATIENCE) == list(range(2, MANY + 1))


async def test_a_slow_reader_that_leaves_ends_the_wait_and_the_batch() -> None:
    closed = threading.Event()

    @batched
    def steps(batch: Batch) -> Iterator[list[int]]:
        try:
            while batch.live:
                yield [1 for _ in batch]
                batch.join()
        finally:
            closed.set()

    streams = [steps.stream(0) for _ in range(2)]
    for stream in streams:
        await asyncio.wait_for(anext(stream), PATIENCE)
    await soon(lambda: all(stream._feed.paused for stream in streams))
    await streams.pop().aclose()
    # The batch hears of each by itself.
    await asyncio.sleep(0.05)
    del stream
    streams.clear()
    gc.collect()
    assert await asyncio.to_thread(closed.wait, PATIENCE)


async def test_a_function_that_ends_while_somebody_is_paused_fails_his_stream() -> None:
    @batched
    def steps(batch: Batch) -> Iterator[list[int]]:
        for step in range(2 * STREAM_BUFFER):
            yield [step for _ in batch]

    slow, all_of_it = steps.stream(0), steps(1)
    assert len(await asyncio.wait_for(all_of_it, PATIENCE)) == 2 * STREAM_BUFFER
    values: list[int] = []
    with pytest.raises(StreamError, match="ended while the reader"):
        await drain(slow, values)
    assert values == list(range(STREAM_BUFFER))


async def test_closing_without_draining_fails_whoever_is_waited_for() -> None:
    def endless(batch: Batch) -> Iterator[list[int]]:
        while batch.live:
            yield [1 for _ in batch]

    steps = Batcher[Any](endless)
    stream = steps.stream(0)
    await asyncio.wait_for(anext(stream), PATIENCE)
    await soon(lambda: stream._feed.paused)
    await asyncio.wait_for(steps.aclose(drain=False), PATIENCE)
    with pytest.raises(Closed, match="too slow"):
        await everything(stream)


async def test_a_buffer_keeps_everything_and_drop_leaves_out_what_has_no_room() -> None:
    steps = Batcher[Any](count_up)
    async with steps:
        kept = steps.options(slow_reader="buffer").stream(MANY)
        left_out = steps.options(slow_reader="drop").stream(MANY)
        assert len(await asyncio.wait_for(steps(MANY), PATIENCE)) == MANY
        assert await everything(kept) == list(range(1, MANY + 1))
        values = await everything(left_out)
        assert values == list(range(1, len(values) + 1))
        assert len(values) == STREAM_BUFFER
        assert left_out._feed.dropped == MANY - STREAM_BUFFER


async def test_the_reader_of_an_inline_batcher_cannot_be_waited_for() -> None:
    steps = Batcher[Any](count_up, workers="inline")
    stream = steps.stream(2 * STREAM_BUFFER)
    values: list[int] = []
    with pytest.raises(StreamError, match="values behind"):
        await drain(stream, values)
    assert len(values) == STREAM_BUFFER


def test_the_policy_is_one_of_three() -> None:
    with pytest.raises(ConfigError, match="slow_reader"):
        Batcher[Any](count_up).options(slow_reader="wait")  # type: ignore[arg-type]


async def test_a_failure_while_somebody_is_paused_reaches_him_after_his_values() -> None:
    @batched
    def steps(batch: Batch) -> Iterator[list[int]]:
        for step in range(MANY):
            yield [step for _ in batch]
        raise ValueError("later")

    stream, other = steps.stream(0), steps(1)
    (failure,) = await outcomes([other])
    assert "later" in str(failure)
    values: list[int] = []
    with pytest.raises(Exception, match="later"):
        await drain(stream, values)
    assert values == list(range(STREAM_BUFFER))


async def everything(stream: Stream[int]) -> list[int]:
    return [value async for value in stream]


async def drain(stream: Stream[int], values: list[int]) -> None:
    async for value in stream:
        values.append(value)  # noqa: PERF401  those before a failure are wanted
