"""Served models in worker processes: the server's own interpreter has no part in their batches."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock import Client, Processes, Server, _native, model
from penstock.errors import ConfigError, LoadFailed, PenstockError, RemoteError
from penstock.testing import TestClient
from tests.python.support import in_processes as far
from tests.python.support.waiting import until


def numbers_of(server: Server, index: int = 0) -> list[int]:
    assert server._native is not None
    return server._native.process_numbers(index)


def is_gone(number: int) -> bool:
    return not Path(f"/proc/{number}").exists()


def ask(client: TestClient, name: str, *values: float) -> Any:
    return client.infer(name, {"x": np.array(values, np.float32)})


def test_numbers_and_texts_go_there_and_back() -> None:
    with Server([far.mixed], port=0) as server, Client(server.url) as client:
        numbers = numbers_of(server)
        assert len(numbers) == 2
        x = np.arange(12, dtype=np.float32).reshape(4, 3)
        answer = client.infer("mixed", {"x": x, "t": ["a", "ß", "", "long" * 1000]})
        assert np.array_equal(answer["y"], x + 1)
        assert [text.decode() for text in answer["s"]] == ["A", "SS", "", "LONG" * 1000]
        assert set(answer["p"].tolist()) <= set(numbers)
    assert all(map(is_gone, numbers))


def test_the_lock_is_not_taken_for_a_batch() -> None:
    with Server([far.mixed], port=0) as server, Client(server.url) as client:
        inputs = {"x": np.zeros((1, 3), np.float32), "t": ["a"]}
        for _ in range(20):
            client.infer("mixed", inputs)
        stats = server.stats().models["mixed"]
        assert (stats.requests, stats.batches, stats.lock_acquisitions) == (20, 20, 0)
        assert stats.function_seconds > 0


ASK = """
import sys, numpy as np, penstock
with penstock.Client(sys.argv[1]) as client:
    for _ in range(5):
        client.infer("mixed", {"x": np.zeros((1, 3), np.float32), "t": ["a"]}, timeout=20)
