"""`make demo`: a server with real models under load, answers checked; ends with a table and a chart.

`--quick` does the same with less load, in a few seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

# Run by path, this file is no part of a package: its neighbours are found through the repository's root.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# Read by NumPy when it is imported. With one thread, training gives the very weights that the server's model has.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


import penstock
from examples import demo_chart, demo_load, demo_machine, demo_subjects, demo_text
from examples.demo_machine import Neighbours
from examples.demo_server import ServerFailed, ServerProcess
from examples.minilm import MiniLMMissing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from examples.demo_load import Measured, Plan
    from examples.demo_subjects import Subject
    from penstock.testing import LoadReport

    Facts = Callable[[ServerProcess], tuple[dict[str, float], list[str]]]

ROOT: Final = Path(__file__).resolve().parents[1]
INTERRUPTED: Final = 130
HEADINGS: Final = (
    ("model", ""),
    ("requests", "per second"),
    ("p50", "ms"),
    ("p95", "ms"),
    ("p99", "ms"),
    ("p99.9", "ms"),
    ("max", "ms"),
    ("requests", "per batch"),
    ("lock acquisitions", "per request"),
    ("answers", "checked"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; 0 where every request was answered, and rightly."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less load: a few seconds")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "target" / "demo", help="folder of chart and results (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    try:
        return _demo(demo_load.QUICK if options.quick else demo_load.FULL, options.out)
    except KeyboardInterrupt:
        print("\ninterrupted; the server was stopped")
        return INTERRUPTED
    except (ServerFailed, penstock.PenstockError, OSError) as error:
        print("\n" + "\n".join(f"FAILED: {one}" for one in _causes(error)))
        return 1


def _demo(plan: Plan, out: Path) -> int:
    began, neighbours = time.monotonic(), Neighbours()
    print(f"penstock {penstock.__version__}, {demo_machine.describe()}")
    with ServerProcess(ROOT / "examples" / "app.py") as server:
        print(f"server: process {server.pid} on {server.url}, ready after {time.monotonic() - began:.1f} s")
        facts, measured, failures = _all_models(server, plan)
        facts["byte-lm"], found = demo_text.tell(server, quick=plan is demo_load.QUICK)
        failures += found
        if "minilm" in facts:
            facts["embeddings"], found = demo_text.tell_embeddings(server)
            failures += found
    print(f"\nserver: stopped by SIGTERM, exit status {server.status}")
    if server.status != 0:
        failures.append(f"the server's exit status was {server.status}, not 0")
    others = neighbours.cores()
    chart, results = out / "latency.png", out / "results.json"
    demo_chart.draw(measured, plan.clients, demo_machine.remark(others), chart)
    results.write_text(json.dumps(_results(facts, measured, failures, others), indent=1) + "\n")
    print(f"chart: {chart}\nresults: {results}\nseconds: {time.monotonic() - began:.1f}")
    print(*filter(None, [demo_machine.remark(others)]), "", *table(measured), sep="\n")
    print("", *beside(measured), *verdict(measured, failures), sep="\n")
    return 1 if failures else 0


def _all_models(server: ServerProcess, plan: Plan) -> tuple[dict[str, Any], list[Measured], list[str]]:
    facts: dict[str, Any] = {}
    measured: list[Measured] = []
    failures: list[str] = []
    for subject, tell in _subjects(server, plan.clients * plan.requests):
        facts[subject.name], found = tell(server)
        one = demo_load.measure(server, subject, plan)
        measured.append(one)
        failures += found + one.failures()
    return facts, measured, failures


def _subjects(server: ServerProcess, count: int) -> list[tuple[Subject, Facts]]:
    found: list[tuple[Subject, Facts]] = [(demo_subjects.digits(count), demo_subjects.tell_digits)]
    try:
        subject = demo_subjects.minilm(count)
    except MiniLMMissing as missing:
        print(f"minilm is MISSING, the demo goes on without it: {missing}")
        return found
    if server.serves(subject.name):
        found.append((subject, demo_subjects.tell_minilm))
    else:
        print("minilm is MISSING from the server, the demo goes on without it")
    graph = demo_subjects.minilm_as_onnx(subject)
    if server.serves(graph.name):
        found.append((graph, demo_subjects.tell_minilm_as_onnx))
    else:
        print("minilm-onnx is MISSING from the server, the demo goes on without it")
    return found


def table(measured: Sequence[Measured]) -> list[str]:
    """Lay out the results, a line for each model under two of headings."""
    rows = [_row(one) for one in measured]
    tops, units = zip(*HEADINGS, strict=True)
    widths = [max(map(len, column)) for column in zip(tops, units, *rows, strict=True)]
    lines = [_line(cells, widths) for cells in (tops, units, ["-" * width for width in widths], *rows)]
    return [line.rstrip() for line in lines]


def _row(one: Measured) -> list[str]:
    report, check = one.closed.report, one.closed.check
    wrong = f", {check.wrong:,} WRONG" if check.wrong else ""
    return [
        one.subject.name,
        f"{report.requests_per_second:,.0f}",
        *(f"{1e3 * latency:,.1f}" for latency in (report.p50, report.p95, report.p99, report.p999, report.max)),
        f"{one.closed.requests_per_batch:.1f}",
        f"{one.closed.locks_per_request:.3f}",
        f"{check.checked:,} of {report.planned:,}{wrong}",
    ]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])


def beside(measured: Sequence[Measured]) -> list[str]:
    """What the graph answers beside the same model in NumPy, where both were measured."""
    rates = {one.subject.name: one.closed.report.requests_per_second for one in measured}
    if not rates.get("minilm") or "minilm-onnx" not in rates:
        return []
    ratio = rates["minilm-onnx"] / rates["minilm"]
    return [f"minilm-onnx answers {ratio:.2f} times as many requests per second as minilm, which cuts its own tokens"]


def verdict(measured: Sequence[Measured], failures: Sequence[str]) -> list[str]:
    """The last words."""
    if failures:
        return [f"FAILED: {failure}" for failure in failures]
    checks = [one.closed.check for one in measured]
    largest = max(check.largest_difference for check in checks)
    checked = sum(check.checked for check in checks)
    return [f"all {checked:,} answers are those of direct calls of the models, to within {largest:.1e}"]


def _results(
    facts: dict[str, Any], measured: Sequence[Measured], failures: Sequence[str], others: float
) -> dict[str, Any]:
    return {
        "machine": demo_machine.describe(),
        "cores_taken_by_others": others,
        "penstock": penstock.__version__,
        "failures": failures,
        "models": {one.subject.name: {"facts": facts[one.subject.name], **_numbers(one)} for one in measured},
        "texts": {name: facts[name] for name in ("byte-lm", "embeddings") if name in facts},
    }


def _numbers(one: Measured) -> dict[str, Any]:
    closed = one.closed
    return {
        "closed_loop": {
            **_plain(closed.report),
            **asdict(closed.counters),
            "requests_per_batch": closed.requests_per_batch,
            "lock_acquisitions_per_request": closed.locks_per_request,
            **asdict(closed.check),
        },
        "capacity": one.capacity,
        "open_loop": [
            {"rate": point.rate, "duration": point.duration, **_plain(point.report), **asdict(point.counters)}
            for point in one.points
        ],
    }


def _plain(report: LoadReport) -> dict[str, Any]:
    return {name: value for name, value in vars(report).items() if name != "answers"}


def _causes(error: BaseException) -> list[str]:
    """What went wrong, and before it what it came of: a server that is stuck neither answers nor stops."""
    before = None if error.__suppress_context__ else error.__context__
    earlier = [] if before is None else _causes(before)
    return [*earlier, f"{type(error).__name__}: {error}"]


def _leave(number: int, _frame: object) -> NoReturn:
    # As an exception, so that the server is stopped on the way out.
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
