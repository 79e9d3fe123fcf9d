"""Alerts and dashboards in the real Prometheus: loaded, scraped, and every expression of them evaluated."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from grafana_foundation_sdk.models.dashboard import Dashboard

import penstock
from tests.interop.support.processes import Process, answers, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "ops" / "prometheus" / "alerts.yml"
DASHBOARD = json.loads((ROOT / "ops" / "grafana" / "penstock.json").read_text(encoding="utf-8"))
GUIDE = ROOT / "docs" / "dashboard.md"
TENSORS: dict[str, Any] = {"inputs": {"x": ("float32", [2])}, "outputs": {"y": ("float32", [2])}}
PATIENCE = 60.0
# What a server says only where it has what is counted: upstreams, certificates, worker processes that died.
SOMETIMES = re.compile(
    r"penstock_(pool_\w+|request_seconds_quantile|(request|response)_bytes_total|tls_\w+|worker_restarts_total|metrics_refused|gc_pause_seconds_\w+)|process_\w+|up"
)
# Nothing of it happens in these tests: shares of nothing, and counters that nobody has raised.
NOT_HERE = {"Answers other than 200 B"}
NAME = re.compile(r"\b(?:penstock|process)_\w+\b|\bup\b(?=\{)")


@penstock.model("double", **TENSORS)
def double(x: Any) -> Any:
    return x * np.float32(2)


@penstock.model("broken", **TENSORS)
def broken(x: Any) -> Any:
    raise ValueError("no such row")


@penstock.model("letters", task="generate")
def letters(request: Any) -> Iterator[str]:
    yield from request.prompt


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> dict[str, str]:
    """Every query of the dashboard, as Grafana would ask it."""
    found = {}
    for panel in panels():
        for target in panel["targets"]:
            text = target["expr"].replace("$__rate_interval", "10s")
            for name in ("job", "instance", "model"):
                text = text.replace(f"${name}", ".*")
            assert "$" not in text, text
            found[f"{panel['title']} {target['refId']}"] = text
    return found


def ask(server: penstock.Server) -> None:
    with penstock.Client(server.url) as client:
        for _ in range(20):
            client.infer("double", {"x": np.ones((1, 2), np.float32)})
            with pytest.raises(penstock.PenstockError):
                client.infer("broken", {"x": np.ones((1, 2), np.float32)})
            client.post("/v2/models/letters/generate_stream", json={"text_input": "a few letters"})


class Prometheus:
    def __init__(self, folder: Path, target: str) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        config = (ROOT / "ops" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
        config = config.replace("127.0.0.1:8000", target).replace("15s", "1s")
        (folder / "prometheus.yml").write_text(config)
        (folder / "alerts.yml").write_text(ALERTS.read_text(encoding="utf-8"))
        address = self.url.removeprefix("http://")
        command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        self.process = Process([*command, f"--web.listen-address={address}"], folder / "log", folder=folder)
        self.process.wait_until(lambda: answers(f"{self.url}/-/ready"))

    def get(self, path: str, **parameters: str) -> Any:
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}{query}", timeout=30) as answer:
            found = json.load(answer)
        assert found["status"] == "success", found
        assert not found.get("warnings"), found
        return found["data"]

    def query(self, expression: str) -> list[Any]:
        return list(self.get("query", query=expression)["result"])


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, str]]:
    """A Prometheus that has scraped a server between requests, and the text of the server's metrics."""
    with penstock.Server([double, broken, letters], port=0) as server:
        prometheus = Prometheus(tmp_path_factory.mktemp("prometheus"), server.url.removeprefix("http://"))
        try:
            end = time.monotonic() + PATIENCE
            while not prometheus.query("sum(increase(penstock_requests_total[10s])) > 0"):
                assert time.monotonic() < end, prometheus.get("targets")
                ask(server)
                time.sleep(0.5)
            with penstock.Client(server.url) as client:
                text = client.get("/metrics").text
            yield prometheus, text
        finally:
            prometheus.process.stop()


def test_the_rules_are_as_their_tests_say() -> None:
    for command in (["check", "rules", ALERTS], ["check", "config", ALERTS.with_name("prometheus.yml")]):
        subprocess.run(["promtool", *command], check=True, capture_output=True, text=True)
    subprocess.run(["promtool", "test", "rules", ALERTS.with_name("alerts_test.yml")], check=True, capture_output=True)


def test_every_alert_is_tested_and_explained() -> None:
    alerts = re.findall(r"- alert: (\w+)", ALERTS.read_text(encoding="utf-8"))
    tests = ALERTS.with_name("alerts_test.yml").read_text(encoding="utf-8")
    guide = GUIDE.read_text(encoding="utf-8")
    assert len(alerts) == len(set(alerts)) > 15
    for alert in alerts:
        assert f"name: {alert} fires" in tests, alert
        assert f"name: {alert} is silent" in tests, alert
        assert f"| `{alert}` |" in guide, alert


def test_prometheus_loads_the_rules(scraped: tuple[Prometheus, str]) -> None:
    prometheus, _ = scraped
    end = time.monotonic() + PATIENCE
    rules: list[Any] = []
    while not rules or any(rule["health"] == "unknown" for rule in rules):
        assert time.monotonic() < end, rules
        rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
        time.sleep(0.2)
    assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []


def test_the_scrape_is_whole(scraped: tuple[Prometheus, str]) -> None:
    prometheus, text = scraped
    (target,) = prometheus.get("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    said = {line.split("{")[0].split(" ")[0] for line in text.splitlines() if not line.startswith("#")}
    kept = set(prometheus.get("label/__name__/values"))
    assert {name for name in said if not name.endswith("_created")} <= kept


@pytest.mark.parametrize("title", list(queries()))
def test_every_query_of_the_dashboard_is_answered(scraped: tuple[Prometheus, str], title: str) -> None:
    prometheus, text = scraped
    expression = queries()[title]
    found = prometheus.query(expression)
    names = NAME.findall(expression)
    assert names
    there = all(re.search(rf"^{name}[{{ ]", text, re.MULTILINE) for name in names)
    assert found or not there or title in NOT_HERE, expression


def test_every_metric_that_is_asked_for_exists(scraped: tuple[Prometheus, str]) -> None:
    prometheus, text = scraped
    said = {line.split("{")[0].split(" ")[0] for line in text.splitlines() if not line.startswith("#")}
    known = said | {"penstock_http_refusals_total"}
    alerts = [rule["query"] for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    expressions = [*queries().values(), *alerts]
    asked = {name for text in expressions for name in NAME.findall(text)}
    assert len(asked) > 30
    unknown = {name for name in asked - known if not SOMETIMES.fullmatch(name)}
    assert unknown == set()


def test_grafana_reads_the_dashboard_as_it_is() -> None:
    read = Dashboard.from_json(DASHBOARD)
    assert read.title == "Penstock"
    assert [panel.title for panel in read.panels or []] == [panel["title"] for panel in DASHBOARD["panels"]]
    again = json.loads(json.dumps(read, default=lambda part: part.to_json()))
    assert {panel["type"] for panel in again["panels"]} == {"row", "stat", "timeseries"}
    for panel, given in zip(again["panels"], DASHBOARD["panels"], strict=True):
        for target, asked in zip(panel.get("targets", []), given.get("targets", []), strict=True):
            assert target["expr"] == asked["expr"]


def test_the_panels_stand_beside_one_another() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    places: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & places, panel["title"]
        places |= cells


def test_the_dashboard_is_the_one_that_is_written() -> None:
    command = ["python", str(ROOT / "ops" / "grafana" / "make_dashboard.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0, "run python ops/grafana/make_dashboard.py"
