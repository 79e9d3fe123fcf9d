"""`single_flight=True`: identical inputs in flight are computed once, and nobody shares what can change."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penstock import AsyncClient, Server, batched, model
from penstock.errors import DeadlineExceeded, ItemError, ModelError
from tests.python.support.waiting import PATIENCE, soon, until

if TYPE_CHECKING:
    from tests.python.support.waiting import Gate


async def test_identical_inputs_are_computed_once() -> None:
    seen: list[int] = []

    @batched(single_flight=True)
    def double(x: np.ndarray) -> np.ndarray:
        seen.extend(x[:, 0].tolist())
        return x * 2

    rows = await asyncio.gather(*(double(np.full(3, i % 4)) for i in range(40)))
    assert [row.tolist() for row in rows] == [[i % 4 * 2] * 3 for i in range(40)]
    assert sorted(seen) == [0, 1, 2, 3]
    stats = double.stats()
    assert (stats.requests, stats.shared) == (4, 36)
    # What has been answered is computed again.
    await double(np.full(3, 1))
    assert double.stats().requests == 5


async def test_what_differs_in_bytes_type_or_keywords_is_computed_for_itself() -> None:
    @batched(single_flight=True)
    def echo(x: Any, *, scale: int = 1) -> list[Any]:
        return [(item, scale) for item in list(x)]

    inputs = [
        1,
        1.0,
        True,
        0.0,
        -0.0,
        np.float32(1),
        "1",
        b"1",
        (1, "a"),
        (1, "b"),
        {"a": "1"},
        {"b": "1"},
        frozenset({1}),
    ]
    calls = [echo(item) for item in inputs] + [echo(1, scale=2), echo("1", scale=2)]
    await asyncio.gather(*calls)
    assert echo.stats().shared == 0
    await asyncio.gather(*(echo(item) for item in [*inputs, *inputs]))
    assert echo.stats().shared == len(inputs)


async def test_objects_without_a_hash_never_share_and_equal_ones_do() -> None:
    @batched(single_flight=True)
    def lengths(items: list[Any]) -> list[int]:
        return [len(item) for item in items]

    assert await asyncio.gather(*(lengths([1, 2]) for _ in range(5))) == [2] * 5
    assert (lengths.stats().requests, lengths.stats().shared) == (5, 0)
    assert await asyncio.gather(*(lengths("ab") for _ in range(5))) == [2] * 5
    assert (lengths.stats().requests, lengths.stats().shared) == (6, 4)


async def test_nobody_shares_an_answer_that_can_change() -> None:
    @batched(single_flight=True)
    def make(x: np.ndarray) -> list[Any]:
        return [{"array": row.copy(), "list": [1, {"deep": np.zeros(2)}]} for row in x]

    answers = await asyncio.gather(*(make(np.zeros(3)) for _ in range(3)))
    answers[0]["array"][:] = 7
    answers[0]["list"][1]["deep"][:] = 7
    answers[0]["list"].append(2)
    for other in answers[1:]:
        assert other["array"].tolist() == [0, 0, 0]
        assert len(other["list"]) == 2
        assert other["list"][1]["deep"].tolist() == [0, 0]


async def test_who_asks_while_it_runs_shares_too_and_cancelling_leaves_it_to_the_others(gate: Gate) -> None:
    f = batched(gate.run, single_flight=True)
    leader = f(5)
    await gate.is_entered()
    followers = [f(5) for _ in range(3)]
    leader.cancel()
    followers[0].cancel()
    gate.open()
    assert await asyncio.wait_for(asyncio.gather(*followers[1:]), PATIENCE) == [50, 50]
    assert leader.cancelled()
    assert (f.stats().requests, f.stats().shared, f.stats().abandoned) == (1, 3, 0)


async def test_a_leader_that_leaves_the_queue_leaves_its_place_to_its_followers(gate: Gate) -> None:
    f = batched(gate.run, single_flight=True, max_batch_size=1)
    first = f(0)
    await gate.is_entered()
    leader, follower, lonely, other = f(1), f(1), f(2), f(2)
    leader.cancel()
    lonely.cancel()
    other.cancel()
    gate.open()
    assert await asyncio.wait_for(asyncio.gather(first, follower), PATIENCE) == [0, 10]
    # Who asks before the worker has come to it takes the place that nobody waits at any more.
    await soon(lambda: f.stats().abandoned == 1)
    assert await asyncio.wait_for(f(2), PATIENCE) == 20
    assert (f.stats().requests, f.stats().abandoned) == (3, 1)


async def test_each_has_a_deadline_of_its_own(gate: Gate) -> None:
    f = batched(gate.run, single_flight=True, max_batch_size=1)
    first = f(0)
    await gate.is_entered()
    short, patient = f.options(timeout=0.05)(1), f(1)
    with pytest.raises(DeadlineExceeded):
        await short
    gate.open()
    assert await asyncio.wait_for(asyncio.gather(first, patient), PATIENCE) == [0, 10]
    assert f.stats().shared == 1


async def test_a_failure_reaches_all_each_with_an_exception_of_its_own() -> None:
    @batched(single_flight=True)
    def broken(x: np.ndarray) -> Any:
        if 1 in x:
            raise ValueError("no")
        return [ItemError("bad") if item == 2 else item for item in x.tolist()]

    def of(value: int) -> Any:
        return asyncio.gather(*(broken(value) for _ in range(3)), return_exceptions=True)

    raised, refused, fine = await asyncio.gather(of(1), of(2), of(3))
    assert [type(error) for error in raised] == [ModelError] * 3
    assert len({id(error) for error in raised}) == 3
    assert all(isinstance(error.__cause__, ValueError) for error in raised)
    assert [type(error) for error in refused] == [ItemError] * 3
    assert len({id(error) for error in refused}) == 3
    assert fine == [3, 3, 3]


async def test_an_answer_that_cannot_be_copied_is_said_to_be_so() -> None:
    @batched(single_flight=True)
    def locks(x: np.ndarray) -> list[Any]:
        return [threading.Lock() for _ in x]

    answers = await asyncio.gather(*(locks(1) for _ in range(2)), return_exceptions=True)
    kinds = sorted(type(answer).__name__ for answer in answers)
    assert kinds == ["OutputError", "lock"]
    assert "single_flight" in str(next(answer for answer in answers if isinstance(answer, Exception)))


def test_threads_share_as_loops_do(gate: Gate) -> None:
    f = batched(gate.run, single_flight=True)
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(f.call(3))) for _ in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: f.stats().shared == 7)
    gate.open()
    for thread in threads:
        thread.join(PATIENCE)
    assert answers == [30] * 8
    assert f.stats().requests == 1


async def test_closing_without_draining_answers_everybody(gate: Gate) -> None:
    f = batched(gate.run, single_flight=True, max_batch_size=1)
    first = f(0)
    await gate.is_entered()
    waiting = [f(1) for _ in range(3)]
    f.begin_close(False)
    errors = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(error).__name__ for error in errors] == ["Closed"] * 3
    gate.open()
    assert await first == 0


async def test_doors_answer_identical_requests_once(gate: Gate) -> None:
    @model("slow", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])}, single_flight=True)
    def slow(x: np.ndarray) -> np.ndarray:
        return gate.run(x)

    one, other = np.full((2, 2), 1, np.float32), np.full((2, 2), 2, np.float32)
    with Server([slow], port=0) as server:
        async with AsyncClient(server.url) as client:
            first = asyncio.ensure_future(client.infer("slow", {"x": other}))
            await gate.is_entered()
            asked = [asyncio.ensure_future(client.infer("slow", {"x": x})) for x in (one, one, one, other)]
            await soon(lambda: server.stats().models["slow"].shared == 3)
            # The one that is being computed for goes; the others stay.
            asked[0].cancel()
            gate.open()
            answers = await asyncio.wait_for(asyncio.gather(first, *asked[1:]), PATIENCE)
    assert [answer["y"][0, 0] for answer in answers] == [20, 10, 10, 20]
    assert len(gate.seen) == 4
