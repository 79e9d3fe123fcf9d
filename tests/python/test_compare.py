"""The comparison with other software: its arithmetic, its page, and a round of real servers that are in .venv."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import sysconfig
import time
import xml.etree.ElementTree as ET
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from benches.python.compare import http_servers, page, stories, versions
from benches.python.compare.chart import Line, drawn
from benches.python.compare.http_servers import ABOUT, MEASURES, OURS, beside
from benches.python.compare.outcome import Measure, Outcome, concessions, ratio, summary, tabled, verdict
from benches.python.compare.servers import EVERY, binary
from benches.python.door import servers as door
from benches.python.door.machine import Launch, NotServing, Served, serving
from benches.python.door.rounds import Lane, visit
from benches.python.door.story import Bench
from benches.python.door.workload import Dialect, check

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60
SPEED = Measure("speed", "requests/s", least=False)
COST = Measure("cost", "CPU µs/request", 1)
ERRORS = Measure("errors", "errors", compared=False)


def rounds(speeds: list[float], costs: list[float], wrong: int = 0) -> list[dict[str, float]]:
    return [{"speed": speed, "cost": cost, "errors": float(wrong)} for speed, cost in zip(speeds, costs, strict=True)]


def outcome(title: str = "Servers") -> Outcome:
    made = Outcome(title, "What was done.", "Penstock", (SPEED, COST, ERRORS), {"Penstock": "1.2", "peer": "3.4; fast"})
    made.add("64 clients", "peer", rounds([50, 100, 200], [20, 20, 20], wrong=2))
    made.add("64 clients", "Penstock", rounds([100, 100, 100], [10, 11, 9]))
    made.add("64 clients", "halting", rounds([100], [10]))
    made.add("64 clients", "other", rounds([50, 50, 50], [5, 6, 7]))
    return made


def test_ratios_are_taken_round_by_round_and_only_where_rounds_belong_together() -> None:
    found = outcome()
    assert found.ratios("64 clients", "peer", "speed") == [2, 1, 0.5]
    assert found.ratios("64 clients", "peer", "cost") == [0.5, 0.55, 0.45]
    assert found.ratios("64 clients", "halting", "speed") == []
    assert found.ratios("64 clients", "peer", "errors") == [], "nothing is divided by nothing"
    assert ratio([2, 1, 0.5]) == "1.00 (0.50-2.00)"
    assert ratio([0.004, 0.02, 0.03]) == "0.020 (0.004-0.030)"
    assert ratio([250]) == "250"
    assert ratio([]) == ""


@pytest.mark.parametrize(
    ("values", "least", "said"),
    [
        ([0.4, 0.5, 0.9], True, "worse"),
        ([1.1, 1.2, 3.0], True, "better"),
        ([0.9, 1.2, 3.0], True, "as good"),
        ([0.9, 0.9, 1.0], True, "as good"),
        ([1.1, 1.2, 3.0], False, "worse"),
        ([0.4, 0.5, 0.9], False, "better"),
        ([0.9, 1.2, 3.0], False, "as good"),
        ([0.5, 0.5], True, None),
        ([], True, None),
    ],
)
def test_a_peer_is_better_or_worse_where_every_round_says_so(values: list[float], least: bool, said: str) -> None:
    assert verdict(values, least=least) == said


def test_a_table_has_ranges_ratios_and_ours_first() -> None:
    head, _, first, *others = tabled(outcome()).splitlines()
    assert head == "| load | who | requests/s | CPU µs/request | errors | ÷: requests | ÷: CPU |"
    assert first == "| 64 clients | Penstock | 100 (100-100) | 10.0 (9.0-11.0) | 0 (0-0) |  |  |"
    peer = "| 64 clients | peer | 100 (50-200) | 20.0 (20.0-20.0) | 2 (2-2) | 1.00 (0.50-2.00) | 0.50 (0.45-0.55) |"
    assert peer in others
    assert any(line.startswith("| 64 clients | halting |") and line.endswith("|  |  |") for line in others)
    brief = tabled(outcome(), brief=True)
    assert "| 64 clients | peer | 100 | 20.0 | 1.00 (0.50-2.00) | 0.50 (0.45-0.55) |" in brief
    assert "errors" not in brief


def test_what_peers_do_as_well_or_better_is_said() -> None:
    assert concessions(outcome()) == [
        "peer, 64 clients: as good in requests/s (1.00 (0.50-2.00)).",
        "other, 64 clients: better in CPU µs/request (1.83 (1.29-2.00)).",
    ]
    assert summary(outcome()).startswith("Of 4 figures of peers, 2 are worse than Penstock's in every round, 1 are as")
    ours_too = outcome()
    ours_too.loads["64 clients"]["Penstock, otherwise"] = ours_too.loads["64 clients"]["other"]
    assert concessions(ours_too) == concessions(outcome()), "another way of ours is no peer"
    lone = Outcome("Once", "", "Penstock", (SPEED,), loads={"a": {"Penstock": [{"speed": 1}], "peer": [{"speed": 2}]}})
    assert "too few rounds" in summary(lone)


def report(*outcomes: tuple[str, Outcome]) -> dict[str, Any]:
    run = {"day": "2026-11-22", "facts": {"cpu": "a CPU", "cores": 2, "batched": "0"}, "rounds": 3}
    return {"stories": {name: {"seconds": 1.5, **run, **one.packed()} for name, one in outcomes}, "left_out": {}}


def servers_report() -> dict[str, Any]:
    made = replace(outcome("HTTP servers"), measures=(SPEED, replace(COST, key="cpu_us"), ERRORS))
    for contenders in made.loads.values():
        for visits in contenders.values():
            for one in visits:
                one["cpu_us"] = one["cost"]
    return report(("servers", made))


def test_the_page_is_written_between_its_marks_as_often_as_wanted(tmp_path: Path) -> None:
    guide, chart = tmp_path / "guide.md", tmp_path / "chart.svg"
    guide.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n", encoding="utf-8")
    content = json.loads(json.dumps(servers_report()))
    page.write(content, guide, chart)
    written = guide.read_text(encoding="utf-8")
    assert written.startswith(f"before\n{page.BEGIN}\n2026-11-22, cpu a CPU, cores 2, 3 rounds, ")
    assert written.endswith(f"\n{page.END}\nafter\n")
    assert "old" not in written
    assert "Better in something: other (HTTP servers). As good in something: peer (HTTP servers)." in written
    assert "Errors: peer, 64 clients: 6." in written
    assert "| HTTP servers | peer | 3.4; fast |" in written
    assert "peer 2.0 times (1.82 to 2.2)" in written, "the chart in words"
    page.write(content, guide, chart)
    assert guide.read_text(encoding="utf-8") == written


def test_every_story_keeps_the_day_and_the_machine_that_it_was_measured_on(tmp_path: Path) -> None:
    guide, chart = tmp_path / "guide.md", tmp_path / "chart.svg"
    guide.write_text(f"{page.BEGIN}{page.END}", encoding="utf-8")
    content = report(("clients", outcome("Servers")), ("grpc", outcome("Clients")), ("weights", outcome("Weights")))
    content["stories"]["grpc"] |= {"day": "2026-11-23", "rounds": 5}
    page.write(content, guide, chart)
    written = guide.read_text(encoding="utf-8")
    assert "\n- Servers, Weights: 2026-11-22, cpu a CPU, cores 2, 3 rounds, " in written
    assert "\n- Clients: 2026-11-23, cpu a CPU, cores 2, 5 rounds, " in written


def test_the_chart_shows_multiples_in_order_on_a_logarithmic_scale(tmp_path: Path) -> None:
    guide, chart = tmp_path / "guide.md", tmp_path / "chart.svg"
    guide.write_text(f"{page.BEGIN}{page.END}", encoding="utf-8")
    page.write(servers_report(), guide, chart)
    root = ET.fromstring(chart.read_text(encoding="utf-8"))  # noqa: S314  our own
    texts = [one.text for one in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.index("other") < texts.index("peer"), "the cheapest first"
    assert "halting" not in texts, "it has no rounds beside ours"
    assert texts[texts.index("peer") + 1] == "2.0 times (1.82 to 2.2)"
    dots = [
        float(one.get("cx", "nan"))
        for one in ET.fromstring(  # noqa: S314
            drawn([Line("a", [0.1]), Line("b", [1]), Line("c", [10]), Line("d", [100])])
        ).iter("{http://www.w3.org/2000/svg}circle")
    ]
    steps = [after - before for before, after in itertools.pairwise(dots)]
    assert len(steps) == 3
    assert steps == pytest.approx([steps[0]] * 3, abs=0.2)


def test_the_guide_has_the_marks_and_every_story_a_module() -> None:
    guide = page.GUIDE.read_text(encoding="utf-8")
    assert (guide.count(page.BEGIN), guide.count(page.END)) == (1, 1)
    shown = guide.partition(page.BEGIN)[2].partition(page.END)[0]
    assert page.CHART.exists() == (page.CHART.name in shown)
    for module, _ in stories.PLACES.values():
        assert (ROOT / f"benches/python/compare/{module}.py").exists()


def test_versions_and_requirements() -> None:
    assert versions.installed(ROOT / ".venv")["numpy"] == metadata.version("numpy")
    for peer in (*EVERY, *binary()):
        own = peer.apps / f"{peer.home}.txt"
        listed = (own if own.exists() else door.PEERS / own.name).read_text(encoding="utf-8")
        wanted = [line for line in listed.splitlines() if line and not line.startswith("#")]
        assert any(line.startswith((f"{peer.home}==", f"{peer.home}[")) for line in wanted), peer.name
        assert all("==" in line or line == "numpy<3" for line in wanted), "pinned"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """FastAPI's environment is that of these tests, as if it had been installed for it."""
    home = tmp_path / "peers/fastapi"
    home.mkdir(parents=True)
    (home / "bin").symlink_to(sysconfig.get_path("scripts"))
    (home / "installed.txt").write_text((door.PEERS / "fastapi.txt").read_text(encoding="utf-8"), encoding="utf-8")
    return Bench(tmp_path, tmp_path / "logs", tmp_path / "peers", 1, quick=True)


