"""The scenarios and the soak run, and their judges see what goes wrong: real servers, and one that really leaks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from benches.python.scenarios import chart, page, plan, soak_told
from benches.python.scenarios.judge import Bound, trend
from benches.python.scenarios.load import Load
from benches.python.scenarios.sampling import BOUNDS
from benches.python.scenarios.verdict import aims, discrepancies

if TYPE_CHECKING:
    from benches.python.scenarios.judge import Trend

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 110
MEMORY = Bound("the memory", "MiB", 4.0)
two_cpus = pytest.mark.skipif(
    shutil.which("taskset") is None or (os.cpu_count() or 1) < 2, reason="server and load want a CPU each, and taskset"
)


def judged(values: Any, bound: Bound = MEMORY) -> Trend:
    return trend(bound, np.arange(len(values)) * 5.0, values)


def test_what_stays_or_shrinks_or_only_leaps_is_flat() -> None:
    noise = np.random.default_rng(1).normal(100, 1, 120)
    assert judged(noise).flat
    assert judged(noise - np.arange(120)).flat
    leaps = noise.copy()
    leaps[::7] += 30  # a model is being loaded
    assert judged(leaps).flat
    warming = np.minimum(np.arange(120), 50) + noise
    assert judged(warming).flat, "what fills up in the first half is not held against it"


def test_what_grows_is_named_with_its_slope() -> None:
    noise = np.random.default_rng(1).normal(100, 1, 120)
    found = judged(noise + np.arange(120) * 0.2)
    assert not found.flat
    assert found.a_minute == pytest.approx(2.4, rel=0.1)
    assert str(found).startswith("the memory grows: +2."), found
    handles = np.full(120, 30.0)
    handles[90:] += 4
    handles[100:] += 4
    assert not judged(handles, Bound("the handles", "handles", 3.0)).flat


def test_too_few_samples_are_no_verdict() -> None:
    with pytest.raises(ValueError, match="4 samples in the second half, and 6 are the least"):
        judged([1.0] * 8)
    with pytest.raises(ValueError, match="0 samples"):
        judged([])
    few = [{"seconds": float(at), **dict.fromkeys(BOUNDS, 1.0)} for at in range(4)]
    with pytest.raises(ValueError, match="2 samples"):
        soak_told.trends(few, judged=True)
    assert all(one.flat for one in soak_told.trends(few, judged=False)), "shown, where nobody judges"


def seen(**changes: Any) -> dict[str, Any]:
    """What the load generator says of a fine run, but for the changes."""
    counts = {"planned": 100, "sent": 100, "answered": 100, "ok": 100, "refused": 0, "failed": 0, "wrong": 0}
    rest = {"unfinished": 0, "warmup_answered": 5, "statuses": {"200": 100}, "errors": {}, "first_wrong": None}
    times = {"p50": 0.001, "p99": 0.002, "seconds": 1.0}
    return {**counts, **rest, **times, **changes}


def scenario(rate: float = 50.0) -> plan.Scenario:
    return plan.Scenario("some", Load(100, rate=rate), capacity=100.0, fast=True)


@pytest.mark.parametrize(
    ("rate", "changes", "counted", "words"),
    [
        (50, {"failed": 2, "errors": {"ReadFailed": 2}}, 105, "2 requests were lost"),
        (50, {"answered": 97, "ok": 97, "unfinished": 3}, 102, "3 requests got no answer in time, 3 of them sent"),
        (50, {"ok": 99, "wrong": 1, "statuses": {"200": 99, "500": 1}}, 105, "1 answers are no typed refusal"),
        (50, {"wrong": 1, "first_wrong": "its name"}, 105, "1 answers are wrong, the first: its name"),
        (50, {"ok": 90, "wrong": 10, "refused": 10}, 105, "10 requests were refused within the capacity"),
        (50, {}, 106, "the server counted 106 requests, and 105 were answered"),
        (200, {"ok": 90, "wrong": 11, "refused": 10}, 105, "is no typed refusal|are no typed refusal|are wrong"),
    ],
)
def test_what_does_not_add_up_is_said(rate: float, changes: dict[str, Any], counted: int, words: str) -> None:
    found = discrepancies(scenario(rate), seen(**changes), {"ok": float(counted)})
    assert any(any(each in one for each in words.split("|")) for one in found), found


def test_refusals_add_up_beyond_the_capacity() -> None:
    report = seen(ok=60, refused=30, wrong=40, statuses={"200": 60, "503": 30, "504": 10})
    assert discrepancies(scenario(200), report, {"ok": 65.0, "overloaded": 30.0, "expired": 10.0}) == []
    assert [(one.reached, one.met) for one in aims(scenario(200), report)] == [("60%", True)]
    kept = aims(scenario(200), seen(ok=70))
    assert [(one.reached, one.met) for one in kept] == [("70%", False)]
    slow = aims(scenario(50), seen(p50=0.004))
    assert [one.met for one in slow] == [True, False, True]


def test_scenarios_end_in_time() -> None:
    capacities = plan.Capacities(dict.fromkeys(plan.CONNECTIONS, 60_000.0), 30_000.0)
    made = plan.scenarios(capacities, quick=False)
    assert {one.share for one in made if one.share} == set(plan.SHARES)
    assert sum(one.within for one in made) >= 8
    for one in made:
        due = (one.load.rate or 0) * one.load.seconds
        assert due / one.capacity <= 4 * plan.SUSTAINED_SECONDS, one.name


def test_figures_are_put_between_their_marks(tmp_path: Path) -> None:
    guide = tmp_path / "guide.md"
    guide.write_text("before\n<!-- soak -->\nold\n<!-- /soak -->\nafter\n", encoding="utf-8")
    page.put(guide, "soak", "new")
    assert guide.read_text(encoding="utf-8") == "before\n<!-- soak -->\nnew\n<!-- /soak -->\nafter\n"
    with pytest.raises(ValueError, match="no place for the figures"):
        page.put(guide, "scenarios", "new")


def test_charts_are_well_formed() -> None:
    times = {"p50": 0.001, "p99": 0.004, "p999": 0.2}
    by_load = chart.by_load([{"share": share, "report": times} for share in (0.1, 0.5, 2.0)] + [{"share": None}])
    names = ("server_memory", "server_handles", "server_sockets", "server_threads", "server_tasks")
    sample = dict.fromkeys((*names, "client_memory", "client_tasks", "client_p50_ms", "client_p99_ms"), 12.5)
    of_soak = chart.of_soak([{**sample, "seconds": float(at)} for at in range(0, 600, 5)], "a note")
    for image in (by_load, of_soak):
        assert ET.fromstring(image).tag.endswith("svg")  # noqa: S314  our own
        assert "nan" not in image


def carried_out(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, cwd=ROOT)


@two_cpus
def test_scenarios_run_and_every_request_is_accounted_for(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    only = ["--only", "10/s, right after", "--only", "200 % of capacity, 1,000"]
    ended = carried_out(
        "benches.python.scenarios", "--quick", *only, "--json", figures, "--out", tmp_path, "--hyper", tmp_path / "none"
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = json.loads(figures.read_text(encoding="utf-8"))["scenarios"]
    assert len(rows) == 2
    for row in rows:
        report = row["report"]
        assert report["planned"] == report["answered"] > 0, row
        assert row["problems"] == []
        assert row["server_cpu_us_per_request"] > 0
        assert row["most"]["sockets"] > 1


def test_the_soaks_client_ends_when_its_server_does_not_answer() -> None:
    command = [sys.executable, "-m", "benches.python.scenarios.company", "http://127.0.0.1:1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as client:
        try:
            status = client.wait(PATIENCE)
        finally:
            client.kill()
        assert client.stderr is not None
        assert (status, "ConnectFailed" in client.stderr.read()) == (1, True)


@two_cpus
def test_a_soak_comes_to_its_end(tmp_path: Path) -> None:
    figures, guide = tmp_path / "figures.json", tmp_path / "guide.md"
    guide.write_text("<!-- soak -->\n<!-- /soak -->\n", encoding="utf-8")
    load = ["--quick", "--minutes", 0.08, "--connections", 20, "--each", 20]
    files = ["--json", figures, "--write", guide, "--out", tmp_path]
    ended = carried_out("benches.python.scenarios.soak", *load, *files)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    run = json.loads(figures.read_text(encoding="utf-8"))
    assert run["report"]["ok"] == run["report"]["planned"] > 0
    assert run["company"]["wrong"] == run["failures"] == []
    assert min(run["company"][done] for done in ("streams", "left", "swaps", "probes")) > 0
    assert all(one["server_memory"] > 1 for one in run["samples"])
    assert "the server's memory" in guide.read_text(encoding="utf-8")
    assert "](images/soak.svg)" in guide.read_text(encoding="utf-8")
    assert (tmp_path / "images" / "soak.svg").is_file()


@two_cpus
def test_the_soak_names_what_a_server_leaks(tmp_path: Path) -> None:
    leaks = {"memory": "memory", "handles": "open handles", "threads": "threads", "tasks": "asyncio tasks"}
    load = ["--minutes", 0.2, "--connections", 20, "--each", 20]
    chosen = [word for leak in leaks for word in ("--leak", leak)]
    ended = carried_out("benches.python.scenarios.soak", *load, *chosen, "--out", tmp_path)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    for what in leaks.values():
        assert f"the server's {what} grows: +" in ended.stderr, ended.stdout + ended.stderr
    assert "the server's sockets grows" not in ended.stderr
    assert "requests were lost" not in ended.stderr
