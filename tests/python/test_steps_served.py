"""Served models that are generators: requests of a door are answered step by step, while others leave and join."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penstock import AsyncClient, ItemError, Server, model
from penstock._inference import InferResult
from penstock.errors import ConfigError, RemoteError
from tests.python.support.waiting import PATIENCE, outcomes, soon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from penstock import Batch

X = {"x": ("int64", [2])}
Y = {"y": ("int64", [2])}


def rows(*values: int) -> dict[str, Any]:
    return {"x": np.array([[value, value] for value in values])}


def count_up(batch: Batch) -> Iterator[dict[int, Any]]:
    at: dict[int, Any] = {}
    while batch.live:
        at = {i: at.get(i, np.zeros(2, np.int64)) + 1 for i in batch}
        yield at
        for i in batch.live:
            if (at[i] >= batch[i]).all():
                batch.finish(i)
        batch.join()


async def count_up_async(batch: Batch) -> AsyncIterator[dict[int, Any]]:
    at: dict[int, Any] = {}
    while batch.live:
        at = {i: at.get(i, np.zeros(2, np.int64)) + 1 for i in batch}
        await asyncio.sleep(0)
        yield at
        for i in batch.live:
            if (at[i] >= batch.inputs[i]["x"]).all():
                batch.finish(i, at[i] * 10)
        batch.join()


@pytest.mark.parametrize("protocol", ["url", "grpc_url"])
async def test_requests_are_answered_with_their_last_step_or_what_they_are_finished_with(protocol: str) -> None:
    class Counter:
        def load(self, _: Any) -> None:
            self.factor = 10

        def predict(self, batch: Batch) -> Iterator[dict[int, Any]]:
            yield from count_up(batch)

    sync = model("sync", inputs=X, outputs=Y, max_batch_size=4)(count_up)
    asynchronous = model("async", inputs=X, outputs=Y, max_batch_size=4, workers=2)(count_up_async)
    counter = model("class", inputs=X, outputs=Y)(Counter)
    with Server([sync, asynchronous, counter], port=0) as server:
        async with AsyncClient(getattr(server, protocol)) as client:
            for name, factor in (("sync", 1), ("async", 10), ("class", 1)):
                asked = [client.infer(name, rows(n, n + 3)) for n in range(1, 13)]
                answers = await asyncio.wait_for(asyncio.gather(*asked), PATIENCE)
                for n, answer in enumerate(answers, 1):
                    assert answer["y"].tolist() == [[n * factor] * 2, [(n + 3) * factor] * 2]
        stats = server.stats().models
        assert stats["sync"].requests == 24
        assert stats["sync"].queued == 0
        # One record for each batch, however many times it answered.
        numbers = [record.number for record in server.explain("sync", last=256).batches]
        assert len(numbers) == len(set(numbers)) == stats["sync"].batches


@pytest.mark.parametrize("function", [count_up, count_up_async])
async def test_a_stream_of_grpc_has_a_message_for_each_step(function: Any) -> None:
    counter = model("counter", inputs=X, outputs=Y, max_batch_size=4)(function)
    with Server([counter], port=0) as server:
        async with AsyncClient(server.grpc_url) as client, client.stream_infer() as stream:
            for request_id, number in (("a", 3), ("b", 5)):
                await stream.send("counter", rows(number), request_id=request_id)
            # Several rows of one request are answered as a whole.
            await stream.send("counter", rows(1, 2), request_id="c")
            await stream.end()
            steps: dict[str, list[Any]] = {"a": [], "b": [], "c": []}
            async for result in stream:
                assert isinstance(result, InferResult)
                steps[result.id or ""].append(result["y"].tolist() if len(result) else None)
    for request_id, number in (("a", 3), ("b", 5)):
        assert steps[request_id] == [*([[n, n]] for n in range(1, number + 1)), None]
    assert len(steps["c"]) == 1


async def test_several_outputs_and_texts_by_name() -> None:
    @model(
        "spell",
        inputs={"text": ("string", []), "n": ("int64", [])},
        outputs={"said": ("string", []), "count": ("int64", [])},
    )
    def spell(batch: Batch) -> Iterator[None]:
        for i in batch:
            given = batch.inputs[i]
            batch.finish(i, {"said": given["text"] * int(given["n"]), "count": given["n"]})
        yield None

    with Server([spell], port=0) as server:
        async with AsyncClient(server.url) as client:
            answer = await client.infer("spell", {"text": np.array(["a", "bc"], object), "n": np.array([3, 2])})
    assert list(answer["said"]) == [b"aaa", b"bcbc"]
    assert answer["count"].tolist() == [3, 2]


async def test_a_failure_is_for_one_request_or_for_all_that_are_live() -> None:
    @model("picky", inputs=X, outputs=Y)
    def picky(batch: Batch) -> Iterator[Any]:
        for i in batch:
            if batch[i][0] == 1:
                batch.fail(i, ItemError("one"))
            elif batch[i][0] == 2:
                batch.fail(i, ValueError("two"))
            elif batch[i][0] == 3:
                batch.finish(i, "text")
            elif batch[i][0] == 4:
                batch.finish(i)
        yield {i: batch[i] for i in batch}
        if any(batch[i][0] == 5 for i in batch):
            raise RuntimeError("five")

    with Server([picky], port=0) as server:
        async with AsyncClient(server.url) as client:
            answers = [(await outcomes([client.infer("picky", rows(n))]))[0] for n in range(7)]
    assert answers[0]["y"].tolist() == [[0, 0]]
    assert answers[6]["y"].tolist() == [[6, 6]]
    assert all(isinstance(answer, RemoteError) for answer in answers[1:6])
    assert [answer.status for answer in answers[1:6]] == [400, 500, 500, 500, 500]
    for answer, message in zip(answers[1:6], ["one", "two", "'y'", "without a value", "five"], strict=True):
        assert message in str(answer)


async def test_who_hangs_up_is_out_after_the_next_step_and_others_join() -> None:
    steps = threading.Semaphore(0)
    live: list[list[int]] = []

    @model("stepper", inputs=X, outputs=Y, max_batch_size=3)
    def stepper(batch: Batch) -> Iterator[Any]:
        while batch.live:
            live.append(sorted(int(batch[i][0]) for i in batch))
            assert steps.acquire(timeout=PATIENCE)
            yield [batch[i] for i in batch]
            for i in batch.live:
                if len(live) > 2:
                    batch.finish(i)
            batch.join()

    with Server([stepper], port=0) as server:
        async with AsyncClient(server.url) as client:
            first = asyncio.ensure_future(client.infer("stepper", rows(1)))
            await soon(lambda: live)
            second = asyncio.ensure_future(client.infer("stepper", rows(2)))
            await soon(lambda: server.stats().models["stepper"].queued == 1)
            steps.release()
            await soon(lambda: live[-1:] == [[1, 2]])
            first.cancel()
            third = asyncio.ensure_future(client.infer("stepper", rows(3)))
            await soon(lambda: server.stats().models["stepper"].queued == 1)
            steps.release()
            await soon(lambda: len(live) > 2)
            steps.release(100)
            answers = await asyncio.wait_for(asyncio.gather(second, third), PATIENCE)
    assert [answer["y"][0, 0] for answer in answers] == [2, 3]
    assert live[2] == [2, 3]


async def test_padded_rows_come_as_long_as_they_were() -> None:
    @model("lengths", inputs={"x": ("int64", [-1])}, outputs={"n": ("int64", [])}, pad=True)
    def lengths(batch: Batch) -> Iterator[Any]:
        yield [len(batch[i]) for i in batch]

    with Server([lengths], port=0) as server:
        async with AsyncClient(server.url) as client:
            asked = [client.infer("lengths", {"x": np.ones((1, n), np.int64)}) for n in range(1, 9)]
            answers = await asyncio.wait_for(asyncio.gather(*asked), PATIENCE)
    assert [answer["n"].tolist() for answer in answers] == [[n] for n in range(1, 9)]


def test_padding_of_several_inputs_is_refused() -> None:
    @model("two", inputs={"a": ("int64", [-1]), "b": ("int64", [-1])}, outputs=Y, pad=True)
    def two(_: Batch) -> Iterator[None]:
        yield None

    with pytest.raises(ConfigError, match="one input"):
        Server([two], port=0).start()
