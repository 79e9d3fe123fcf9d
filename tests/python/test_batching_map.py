"""Many items at once: order, several iterables, bounded queues, failures."""

from __future__ import annotations

import asyncio
import importlib.util
from typing import TYPE_CHECKING

import numpy as np
import pytest

from penstock import batched
from penstock.errors import Closed, DeadlineExceeded, ModelError
from tests.python.support.waiting import Gate, outcomes, soon

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.python.support.scripts import Script

NO_TQDM = importlib.util.find_spec("tqdm") is None


def double(x: np.ndarray) -> np.ndarray:
    return x * 2


@pytest.mark.parametrize("workers", [1, 3, "inline"])
async def test_map_keeps_the_order_over_many_batches(workers: int | str) -> None:
    f = batched(double, max_batch_size=7, workers=workers)
    assert await f.map(range(500)) == [2 * number for number in range(500)]
    assert f.stats().requests == 500


async def test_map_takes_any_iterable_and_an_empty_one() -> None:
    f = batched(double)
    assert await f.map(number for number in range(5)) == [0, 2, 4, 6, 8]
    assert [row.tolist() for row in await f.map(np.arange(6).reshape(3, 2))] == [[0, 2], [4, 6], [8, 10]]
    assert await f.map([]) == []
    assert await f.map(iter(())) == []
    assert f.stats().requests == 8


async def test_map_over_several_iterables_is_over_several_arguments() -> None:
    f = batched(lambda x, y: x * y)
    assert await f.map([1, 2, 3], (10, 20, 30)) == [10, 40, 90]


async def test_map_over_iterables_of_different_lengths_is_refused_and_leaves_nothing_waiting() -> None:
    f = batched(lambda x, y: x * y)
    with pytest.raises(ValueError, match=r"shorter|longer"):
        await f.map([1, 2, 3], [1, 2])
    await soon(lambda: f.stats().queued == 0)
    assert await f(2, 3) == 6


async def test_map_without_an_iterable_is_empty() -> None:
    assert await batched(double).map() == []


async def test_map_over_more_items_than_the_queue_holds_never_overloads_it() -> None:
    f = batched(double, max_queue=10, max_batch_size=4)
    drawn = []

    def items() -> Iterator[int]:
        for number in range(300):
            drawn.append(number)
            assert f.stats().queued <= 10
            yield number

    assert await f.map(items()) == [2 * number for number in range(300)]
    assert f.stats().rejected == 0
    assert drawn == list(range(300))


async def test_a_failure_in_map_cancels_the_rest_and_is_raised(gate: Gate) -> None:
    def f(x: np.ndarray) -> np.ndarray:
        if x[0] == 0:
            gate.batches.append(x.tolist())
            raise ValueError("first is bad")
        return gate.run(x)

    batcher = batched(f, max_batch_size=1, max_queue=50)
    with pytest.raises(ModelError, match="first is bad"):
        await batcher.map(range(50))
    gate.open()
    await soon(lambda: batcher.stats().queued == batcher.stats().running == 0)
    assert len(gate.seen) <= 3, "what waited was cancelled before the function saw it"
    assert await batcher(4) == 40


async def test_several_failures_in_map_raise_the_first_and_complain_of_none() -> None:
    def f(x: np.ndarray) -> np.ndarray:
        raise ValueError(f"bad {x[0]}")

    with pytest.raises(ModelError, match="bad 0"):
        await batched(f, max_batch_size=1).map(range(20))


async def test_an_item_error_in_map_is_raised() -> None:
    import penstock

    f = batched(lambda x: [penstock.ItemError("no") if number == 2 else number for number in x.tolist()])
    with pytest.raises(penstock.ItemError, match="no"):
        await f.map(range(5))


async def test_an_iterable_that_raises_in_map_leaves_nothing_waiting(gate: Gate) -> None:
    f = batched(gate.run)
    blocker = f(0)
    await gate.is_entered()

    def items() -> Iterator[int]:
        yield from (1, 2, 3)
        raise KeyError("broken source")

    with pytest.raises(KeyError, match="broken source"):
        await f.map(items())
    gate.open()
    assert await blocker == 0
    assert await f(9) == 90
    assert gate.seen == [0, 9]


async def test_cancelling_map_cancels_what_waits(gate: Gate) -> None:
    f = batched(gate.run)
    blocker = f(0)
    await gate.is_entered()
    task = asyncio.ensure_future(f.map(range(1, 20)))
    await soon(lambda: f.stats().queued == 19)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.open()
    assert await blocker == 0
    assert await f(99) == 990
    assert gate.seen == [0, 99]


async def test_map_with_options_has_their_deadline_and_tenant(gate: Gate) -> None:
    f = batched(gate.run)
    with pytest.raises(DeadlineExceeded):
        await f.options(timeout=0.02, tenant="t").map([1, 2, 3])
    assert f.stats().tenants == {"t": 3}


async def test_maps_side_by_side_keep_their_own_rows() -> None:
    f = batched(double, max_batch_size=16)
    maps = await outcomes(f.map(range(start, start + 100)) for start in range(0, 500, 100))
    assert maps == [[2 * number for number in range(start, start + 100)] for start in range(0, 500, 100)]


async def test_map_of_a_batcher_that_closes_says_so(gate: Gate) -> None:
    f = batched(gate.run, max_queue=2)
    task = asyncio.ensure_future(f.map(range(10)))
    await gate.is_entered()
    f.begin_close(False)
    gate.open()
    with pytest.raises(Closed):
        await task


def test_progress_without_tqdm_is_a_config_error_that_names_the_extra(script: Script) -> None:
    done = script.run("""
sys.modules["tqdm"] = None  # as where it is not installed
f = batched(lambda x: x)
try:
    asyncio.run(f.map(range(3), progress=True))
except penstock.errors.ConfigError as error:
    print("penstock[notebook]" in str(error), f.stats().requests)
""")
    assert (done.code, done.out, done.err) == (0, ["True 0"], "")


@pytest.mark.skipif(NO_TQDM, reason="tqdm is not installed")
@pytest.mark.filterwarnings("ignore::tqdm.TqdmWarning")
async def test_progress_counts_every_item(capsys: pytest.CaptureFixture[str]) -> None:
    assert await batched(double).map(range(30), progress=True) == [2 * number for number in range(30)]
    assert "30/30" in capsys.readouterr().err
