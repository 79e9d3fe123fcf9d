"""Batched functions in worker processes: what goes there and back, what fails, what dies, what ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock import Batcher, ItemError, Processes, batched
from penstock.errors import Closed, ConfigError, ModelError, OutputError
from tests.python.support import in_processes as far
from tests.python.support.in_processes import Adds, Point
from tests.python.support.waiting import PATIENCE, outcomes, soon, until


@pytest.fixture(scope="module", autouse=True)
def _ended() -> Any:
    yield
    for one in vars(far).values():
        if isinstance(one, Batcher):
            one.close(drain=False, timeout=0)


def numbers_of(batcher: Batcher[Any]) -> list[int]:
    return [number for remote in batcher._remotes if (number := remote.keeper.process_number)]


def is_gone(number: int) -> bool:
    return not Path(f"/proc/{number}").exists()


async def test_rows_come_back_to_whoever_sent_them() -> None:
    rows = await outcomes(far.double(np.full(3, number)) for number in range(100))
    assert [row.tolist() for row in rows] == [[number * 2] * 3 for number in range(100)]
    assert await far.double(np.ones(2), by=7) == pytest.approx([7, 7])
    assert os.getpid() not in numbers_of(far.double)


@pytest.mark.parametrize(
    "item",
    [
        np.arange(6, dtype=np.int8).reshape(2, 3),
        np.float64(2.5),
        "text",
        b"bytes",
        {"a": [1, "two"], "b": None},
        np.array(["2024-01-01"], "datetime64[D]"),
        np.zeros((0, 4)),
        {1, 2},
        np.arange(3_000_000, dtype=np.float64),
    ],
    ids=str,
)
async def test_any_item_goes_there_and_back(item: Any) -> None:
    back = await far.echo(item)
    assert np.array_equal(back, item) if isinstance(item, np.ndarray) else back == item


async def test_tuples_keep_their_class_and_dictionaries_their_keys() -> None:
    assert await far.echo(Point(1.0, 2.0)) == Point(1.0, 2.0)
    assert isinstance(await far.echo(Point(1.0, 2.0)), Point)
    assert await far.echo({"a": 1.0, "b": np.float64(2)}) == {"a": 1.0, "b": 2.0}


async def test_answers_are_the_callers_own() -> None:
    first, second = await outcomes([far.echo(np.zeros(4)), far.echo(np.zeros(4))])
    first += 1
    assert second.tolist() == [0] * 4


async def test_one_refusal_leaves_the_others_alone() -> None:
    good, bad = await outcomes([far.refuses("good"), far.refuses("bad")])
    assert good == "GOOD"
    assert isinstance(bad, ItemError)
    assert str(bad) == "not bad"


async def test_a_batch_that_raises_is_split_until_the_guilty_is_found() -> None:
    rows = await outcomes(far.poisoned(number) for number in range(32))
    guilty = rows.pop(13)
    assert rows == [number for number in range(32) if number != 13]
    assert isinstance(guilty, ModelError)
    assert isinstance(guilty.__cause__, ValueError)
    (note,) = guilty.__cause__.__notes__
    assert note.startswith("in worker process")
    assert 'raise ValueError("thirteen")' in note


async def test_an_exception_that_cannot_be_made_again_is_told_in_words() -> None:
    with pytest.raises(ModelError, match="OwnError: 1 and 2"):
        await far.raises_its_own(1)


async def test_an_item_that_cannot_be_sent_fails_alone() -> None:
    good, bad = await outcomes([far.echo([1]), far.echo([lambda: 1])])
    assert good == [1]
    assert isinstance(bad, ItemError)
    assert "cannot be sent" in str(bad)


async def test_what_cannot_come_back_is_an_output_error() -> None:
    with pytest.raises(OutputError, match="cannot be sent from a process"):
        await far.returns_what_cannot_be_sent(1)
    with pytest.raises(OutputError):
        await far.returns_too_few(1)
    assert far.returns_too_few.stats().reruns == 0


async def test_async_functions_run_on_a_loop_of_their_process() -> None:
    base = await far.awaits(0)
    assert base in numbers_of(far.awaits)
    assert far.awaits.call(1) - 1 in numbers_of(far.awaits)


async def test_the_time_that_is_left_is_known_in_the_process() -> None:
    assert await far.time_left(1) is None
    left = await far.time_left.options(timeout=20)(1)
    assert 5 < left <= 20


async def test_rows_are_filled_up_before_they_are_sent() -> None:
    rows = await outcomes(far.lengths_of(np.ones(length)) for length in (3, 1, 2))
    assert [row.tolist() for row in rows] == [[3, 3], [1, 3], [2, 3]]


async def test_memory_that_runs_out_in_a_process_splits_the_batch() -> None:
    rows = await outcomes(far.runs_out_of_memory(number) for number in range(8))
    assert rows == list(range(8))
    assert far.runs_out_of_memory.stats().out_of_memory == 1


def test_a_generator_is_refused() -> None:
    def steps(batch: Any) -> Any:
        yield [1] * len(batch.live)

    with pytest.raises(ConfigError, match="a generator cannot run in processes"):
        Batcher(steps, workers=Processes(1))


async def test_the_input_of_a_process_is_empty() -> None:
    assert await far.reads_its_input(1) == ""


async def test_a_batch_whose_process_dies_once_is_run_again(tmp_path: Path) -> None:
    before, restarts = await far.dies_of("x"), far.dies_of.stats().restarts
    once = tmp_path / "once"
    once.touch()
    answers = await outcomes([far.dies_of(str(once)), far.dies_of("y")])
    assert len(set(answers)) == 1
    assert answers[0] != before
    assert far.dies_of.stats().restarts == restarts + 1


@pytest.mark.parametrize(
    ("told", "end"), [("exit", "exited with status 5"), ("abort", "was killed by signal 6 (SIGABRT)")]
)
async def test_a_batch_that_kills_two_processes_fails_by_name_and_the_next_does_not(told: str, end: str) -> None:
    failed = await outcomes([far.dies_of(told), far.dies_of("y")])
    for error in failed:
        assert isinstance(error, ModelError)
        assert error.__cause__ is None
        assert f"the process of the function 'dies_of' {end} while it ran this batch" in str(error)
    assert failed[0] is not failed[1]
    assert isinstance(await far.dies_of("z"), int)


async def test_a_batch_that_must_not_run_twice_is_not_run_again_where_its_process_dies(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    (failed,) = await outcomes([far.dies_and_must_not_run_twice(str(runs))])
    assert isinstance(failed, ModelError)
    assert str(failed).endswith("exited with status 6 while it ran this batch, which may not run twice")
    assert runs.read_text() == "run\n"


async def test_a_process_that_is_killed_while_it_waits_is_replaced() -> None:
    before = await far.dies_of("x")
    os.kill(before, signal.SIGKILL)
    await soon(lambda: is_gone(before) or "Z" in Path(f"/proc/{before}/stat").read_text())
    assert await far.dies_of("y") != before


async def test_closing_ends_the_processes() -> None:
    f = Batcher(far.plain, workers=Processes(2))
    assert await f(np.ones(2)) == pytest.approx([2, 2])
    until(lambda: len(numbers_of(f)) == 2)
    numbers = numbers_of(f)
    await f.aclose()
    assert all(map(is_gone, numbers))
    with pytest.raises(Closed):
        await f(np.ones(2))


async def test_closing_drains_what_waits() -> None:
    f = Batcher(far.plain, workers=Processes(1), max_batch_size=1)
    futures = [f(number) for number in range(10)]
    await asyncio.wait_for(f.aclose(), PATIENCE)
    assert await outcomes(futures) == list(range(1, 11))


async def test_closing_in_time_kills_what_never_ends() -> None:
    f = Batcher(far.sleeps.fn, workers=Processes(1))
    future = f(1)
    await soon(lambda: f.stats().running and numbers_of(f))
    numbers = numbers_of(f)
    await asyncio.wait_for(f.aclose(timeout=0.1), PATIENCE)
    assert all(map(is_gone, numbers))
    (error,) = await outcomes([future])
    assert isinstance(error, Closed)
    assert "the function 'sleeps' was closed before this batch was answered" in str(error)


async def test_a_batcher_that_nobody_holds_any_more_ends_its_processes() -> None:
    f = Batcher(far.plain, workers=Processes(1))
    await f(1)
    (number,) = numbers_of(f)
    del f
    await soon(lambda: is_gone(number))


async def test_objects_and_methods_are_pickled() -> None:
    for fn, answer in [(Adds(2.0), 3.0), (Adds(2.0).method, -1.0)]:
        async with batched(workers=Processes(1))(fn) as f:
            assert await f(1.0) == answer


async def test_a_function_that_cannot_be_imported_is_sent_by_cloudpickle() -> None:
    pytest.importorskip("cloudpickle")
    offset = 3
    async with Batcher(lambda x: x + offset, workers=Processes(1)) as f:
        assert await f(1) == 4


async def test_without_cloudpickle_it_is_refused_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    f = Batcher(lambda x: x, workers=Processes(1))
    for _ in range(2):
        with pytest.raises(ConfigError, match="top level of a module, or install cloudpickle"):
            await f(1)
    f.close()


@pytest.mark.parametrize("count", [0, -1, True, 1.5, "2"])
def test_a_count_that_is_none_is_refused(count: Any) -> None:
    with pytest.raises(ConfigError, match="whole number"):
        Processes(count)


def test_it_says_what_runs_it() -> None:
    assert "workers=Processes(count=2)" in repr(far.double)
