"""The page at `/dashboard`, in a real Chromium, over real servers that are under load, idle, gone and back."""

from __future__ import annotations

import hashlib
import logging
import random
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from axe_playwright_python.async_playwright import Axe
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import penstock
from penstock._metrics_text import quantile
from tests.interop.support.chromium import Visit, chromium
from tests.interop.support.processes import Process, answers, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.interop.support.chromium import Sync

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "src" / "serve" / "dashboard"
TENSORS: dict[str, Any] = {"inputs": {"x": ("float32", [2])}, "outputs": {"y": ("float32", [2])}}
ROW = {"x": np.ones((1, 2), np.float32)}
ONE_MINUTE = 60


@penstock.model("double", max_batch_size=16, **TENSORS)
def double(x: Any) -> Any:
    return x * np.float32(2)


@penstock.model("broken", **TENSORS)
def broken(x: Any) -> Any:
    raise ValueError("no such row")


@penstock.model("letters", task="generate")
def letters(request: Any) -> Iterator[str]:
    yield from request.prompt


@contextmanager
def busy(url: str, **options: Any) -> Iterator[None]:
    """A client that asks every model, over and over."""
    over = threading.Event()

    def ask() -> None:
        with penstock.Client(url, **options) as client:
            while not over.wait(0.002):
                for _ in range(5):
                    client.infer("double", ROW)
                with pytest.raises(penstock.PenstockError):
                    client.infer("broken", ROW)
                client.post("/v2/models/letters/generate_stream", json={"text_input": "a few letters"})

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.fixture(autouse=True)
def _no_tracebacks_of_what_is_meant_to_fail() -> Iterator[None]:
    logger = logging.getLogger("penstock.server")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


@pytest.fixture(scope="module")
def browser() -> Iterator[Sync]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def server() -> Iterator[penstock.Server]:
    with penstock.Server([double, broken, letters], port=0) as server, busy(server.url):
        yield server


@pytest.fixture
def visit(browser: Sync) -> Iterator[Callable[..., Visit]]:
    """Opens the dashboard of a server; at the end nothing was complained about, and nobody else was asked."""
    visits: list[Visit] = []

    def open_page(url: str, path: str = "/dashboard", **options: Any) -> Visit:
        visits.append(Visit(browser, url + path, **options))
        return visits[-1]

    yield open_page
    for each in visits:
        assert each.complaints == []
        assert len(each.hosts()) == 1, each.hosts()
        each.close()


def tile(page: Sync, title: str) -> str:
    return page.locator(".tile", has_text=title).first.locator(".value").inner_text()


def row(page: Sync, table: str, name: str) -> list[str]:
    cells = page.locator(f"#{table} tbody tr", has=page.locator("th", has_text=name)).first.locator("th, td")
    return [cell.strip() for cell in cells.all_inner_texts()]


LIVE = "document.body.dataset.state === 'live'"
MOVING = "/^[1-9]/.test(document.querySelector('.tile .value')?.textContent ?? '')"


def test_what_a_server_under_load_does(server: penstock.Server, visit: Callable[..., Visit]) -> None:
    seen = visit(server.url)
    seen.wait(LIVE)
    seen.wait(MOVING)
    page = seen.page
    assert page.locator("#place").inner_text() == f"{server.url.removeprefix('http://')} {penstock.__version__}"
    assert tile(page, "Requests").endswith("/s")
    assert tile(page, "Latency p99").endswith("s")
    assert tile(page, "Requests per batch") == "1"
    assert row(page, "models", "double")[1] == "Ready"
    assert row(page, "models", "broken")[8].startswith("100")
    assert row(page, "models", "double")[8].startswith("0")
    assert "tick" in page.locator("#reasons").inner_text()
    assert "model" in page.locator("#parts").inner_text()
    errors = page.locator("#errors").inner_text()
    assert "failed" in errors
    assert "500" in errors
    assert page.locator("#streams-full").is_visible()
    assert not page.locator("#upstreams").is_visible()
    assert page.title().endswith("- Penstock")
    for name in ("requests", "latency", "size", "pieces", "first", "connections"):
        assert page.locator(f'[data-plot="{name}"] path').count() > 0, name
        assert page.locator(f'[data-plot="{name}"] svg').get_attribute("aria-label"), name