def uvicorn(name: str, path: str) -> door.Peer:
    """With the parser that is here."""
    command = tuple(part.replace("httptools", "h11").replace("uvloop", "asyncio") for part in door.FASTAPI.command)
    return replace(door.FASTAPI, name=name, path=path, command=command)


@pytest.mark.timeout(180)
def test_real_servers_in_the_same_rounds_and_reasons_for_those_that_are_left_out(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nobody.txt").write_text("a requirement that is none\n", encoding="utf-8")
    peers = (
        uvicorn("FastAPI", "/plain"),
        uvicorn("FastAPI astray", "/nowhere"),
        replace(uvicorn("broken", "/plain"), command=("{bin}/python", "-c", "raise SystemExit('no more')")),
        replace(uvicorn("nobody", "/plain"), home="nobody", apps=tmp_path),
    )
    found = Outcome("HTTP servers", ABOUT, OURS, MEASURES)
    still: dict[str, bool] = {}

    def look(lane: Lane, *arguments: Any) -> dict[str, float]:
        still.update((server.name, waited(server, stopped=True)) for server in astray)
        return visit(lane, *arguments)

    def checked(server: Served, dialect: Dialect) -> None:
        if server.name == "FastAPI astray":
            astray.append(server)
        check(server, dialect)

    astray: list[Served] = []
    monkeypatch.setattr(http_servers, "visit", look)
    beside(bench, found, (door.penstock(), door.PENSTOCK_DIALECT), peers, (1, 64), checked=checked)
    assert still == {"FastAPI astray": True}, "who is left out takes no CPU from the others"
    assert list(found.loads) == ["64 clients"], "quick"
    for contenders in found.loads.values():
        assert sorted(contenders) == ["FastAPI", OURS]
        for visits in contenders.values():
            assert [one["errors"] for one in visits] == [0]
            assert all(one["requests_per_second"] > 0 < one["p50_us"] for one in visits)
    notes = " ".join(found.notes)
    assert "FastAPI astray is left out: FastAPI astray: 0 of 104 answered, statuses {404: 104}" in notes
    assert "broken is left out: broken ended with status 1: no more" in notes
    assert "nobody is left out: nobody: " in notes
    assert found.settings["FastAPI"].endswith("uvicorn, uvloop, httptools, pydantic, no batches")
    assert "| 64 clients | FastAPI |" in page.section(found)
    assert Outcome.unpacked(json.loads(json.dumps(found.packed()))) == found


def test_there_is_nothing_to_compare_without_our_own_server(bench: Bench) -> None:
    wrong = replace(door.penstock(), path="/v2/models/nobody/infer")
    with pytest.raises(NotServing, match="Penstock is left out: penstock: 0 of 104 answered"):
        beside(bench, Outcome("", "", OURS, MEASURES), (wrong, door.PENSTOCK_DIALECT), (), (1,))


def states(server: Served) -> set[str]:
    """Of its processes that have not ended."""
    return {fields[0] for _, fields in server._processes()} - {"Z"}


def waited(server: Served, *, stopped: bool) -> bool:
    until = time.monotonic() + PATIENCE
    while (states(server) == {"T"}) is not stopped and time.monotonic() < until:
        time.sleep(0.02)
    return (states(server) == {"T"}) is stopped


ASIDE = """
import os, time
from http.server import HTTPServer, SimpleHTTPRequestHandler

if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    time.sleep(1000)
HTTPServer(("127.0.0.1", {port}), SimpleHTTPRequestHandler).serve_forever()
"""


def test_processes_in_other_sessions_count_stand_still_and_end_with_their_server(tmp_path: Path) -> None:
    with serving(Launch("parent", (sys.executable, "-c", ASIDE), "/"), logs=tmp_path) as (server,):
        until = time.monotonic() + PATIENCE
        while len(members := [one for one, _ in server._processes()]) < 3 and time.monotonic() < until:
            time.sleep(0.02)
        assert len(members) == 3, "itself, the one in between, and the one that sleeps"
        server.freeze()
        assert waited(server, stopped=True)
        server.thaw()
        assert waited(server, stopped=False)
        assert server.get("/")
        server.freeze()
    left = [one for one in members if Path(f"/proc/{one}").exists()]
    assert all(Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z" for one in left)


def test_the_command_renders_figures_that_it_once_wrote(tmp_path: Path) -> None:
    kept = tmp_path / "report.json"
    kept.write_text(json.dumps(servers_report()), encoding="utf-8")
    command = [sys.executable, "-m", "benches.python.compare", "--from", str(kept)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "| 64 clients | peer | 100 (50-200) |" in done.stdout


def test_a_story_that_cannot_be_told_is_said_to_be_left_out(tmp_path: Path) -> None:
    kept, out = tmp_path / "report.json", tmp_path / "new.json"
    kept.write_text(json.dumps(servers_report()), encoding="utf-8")
    where = ["--out", str(tmp_path), "--programs", str(tmp_path), "--json", str(out)]
    command = [sys.executable, "-m", "benches.python.compare", "--from", str(kept), "--only", "grpc", *where]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1, done.stderr
    assert f"grpc is left out: there is no {tmp_path}/grpc_echo: cargo build" in done.stdout
    assert list(json.loads(out.read_text(encoding="utf-8"))["stories"]) == ["servers"], "the others are kept"


@pytest.mark.parametrize("arguments", [["--write", "--quick"], ["--write", "--only", "grpc"]])
def test_the_guide_is_not_written_from_parts_or_for_a_try(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "benches.python.compare", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, "--write wants every story" in done.stderr) == (2, True)
