"""Generator functions: a batch that is answered step by step, while requests leave and join it."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

from penstock import Batch, ItemError, Stream, batched
from penstock._steps import Feed
from penstock.errors import Closed, ConfigError, DeadlineExceeded, ModelError, OutputError
from tests.python.support.waiting import PATIENCE, outcomes, soon, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


def count_up(batch: Batch) -> Iterator[dict[int, int]]:
    """A decoder in miniature: every request counts to its number, and joins between steps."""
    at: dict[int, int] = {}
    while batch.live:
        at = {i: at.get(i, 0) + 1 for i in batch}
        yield dict(at)
        for i in batch.live:
            if at[i] >= batch[i]:
                batch.finish(i)
        batch.join()


async def count_up_async(batch: Batch) -> AsyncIterator[dict[int, int]]:
    at: dict[int, int] = {}
    while batch.live:
        at = {i: at.get(i, 0) + 1 for i in batch}
        await asyncio.sleep(0)
        yield dict(at)
        for i in batch.live:
            if at[i] >= batch[i]:
                batch.finish(i)
        batch.join()


KINDS = [count_up, count_up_async]


async def drain(stream: Stream[int], values: list[int]) -> None:
    async for value in stream:
        values.append(value)  # noqa: PERF401  those before a failure are wanted


class Turnstile:
    """Lets a generator take one step at a time."""

    def __init__(self) -> None:
        self.steps = threading.Semaphore(0)
        self.waiting = threading.Event()

    def wait(self) -> None:
        self.waiting.set()
        assert self.steps.acquire(timeout=PATIENCE)
        self.waiting.clear()

    async def step(self) -> None:
        """Lets it take a step, and waits until it stands at the next."""
        await soon(self.waiting.is_set)
        self.waiting.clear()
        self.steps.release()
        await soon(self.waiting.is_set)

    def open(self) -> None:
        self.steps.release(10_000)


@pytest.fixture
def turnstile() -> Iterator[Turnstile]:
    turnstile = Turnstile()
    yield turnstile
    turnstile.open()


@pytest.mark.parametrize("function", KINDS)
async def test_every_request_gets_the_values_of_its_own_steps(function: Any) -> None:
    f = batched(function, max_batch_size=8)
    counts = await asyncio.wait_for(asyncio.gather(*(f(n) for n in range(1, 31))), PATIENCE)
    assert counts == [list(range(1, n + 1)) for n in range(1, 31)]
    assert f.stats().requests == 30
    assert type(counts[4][0]) is int
    assert await asyncio.to_thread(f.call, 3) == [1, 2, 3]
    await f.aclose()


@pytest.mark.parametrize("function", KINDS)
async def test_a_stream_has_the_values_as_they_come(function: Any) -> None:
    f = batched(function, max_batch_size=4)

    async def read(n: int) -> list[int]:
        return [value async for value in f.stream(n)]

    reads = await asyncio.wait_for(asyncio.gather(*(read(n) for n in range(1, 13))), PATIENCE)
    assert reads == [list(range(1, n + 1)) for n in range(1, 13)]


async def test_requests_join_between_steps_and_indices_stay(turnstile: Turnstile) -> None:
    sizes: list[int] = []
    joined: list[list[int]] = []

    @batched(max_batch_size=3)
    def steps(batch: Batch) -> Iterator[list[str]]:
        left = {i: batch[i][1] for i in batch}
        while batch.live:
            turnstile.wait()
            sizes.append(len(batch))
            yield [f"{batch[i][0]}{i}" for i in batch.live]
            for i in batch.live:
                left[i] -= 1
                if not left[i]:
                    batch.finish(i)
            new = batch.join()
            joined.append(new)
            left.update({i: batch[i][1] for i in new})

    first = [steps(("a", 3)), steps(("b", 1))]
    await soon(turnstile.waiting.is_set)
    later = [steps(("c", 2)), steps(("d", 1)), steps(("e", 1))]
    await asyncio.sleep(0.05)
    turnstile.open()
    answers = await asyncio.wait_for(asyncio.gather(*first, *later), PATIENCE)
    assert answers == [["a0", "a0", "a0"], ["b1"], ["c2", "c2"], ["d3"], ["e4"]]
    # Never more than three at a time, and one batch for all of them.
    assert sizes == [2, 3, 3]
    assert joined[:2] == [[2, 3], [4]]
    stats = steps.stats()
    assert (stats.requests, stats.batches, stats.queued) == (5, 1, 0)


async def test_a_limit_joins_so_many_at_most(turnstile: Turnstile) -> None:
    joined: list[list[int]] = []

    @batched
    def steps(batch: Batch) -> Iterator[None]:
        turnstile.wait()
        joined.extend((batch.join(0), batch.join(2), batch.join(), batch.join()))
        yield None

    first = steps(0)
    await soon(turnstile.waiting.is_set)
    later = [steps(n) for n in range(1, 6)]
    await asyncio.sleep(0.05)
    turnstile.open()
    await asyncio.wait_for(asyncio.gather(first, *later), PATIENCE)
    assert joined == [[], [1, 2], [3, 4, 5], []]


async def test_requests_of_the_same_keyword_arguments_join(turnstile: Turnstile) -> None:
    groups: list[tuple[int, list[Any]]] = []

    @batched
    def steps(batch: Batch, *, scale: int = 1) -> Iterator[list[int]]:
        turnstile.wait()
        batch.join()
        groups.append((scale, [batch[i] for i in batch]))
        yield [batch[i] * scale for i in batch]

    first = steps(1, scale=2)
    await soon(turnstile.waiting.is_set)
    later = [steps(2, scale=2), steps(3), steps("text", scale=2), steps((0, 1), scale=3)]
    await asyncio.sleep(0.05)
    turnstile.open()
    assert await asyncio.wait_for(asyncio.gather(first, *later), PATIENCE) == [
        [2],
        [4],
        [3],
        ["texttext"],
        [(0, 1, 0, 1, 0, 1)],
    ]
    assert sorted(groups) == [(1, [3]), (2, [1, 2, "text"]), (3, [(0, 1)])]


async def test_a_finish_gives_the_value_and_leaves_at_once(turnstile: Turnstile) -> None:
    @batched
    def steps(batch: Batch) -> Iterator[list[int]]:
        batch.finish(0, np.full(2, batch[0]))
        assert batch.live == [1, 2]
        assert len(batch) == 2
        assert 0 not in batch
        with pytest.raises(IndexError, match="no live request"):
            batch[0]
        with pytest.raises(IndexError, match="no request"):
            batch.finish(7, 1)
        batch.finish(0, "twice")
        turnstile.wait()
        yield [batch[i] for i in batch]

    early, *rest = steps(5), steps(6), steps(7)
    assert (await asyncio.wait_for(early, PATIENCE)).tolist() == [5, 5]
    assert not rest[0].done()
    turnstile.open()
    assert await asyncio.wait_for(asyncio.gather(*rest), PATIENCE) == [[6], [7]]


async def test_what_is_answered_is_nobody_elses() -> None:
    shared = np.zeros(3)

    @batched
    def steps(batch: Batch) -> Iterator[Any]:
        for step in range(3):
            shared[:] = step
            yield [shared for _ in batch]
        out = np.zeros((len(batch), 2))
        yield out
        out[:] = 7
        batch.finish(0, shared)
        shared[:] = 9

    one, other = await asyncio.gather(steps(1), steps(2))
    assert one.tolist() == [2, 2, 2]
    assert [value.tolist() for value in other] == [[0] * 3, [1] * 3, [2] * 3, [0] * 2]


async def test_a_failure_is_for_one_request_or_for_all_that_are_live() -> None:
    @batched
    def steps(batch: Batch) -> Iterator[Any]:
        batch.fail(0, ItemError("refused"))
        batch.fail(1, ValueError("bad"))
        yield {2: 1, 3: ItemError("in a value's place"), 4: 1}
        batch.finish(2)
        raise RuntimeError("broke")

    errors = await outcomes([steps(n) for n in range(6)])
    assert [type(error) for error in errors] == [ItemError, ModelError, list, ItemError, ModelError, ModelError]
    assert [str(errors[0]), str(errors[3])] == ["refused", "in a value's place"]
    assert isinstance(errors[1].__cause__, ValueError)
    assert isinstance(errors[4].__cause__, RuntimeError)
    assert errors[4] is not errors[5]
    assert (steps.stats().failed, steps.stats().reruns) == (5, 0)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_batch_that_raises_before_its_first_step_is_split(asynchronous: bool) -> None:
    def look(batch: Batch) -> None:
        assert batch.live == list(range(len(batch)))
        if any(batch[i][0] == 5 for i in batch):
            raise ValueError("five")
        for i in batch:
            batch[i][0] = -1

    def steps(batch: Batch) -> Iterator[list[int]]:
        numbers = [batch[i][0] for i in batch]
        look(batch)
        yield numbers

    async def steps_async(batch: Batch) -> AsyncIterator[list[int]]:
        numbers = [batch[i][0] for i in batch]
        look(batch)
        yield numbers

    f = batched(steps_async if asynchronous else steps)
    answers = await outcomes([f(np.full(2, n)) for n in range(8)])
    assert isinstance(answers.pop(5), ModelError)
    assert answers == [[n] for n in (0, 1, 2, 3, 4, 6, 7)]
    assert f.stats().failed == 1

    whole = batched(steps, on_error="fail")
    answers = await outcomes([whole(np.full(2, n)) for n in range(8)])
    assert all(isinstance(answer, ModelError) for answer in answers)


WRONG: dict[str, Any] = {
    "too few": ([1], "list of 1"),
    "too many": (np.zeros(5), r"shape \[5\]"),
    "no rows": (7, "returned a int"),
    "not live": ({0: 1, 9: 2}, "9, which is not live"),
    "a name": ({"a": [1, 2]}, "'a', which is not live"),
}


@pytest.mark.parametrize("case", WRONG)
async def test_a_step_that_does_not_fit_the_batch_fails_it(case: str) -> None:
    value, message = WRONG[case]
    closed: list[bool] = []

    @batched
    def steps(_: Batch) -> Iterator[Any]:
        try:
            yield value
        finally:
            closed.append(True)

    for error in await outcomes([steps(1), steps(2)]):
        assert isinstance(error, OutputError)
        with pytest.raises(OutputError, match=message):
            raise error
    assert closed == [True]


class Point(NamedTuple):
    x: float
    y: np.ndarray


async def test_items_come_back_as_they_were_given() -> None:
    seen: list[Any] = []

    @batched
    def steps(batch: Batch) -> Iterator[None]:
        seen.extend(batch[i] for i in batch)
        yield None

    items: list[tuple[Any, ...]] = [
        (1,),
        (1.5,),
        (True,),
        ("text",),
        ([1, 2],),
        (1, "two"),
    ]
    for item in [*items, (Point(1.0, np.arange(2)),), ({"a": 1, "b": np.arange(3)},), (np.arange(4),)]:
        assert await steps(*item) == []
    assert seen[:6] == [1, 1.5, True, "text", [1, 2], (1, "two")]
    assert [type(item) for item in seen[:3]] == [int, float, bool]
    assert type(seen[6]) is Point
    assert (seen[6].x, seen[6].y.tolist()) == (1.0, [0, 1])
    assert (seen[7]["a"], seen[7]["b"].tolist()) == (1, [0, 1, 2])
    assert seen[8].tolist() == [0, 1, 2, 3]


async def test_who_leaves_is_out_after_the_next_step(turnstile: Turnstile) -> None:
    live: list[list[int]] = []

    @batched
    def steps(batch: Batch) -> Iterator[None]:
        for _ in range(3):
            turnstile.wait()
            live.append(sorted(batch[i] for i in batch))
            yield None

    cancelled, late, stays = steps(0), steps.options(timeout=0.05)(1), steps(2)
    stream, dropped = steps.stream(3), steps.stream(4)
    await soon(turnstile.waiting.is_set)
    await turnstile.step()
    cancelled.cancel()
    await stream.aclose()
    del dropped
    gc.collect()
    with pytest.raises(DeadlineExceeded):
        await late
    await turnstile.step()
    turnstile.open()
    assert await asyncio.wait_for(stays, PATIENCE) == []
    assert live == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [2]]
    assert [value async for value in stream] == []


async def test_where_everybody_leaves_the_generator_is_closed(turnstile: Turnstile) -> None:
    ended: list[str] = []

    @batched
    def steps(_: Batch) -> Iterator[None]:
        try:
            while True:
                turnstile.wait()
                yield None
        except GeneratorExit:
            ended.append("closed")
            raise

    futures = [steps(0), steps(1)]
    await turnstile.step()
    for future in futures:
        future.cancel()
    turnstile.open()
    await asyncio.to_thread(until, lambda: ended)
    await steps.aclose()
    assert steps.stats().running == 0


async def test_breaking_out_of_a_stream_leaves_the_batch() -> None:
    seen = threading.Event()

    @batched
    def steps(batch: Batch) -> Iterator[list[int]]:
        try:
            while True:
                yield [1 for _ in batch]
                threading.Event().wait(0.001)
        finally:
            seen.set()

    async for value in steps.stream(0):
        assert value == 1
        break
    assert await asyncio.to_thread(seen.wait, PATIENCE)


async def test_a_stream_ends_with_the_failure_of_its_request() -> None:
    @batched
    def steps(batch: Batch) -> Iterator[list[int]]:
        yield [1 for _ in batch]
        raise ValueError("later")

    values: list[int] = []
    stream = steps.stream(0)
    with pytest.raises(ModelError, match="later"):
        await drain(stream, values)
    assert values == [1]
    assert [value async for value in stream] == []


async def test_only_generators_have_streams() -> None:
    @batched
    def plain(x: np.ndarray) -> np.ndarray:
        return x

    with pytest.raises(ConfigError, match="generator"):
        plain.stream(1)


async def test_remaining_is_the_time_of_the_earliest_deadline() -> None:
    seen: list[float | None] = []

    @batched
    def steps(batch: Batch) -> Iterator[None]:
        seen.append(batch.remaining())
        for i in batch.live[1:]:
            batch.finish(i)
        seen.append(batch.remaining())
        yield None

    soonest = steps.options(timeout=PATIENCE)
    await asyncio.gather(steps(0), soonest(1), steps.options(timeout=10 * PATIENCE)(2))
    assert seen[0] is not None
    assert 0 < seen[0] <= PATIENCE
    assert seen[1] is None


async def test_identical_requests_share_their_steps() -> None:
    f = batched(count_up, single_flight=True)
    answers = await asyncio.gather(*(f(3) for _ in range(5)), f(4))
    assert answers == [[1, 2, 3]] * 5 + [[1, 2, 3, 4]]
    assert answers[0] is not answers[1]
    assert (f.stats().requests, f.stats().shared) == (2, 4)


def test_a_generator_runs_inline_and_from_threads() -> None:
    f = batched(count_up, workers="inline")
    assert f.call(3) == [1, 2, 3]
    g = batched(count_up, workers=2)
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda n=n: answers.append(g.call(n))) for n in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(answers) == [list(range(1, n + 1)) for n in range(1, 9)]


async def test_an_object_that_is_called_as_a_generator_is_one() -> None:
    class Counter:
        def __call__(self, batch: Batch) -> Iterator[list[int]]:
            yield [1 for _ in batch]

    assert await batched(Counter())(0) == [1]


async def test_closing_waits_for_the_steps_and_refuses_who_waits(turnstile: Turnstile) -> None:
    @batched(max_batch_size=1)
    def steps(batch: Batch) -> Iterator[list[int]]:
        turnstile.wait()
        yield [batch[i] for i in batch]

    running = steps(1)
    await soon(turnstile.waiting.is_set)
    waiting = steps(2)
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(steps.aclose(drain=False))
    with pytest.raises(Closed):
        await waiting
    assert not closing.done()
    turnstile.open()
    assert await running == [1]
    await closing


async def test_one_wake_of_the_loop_carries_a_whole_step(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = 0
    came: list[int] = []
    push = Feed.push

    def count() -> None:
        nonlocal ticks
        ticks += 1
        loop.call_soon(count)

    def noted(feed: Feed, value: Any) -> None:
        came.append(ticks)
        push(feed, value)

    monkeypatch.setattr(Feed, "push", noted)

    @batched(max_batch_size=64)
    def steps(batch: Batch) -> Iterator[list[int]]:
        yield [batch[i] for i in batch]

    loop = asyncio.get_running_loop()
    count()
    streams = [steps.stream(n) for n in range(64)]
    values = await asyncio.wait_for(asyncio.gather(*(anext(stream) for stream in streams)), PATIENCE)
    assert values == list(range(64))
    assert len(came) == 64
    assert len(set(came)) == 1
