"""A pipeline in the process that asks it: arrays in, arrays out, one wake a burst."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest

import penstock
from penstock import Pipeline, _native
from penstock.errors import (
    Closed,
    ConfigError,
    DeadlineExceeded,
    ItemError,
    ModelError,
    ModelNotFound,
    Overloaded,
    StreamClosed,
)
from tests.python.support.pipelines import Diary, X, Y, doubling, stepping, telling
from tests.python.support.waiting import until


def row(number: float) -> Any:
    return np.full((1, 2), number, np.float32)


@pytest.fixture
def diary() -> Diary:
    return Diary()


async def test_answers_come_to_those_who_asked_and_share_batches(diary: Diary) -> None:
    async with Pipeline(doubling(diary)) as pipeline:
        results = await asyncio.gather(*(pipeline.infer("double", {"x": row(n)}) for n in range(64)))
    assert [result["y"].tolist() for result in results] == [[[2.0 * n, 2.0 * n]] for n in range(64)]
    assert max(diary.batches) > 16, "a burst is a batch"


async def test_a_result_says_what_answered_it_and_where_the_time_went(diary: Diary) -> None:
    async with Pipeline(doubling(diary, version=3)) as pipeline:
        result = await pipeline.infer("double", {"x": row(1)}, request_id="mine", version=3)
        assert (result.model_name, result.model_version, result.id) == ("double", "3", "mine")
        assert set(result.timing) >= {"queue", "slot", "gather", "model", "scatter"}
        assert all(seconds >= 0 for seconds in result.timing.values())
        assert pipeline.explain(request_id="mine").batches
        assert pipeline.stats().models["double"].requests == 1
        assert "penstock_requests" in pipeline.metrics()


async def test_arrays_are_the_callers_own(diary: Diary) -> None:
    async with Pipeline(doubling(diary)) as pipeline:
        given = row(1)
        waiting = asyncio.ensure_future(pipeline.infer("double", {"x": given}))
        await asyncio.sleep(0)
        given[:] = 9
        result = await waiting
        assert result["y"].tolist() == [[2, 2]], "it was copied when it was asked"
        assert result["y"].flags.owndata
        assert result["y"].flags.writeable


async def test_several_rows_lists_and_odd_layouts(diary: Diary) -> None:
    async with Pipeline(doubling(diary)) as pipeline:
        assert (await pipeline.infer("double", {"x": [[1, 2], [3, 4]]}))["y"].tolist() == [[2, 4], [6, 8]]
        turned = np.arange(6, dtype=np.float32).reshape(2, 3).T
        assert (await pipeline.infer("double", {"x": turned}))["y"].tolist() == (turned * 2).tolist()
        swapped = np.ones((2, 2), ">f4")
        assert (await pipeline.infer("double", {"x": swapped}))["y"].tolist() == [[2, 2], [2, 2]]


async def test_texts_bytes_and_several_outputs() -> None:
    @penstock.model(
        "words",
        inputs={"t": ("string", [2]), "b": ("bytes", [])},
        outputs={"joined": ("string", []), "raw": ("bytes", []), "n": ("int32", [])},
    )
    def words(t: Any, b: Any) -> Any:
        return {
            "joined": ["".join(each) for each in t],
            "raw": list(b),
            "n": np.array([len(each) for each in b], np.int32),
        }

    async with Pipeline(words) as pipeline:
        inputs = {"t": [["a", "ö"], ["c", ""]], "b": np.array([b"\xff", b""], object)}
        result = await pipeline.infer("words", inputs)
        assert result["joined"].tolist() == ["aö", "c"]
        assert result["raw"].tolist() == [b"\xff", b""]
        assert result["n"].tolist() == [1, 0]
        assert list(await pipeline.infer("words", inputs, outputs=["n"])) == ["n"]
        with pytest.raises(ItemError, match="no output 'z'"):
            await pipeline.infer("words", inputs, outputs=["z"])
        with pytest.raises(ItemError, match="no utf-8"):
            await pipeline.infer("words", {**inputs, "t": [[b"\xff", b""], ["c", ""]]})
        with pytest.raises(ItemError, match="int where str or bytes"):
            await pipeline.infer("words", {**inputs, "b": np.array([1, b""], object)})


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "input 'x' is missing"),
        ({"x": np.ones((1, 2))}, "datatype FP64; the model wants FP32"),
        ({"x": np.ones((1, 3), np.float32)}, r"shape \[1, 3\]"),
        ({"x": np.ones((0, 2), np.float32)}, "no rows"),
        ({"x": np.float32(1)}, r"shape \[\]"),
        ({"x": row(1), "z": row(1)}, "no input 'z'"),
        ({"x": [["a", "b"]]}, "no array of the declared type"),
        ({"x": [[1, 2], [3]]}, "no array of the declared type"),
    ],
)
async def test_inputs_that_do_not_fit_are_refused(diary: Diary, inputs: Any, words: str) -> None:
    async with Pipeline(doubling(diary)) as pipeline:
        with pytest.raises(ItemError, match=words):
            await pipeline.infer("double", inputs)
        with pytest.raises(ItemError, match=words):
            await asyncio.to_thread(pipeline.call, "double", inputs)
        assert pipeline.stats().models["double"].requests == 0


async def test_arguments_that_cannot_be(diary: Diary) -> None:
    async with Pipeline(doubling(diary)) as pipeline:
        for wrong, words in [
            ({"timeout": 0}, "timeout"),
            ({"timeout": float("nan")}, "timeout"),
            ({"priority": "urgent"}, "priority"),
            ({"tenant": ""}, "tenant"),
        ]:
            with pytest.raises(ConfigError, match=words):
                await pipeline.infer("double", {"x": row(1)}, **wrong)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="mapping of arrays"):
            await pipeline.infer("double", 5)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="no model has a type for datetime64"):
            await pipeline.infer("double", {"x": np.zeros((1, 2), "datetime64[s]")})
        with pytest.raises(ModelNotFound, match="there is no model 'no'"):
            await pipeline.infer("no", {"x": row(1)})


async def test_each_gets_the_failure_that_is_its_own(diary: Diary) -> None:
    async with Pipeline(doubling(diary)) as pipeline:
        asked = (pipeline.infer("double", {"x": row(n)}) for n in (1, -2, 3, -4))
        good, bad, fine, worse = await asyncio.gather(*asked, return_exceptions=True)
    assert good["y"].tolist() == [[2, 2]]
    assert fine["y"].tolist() == [[6, 6]]
    assert isinstance(bad, ItemError)
    assert str(bad) == "-2 is negative"
    assert isinstance(worse, ItemError)


async def test_what_a_model_raises_is_a_model_error() -> None:
    @penstock.model("broken", inputs=X, outputs=Y)
    def broken(x: Any) -> Any:
        raise ValueError("no")

    async with Pipeline(broken) as pipeline:
        with pytest.raises(ModelError, match="the function raised ValueError: no"):
            await pipeline.infer("broken", {"x": row(1)})


async def test_a_deadline_ends_the_waiting(diary: Diary) -> None:
    diary.gate.clear()
    async with Pipeline(doubling(diary)) as pipeline:
        first = asyncio.ensure_future(pipeline.infer("double", {"x": row(1)}))
        await asyncio.to_thread(diary.entered.wait, 30)
        with pytest.raises(DeadlineExceeded):
            await pipeline.infer("double", {"x": row(2)}, timeout=0.05)
        with pytest.raises(DeadlineExceeded):
            await asyncio.to_thread(pipeline.call, "double", {"x": row(2)}, timeout=0.05)
        diary.gate.set()
        assert (await first)["y"].tolist() == [[2, 2]]
    assert diary.batches == [1], "who gave up was not answered"


async def test_who_is_cancelled_leaves_the_queue(diary: Diary) -> None:
    diary.gate.clear()
    async with Pipeline(doubling(diary)) as pipeline:
        first = asyncio.ensure_future(pipeline.infer("double", {"x": row(1)}))
        await asyncio.to_thread(diary.entered.wait, 30)
        second = asyncio.ensure_future(pipeline.infer("double", {"x": row(2)}))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        diary.gate.set()
        await first
        third = await pipeline.infer("double", {"x": row(3)})
        assert third["y"].tolist() == [[6, 6]]
    assert diary.batches == [1, 1]


async def test_a_full_queue_says_so(diary: Diary) -> None:
    diary.gate.clear()
    async with Pipeline(doubling(diary, max_queue=1)) as pipeline:
        first = asyncio.ensure_future(pipeline.infer("double", {"x": row(1)}))
        await asyncio.to_thread(diary.entered.wait, 30)
        second = asyncio.ensure_future(pipeline.infer("double", {"x": row(2)}))
        await asyncio.to_thread(until, lambda: pipeline.stats().models["double"].queued == 1)
        with pytest.raises(Overloaded, match="max_queue=1"):
            await pipeline.infer("double", {"x": row(3)})
        diary.gate.set()
        await asyncio.gather(first, second)


async def test_limits_of_the_door_count_here_too(diary: Diary) -> None:
    diary.gate.clear()
    async with Pipeline(doubling(diary), max_in_flight=1) as pipeline:
        first = asyncio.ensure_future(pipeline.infer("double", {"x": row(1)}))
        await asyncio.to_thread(diary.entered.wait, 30)
        with pytest.raises(Overloaded, match="max_in_flight=1"):
            await pipeline.infer("double", {"x": row(3)})
        diary.gate.set()
        await first


def test_threads_call_it_and_share_batches(diary: Diary) -> None:
    answers: dict[int, Any] = {}
    with Pipeline(doubling(diary)) as pipeline:

        def ask(number: int) -> None:
            answers[number] = pipeline.call("double", {"x": row(number)})["y"].tolist()

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == {number: [[2.0 * number] * 2] for number in range(16)}


async def test_the_lock_is_taken_once_a_batch_and_not_once_a_request(diary: Diary) -> None:
    async with Pipeline(doubling(diary)) as pipeline:
        await pipeline.infer("double", {"x": row(0)})
        before, batches = _native.lock_acquisitions(), len(diary.batches)
        for _ in range(10):
            await asyncio.gather(*(pipeline.infer("double", {"x": row(n)}) for n in range(100)))
        taken, called = _native.lock_acquisitions() - before, len(diary.batches) - batches
    assert taken <= called + 12, f"{taken} acquisitions for {called} batches of 1000 requests"


async def test_before_and_after_its_life_it_says_so(diary: Diary) -> None:
    pipeline = Pipeline(doubling(diary))
    assert repr(pipeline) == "<penstock.Pipeline double not started>"
    with pytest.raises(Closed, match="not started"):
        await pipeline.infer("double", {"x": row(1)})
    async with pipeline:
        assert repr(pipeline) == "<penstock.Pipeline double in process>"
        assert pipeline.ready
    with pytest.raises(Closed, match="closed"):
        await pipeline.infer("double", {"x": row(1)})
    with pytest.raises(Closed, match="closed"):
        pipeline.start()
    pipeline.close()


async def test_closing_without_draining_refuses_what_waits(diary: Diary) -> None:
    diary.gate.clear()
    pipeline = Pipeline(doubling(diary)).start()
    first = asyncio.ensure_future(pipeline.infer("double", {"x": row(1)}))
    await asyncio.to_thread(diary.entered.wait, 30)
    second = asyncio.ensure_future(pipeline.infer("double", {"x": row(2)}))
    await asyncio.to_thread(until, lambda: pipeline.stats().models["double"].queued == 1)
    closing = asyncio.ensure_future(pipeline.aclose(drain=False))
    with pytest.raises(Closed):
        await second
    diary.gate.set()
    assert (await first)["y"].tolist() == [[2, 2]]
    await closing


async def test_callers_here_and_clients_from_elsewhere_share_batches(diary: Diary) -> None:
    diary.gate.clear()
    async with Pipeline(doubling(diary)) as pipeline:
        server = await asyncio.to_thread(pipeline.serve, port=0, grpc_port=0)
        with pytest.raises(ConfigError, match="listens already"):
            await asyncio.to_thread(pipeline.serve, port=0)
        async with penstock.AsyncClient(server.url) as http, penstock.AsyncClient(server.grpc_url) as grpc:
            first = asyncio.ensure_future(pipeline.infer("double", {"x": row(0)}))
            await asyncio.to_thread(diary.entered.wait, 30)
            asked = [each.infer("double", {"x": row(n)}) for n, each in enumerate((pipeline, http, grpc), 1)]
            others = asyncio.gather(*asked)
            await asyncio.to_thread(until, lambda: pipeline.stats().models["double"].queued == 3)
            diary.gate.set()
            results = await others
            await first
    assert [result["y"].tolist() for result in results] == [[[2, 2]], [[4, 4]], [[6, 6]]]
    assert diary.batches == [1, 3]


async def test_text_comes_piece_by_piece(diary: Diary) -> None:
    async with Pipeline(telling(diary)) as pipeline:
        stream = pipeline.stream("tell", prompt="4")
        assert [piece async for piece in stream] == ["0 ", "1 ", "2 ", "3 "]
        assert (stream.finish_reason, stream.prompt_tokens) == ("stop", None)
        chat = pipeline.stream("tell", messages=[{"role": "user", "content": "count"}])
        assert "".join([piece async for piece in chat]) == "0 1 2 "
        cut = pipeline.stream("tell", prompt="9", max_tokens=2)
        assert [piece async for piece in cut] == ["0 ", "1 "]
        assert cut.finish_reason == "length"
        stopped = pipeline.stream("tell", prompt="9", stop="3")
        assert "".join([piece async for piece in stopped]) == "0 1 2 "


def test_a_thread_reads_a_stream_too(diary: Diary) -> None:
    with Pipeline(telling(diary)) as pipeline:
        assert "".join(pipeline.stream("tell", prompt="3")) == "0 1 2 "


async def test_pieces_come_while_the_model_works(diary: Diary) -> None:
    async with Pipeline(telling(diary)) as pipeline, pipeline.stream("tell", prompt="3") as stream:
        assert await anext(stream) == "0 "
        diary.gate.clear()
        waiting = asyncio.ensure_future(_all(stream))
        diary.gate.set()
        assert "".join(await waiting) == "1 2 "


async def test_steps_of_tensors_are_rows_by_name() -> None:
    async with Pipeline(stepping()) as pipeline:
        steps = [step async for step in pipeline.stream("steps", {"n": np.array([3])})]
        assert [list(step) for step in steps] == [["at"]] * 3
        assert [step["at"].tolist() for step in steps] == [[1], [2], [3]]


async def test_leaving_a_stream_stops_the_model(diary: Diary) -> None:
    async with Pipeline(telling(diary)) as pipeline:
        async with pipeline.stream("tell", prompt="1000000") as stream:
            assert await anext(stream) == "0 "
        assert await asyncio.to_thread(diary.left.wait, 30)
        with pytest.raises(StreamClosed):
            await anext(stream)


async def test_cancelling_who_reads_stops_the_model(diary: Diary) -> None:
    diary.gate.clear()
    async with Pipeline(telling(diary)) as pipeline:
        reading = asyncio.ensure_future(_all(pipeline.stream("tell", prompt="1000000")))
        await asyncio.to_thread(diary.entered.wait, 30)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        diary.gate.set()
        assert await asyncio.to_thread(diary.left.wait, 30)


async def test_a_stream_that_fails_says_what_came_first(diary: Diary) -> None:
    async with Pipeline(telling(diary)) as pipeline:
        stream = pipeline.stream("tell", prompt="fail 3")
        assert await anext(stream) == "0 "
        with pytest.raises(ModelError, match="it broke off"):
            await anext(stream)


async def test_a_stream_keeps_its_deadline(diary: Diary) -> None:
    diary.gate.clear()
    async with Pipeline(telling(diary)) as pipeline:
        with pytest.raises(DeadlineExceeded):
            await anext(pipeline.stream("tell", prompt="3", timeout=0.05))
        diary.gate.set()


async def test_questions_that_no_stream_answers(diary: Diary) -> None:
    async with Pipeline([telling(diary), doubling(diary), stepping()]) as pipeline:
        for wrong in ({}, {"prompt": "1", "messages": []}, {"prompt": "1", "inputs": {}}):
            with pytest.raises(ConfigError, match="one of them only"):
                pipeline.stream("tell", **wrong)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="max_tokens"):
            pipeline.stream("steps", {"n": [1]}, max_tokens=4)
        for stream, words in [
            (pipeline.stream("tell", {"n": [1]}), "no input 'n'"),
            (pipeline.stream("double", prompt="1"), "not"),
            (pipeline.stream("steps", {"n": [1, 2]}), "a stream answers one"),
            (pipeline.stream("tell", prompt="1", temperature=9), "temperature"),
        ]:
            with pytest.raises(ItemError, match=words):
                await anext(stream)
        with pytest.raises(ModelNotFound):
            await anext(pipeline.stream("no", prompt="1"))
        # Any other model says its one answer.
        assert [step["y"].tolist() async for step in pipeline.stream("double", {"x": row(2)})] == [[[4, 4]]]


async def test_one_reader_at_a_time(diary: Diary) -> None:
    diary.gate.clear()
    async with Pipeline(telling(diary)) as pipeline:
        stream = pipeline.stream("tell", prompt="2")
        first = asyncio.ensure_future(anext(stream))
        await asyncio.to_thread(diary.entered.wait, 30)
        with pytest.raises(StreamClosed, match="two tasks"):
            await anext(stream)
        diary.gate.set()
        assert await first == "0 "
        assert await _all(stream) == ["1 "]


async def _all(stream: Any) -> list[Any]:
    return [piece async for piece in stream]
