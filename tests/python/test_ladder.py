"""The ladder: a short one on real servers, what makes it fail, and what it writes into its guide."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

import penstock
from benches.python.door.machine import NotServing
from benches.python.ladder import chart, page, report
from benches.python.ladder.asking import Load, ask
from benches.python.ladder.questions import BIG, MIXED, PHASES, Answer, Call, questions, workload
from benches.python.ladder.rungs import ADDED, ALL, ALL_BUT, ALONE, BASELINE, PARTS, RUNGS, THREE, Rung
from benches.python.ladder.visits import LEAST, LEAST_PACED, Effort, Results, Visit, interleaved

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 100

pytestmark = pytest.mark.timeout(SECONDS + 20)


def ladder(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benches.python.ladder", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)


@pytest.mark.skipif(shutil.which("taskset") is None, reason="the ladder wants taskset")
def test_a_short_ladder_measures_real_servers_and_writes_its_page(tmp_path: Path) -> None:
    guide = tmp_path / "guide.md"
    guide.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n")
    rungs = [word for rung in (BASELINE, ALL) for word in ("--rung", rung.name)]
    done = ladder("--quick", "--only", "mlp", *rungs, "--without-pairs", "--out", str(tmp_path), "--write", str(guide))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "ladder.json").read_text())["results"]["mlp"]
    [none], [everything] = found[BASELINE.name], found[ALL.name]
    for visit in (none, everything):
        assert visit["many"]["requests"] >= LEAST
        assert visit["paced"]["requests"] >= LEAST_PACED
        latencies = [visit["many"][f"{name}_ms"] for name in ("p50", "p95", "p99", "p999", "max")]
        assert latencies == sorted(latencies)
        assert visit["start"]["peak_mib"] > visit["start"]["grown_mib"]
    assert none["many"]["rows_per_batch"] == 1
    assert (none["many"]["reuse"], none["many"]["connections"]) == (0, 1000)
    assert everything["many"]["rows_per_batch"] > 1
    assert everything["many"]["reuse"] > 0, "100 clients ask at least 200 times"
    assert none["paced"]["rate"] == everything["paced"]["rate"]
    text = guide.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "PENSTOCK_POOL=off PENSTOCK_BATCH=off PENSTOCK_STREAM=off PENSTOCK_LOAD=off" in text
    assert "| all four |" in text
    logs = list((tmp_path / "logs").glob("*.log"))
    assert len(logs) == 2
    assert all("penstock stops" in log.read_text() for log in logs), "every server was asked to end, and did"


def test_the_rungs_differ_in_the_four_switches_only() -> None:
    assert len({rung.on for rung in RUNGS}) == len(RUNGS) == 11
    assert [rung.on for rung in ALONE] == list(combinations(PARTS, 1))
    assert [len(rung.on) for rung in ADDED] == [0, 1, 2, 3, 4]
    assert {rung.on for rung in (*ALL_BUT, THREE)} == set(combinations(PARTS, 3))
    for rung in RUNGS:
        told = rung.environment()
        assert set(told) == {"PENSTOCK_POOL", "PENSTOCK_BATCH", "PENSTOCK_STREAM", "PENSTOCK_LOAD"}
        assert sum(value == "on" for value in told.values()) == len(rung.on)
        assert bool(rung.pool()) == ("pool" in rung.on)


def test_a_wrong_answer_fails() -> None:
    [network] = questions(["mlp"]).values()
    right = network.subject.expected[0].tolist()
    call = Call("mlp", 0)

    def answered(numbers: list[float]) -> Answer:
        body = {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 8], "data": numbers}]}
        return Answer(call, json.dumps(body).encode(), None)

    network.check([answered(right)])
    with pytest.raises(NotServing, match="WRONG"):
        network.check([answered(right), answered([right[0] + 0.5, *right[1:]])])


@pytest.mark.skipif(shutil.which("taskset") is None, reason="the ladder wants taskset")
def test_what_was_measured_before_a_failure_is_kept(tmp_path: Path) -> None:
    class Mistold(Rung):
        def environment(self) -> dict[str, str]:
            return {"PENSTOCK_BATCH": "neither"}

    results: Results = {}
    rungs = (BASELINE, Mistold("mistold", ()))
    with pytest.raises(NotServing, match="PENSTOCK_BATCH"):
        interleaved([workload("mlp", 1)], rungs, Effort(1, 0.1, 0.1, 1), tmp_path, results)
    assert [len(visits) for visits in results["mlp"].values()] == [1, 0]


def test_a_request_without_an_answer_fails() -> None:
    known = questions(["mlp"])

    @penstock.model("other", inputs={"x": ("float32", [1])}, outputs={"y": ("float32", [1])})
    def other(x: Any) -> Any:
        return x

    with penstock.Server(other, port=0) as server:
        url = server.url
        with pytest.raises(NotServing, match="404"):
            ask(url, ALL, iter([Call("mlp", 0)]), known, Load(1))
    with pytest.raises(NotServing, match="ConnectFailed"):
        ask(url, BASELINE, iter([Call("mlp", 0)]), known, Load(1))


def test_the_trace_is_the_same_every_time_and_needs_more_than_there_is_room_for() -> None:
    trace = workload(MIXED, 2000).trace
    assert trace == workload(MIXED, 2000).trace
    large = [call.model for call in trace if call.model in BIG]
    assert len(set(large)) == 4
    changes = [name for place, name in enumerate(large) if not place or name != large[place - 1]]
    assert changes == [BIG[phase] for phase in PHASES]


def visit(rate: float, requests: float = 999) -> Visit:
    figures = dict.fromkeys(("p50_ms", "p95_ms", "p99_ms", "p999_ms", "max_ms", "server_us", "client_us"), rate / 2)
    many = {**figures, "requests": requests, "requests_per_second": rate, "connections": 1, "accepted": 1, "reuse": 0.5}
    many.update(rows_per_batch=2, hit_rate=0.9, others_cpus=0.1)
    return Visit({"peak_mib": 50, "grown_mib": 1, "ready_s": 0.5, "cold_ms": 3}, many, many, {**figures, "rate": 7})


def test_the_chart_shows_the_ratios_of_the_tables(tmp_path: Path) -> None:
    rates = {rung.name: [visit(100.0 + 31 * number), visit(110.0 + 31 * number)] for number, rung in enumerate(RUNGS)}
    found: dict[str, Any] = {
        "facts": {"cpu": "some"},
        "effort": {"rounds": 2, "one": 1, "many": 1, "trace": 10},
        "seconds": 1,
        "configuration": {"rungs": [rung.shown() for rung in RUNGS], "commands": {"mlp": "penstock serve"}},
        "results": {"mlp": {name: [vars(each) for each in visits] for name, visits in rates.items()}},
        "pairs": [],
    }
    guide = tmp_path / "guide.md"
    guide.write_text(f"{page.BEGIN}{page.END}")
    page.write(guide, found)
    assert f"![{chart.TITLE}](images/{page.CHART})" in guide.read_text()
    assert_shown(guide)


def test_a_tail_is_told_only_where_there_are_requests_enough() -> None:
    def shown(*requests: float) -> dict[str, str]:
        rows = report.tables({"mlp": {BASELINE.name: [visit(100, each) for each in requests]}}).splitlines()
        head = next(row for row in rows if "p99.9" in row)
        cells = rows[rows.index(head) + 2]
        return dict(zip(head.split("|"), map(str.strip, cells.split("|")), strict=True))

    assert shown(1000, 1000)[" p99.9 "] == "50.00"
    assert shown(1000, 999)[" p99.9 "] == ""
    assert shown(100)[" p99 "] == "50.00"
    assert shown(99)[" p99 "] == "", "one client's, the later column of that name"


def test_the_chart_of_the_guide_shows_the_figures_of_its_tables() -> None:
    guide = ROOT / "docs" / "ladder.md"
    text = guide.read_text(encoding="utf-8")
    assert page.BEGIN in text
    assert page.END in text
    if page.CHART in text:
        assert_shown(guide)


def assert_shown(guide: Path) -> None:
    tables = " ".join(line for line in guide.read_text(encoding="utf-8").splitlines() if line.startswith("|"))
    drawn = (guide.parent / "images" / page.CHART).read_text(encoding="utf-8")
    shown = re.findall(r">(\d+\.\d\d)</text>", drawn)
    assert len(shown) >= 8
    for figure in shown:
        assert re.search(rf"(?<![\d.,]){re.escape(figure)}(?!\d)", tables), figure