def test_a_model_is_chosen_by_mouse_by_key_and_by_address(server: penstock.Server, visit: Callable[..., Visit]) -> None:
    seen = visit(server.url)
    seen.wait(MOVING)
    page = seen.page
    page.locator("#models tbody tr", has_text="broken").click()
    seen.wait("/^100/.test([...document.querySelectorAll('.tile .value')][2].textContent)")
    assert page.url.endswith("/dashboard?model=broken")
    assert page.locator("#model").input_value() == "broken"
    page.locator("#models tbody tr", has_text="broken").locator("button").press("Enter")
    assert page.locator("#model").input_value() == ""
    page.locator("#model").select_option("double")
    seen.wait("/^0/.test([...document.querySelectorAll('.tile .value')][2].textContent)")
    again = visit(server.url, "/dashboard?model=double")
    again.wait(MOVING)
    assert again.page.locator("#model").input_value() == "double"


def test_headings_sort_and_keep_the_focus(server: penstock.Server, visit: Callable[..., Visit]) -> None:
    seen = visit(server.url)
    seen.wait(MOVING)
    page = seen.page
    heading = page.get_by_role("columnheader", name="Model").first
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert page.locator("#models tbody th").all_inner_texts() == ["broken", "double", "letters"]
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert page.locator("#models tbody th").all_inner_texts() == ["letters", "double", "broken"]


def test_the_cross_hair_says_values_to_mouse_and_keyboard(server: penstock.Server, visit: Callable[..., Visit]) -> None:
    seen = visit(server.url)
    seen.wait("document.querySelectorAll('[data-plot=requests] path').length > 0")
    seen.wait(MOVING)
    page = seen.page
    plot = page.locator('[data-plot="latency"] svg')
    box = plot.bounding_box()
    assert box is not None
    plot.hover(position={"x": box["width"] - 2, "y": 60})
    assert page.locator(".legend .when").count() > 5, "every plot shows the same moment"
    page.mouse.move(0, 0)
    assert page.locator(".legend .when").count() == 0
    plot.focus()
    page.keyboard.press("ArrowLeft")
    assert "p99" in page.locator("#say").inner_text()
    page.keyboard.press("Escape")
    assert page.locator(".legend .when").count() == 0


def test_choices_are_kept_over_a_reload(server: penstock.Server, visit: Callable[..., Visit]) -> None:
    seen = visit(server.url)
    seen.wait(MOVING)
    page = seen.page
    page.get_by_role("button", name="15 min", exact=True).click()
    page.get_by_role("button", name="Linear").click()
    page.get_by_role("button", name="Theme").click()
    page.get_by_role("button", name="Theme").click()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert page.locator("html").get_attribute("data-theme") == "dark"
    page.reload()
    seen.wait(MOVING)
    assert page.get_by_role("button", name="15 min", exact=True).get_attribute("aria-pressed") == "true"
    assert page.get_by_role("button", name="Linear").get_attribute("aria-pressed") == "true"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark


def test_a_pause_asks_nobody(server: penstock.Server, visit: Callable[..., Visit]) -> None:
    seen = visit(server.url)
    seen.wait(MOVING)
    seen.page.get_by_role("button", name="Pause").click()
    assert seen.page.locator("#status").inner_text() == "Paused"
    seen.page.wait_for_timeout(300)
    before = len(seen.asked)
    seen.page.wait_for_timeout(2500)
    assert len(seen.asked) == before
    seen.page.get_by_role("button", name="Go on").click()
    seen.wait(LIVE)
    seen.wait("document.querySelector('[data-plot=queue] svg') !== null")
    assert len(seen.asked) > before


def test_an_idle_server_says_so(visit: Callable[..., Visit]) -> None:
    with penstock.Server([double, letters], port=0) as server:
        seen = visit(server.url)
        seen.wait(LIVE)
        seen.wait("document.querySelector('.tile .value')?.textContent === '0/s'")
        page = seen.page
        assert "No requests" in page.locator('[data-plot="requests"]').inner_text()
        assert "No batches lately" in page.locator("#sizes").inner_text()
        assert "No streamed answers yet" in page.locator("#streams-empty").inner_text()
        assert "Nothing has gone wrong" in page.locator("#errors-empty").inner_text()
        assert tile(page, "Latency p99") == "-"


def test_a_server_that_goes_away_and_comes_back(visit: Callable[..., Visit]) -> None:
    with penstock.Server([double, broken, letters], port=0) as server:
        with busy(server.url):
            seen = visit(server.url)
            seen.wait(MOVING)
        port = int(server.url.rsplit(":", 1)[1])
    seen.wait("document.body.dataset.state === 'lost'")
    page = seen.page
    assert page.locator("#status").inner_text() == "Disconnected"
    assert "does not answer since" in page.locator("#banner").inner_text()
    assert page.locator("#models tbody tr").count() == 3, "what it said last stays"
    with penstock.Server([double, broken, letters], port=port) as server, busy(server.url):
        seen.wait(LIVE)
        seen.wait(MOVING)
        assert not page.locator("#banner").is_visible()
        # Counters began anew: what was before is not counted again.
        assert page.evaluate("document.querySelectorAll('[data-plot=requests] path').length") > 0


