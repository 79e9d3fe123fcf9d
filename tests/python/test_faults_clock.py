"""Clocks that jump: limits and pauses are measured by a clock that never does."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.python.support.scripts import Script

SOURCE = Path(__file__).parent / "support" / "clock_jump.c"

TEXT = """
import mmap, socket
from concurrent.futures import ThreadPoolExecutor
from penstock.errors import DeadlineExceeded

DAY = 86_400
with open(os.environ["PENSTOCK_TEST_CLOCK"], "r+b") as file:
    place = mmap.mmap(file.fileno(), 8)

def jump(days):
    place[:] = (days * DAY).to_bytes(8, "little", signed=True)

X = {"x": ("float32", [1])}

def sleeping(name):
    @penstock.model(name, inputs=X, outputs={"y": ("float32", [1])}, max_batch_size=1, workers=2)
    def sleeps(x):
        time.sleep(float(x[0, 0]))
        return x
    return sleeps

JUMPS = (1, -1, 30, -30, 0)
# One for each: a server that knows how long a model takes refuses what would come too late, and waits for no limit.
late = [sleeping(f"late{number}") for number in range(len(JUMPS))]
slow = sleeping("slow")

@penstock.model("text", task="generate")
def text(request):
    yield "word"

@batched(dispatch="window", max_wait=0.5, max_batch_size=100)
def windowed(x):
    return x

def took(call):
    began = time.monotonic()
    outcome = call()
    return outcome, time.monotonic() - began

def answered(client, seconds, model="slow", **options):
    return client.infer(model, {"x": np.full((1, 1), seconds, np.float32)}, **options)["y"][0, 0] == np.float32(seconds)

def ends(client, model):
    try:
        return answered(client, 3.0, model, timeout=0.5)
    except DeadlineExceeded as error:
        return "out of time"

def created(client):
    # The hour as the extension sees it, which is on its answers.
    return client.post("/v1/completions", json={"model": "text", "prompt": "a"}).json()["created"]

with (
    penstock.Server([slow, text, *late], port=0) as server,
    penstock.Client(server.url) as client,
    ThreadPoolExecutor() as threads,
):
    assert answered(client, 0.0)
    for number, days in enumerate(JUMPS):
        jump(0)
        here, there = time.time(), created(client)
        asked = [threads.submit(took, lambda: answered(client, 0.4, timeout=10)) for _ in range(2)]
        hurried = threads.submit(took, lambda: ends(client, f"late{number}"))
        waits = threads.submit(took, lambda: windowed.call(np.float32(3)))
        time.sleep(0.1)
        jump(days)
        assert abs(time.time() - here - days * DAY) < 60, "this process did not see it"
        assert abs(created(client) - there - days * DAY) < 60, "the extension did not see it"
        for outcome, seconds in [one.result(20) for one in asked]:
            assert outcome and 0.3 < seconds < 10, (days, outcome, seconds)
        outcome, seconds = hurried.result(20)
        assert outcome == "out of time" and 0.4 < seconds < 2.9, (days, outcome, seconds)
        outcome, seconds = waits.result(20)
        assert outcome == 3 and 0.4 < seconds < 10, (days, outcome, seconds)
    # Neither age nor idleness of a connection is told by that clock.
    with penstock.Client(server.url, pool=penstock.Pool(min_size=0)) as lone:
        for days in (0, 30, -30):
            jump(days)
            assert answered(lone, 0.0)
        assert lone.stats().total.created == 1, lone.stats()
    windowed.close()
print("done")
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler, which what moves the clock is built with")
def test_jumps_of_the_wall_clock_move_no_limit(script: Script, tmp_path: Path) -> None:
    library, clock = tmp_path / "clock_jump.so", tmp_path / "clock"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, SOURCE], check=True, timeout=60)
    clock.write_bytes(bytes(8))
    environment = {"LD_PRELOAD": str(library), "PENSTOCK_TEST_CLOCK": str(clock)}
    finished = script.finish(script.start(TEXT, environment=environment), limit=60)
    assert (finished.code, finished.out) == (0, ["done"]), finished.err
