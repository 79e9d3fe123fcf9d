"""Terms of one call: priority, tenant, time-out."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import pytest

from penstock import batched
from penstock.errors import ConfigError, DeadlineExceeded
from tests.python.support.waiting import Gate, outcomes, soon

if TYPE_CHECKING:
    import numpy as np


def double(x: np.ndarray) -> np.ndarray:
    return x * 2


BAD: list[tuple[dict[str, Any], str]] = [
    ({"priority": "urgent"}, "priority"),
    ({"priority": 0}, "priority"),
    ({"priority": None}, "priority"),
    ({"priority": ["high"]}, "priority"),
    ({"timeout": -1}, "timeout"),
    ({"timeout": math.nan}, "timeout"),
    ({"timeout": math.inf}, "timeout"),
    ({"timeout": "1"}, "timeout"),
    ({"timeout": True}, "timeout"),
    ({"tenant": 7}, "tenant"),
    ({"tenant": b"a"}, "tenant"),
]


@pytest.mark.parametrize(("options", "named"), BAD, ids=str)
def test_options_that_make_no_sense_are_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        batched(double).options(**options)


def test_an_unknown_option_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="prio"):
        batched(double).options(prio="high")


async def test_options_are_not_arguments_of_the_function() -> None:
    def f(x: np.ndarray, **keywords: Any) -> list:
        return [keywords] * len(x)

    batcher = batched(f)
    row = await batcher.options(priority="high", tenant="a", timeout=30)(1, priority="mine", timeout=2, tenant="b")
    assert row == {"priority": "mine", "timeout": 2, "tenant": "b"}


async def test_options_can_be_kept_and_used_again() -> None:
    f = batched(double)
    urgent = f.options(priority="high", tenant="a", timeout=30)
    assert await asyncio.gather(*map(urgent, range(5))) == [0, 2, 4, 6, 8]
    assert urgent.call(5) == 10
    assert await urgent.map([6, 7]) == [12, 14]
    assert f.stats().tenants == {"a": 8}


async def test_requests_with_other_terms_share_a_batch() -> None:
    f = batched(double)
    terms = [f, f.options(priority="low"), f.options(priority="high"), f.options(tenant="x"), f.options(timeout=30)]
    assert await asyncio.gather(*(term(number) for number, term in enumerate(terms))) == [0, 2, 4, 6, 8]
    assert f.stats().batches == 1


async def test_tenants_are_counted_and_their_number_is_bounded() -> None:
    f = batched(double)
    for tenant in ("a", "b", "a"):
        await f.options(tenant=tenant)(1)
    await f(1)
    assert f.stats().tenants == {"a": 2, "b": 1}
    for number in range(3000):
        f.options(tenant=f"t{number}").call(1)
    tenants = f.stats().tenants
    assert len(tenants) <= 1001
    assert sum(tenants.values()) == 3003


async def test_a_deadline_ends_the_wait_and_the_item_leaves_its_batch(gate: Gate) -> None:
    f = batched(gate.run)
    blocker = f(0)
    await gate.is_entered()
    with pytest.raises(DeadlineExceeded, match=r"0\.02") as caught:
        await f.options(timeout=0.02)(1)
    assert isinstance(caught.value, TimeoutError)
    gate.open()
    assert await blocker == 0
    assert await f(2) == 20
    assert gate.seen == [0, 2]
    assert f.stats().abandoned == 1


async def test_a_deadline_ends_call_too_and_the_item_leaves_its_batch(gate: Gate) -> None:
    f = batched(gate.run)
    blocker = f(0)
    await gate.is_entered()
    with pytest.raises(DeadlineExceeded):
        await asyncio.to_thread(f.options(timeout=0.02).call, 1)
    with pytest.raises(DeadlineExceeded):
        f.options(timeout=0.02).call(2)
    gate.open()
    assert await blocker == 0
    assert await f(3) == 30
    assert gate.seen == [0, 3]


async def test_a_deadline_while_the_function_runs_drops_only_that_result(gate: Gate) -> None:
    f = batched(gate.run)
    patient, hurried = f(1), f.options(timeout=0.05)(2)
    await gate.is_entered()
    assert gate.seen == [1, 2]
    with pytest.raises(DeadlineExceeded):
        await hurried
    gate.open()
    assert await patient == 10


async def test_a_deadline_of_zero_is_over_at_once_and_leaves_nothing_behind(gate: Gate) -> None:
    f = batched(gate.run)
    blocker = f(0)
    await gate.is_entered()
    (error,) = await outcomes([f.options(timeout=0)(1)])
    assert isinstance(error, DeadlineExceeded)
    with pytest.raises(DeadlineExceeded):
        f.options(timeout=0).call(1)
    gate.open()
    assert await blocker == 0


async def test_a_deadline_that_is_met_leaves_no_trace() -> None:
    f = batched(double)
    futures = [f.options(timeout=3600)(number) for number in range(100)]
    assert await asyncio.gather(*futures) == [2 * number for number in range(100)]
    assert f.options(timeout=3600).call(1) == 2
    assert f.stats().abandoned == 0


async def test_cancelling_a_request_with_a_deadline_works(gate: Gate) -> None:
    f = batched(gate.run)
    blocker = f(0)
    await gate.is_entered()
    future = f.options(timeout=0.02)(1)
    assert future.cancel()
    await asyncio.sleep(0.05)
    assert future.cancelled()
    gate.open()
    assert await blocker == 0


async def test_expired_requests_make_room_in_a_full_queue(gate: Gate) -> None:
    f = batched(gate.run, max_queue=3)
    blocker = f(0)
    await gate.is_entered()
    late = [f.options(timeout=0.01)(number) for number in range(1, 4)]
    assert all(isinstance(error, DeadlineExceeded) for error in await outcomes(late))
    futures = [f(number) for number in range(4, 7)]
    gate.open()
    assert await outcomes([blocker, *futures]) == [0, 40, 50, 60]
    assert gate.seen == [0, 4, 5, 6]


async def test_a_call_that_timed_out_makes_room_too(gate: Gate) -> None:
    f = batched(gate.run, max_queue=1)
    blocker = f(0)
    await gate.is_entered()
    with pytest.raises(DeadlineExceeded):
        f.options(timeout=0.01).call(1)
    future = f(2)
    gate.open()
    assert await outcomes([blocker, future]) == [0, 20]
    await soon(lambda: f.stats().running == 0)
