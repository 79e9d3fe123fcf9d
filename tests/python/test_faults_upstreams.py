"""Upstreams that stall: they keep their connections, and say nothing any more."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penstock
from penstock.errors import DeadlineExceeded, PenstockError
from tests.faults.servers import Served
from tests.python.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APP = """
import os
import numpy as np
import penstock

@penstock.model("who", inputs={"x": ("float32", [1])}, outputs={"pid": ("int64", [])})
def who(x):
    return np.full(len(x), os.getpid(), np.int64)
"""
X = {"x": np.ones((1, 1), np.float32)}


@pytest.fixture
def upstreams(tmp_path: Path) -> Iterator[list[Served]]:
    (tmp_path / "app.py").write_text(APP)
    started: list[Served] = []
    try:
        for index in range(2):
            started.append(Served(f"upstream-{index}", tmp_path, ["app.py", "--drain-timeout", "1"], {}))
            started[-1].start()
        for one in started:
            one.wait_ready()
        yield started
    finally:
        for one in started:
            one.send(signal.SIGCONT)
            one.kill()


def _ask(client: penstock.Client, timeout: float = 2.0) -> Any:
    """The process that answered, or the error."""
    try:
        return int(client.infer("who", X, timeout=timeout)["pid"][0])
    except PenstockError as error:
        return error


def test_a_stalled_upstream_costs_deadlines_and_no_hang_and_is_used_again(upstreams: list[Served]) -> None:
    stalled, well = upstreams
    numbers = {one.process.number for one in upstreams}
    pool = penstock.Pool(health_interval=0.5)
    remote = penstock.RemoteModel("who", [one.url for one in upstreams], max_batch_size=1, pool=pool)
    with (
        penstock.Server(remote, port=0) as server,
        penstock.Client(server.url) as client,
        ThreadPoolExecutor(8) as threads,
    ):
        seen: set[Any] = set()
        until(lambda: seen.add(_ask(client)) or seen == numbers)
        os.kill(stalled.process.number, signal.SIGSTOP)
        began = time.monotonic()
        outcomes = list(threads.map(lambda _: _ask(client), range(80)))
        assert time.monotonic() - began < 60
        assert all(isinstance(one, int | DeadlineExceeded) for one in outcomes), outcomes
        assert {one for one in outcomes if isinstance(one, int)} == {well.process.number}
        os.kill(stalled.process.number, signal.SIGCONT)
        seen.clear()
        until(lambda: seen.add(_ask(client)) or seen >= numbers)
        until(lambda: remote.pool_stats().total.outstanding == 0)


@pytest.mark.parametrize("end", [signal.SIGCONT, signal.SIGKILL])
def test_the_only_upstream_stalls_and_is_well_again_or_killed(upstreams: list[Served], end: signal.Signals) -> None:
    only = upstreams[0]
    remote = penstock.RemoteModel("who", only.url, timeout=penstock.Timeout(connect=1, first=1, total=3))
    with (
        penstock.Server(remote, port=0) as server,
        penstock.Client(server.url) as client,
        ThreadPoolExecutor(8) as threads,
    ):
        assert _ask(client) == only.process.number
        os.kill(only.process.number, signal.SIGSTOP)
        asked = [threads.submit(_ask, client, 20.0) for _ in range(8)]
        # Without a word of the callers', the gateway's own limits end it.
        assert all(isinstance(one.result(30), PenstockError) for one in asked)
        asked = [threads.submit(_ask, client, 20.0) for _ in range(8)]
        until(lambda: remote.pool_stats().total.outstanding > 0)
        only.send(end)
        for one in asked:
            assert isinstance(one.result(30), int | PenstockError)
        if end == signal.SIGKILL:
            only.process.wait()
            only.start()
            only.wait_ready()
        until(lambda: _ask(client) == only.process.number)
        until(lambda: remote.pool_stats().total.outstanding == 0)
