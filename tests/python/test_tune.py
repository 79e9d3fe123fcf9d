"""Recording what comes to a batcher, and `penstock tune`."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

import penstock
from penstock import Batcher, VirtualClock, cli
from penstock._tune import keywords
from penstock.errors import ConfigError
from penstock.settings import SECTIONS, Settings
from tests.python.support.waiting import outcomes

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

HEAD = {
    "penstock_trace": 1,
    "workers": 1,
    "policy": {
        "max_batch_size": 4,
        "min_batch_size": 1,
        "max_wait": 0.05,
        "dispatch": "tick",
        "max_queue": 10000,
        "aging": 1.0,
    },
}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def too_small_batches() -> list[dict[str, Any]]:
    """1,000 requests a second; a call takes 10 ms and 0.1 ms a row, so that batches of 4 cannot keep up."""
    arrivals = [{"at": number / 1000, "rows": 1, "cost": 1} for number in range(3000)]
    batches = [{"taken": 0.0, "batch": n, "cost": n, "took": 0.010 + 0.0001 * n} for n in range(1, 65)]
    return [HEAD, *arrivals, *batches]


async def test_a_batcher_writes_what_comes_and_how_long_it_takes(tmp_path: Path) -> None:
    clock = VirtualClock()

    def slow(x: np.ndarray) -> np.ndarray:
        clock.advance(0.25)
        return x

    f: Batcher[Any] = Batcher(slow, max_batch_size=8, clock=clock)
    with f.record(tmp_path / "load.jsonl") as recording:
        await outcomes([f(1), f(2), f.options(timeout=5)(3)])
    assert recording.path == tmp_path / "load.jsonl"
    assert (recording.written, recording.dropped) == (4, 0)
    await outcomes([f(4)])
    await f.aclose()
    head, *events = lines(tmp_path / "load.jsonl")
    assert head["penstock_trace"] == 1
    assert head["policy"]["max_batch_size"] == 8
    plain = {"at": 0.0, "rows": 1, "cost": 1}
    assert events == [plain, plain, plain | {"timeout": 5.0}, {"taken": 0.0, "batch": 3, "cost": 3, "took": 0.25}]


async def test_closing_the_batcher_ends_its_recording(tmp_path: Path) -> None:
    f: Batcher[Any] = Batcher(lambda x: x)
    recording = f.record(str(tmp_path / "load.jsonl"))
    assert await outcomes([f(1)]) == [1]
    await f.aclose()
    assert recording.written == 2
    assert "written=2" in repr(recording)
    recording.close()


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    f: Batcher[Any] = Batcher(lambda x: x)
    with pytest.raises(ConfigError, match="nowhere"):
        f.record(tmp_path / "nowhere" / "load.jsonl")
    f.close()


def test_tune_says_which_policy_to_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "load.jsonl", too_small_batches())
    assert cli.main(["tune", str(path), "--target", "0.05", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["recorded"]["in_time"] < 0.2
    assert found["best"]["in_time"] > 0.99
    assert found["best"]["p99"] <= 0.05
    assert found["best"]["policy"]["max_batch_size"] >= 16
    # What it says can be said to @batched.
    settings = eval(f"dict({found['best']['keywords']})", {"penstock": penstock})  # noqa: S307  our own text
    assert penstock.BatchPolicy(**settings).dispatch == "tick"

    assert cli.main(["tune", str(path), "--target", "0.05"]) == 0
    told = capsys.readouterr().out
    assert "3,000 requests in 3.0 s" in told
    assert f"    {found['best']['keywords']}\n" in told


def test_tune_leaves_a_good_policy_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = too_small_batches()
    trace[0] = HEAD | {"policy": {**HEAD["policy"], "max_batch_size": 77}}  # type: ignore[dict-item]
    assert cli.main(["tune", str(write(tmp_path / "load.jsonl", trace))]) == 0
    assert "No policy that was tried is better" in capsys.readouterr().out


BAD: list[tuple[str, str]] = [
    ("", "empty"),
    ("nonsense\n", "line 1"),
    (json.dumps(HEAD) + '\n{"at": 0}\n', "line 2"),
    (json.dumps(HEAD) + "\n", "no batch"),
]


@pytest.mark.parametrize(("text", "named"), BAD, ids=["empty", "no JSON", "half a line", "nothing in it"])
def test_what_is_no_trace_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, named: str) -> None:
    path = tmp_path / "load.jsonl"
    path.write_text(text)
    assert cli.main(["tune", str(path)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("penstock: ")
    assert named in told


@pytest.mark.parametrize("wrong", [["--target", "0"], ["--target", "-1"], ["--workers", "0"]], ids=str)
def test_options_that_cannot_be_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: list[str]
) -> None:
    path = write(tmp_path / "load.jsonl", too_small_batches())
    assert cli.main(["tune", str(path), *wrong]) == 2
    assert wrong[0] in capsys.readouterr().err


def test_an_adaptive_policy_reads_as_python_says_it() -> None:
    said = keywords({"max_batch_size": (25, 200, 0.05), "dispatch": "tick"})
    assert said == 'max_batch_size=penstock.Adaptive(smallest=25, largest=200, target=0.05), dispatch="tick"'


def test_a_server_records_each_model(tmp_path: Path) -> None:
    @penstock.model("a", inputs={"x": ("float32", [])}, outputs={"y": ("float32", [])})
    def one(x: np.ndarray) -> np.ndarray:
        time.sleep(0.002)
        return x

    @penstock.model("b", inputs={"x": ("float32", [])}, outputs={"y": ("float32", [])})
    def other(x: np.ndarray) -> np.ndarray:
        return x

    settings = Settings.resolve(SECTIONS, {})
    server = penstock.Server._of_command([one, other], ("127.0.0.1", 0, None), settings, tmp_path / "load.jsonl")
    with server, penstock.Client(server.url) as client:
        body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [3], "data": [1, 2, 3]}]}
        for _ in range(2):
            assert client.post("/v2/models/a/infer", json=body).status_code == 200
    of_one = lines(tmp_path / "load-a.jsonl")
    assert [event["rows"] for event in of_one if "rows" in event] == [3, 3]
    assert all(event["took"] >= 0.002 for event in of_one if "took" in event)
    assert len(lines(tmp_path / "load-b.jsonl")) == 1


async def test_a_real_load_is_recorded_and_replayed(tmp_path: Path) -> None:
    def work(x: np.ndarray) -> np.ndarray:
        time.sleep(0.002)
        return x

    path = tmp_path / "load.jsonl"
    f: Batcher[Any] = Batcher(work, max_batch_size=16)
    async with f:
        f.record(path)
        for _ in range(10):
            await outcomes([f(number) for number in range(20)])
            await asyncio.sleep(0.005)
    found = await asyncio.to_thread(penstock._native.tune_trace, str(path), None, 0)
    assert found["requests"] == 200
    assert found["batches"] == 20
    assert found["best"]["throughput"] > 0
