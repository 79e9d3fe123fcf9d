"""All 16 combinations of the four parts, in the process, over HTTP and over gRPC: the same answers, whatever is on."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penstock import AsyncClient, Pipeline, RemoteModel, Server, _native
from penstock.errors import DeadlineExceeded, ItemError, ModelError, ModelNotFound, PenstockError
from tests.python.support.pipelines import Diary, doubling, stepping, telling
from tests.python.support.waiting import PATIENCE, soon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator

PARTS = ("pool", "batch", "stream", "load")
COMBINATIONS = [dict(zip(PARTS, each, strict=True)) for each in product((True, False), repeat=4)]
WAYS = ("inside", "http", "grpc")
FAR, FAR_TEXT = (hasattr(_native.NativeShift, name) for name in ("start_remote", "start_text"))
"""What remote models there are: they come with the gateway."""


def shown(combination: dict[str, bool]) -> str:
    return "+".join(name for name, on in combination.items() if on) or "none"


@dataclass
class World:
    """A pipeline behind both doors, and what its models saw."""

    parts: dict[str, bool]
    pipeline: Pipeline
    diary: Diary
    urls: dict[str, str]
    loaded_at_start: list[str]
    far: list[RemoteModel]
    beyond: Diary


class Way:
    """One way to ask: the pipeline itself, or a client of a door."""

    def __init__(self, way: str, world: World, client: AsyncClient | None) -> None:
        self.name = way
        self._client = client
        self._world = world

    async def infer(self, x: Any, model: str = "double", timeout: float | None = PATIENCE) -> Any:
        inputs = {"x": np.asarray(x, np.float32)}
        if self._client is None:
            return (await self._world.pipeline.infer(model, inputs, timeout=timeout))["y"].tolist()
        return (await self._client.infer(model, inputs, timeout=timeout))["y"].tolist()

    async def text(self, prompt: str, model: str = "tell") -> AsyncIterator[str]:
        """The pieces of a text, as they come."""
        if self._client is None:
            async for piece in self._world.pipeline.stream(model, prompt=prompt):
                yield piece
        elif self.name == "http":
            body = {"model": model, "prompt": prompt, "stream": True}
            async with self._client.stream("POST", "/v1/completions", json=body) as answer:
                if answer.status_code != 200:
                    raise ModelError(str(await answer.read()))
                async for event in answer.sse():
                    if event.data != "[DONE]":
                        yield _text_of(json.loads(event.data))
        else:
            async with self._client.stream_infer() as stream:
                await stream.send(model, {"text_input": np.array([prompt], object)})
                await stream.end()
                async for result in stream:
                    if "text_output" in result:
                        yield result["text_output"][0].decode()

    async def steps(self, count: int) -> list[int]:
        """What every step of a model of tensors says."""
        n = np.array([count], np.int64)
        if self._client is None:
            return [int(step["at"][0]) async for step in self._world.pipeline.stream("steps", {"n": n})]
        if self.name == "http":
            body = {"inputs": [{"name": "n", "datatype": "INT64", "shape": [1], "data": [count]}]}
            async with self._client.stream("POST", "/v2/models/steps/generate_stream", json=body) as answer:
                said = [json.loads(event.data) async for event in answer.raise_for_status().sse()]
            return [each["outputs"][0]["data"][0] for each in said]
        async with self._client.stream_infer() as stream:
            await stream.send("steps", {"n": n})
            await stream.end()
            return [int(result["at"][0]) async for result in stream if "at" in result]


def _text_of(event: dict[str, Any]) -> str:
    if "error" in event:
        raise ModelError(event["error"]["message"])
    return str(event["choices"][0]["text"])


@pytest.fixture(scope="module")
def second() -> Iterator[tuple[Server, Diary]]:
    """A server of its own, which remote models are asked of."""
    diary = Diary()
    with Server([doubling(diary), telling(diary, workers=4)], port=0) as server:
        yield server, diary


@pytest.fixture(scope="module", params=COMBINATIONS, ids=shown)
def world(request: pytest.FixtureRequest, second: tuple[Server, Diary]) -> Iterator[World]:
    parts, diary, (beyond, far_diary) = request.param, Diary(), second
    far = []
    if FAR:
        far += [
            RemoteModel("far", beyond.url, upstream_name="double"),
            RemoteModel("far-grpc", beyond.grpc_url, upstream_name="double"),
        ]
    if FAR_TEXT:
        far.append(RemoteModel("far-tell", beyond.url, upstream_name="tell", task="generate"))
    models = [doubling(diary), doubling(diary, "other"), telling(diary, workers=4), stepping()]
    with Pipeline([*models, *far], **parts) as pipeline:
        loaded = list(diary.loads)
        server = pipeline.serve(port=0)
        urls = {"http": server.url, "grpc": server.grpc_url}
        yield World(parts, pipeline, diary, urls, loaded, far, far_diary)
        diary.gate.set()


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, world: World) -> Any:
    """Opens the way, inside a loop."""
    world.diary.batches.clear()
    world.diary.pace = 0.0
    world.diary.gate.set()
    world.diary.entered.clear()
    world.diary.left.clear()

    @asynccontextmanager
    async def opened() -> AsyncIterator[Way]:
        if request.param == "inside":
            yield Way("inside", world, None)
            return
        async with AsyncClient(world.urls[request.param], pool=None if world.parts["pool"] else False) as client:
            yield Way(request.param, world, client)

    return opened


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 4 * PATIENCE))


def test_answers_are_right_and_in_order(world: World, way: Any) -> None:
    async def main() -> None:
        async with way() as ask:
            answers = await asyncio.gather(*(ask.infer([[n, -0.5]]) for n in range(32)))
            assert answers == [[[2.0 * n, -1.0]] for n in range(32)]
            rows = [[float(n), 1.0] for n in range(7)]
            assert await ask.infer(rows) == [[2 * n, 2.0] for n, _ in rows]

    run(main())
    assert 7 in world.diary.batches or world.parts["batch"]


def test_a_batch_holds_what_it_may(world: World, way: Any) -> None:
    diary = world.diary
    diary.gate.clear()

    async def main() -> None:
        async with way() as ask:
            first = asyncio.ensure_future(ask.infer([[0, 0]]))
            await asyncio.to_thread(diary.entered.wait, PATIENCE)
            several = [asyncio.ensure_future(ask.infer([[n, n]] * n)) for n in (1, 2, 3)]
            await soon(lambda: world.pipeline.stats().models["double"].queued == 6)
            diary.gate.set()
            assert [len(answer) for answer in await asyncio.gather(*several)] == [1, 2, 3]
            await first

    run(main())
    assert diary.batches[0] == 1
    assert sorted(diary.batches[1:]) == ([6] if world.parts["batch"] else [1, 2, 3])


def test_each_request_has_its_own_failure(world: World, way: Any) -> None:
    async def main() -> None:
        async with way() as ask:
            asked = (ask.infer([[n, 0]]) for n in (1, -2, 3, -4))
            good, bad, fine, worse = await asyncio.gather(*asked, return_exceptions=True)
            assert (good, fine) == ([[2, 0]], [[6, 0]])
            for failure, words in [(bad, "-2 is negative"), (worse, "-4 is negative")]:
                assert isinstance(failure, ItemError)
                assert words in str(failure)
            with pytest.raises(ModelNotFound):
                await ask.infer([[1, 1]], model="no")
            with pytest.raises(ItemError, match="shape"):
                await ask.infer([[1]])

    run(main())


def test_who_is_cancelled_leaves_and_others_are_answered(world: World, way: Any) -> None:
    diary = world.diary
    diary.gate.clear()

    async def main() -> None:
        async with way() as ask:
            first = asyncio.ensure_future(ask.infer([[1, 1]]))
            await asyncio.to_thread(diary.entered.wait, PATIENCE)
            left, stays = (asyncio.ensure_future(ask.infer([[n, n]])) for n in (8, 9))
            stats = world.pipeline.stats
            await soon(lambda: stats().models["double"].queued == 2)
            before = gone(world)
            left.cancel()
            with pytest.raises(asyncio.CancelledError):
                await left
            await soon(lambda: gone(world) > before)
            diary.gate.set()
            assert (await first, await stays) == ([[2, 2]], [[18, 18]])

    run(main())
    assert sum(diary.batches) == 2, "the model never saw who was cancelled"


def gone(world: World) -> float:
    """Requests of which it is known that they have left."""
    text = world.pipeline.metrics()
    lines = [line for line in text.splitlines() if 'outcome="gone"' in line and 'model="double"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_a_deadline_ends_the_waiting(world: World, way: Any) -> None:
    diary = world.diary
    diary.gate.clear()

    async def main() -> None:
        async with way() as ask:
            first = asyncio.ensure_future(ask.infer([[1, 1]]))
            await asyncio.to_thread(diary.entered.wait, PATIENCE)
            with pytest.raises((DeadlineExceeded, PenstockError)):
                await ask.infer([[2, 2]], timeout=0.1)
            diary.gate.set()
            assert await first == [[2, 2]]
            assert await ask.infer([[3, 3]]) == [[6, 6]]

    run(main())
    assert sum(diary.batches) == 2, "the model never saw who could not wait"


def test_streams_are_complete_and_equal(world: World, way: Any) -> None:
    async def main() -> None:
        async with way() as ask:
            texts = await asyncio.gather(*(_joined(ask, str(n)) for n in range(1, 7)))
            assert texts == ["".join(f"{n} " for n in range(count)) for count in range(1, 7)]
            steps = await asyncio.gather(*(ask.steps(n) for n in (1, 2, 5)))
            assert steps == [[1], [1, 2], [1, 2, 3, 4, 5]]

    run(main())


def test_pieces_come_when_they_are_to(world: World, way: Any) -> None:
    """As the model makes them; or together, when the last of them is made."""
    diary = world.diary
    diary.gate.clear()

    async def main() -> None:
        async with way() as ask:
            pieces = ask.text("3")
            first = asyncio.ensure_future(anext(pieces))
            await asyncio.to_thread(diary.entered.wait, PATIENCE)
            diary.gate.set()
            assert await first == "0 "
            rest = [piece async for piece in pieces]
            assert "".join(rest) == "1 2 "

    run(main())
    if not world.parts["stream"]:
        assert diary.left.is_set()


def test_a_stream_that_fails_says_so(world: World, way: Any) -> None:
    async def main() -> None:
        async with way() as ask:
            heard: list[str] = []

            async def hear() -> None:
                async for piece in ask.text("fail 3"):
                    heard.append(piece)  # noqa: PERF401  what came before the failure counts

            with pytest.raises(PenstockError, match="it broke off"):
                await hear()
            # A failure that comes right behind the first piece may come before the head of an answer has left.
            assert heard in ([["0 "], []] if world.parts["stream"] else [[]])

    run(main())


def test_leaving_a_stream_stops_the_model(world: World, way: Any) -> None:
    world.diary.pieces, world.diary.pace = 0, 0.001

    async def main() -> None:
        async with way() as ask:
            reading = asyncio.ensure_future(_joined(ask, "2000"))
            await asyncio.to_thread(world.diary.entered.wait, PATIENCE)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert await asyncio.to_thread(world.diary.left.wait, PATIENCE)
            assert world.diary.pieces < 1000

    run(main())


def test_models_load_once_and_when_they_are_to(world: World, way: Any) -> None:
    async def main() -> None:
        async with way() as ask:
            answers = await asyncio.gather(*(ask.infer([[n, n]], model="other") for n in range(8)))
            assert answers == [[[2 * n, 2 * n]] for n in range(8)]
            await ask.infer([[1, 1]])

    run(main())
    assert sorted(world.diary.loads) == ["double", "other"]
    assert sorted(world.loaded_at_start) == (["double", "other"] if world.parts["load"] else [])


def test_connections_are_kept_or_not(world: World, way: Any) -> None:
    async def main() -> None:
        async with way() as ask:
            for number in range(4):
                assert await ask.infer([[number, 0]]) == [[2 * number, 0]]
            if ask._client is not None:
                stats = ask._client.stats().total
                assert (stats.reused > 0) == world.parts["pool"]
                assert stats.size <= 1 or world.parts["pool"]

    run(main())


@pytest.mark.skipif(not FAR, reason="there are no remote models yet")
@pytest.mark.parametrize("model", ["far", "far-grpc"])
def test_a_remote_model_answers_as_one_of_ours(world: World, way: Any, model: str) -> None:
    world.beyond.batches.clear()

    async def main() -> None:
        async with way() as ask:
            answers = await asyncio.gather(
                *(ask.infer([[n, -0.5]], model=model) for n in range(12)),
                ask.infer([[-7, 0]], model=model),
                ask.infer([[1, 2], [3, 4]], model=model),
                return_exceptions=True,
            )
            *good, bad, several = answers
            assert good == [[[2.0 * n, -1.0]] for n in range(12)]
            assert several == [[2, 4], [6, 8]]
            assert isinstance(bad, ItemError)
            assert "-7 is negative" in str(bad)

    run(main())
    remote = next(each for each in world.far if each.name == model)
    total = remote.pool_stats().total
    assert total.acquired > 0
    assert world.parts["pool"] or total.reused == 0


@pytest.mark.skipif(not FAR_TEXT, reason="there is no remote text yet")
def test_remote_text_is_the_same(world: World, way: Any) -> None:
    async def main() -> None:
        async with way() as ask:
            texts = await asyncio.gather(*(_joined(ask, str(n), "far-tell") for n in range(1, 5)))
            assert texts == ["".join(f"{n} " for n in range(count)) for count in range(1, 5)]

    run(main())


async def _joined(ask: Way, prompt: str, model: str = "tell") -> str:
    return "".join([piece async for piece in ask.text(prompt, model)])
