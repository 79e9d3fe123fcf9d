"""MLServer's own client (`mlserver infer`), asking our server about lines of a file."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penstock
from tests.interop.support.environments import require
from tests.interop.support.metrics import grown, samples
from tests.interop.support.served import double, picky, place
from tests.python.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def server() -> Iterator[penstock.Server]:
    with penstock.Server([double, picky], port=0) as server:
        yield server


def infer(server: penstock.Server, model: str, rows: list[list[float]], folder: Path, *flags: str) -> list[Any]:
    """What it writes down of the answer to each line."""
    asked, told = folder / "asked.jsonl", folder / "told.jsonl"
    tensors = [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": row} for row in rows]
    asked.write_text("".join(json.dumps({"inputs": [tensor]}) + "\n" for tensor in tensors))
    program = [str(require("mlserver", "mlserver")), "infer", "-u", place(server.url), "-m", model]
    done = subprocess.run(
        [*program, "-i", str(asked), "-o", str(told), *flags], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in told.read_text().splitlines()]
    # Its workers write as they are done; each answer has the number of its line.
    return sorted(found, key=lambda answer: int(answer["parameters"]["batch_index"]))


@pytest.mark.parametrize("flags", [(), ("-s", "8"), ("-b",), ("-s", "8", "-b", "-w", "4")], ids=" ".join)
def test_lines_are_answered(server: penstock.Server, tmp_path: Path, flags: tuple[str, ...]) -> None:
    rows = [[float(n), -float(n)] for n in range(40)]
    before = samples(server.metrics())
    answers = infer(server, "double", rows, tmp_path, *flags)
    assert len(answers) == len(rows)
    for row, answer in zip(rows, answers, strict=True):
        outputs = {one["name"]: one for one in answer["outputs"]}
        assert np.ravel(outputs["y"]["data"]).tolist() == [2 * number for number in row]
    # The rows of a micro-batch come in one request.
    asked = 5 if "-s" in flags else 40
    until(lambda: grown(before, samples(server.metrics()), "penstock_requests_total", "model=double") == asked)


def test_a_line_that_is_refused_says_so(server: penstock.Server, tmp_path: Path) -> None:
    (answer,) = infer(server, "picky", [[-1.0, 2.0]], tmp_path)
    assert "numbers below zero are not served" in json.dumps(answer)