"""


def test_answers_come_while_another_thread_holds_the_lock() -> None:
    # Whoever asks is another process: this one's interpreter does nothing but hold its lock.
    with Server([far.mixed], port=0) as server:
        asking = subprocess.Popen([sys.executable, "-c", ASK, server.url])
        interval = sys.getswitchinterval()
        sys.setswitchinterval(3600)
        try:
            end = time.monotonic() + 60
            while asking.poll() is None and time.monotonic() < end:
                sum(range(10_000))
        finally:
            sys.setswitchinterval(interval)
        assert asking.wait() == 0


def test_errors_are_those_of_threads() -> None:
    with Server([far.fragile, far.wrong], port=0) as server:
        client = TestClient(server)
        assert ask(client, "fragile", 1, 2)["y"].tolist() == [2, 4]
        with pytest.raises(PenstockError, match="not 7"):
            ask(client, "fragile", 7)
        with pytest.raises(PenstockError, match="the function raised ValueError: thirteen"):
            ask(client, "fragile", 13)
        with pytest.raises(PenstockError, match=r"output 'y' is float32 of shape \[1\]"):
            ask(client, "wrong", 1)
        assert server.stats().models["fragile"].restarts == 0


def test_a_batch_that_raises_is_split() -> None:
    with Server([far.fragile], port=0) as server, Client(server.url) as client, ThreadPoolExecutor(16) as threads:

        def one(value: float) -> Any:
            try:
                return float(client.infer("fragile", {"x": np.array([value], np.float32)})["y"][0])
            except RemoteError as error:
                return str(error)

        answers = list(threads.map(one, [1, 2, 3, 13, 4, 5, 7, 6]))
        assert [answer for answer in answers if isinstance(answer, float)] == [2, 4, 6, 8, 10, 12]
        assert "thirteen" in answers[3]
        assert "not 7" in answers[6]


def test_a_process_that_dies_is_replaced_and_its_batch_fails_by_name() -> None:
    with Server([far.fragile], port=0) as server:
        client = TestClient(server)
        before = numbers_of(server)
        with pytest.raises(PenstockError, match="the process of model 'fragile' exited with status 9"):
            ask(client, "fragile", 66)
        assert ask(client, "fragile", 1)["y"].tolist() == [2]
        assert server.stats().models["fragile"].restarts == 2
        (number,) = numbers_of(server)
        assert number not in before
        os.kill(number, signal.SIGKILL)
        assert ask(client, "fragile", 2)["y"].tolist() == [4]
        assert server.stats().models["fragile"].restarts == 3
        assert 'penstock_worker_restarts_total{model="fragile"} 3' in server.metrics()


def test_a_batch_whose_process_is_killed_is_run_again() -> None:
    with Server([far.fragile], port=0) as server, ThreadPoolExecutor(1) as threads:
        client = TestClient(server)
        asked = threads.submit(ask, client, "fragile", 99)
        until(lambda: server.stats().models["fragile"].batches)
        time.sleep(0.2)
        (first,) = numbers_of(server)
        os.kill(first, signal.SIGKILL)
        until(lambda: numbers_of(server) not in ([], [first]))
        (second,) = numbers_of(server)
        until(lambda: server.stats().models["fragile"].restarts)
        os.kill(second, signal.SIGKILL)
        with pytest.raises(PenstockError, match=r"killed by signal 9 \(SIGKILL\) while it ran this batch"):
            asked.result(30)


def test_a_batch_that_must_not_run_twice_is_not_run_again_where_its_process_dies(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with Server([far.charges], port=0) as server:
        client = TestClient(server)
        with pytest.raises(PenstockError, match="status 6 while it ran this batch, which may not run twice"):
            client.infer("charges", {"x": np.array([str(runs)])})
    assert runs.read_text() == "run\n"


def test_a_record_says_where_the_time_went() -> None:
    with Server([far.fragile], port=0) as server:
        ask(TestClient(server), "fragile", 1, 2)
        (record,) = server.explain("fragile").batches
        assert record.size == 2
        assert record.model > 0


def test_the_time_that_is_left_is_known_in_the_process() -> None:
    with Server([far.hurried], port=0) as server, Client(server.url) as client:
        inputs = {"x": np.zeros(1, np.float32)}
        assert 5 < client.infer("hurried", inputs, timeout=20)["y"][0] <= 20


def test_rows_of_different_lengths_are_filled_up_and_told_apart() -> None:
    with Server([far.padded], port=0) as server, Client(server.url) as client, ThreadPoolExecutor(8) as threads:

        def one(length: int) -> list[float]:
            rows = client.infer("padded", {"x": np.ones((1, length), np.float32)})["y"]
            return [float(value) for value in rows[0]]

        lengths = [3, 1, 5, 2, 7, 4, 6, 8]
        assert list(threads.map(one, lengths)) == [[length, length] for length in lengths]


def test_async_models_run_in_processes() -> None:
    with Server([far.coroutine], port=0) as server:
        assert ask(TestClient(server), "coroutine", 1)["y"][0] in numbers_of(server)


def test_a_class_is_loaded_and_closed_in_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_TEST_FOLDER", str(tmp_path))
    with Server([far.Whole], port=0) as server:
        assert (tmp_path / "loaded").exists()
        assert ask(TestClient(server), "whole", 1)["y"].tolist() == [6]
        assert not (tmp_path / "closed").exists()
    assert (tmp_path / "closed").exists()


@pytest.mark.parametrize(
    ("broken", "kind", "words"),
    [
        (far.Unloadable, LoadFailed, "model 'unloadable' failed to load: OSError: no such weights"),
        (far.UnloadableByName, PenstockError, "in its own words"),
    ],
)
def test_a_model_that_cannot_be_loaded_says_why(broken: Any, kind: type[Exception], words: str) -> None:
    server = Server([broken], port=0)
    with pytest.raises(kind, match=words) as raised:
        server.start()
    assert "Traceback" in str(raised.value.__cause__)
    assert numbers_of(server) == []


def test_closing_in_time_kills_what_never_ends() -> None:
    server = Server([far.fragile], port=0).start()
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(ask, TestClient(server), "fragile", 99)
        until(lambda: server.stats().models["fragile"].batches)
        numbers = numbers_of(server)
        began = time.monotonic()
        server.close(timeout=0.2)
        assert time.monotonic() - began < 20
        assert all(map(is_gone, numbers))
        with pytest.raises(PenstockError, match="closed"):
            asked.result(30)


def test_no_thread_stays_behind() -> None:
    before = {thread.name for thread in threading.enumerate()}
    with Server([far.mixed], port=0):
        pass
    assert {thread.name for thread in threading.enumerate()} <= before | {"penstock-log"}
    assert _native.VERSION


def test_a_model_that_cannot_be_imported_needs_cloudpickle(monkeypatch: pytest.MonkeyPatch) -> None:
    @model("local", inputs={"x": far.SCALAR}, outputs={"y": far.SCALAR}, workers=Processes(1))
    def local(x: Any) -> Any:
        return x * 3

    with Server([local], port=0) as server:
        assert ask(TestClient(server), "local", 2)["y"].tolist() == [6]
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(ConfigError, match="install cloudpickle"):
        Server([local], port=0).start()
