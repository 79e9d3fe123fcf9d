"""Several models in one server, each left alone by what the others do; and `async def` models on their own loop."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import numpy as np
import pytest

from penstock import Server, model, testing
from penstock.errors import ModelError, PenstockError
from penstock.testing import TestClient
from tests.python.support.waiting import PATIENCE, Gate, until

X = {"x": ("float32", [])}
Y = {"y": ("float32", [])}
BODY = testing.infer_body({"x": ("FP32", [1], [1.0])})


def row(value: float) -> dict[str, Any]:
    return {"x": np.full(1, value, np.float32)}


@model("plain", inputs=X, outputs=Y)
def plain(x: Any) -> Any:
    return x + 1


def answers_meanwhile(server: Server) -> None:
    """Others are answered over the network, many times: by a model and without one."""
    report = testing.load(f"{server.url}/v2/models/plain/infer", [BODY], clients=8, requests_per_client=10)
    assert (report.ok, report.failed, report.unfinished) == (80, 0, 0)
    client = TestClient(server)
    for path in ("/v2/health/live", "/v2/health/ready", "/metrics", "/v2/models/plain"):
        assert client.get(path).status_code == 200


def test_a_model_that_sleeps_under_load_delays_nobody_else() -> None:
    awake, batches = threading.Event(), []

    @model("sleeper", inputs=X, outputs=Y, max_batch_size=8)
    def sleeper(x: Any) -> Any:
        batches.append(len(x))
        time.sleep(0.2)
        while not awake.is_set():
            time.sleep(0.2)
        return x

    with Server([sleeper, plain], port=0) as server, ThreadPoolExecutor() as threads:
        url = f"{server.url}/v2/models/sleeper/infer"
        load = threads.submit(testing.load, url, [BODY], clients=32, requests_per_client=1)
        until(lambda: server.stats().models["sleeper"].queued == 32 - sum(batches) and batches)
        answers_meanwhile(server)
        assert not load.done()
        assert len(batches) == 1
        awake.set()
        assert load.result(PATIENCE).ok == 32
    assert sum(batches) == 32


def test_an_async_model_that_blocks_its_loop_delays_nobody_else(gate: Gate) -> None:
    @model("blocking", inputs=X, outputs=Y)
    async def blocking(x: Any) -> Any:
        return gate.run(x)

    with Server([blocking, plain], port=0) as server, ThreadPoolExecutor() as threads:
        asked = threads.submit(TestClient(server).infer, "blocking", row(2))
        until(gate.entered.is_set)
        answers_meanwhile(server)
        assert not asked.done()
        gate.open()
        assert asked.result(PATIENCE)["y"] == [20.0]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_as_many_batches_of_an_async_model_overlap_as_it_has_workers(workers: int) -> None:
    running, most, seen, full = 0, 0, [], asyncio.Event()

    @model("waits", inputs=X, outputs=Y, workers=workers, max_batch_size=1)
    async def waits(x: Any) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if most == workers:
            full.set()
        # Nobody goes on before as many are here as there can be.
        await asyncio.wait_for(full.wait(), PATIENCE)
        await asyncio.sleep(0.01)
        running -= 1
        seen.extend(x.tolist())
        return x

    server = Server(waits)
    with TestClient(server) as client, ThreadPoolExecutor(20) as threads:
        asked = [threads.submit(client.infer, "waits", row(number)) for number in range(20)]
        ours = [thread for thread in threading.enumerate() if thread.name.startswith("penstock-waits")]
        assert len(ours) == 1
        assert [float(future.result(PATIENCE)["y"][0]) for future in asked] == list(range(20))
        assert server.stats().models["waits"].batches == 20
    assert most == workers
    assert sorted(seen) == list(range(20))


async def test_async_models_share_a_loop_that_is_not_the_callers() -> None:
    seen: list[tuple[str, Any]] = []

    @model("one", inputs=X, outputs=Y)
    async def one(x: Any) -> Any:
        seen.append((threading.current_thread().name, asyncio.get_running_loop()))
        return x

    @model("other", inputs=X, outputs=Y)
    class Other:
        async def load(self, _ctx: Any) -> None:
            await asyncio.sleep(0)
            self.by = np.float32(3)
            self.loop = asyncio.get_running_loop()

        async def predict(self, x: Any) -> Any:
            await asyncio.sleep(0)
            seen.append((threading.current_thread().name, asyncio.get_running_loop()))
            assert self.loop is asyncio.get_running_loop()
            return x * self.by

        async def close(self) -> None:
            await asyncio.sleep(0)
            seen.append((threading.current_thread().name, self.loop))

    async with TestClient(Server([one, Other])) as client:
        both = await asyncio.gather(client.ainfer("one", row(2)), client.ainfer("other", row(2)))
    assert [answer["y"].tolist() for answer in both] == [[2.0], [6.0]]
    assert [name for name, _ in seen] == ["penstock-asyncio"] * 3
    assert len({id(loop) for _, loop in seen}) == 1
    assert seen[0][1] is not asyncio.get_running_loop()


def test_several_inputs_come_by_name_to_an_async_model() -> None:
    @model("named", inputs={"b": ("float32", []), "a": ("float32", [])}, outputs=Y)
    async def named(a: Any, b: Any) -> Any:
        return a - b

    with TestClient(Server(named)) as client:
        assert client.infer("named", {"a": [5], "b": [3]})["y"] == [2.0]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["def", "async def"])
def test_models_run_in_a_copy_of_the_context_that_started_the_server(asynchronous: bool) -> None:
    where: ContextVar[str] = ContextVar("where", default="nowhere")
    seen: list[str] = []

    def look(x: Any) -> Any:
        seen.append(where.get())
        where.set("in the model")
        return x

    async def look_async(x: Any) -> Any:
        return look(x)

    token = where.set("at the start")
    with TestClient(Server(model("look", inputs=X, outputs=Y)(look_async if asynchronous else look))) as client:
        where.reset(token)
        for _ in range(2):
            client.infer("look", row(1))
        assert where.get() == "nowhere"
    # A thread keeps its context between batches; every coroutine has one of its own.
    assert seen == ["at the start", "at the start" if asynchronous else "in the model"]


def test_one_requests_error_in_an_async_model_is_its_own(gate: Gate) -> None:
    @model("picky", inputs=X, outputs=Y, workers=2)
    async def picky(x: Any) -> Any:
        await asyncio.sleep(0)
        if (x < 0).any():
            raise ValueError("negative")
        return x

    with Server(picky, port=0) as server:
        bodies = [testing.infer_body({"x": ("FP32", [1], [value])}) for value in (1.0, -1.0, 2.0)]
        report = testing.load(
            f"{server.url}/v2/models/picky/infer", bodies, clients=20, requests_per_client=30, keep_answers=True
        )
    assert {status for at, status, _ in report.answers if at == 1} == {500}
    assert {status for at, status, _ in report.answers if at != 1} == {200}


@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_an_async_model_may_raise_what_it_likes(error: type[BaseException]) -> None:
    @model("raises", inputs=X, outputs=Y)
    async def raises(x: Any) -> Any:
        await asyncio.sleep(0)
        if x[0] < 0:
            raise error("of its own")
        return x

    with TestClient(Server(raises)) as client:
        with pytest.raises(ModelError, match=error.__name__):
            client.infer("raises", row(-1))
        assert client.infer("raises", row(1))["y"] == [1.0]


@pytest.mark.parametrize("drain", [True, False])
def test_closing_cancels_what_still_runs_before_it_closes_the_model(drain: bool) -> None:
    seen: list[str] = []

    @model("endless", inputs=X, outputs=Y, max_batch_size=1, workers=2)
    class Endless:
        async def predict(self, x: Any) -> Any:
            seen.append("in")
            try:
                await asyncio.sleep(3600)
            finally:
                await asyncio.sleep(0.01)
                seen.append("cancelled")
            return x

        def close(self) -> None:
            seen.append("close")

    server = Server(Endless)
    with TestClient(server) as client, ThreadPoolExecutor() as threads:
        asked = [threads.submit(client.infer, "endless", row(1)) for _ in range(2)]
        until(lambda: len(seen) == 2)
        server.close(drain=drain, timeout=0.05)
        assert seen == ["in", "in", "cancelled", "cancelled", "close"]
        for future in asked:
            with pytest.raises(PenstockError, match="the function was cancelled"):
                future.result(PATIENCE)


def test_a_coroutine_that_will_not_end_holds_nobody_up() -> None:
    entered, enough = threading.Event(), threading.Event()

    @model("stubborn", inputs=X, outputs=Y)
    async def stubborn(x: Any) -> Any:
        entered.set()
        while not enough.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue
        return x

    server = Server(stubborn)
    with TestClient(server) as client, ThreadPoolExecutor() as threads:
        asked = threads.submit(client.infer, "stubborn", row(1))
        until(entered.is_set)
        server.close(timeout=0.05)
        assert not asked.done()
        enough.set()
        assert asked.result(PATIENCE)["y"] == [1.0]


def test_an_async_model_under_load_in_many_overlapping_batches() -> None:
    @model("busy", inputs=X, outputs=Y, workers=8, max_batch_size=4)
    async def busy(x: Any) -> Any:
        await asyncio.sleep(0.001)
        return x

    with Server(busy, port=0) as server:
        bodies = [testing.infer_body({"x": ("FP32", [1], [float(value)])}) for value in range(50)]
        report = testing.load(
            f"{server.url}/v2/models/busy/infer", bodies, clients=50, requests_per_client=40, keep_answers=True
        )
    assert report.ok == 2000
    assert all(f'"data":[{at}.0]'.encode() in body for at, _, body in report.answers)