def test_a_page_that_never_heard_from_a_server_says_whom_it_waits_for(visit: Callable[..., Visit]) -> None:
    with penstock.Server([double], port=0) as server:
        seen = visit(server.url)
        seen.wait(LIVE)
        seen.page.route("**/metrics", lambda route: route.abort())
        seen.page.reload()
        seen.wait("document.body.dataset.state === 'lost'")
        assert "Waiting for 127.0.0.1" in seen.page.locator("#intro").inner_text()
        assert not seen.page.locator("main").is_visible()
        seen.page.unroute("**/metrics")
        seen.wait(LIVE)
        assert seen.page.locator("main").is_visible()


def test_a_text_that_ends_early_is_not_shown(server: penstock.Server, visit: Callable[..., Visit]) -> None:
    seen = visit(server.url)
    seen.wait(MOVING)
    seen.page.route("**/metrics", lambda route: route.fulfill(body="penstock_requests_total 1\n"))
    seen.wait("document.body.dataset.state === 'lost'")
    assert "(the text ended early)" in seen.page.locator("#banner").inner_text()


def test_labels_are_text_whatever_they_hold(server: penstock.Server, visit: Callable[..., Visit]) -> None:
    seen = visit(server.url)
    seen.wait(LIVE)
    name = '<img src=x onerror=\\"document.body.dataset.state=1\\">'
    text = f'# TYPE penstock_queue_depth gauge\npenstock_queue_depth{{model="{name}"}} 3\n# EOF\n'
    seen.page.route("**/metrics", lambda route: route.fulfill(body=text))
    seen.wait("document.querySelector('#models tbody').textContent.includes('<img src=x')")
    assert seen.page.locator("#models img").count() == 0


def test_two_processes_are_one_server(tmp_path: Path, visit: Callable[..., Visit]) -> None:
    app = tmp_path / "app.py"
    app.write_text(
        "import penstock\n"
        "@penstock.model('double', inputs={'x': ('float32', [2])}, outputs={'y': ('float32', [2])})\n"
        "def double(x):\n    return x * 2\n"
    )
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "penstock", "serve", str(app), "--port", str(port), "--workers", "2"]
    process = Process(command, tmp_path / "log", folder=tmp_path)
    try:
        process.wait_until(lambda: answers(f"{url}/v2/health/ready"))
        with penstock.Client(url) as client:
            for _ in range(20):
                client.infer("double", ROW)
            seen = visit(url)
            seen.wait(LIVE)
            assert "2 processes" in seen.page.locator("#place").inner_text()
            assert seen.page.locator("#workers tbody tr").count() == 2
            assert seen.page.locator("#models tbody tr").count() == 1
            asked = [row(seen.page, "workers", str(worker))[3] for worker in (0, 1)]
            assert sum(int(each) for each in asked if each != "-") == 20
    finally:
        process.stop()


def test_twenty_models(visit: Callable[..., Visit]) -> None:
    models = [penstock.model(f"tenant-{number:02}", **TENSORS)(lambda x: x) for number in range(20)]
    with penstock.Server(models, port=0) as server, penstock.Client(server.url) as client:
        for each in range(20):
            client.infer(f"tenant-{each:02}", ROW)
        seen = visit(server.url, size=(390, 800))
        seen.wait(LIVE)
        assert seen.page.locator("#models tbody tr").count() == 20
        assert "20 models" in seen.page.locator("#models-count").inner_text()
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390, "nothing but tables scrolls sideways"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_nothing_stands_in_anybodys_way(
    server: penstock.Server, visit: Callable[..., Visit], scheme: str, width: int
) -> None:
    seen = visit(server.url, size=(width, 900), color_scheme=scheme, bypass_csp=True)
    seen.wait(MOVING)
    seen.page.wait_for_timeout(1200)
    found = seen.page.wait_for(Axe().run(seen.page.thing))
    assert found.violations_count == 0, found.generate_report()
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_key_is_asked_for_and_kept_in_the_tab(visit: Callable[..., Visit]) -> None:
    hashed = "sha256:" + hashlib.sha256(b"a-key").hexdigest()
    with penstock.Server([double], port=0, api_keys={"team": hashed}) as server:
        seen = visit(server.url)
        seen.wait("document.body.dataset.state === 'key'")
        page = seen.page
        page.locator("#key").fill("another")
        page.keyboard.press("Enter")
        seen.wait("!document.getElementById('ask-wrong').hidden")
        page.locator("#key").fill("a-key")
        page.keyboard.press("Enter")
        seen.wait(LIVE)
        assert row(page, "models", "double")[1] == "Ready"
        page.reload()
        seen.wait(LIVE)
        assert "a-key" not in page.content()
        assert all("a-key" not in url for url in seen.asked)


