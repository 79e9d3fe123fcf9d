"""Upstreams that stall: they keep their connections, and say nothing any more."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penstock
from penstock.errors import DeadlineExceeded, PenstockError
from tests.faults.servers import Served
from tests.python.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@contextmanager
def _gateway(remote: penstock.RemoteModel) -> Iterator[tuple[penstock.Client, ThreadPoolExecutor]]:
    """A client of a server before the upstreams, and threads to ask from."""
    with (
        penstock.Server(remote, port=0) as server,
        penstock.Client(server.url) as client,
        ThreadPoolExecutor(8) as threads,
    ):
        yield client, threads


def _stall(served: Served) -> None:
    """Stops it, and waits until its last thread stands still."""
    served.send(signal.SIGSTOP)
    threads = Path(f"/proc/{served.process.number}/task")
    until(lambda: all((one / "stat").read_text().rpartition(")")[2].split()[0] == "T" for one in threads.iterdir()))


def _ask(client: penstock.Client, timeout: float = 2.0) -> Any:
    """The process that answered, or the error."""
    try:
        return int(client.infer("who", X, timeout=timeout)["pid"][0])
    except PenstockError as error:
        return error


def test_a_stalled_upstream_costs_deadlines_and_no_hang_and_is_used_again(upstreams: list[Served]) -> None:
    stalled, well = upstreams
    numbers, seen = {one.process.number for one in upstreams}, set[Any]()
    pool = penstock.Pool(health_interval=0.5)
    # A limit of the gateway's own puts it out; callers who give up only make it be chosen less.
    limits = penstock.Timeout(connect=1, first=0.4, total=3)
    urls = [one.url for one in upstreams]
    remote = penstock.RemoteModel("who", urls, max_batch_size=1, pool=pool, timeout=limits)
    with _gateway(remote) as (client, threads):
        until(lambda: seen.add(_ask(client)) or seen == numbers)
        _stall(stalled)
        began = time.monotonic()
        outcomes = list(threads.map(lambda _: _ask(client, 10.0), range(200)))
        assert time.monotonic() - began < 60
        assert all(isinstance(one, int | DeadlineExceeded) for one in outcomes), outcomes
        assert {one for one in outcomes if isinstance(one, int)} == {well.process.number}
        stalled.send(signal.SIGCONT)
        seen.clear()
        until(lambda: seen.add(_ask(client)) or seen >= numbers)
        until(lambda: remote.pool_stats().total.outstanding == 0)


def test_callers_who_give_up_are_heard_where_an_upstream_stalls(upstreams: list[Served]) -> None:
    stalled, well = upstreams
    numbers, seen = {one.process.number for one in upstreams}, set[Any]()
    remote = penstock.RemoteModel("who", [one.url for one in upstreams], max_batch_size=1)
    with _gateway(remote) as (client, threads):
        until(lambda: seen.add(_ask(client)) or seen == numbers)
        _stall(stalled)
        outcomes = list(threads.map(lambda _: _ask(client, 1.0), range(200)))
        assert all(isinstance(one, int | DeadlineExceeded) for one in outcomes), outcomes
        answered = [one for one in outcomes if isinstance(one, int)]
        assert set(answered) == {well.process.number}
        assert len(answered) > 150, "those who waited in vain have made the other be chosen"


@pytest.mark.parametrize("end", [signal.SIGCONT, signal.SIGKILL])
def test_the_only_upstream_stalls_and_is_well_again_or_killed(upstreams: list[Served], end: signal.Signals) -> None:
    only = upstreams[0]
    remote = penstock.RemoteModel("who", only.url, timeout=penstock.Timeout(connect=1, first=1, total=3))
    with _gateway(remote) as (client, threads):
        assert _ask(client) == only.process.number
        _stall(only)
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
