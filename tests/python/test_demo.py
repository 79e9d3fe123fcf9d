"""The demo, run as a user runs it, and what makes it fail."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.image
import numpy as np
import pytest

from examples import demo, demo_chart, demo_load, demo_machine
from examples.demo_server import Counters, ServerFailed, ServerProcess
from examples.demo_subjects import LONGEST, SENTENCES, SHORTEST, Subject, sentences, tensor
from penstock.testing import LoadReport

if TYPE_CHECKING:
    from collections.abc import Iterator

DEMO = Path(demo.__file__)
SECONDS = 120
STOPS_WITHIN = 20
ROW = [0.25, 0.75]

pytestmark = pytest.mark.timeout(SECONDS + 30)


def run_quick(out: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DEMO), "--quick", "--out", str(out)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    ) as process:
        try:
            out, err = process.communicate(timeout=SECONDS)
        except BaseException:
            # Its server is in a session of its own: the demo ends it, where it is asked to end.
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOPS_WITHIN)
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def cells(output: str, model: str) -> list[str]:
    """The row of a model in the table, a cell each."""
    rows = [line for line in output.splitlines() if re.match(rf"{model}  ", line)]
    assert len(rows) == 1, output
    return re.split(r"\s{2,}", rows[0].strip())


def colours(path: Path) -> np.ndarray:
    """The pixels of an image, [n, 3] of 0..255."""
    pixels = matplotlib.image.imread(path)
    assert pixels.shape[0] >= 600
    assert pixels.shape[1] >= 1000
    return np.rint(pixels[..., :3].reshape(-1, 3) * 255).astype(int)


def assert_drawn(path: Path) -> None:
    pixels = colours(path)
    assert np.mean(np.all(pixels == 255, axis=1)) < 0.98, "next to nothing is drawn"
    for _, colour, _ in demo_chart.LINES:
        assert has(pixels, colour), f"no line of {colour}"


def has(pixels: np.ndarray, colour: str) -> bool:
    wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return int(np.sum(np.all(pixels == wanted, axis=1))) > 20


def test_the_quick_demo_answers_rightly_and_leaves_a_table_and_a_chart(tmp_path: Path) -> None:
    done = run_quick(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
    for model in ("digits", "minilm", "minilm-onnx"):
        row = cells(done.stdout, model)
        assert len(row) == len(demo.HEADINGS)
        assert row[-1] == "100 of 100"
        rate, *latencies = (float(cell.replace(",", "")) for cell in row[1:7])
        assert rate > 1
        assert latencies == sorted(latencies)
        per_batch, locks = float(row[7]), float(row[8])
        assert 1 <= per_batch <= 10
        # Once a batch, with some slack for what rounding hides; a graph needs no interpreter.
        assert locks == (0 if model == "minilm-onnx" else pytest.approx(1 / per_batch, rel=0.1))
    assert re.search(r"^minilm-onnx answers \d+\.\d\d times as many requests", done.stdout, re.MULTILINE)
    assert_drawn(tmp_path / "latency.png")
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["failures"] == []
    assert results["models"]["digits"]["facts"]["accuracy"] >= 0.95
    facts = results["models"]["minilm"]["facts"]
    assert facts["alike"] - facts["most_alike_of_the_others"] >= 0.3
    assert results["models"]["minilm-onnx"]["facts"]["largest_difference"] <= 1e-4
    assert all(len(model["open_loop"]) == 2 for model in results["models"].values())
    texts = results["texts"]
    assert texts["byte-lm"]["bits_per_byte"] < texts["byte-lm"]["trigrams"]
    assert [flow["clients"] for flow in texts["byte-lm"]["flows"]] == [1, 64]
    assert texts["embeddings"]["largest_difference"] <= 1e-4


def test_without_minilm_the_demo_says_so_and_goes_on(tmp_path: Path) -> None:
    # What a module set to None in sys.modules is to find_spec: not installed.
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['tokenizers'] = None\n")
    done = run_quick(tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "minilm is MISSING" in done.stdout
    assert cells(done.stdout, "digits")[-1] == "100 of 100"
    assert not re.search(r"^minilm(-onnx)?  ", done.stdout, re.MULTILINE)
    assert_drawn(tmp_path / "latency.png")


def test_without_onnxruntime_the_demo_says_so_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['onnxruntime'] = None\n")
    done = run_quick(tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "minilm-onnx is MISSING from the server" in done.stdout
    assert cells(done.stdout, "minilm")[-1] == "100 of 100"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_demo_that_is_stopped_stops_its_server(tmp_path: Path, number: signal.Signals, status: int) -> None:
    command = [sys.executable, "-u", str(DEMO), "--quick", "--out", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = next(int(found[1]) for line in process.stdout if (found := re.match(r"server: process (\d+)", line)))
        process.send_signal(number)
        rest = process.stdout.read()
        assert process.wait(SECONDS) == status
    assert "server: stopped, exit status 0" in rest
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_an_application_that_ends_at_once_is_told() -> None:
    with pytest.raises(ServerFailed, match="ended before it was ready, with status 2"), ServerProcess(Path("gone.py")):
        pass


def test_sentences_are_different_varied_and_always_the_same() -> None:
    made = sentences(SENTENCES)
    lengths = {len(sentence.split()) for sentence in made}
    assert len(set(made)) == SENTENCES
    assert made == sentences(SENTENCES)
    assert min(lengths) == SHORTEST
    assert max(lengths) == LONGEST


def answer(row: list[float]) -> bytes:
    output = {"name": "y", "datatype": "FP32", "shape": [1, len(row)], "data": row}
    return json.dumps({"model_name": "m", "outputs": [output]}).encode()


@pytest.fixture
def subject() -> Subject:
    return Subject("m", "m: a model", "y", [b"{}"], np.array([ROW], np.float32))


@pytest.mark.parametrize(
    "body",
    [
        answer([0.25, 0.7502]),
        answer([0.25, float("nan")]),
        answer([0.25]),
        b"",
        b"[]",
        b'{"outputs": [{"name": "z"}]}',
        b'{"outputs": [{"name": "y"}]}',
    ],
    ids=["other number", "not a number", "other shape", "empty", "no object", "other output", "no data"],
)
def test_an_answer_that_differs_is_wrong(subject: Subject, body: bytes) -> None:
    check = demo_load.check_answers([(0, 200, answer(ROW)), (0, 200, body)], subject)
    assert (check.checked, check.wrong) == (2, 1)


def test_an_answer_that_is_close_enough_is_right(subject: Subject) -> None:
    check = demo_load.check_answers([(0, 200, answer([0.25, 0.75005])), (0, 503, b"busy")], subject)
    assert (check.checked, check.wrong) == (1, 0)
    assert check.largest_difference == pytest.approx(5e-5, rel=1e-2)


def report(**changed: object) -> LoadReport:
    """Ten requests, answered well, but for what is changed."""
    counts = {"planned": 10, "answered": 10, "ok": 10, "failed": 0, "unfinished": 0, "reopened": 0, "bytes_read": 0}
    times = {
        "seconds": 1.0,
        "p50": 0.01,
        "p90": 0.02,
        "p95": 0.02,
        "p99": 0.03,
        "p999": 0.04,
        "max": 0.04,
        "mean": 0.01,
    }
    others = {"requests_per_second": 10.0, "statuses": {200: 10}, "answers": []}
    return LoadReport(**{**counts, **times, **others, **changed})


def measured(subject: Subject, *points: LoadReport, wrong: int = 0, **changed: object) -> demo_load.Measured:
    check = demo_load.Check(checked=10, wrong=wrong, largest_difference=0.0)
    closed = demo_load.Closed(report(**changed), Counters(rows=10, batches=2, lock_acquisitions=2), check)
    runs = [demo_load.Point(1.0, 10.0 * n, 1.0, run, Counters(10, 2, 2)) for n, run in enumerate(points, 1)]
    return demo_load.Measured(subject, closed, closed.report, runs)


def test_nothing_wrong_is_no_failure(subject: Subject) -> None:
    assert measured(subject, report(unfinished=3, answered=7, ok=7)).failures() == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"wrong": 2}, "2 of 10 answers are WRONG"),
        ({"ok": 9, "statuses": {200: 9, 503: 1}}, "only 9 of 10 requests .* {200: 9, 503: 1}"),
        ({"ok": 9, "answered": 9, "failed": 1}, "only 9 of 10 requests .* 1 lost"),
        ({"ok": 9, "answered": 9, "unfinished": 1}, "only 9 of 10 requests .* 1 unfinished"),
    ],
    ids=["wrong", "refused", "lost", "unfinished"],
)
def test_a_failure_is_told_once_and_loudly(subject: Subject, changed: dict[str, object], said: str) -> None:
    one = measured(subject, report(), **changed)  # type: ignore[arg-type]
    (failure,) = one.failures()
    assert re.search(said, failure)
    assert demo.verdict([one], [failure]) == [f"FAILED: {failure}"]


def test_a_request_lost_in_the_open_loop_is_a_failure(subject: Subject) -> None:
    (failure,) = measured(subject, report(), report(ok=8, statuses={200: 8, 503: 2})).failures()
    assert "at 20 requests per second 2 of 10 failed" in failure


def test_the_table_shows_wrong_answers(subject: Subject) -> None:
    lines = demo.table([measured(subject, wrong=1)])
    assert lines[0].startswith("model  ")
    assert lines[-1].endswith("10 of 10, 1 WRONG")


def test_the_chart_marks_what_was_not_answered(tmp_path: Path, subject: Subject) -> None:
    runs = [report(), report(unfinished=4, answered=6, ok=6, seconds=3.0)]
    for name, points in (("good", [report(), report()]), ("bad", runs), ("dead", [report(p50=0.0, p95=0.0, p99=0.0)])):
        demo_chart.draw([measured(subject, *points)], 10, "", tmp_path / f"{name}.png")
    assert not has(colours(tmp_path / "good.png"), demo_chart.ALARM)
    assert has(colours(tmp_path / "bad.png"), demo_chart.ALARM)


def test_counters_are_read_for_their_model_alone() -> None:
    text = (
        'penstock_batches_total{model="a",reason="tick"} 3\n'
        'penstock_batches_total{model="a",reason="full"} 4\n'
        'penstock_batches_total{model="ab",reason="full"} 100\n'
        'penstock_batch_size_sum{model="a"} 70.0\n'
        'penstock_lock_acquisitions_total{model="a"} 7\n'
    )
    assert Counters.parse(text, "a") == Counters(rows=70, batches=7, lock_acquisitions=7)
    assert Counters.parse(text, "c") == Counters(0, 0, 0)


def test_a_tensor_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="no output 'y'"):
        tensor({"outputs": []}, "y")


@pytest.fixture
def busy() -> Iterator[None]:
    code = "import time\nend = time.monotonic() + 20\nwhile time.monotonic() < end: pass"
    process = subprocess.Popen([sys.executable, "-c", code])
    yield
    process.kill()
    process.wait()


@pytest.mark.skipif(not demo_machine.STAT.exists(), reason="the system does not tell")
@pytest.mark.usefixtures("busy")
def test_busy_neighbours_are_noticed() -> None:
    neighbours = demo_machine.Neighbours()
    time.sleep(1.0)
    cores = neighbours.cores()
    assert cores > 0.2
    assert "Other processes took" in demo_machine.remark(cores)
    assert demo_machine.remark(0.0) == ""