def test_open_metrics_need_no_key(visit: Callable[..., Visit]) -> None:
    hashed = "sha256:" + hashlib.sha256(b"a-key").hexdigest()
    with penstock.Server([double], port=0, api_keys={"team": hashed}, metrics_open=True) as server:
        seen = visit(server.url)
        seen.wait(LIVE)
        assert row(seen.page, "models", "double")[1] == "Ready"


def test_it_is_switched_off(browser: Sync) -> None:
    with penstock.Server([double], port=0, dashboard=False) as server:
        seen = Visit(browser, f"{server.url}/dashboard")
        assert "there is nothing at this path" in seen.page.content()
        seen.close()


@pytest.fixture(scope="module")
def history(browser: Sync) -> Iterator[Sync]:
    """A page that knows how the dashboard reads metrics, and shows nothing."""
    page = browser.new_page()
    code = "".join((SOURCES / name).read_text(encoding="utf-8") for name in ("words.js", "history.js"))
    page.evaluate(
        f"() => {{ {code}\nObject.assign(window, {{ History, quantile, time, bytes, count, share, said }}); }}"
    )
    yield page
    page.close()


READ = """text => {
  const history = new window.History();
  history.add(text, 0, false);
  const all = [];
  for (const { name, labels, counts, id } of history.series.values()) {
    all.push([name, labels, counts ? history.latest[id] : history.last.values[id]]);
  }
  return all;
}"""


def test_it_reads_what_others_read(server: penstock.Server, history: Sync) -> None:
    with penstock.Client(server.url) as client:
        text = client.get("/metrics").text
    families = text_string_to_metric_families(text)
    expected = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }
    found = {(name, tuple(sorted(labels.items()))): value for name, labels, value in history.evaluate(READ, text)}
    assert found == expected


RISES = """([texts, name]) => {
  const history = new window.History();
  texts.forEach((text, at) => history.add(`${text}# EOF\\n`, at * 1000, false));
  return history.frames.slice(1).map((to, at) => history.rise(history.frames[at], to, history.of(name)));
}"""


def test_counters_rise_also_where_a_process_began_anew(history: Sync) -> None:
    head = "# TYPE c counter\n"
    texts = [
        head + 'c_total{worker="0"} 10\nc_total{worker="1"} 100\n',
        head + 'c_total{worker="0"} 15\nc_total{worker="1"} 3\n',
        head + 'c_total{worker="0"} 16\nc_total{worker="1"} 5\nc_total{worker="2"} 7\n',
        head + 'c_total{worker="0"} 16\n',
    ]
    assert history.evaluate(RISES, [texts, "c_total"]) == [8, 10, 0]


def test_percentiles_are_those_of_the_terminal(history: Sync) -> None:
    chance = random.Random(7)
    for _ in range(200):
        bounds = sorted(chance.sample(range(1, 1000), 8))
        counts = sorted(chance.choices(range(50), k=9))
        share = chance.random()
        buckets = [*zip(map(float, bounds), map(float, counts), strict=False), (float("inf"), float(counts[-1]))]
        expected = quantile(share, buckets)
        found = history.evaluate(
            "([share, buckets]) => window.quantile(share, buckets.map(([le, n]) => [le ?? Infinity, n]))",
            [share, [[None if bound == float("inf") else bound, count] for bound, count in buckets]],
        )
        assert found == pytest.approx(expected)


def test_numbers_read_well(history: Sync) -> None:
    said = "values => values.map(([how, value]) => window.said(window[how](value)))"
    cases = {
        "0 ms": ("time", 0),
        "35 µs": ("time", 0.000035),
        "1.2 ms": ("time", 0.00123),
        "12.3 ms": ("time", 0.0123),
        "123 ms": ("time", 0.1234),
        "12 s": ("time", 12),
        "10 min": ("time", 600),
        "1 KiB": ("bytes", 1024),
        "4.1 MiB": ("bytes", 4303603),
        "1,234": ("count", 1234),
        "2.5M": ("count", 2.5e6),
        "0.03": ("count", 0.034),
        "99.99%": ("share", 0.99999),
        "<0.01%": ("share", 0.00001),
    }
    assert history.evaluate(said, list(cases.values())) == list(cases)
