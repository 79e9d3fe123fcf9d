"""MiniLM through the HTTP door, as a graph and in NumPy: rows a second by the rows of a request, server on one CPU."""

from __future__ import annotations

import json
from collections import defaultdict

import numpy as np

from benches.python.door.machine import NotServing, Served, serving, take_the_load_cpu
from benches.python.door.rounds import Figures, counters, growth, progress, spread
from benches.python.door.servers import Absent, penstock
from benches.python.door.story import Bench, Story
from benches.python.door.workload import compact
from benches.python.measure import table
from examples import minilm_onnx
from examples.demo_subjects import sentences
from examples.minilm import MiniLM, MiniLMMissing
from penstock import testing

SIZES = (1, 2, 4, 8, 16, 32, 64)
ROWS = 64
SECONDS = 0.7
CLIENTS = 2
"""While one is answered, the other's request is there."""
TOLERANCE = 1e-4


def run(bench: Bench) -> Story:
    try:
        expected, _ = MiniLM.load().encode(sentences(ROWS)), minilm_onnx.written()
    except MiniLMMissing as missing:
        raise Absent(str(missing)) from missing
    take_the_load_cpu()
    effort = bench.effort(SECONDS)
    launches = (
        penstock("minilm", name="penstock NumPy", path="minilm"),
        penstock("minilm-onnx", name="penstock ONNX", path="minilm-onnx"),
        penstock("minilm-onnx,minilm-onnx-text", name="penstock ONNX texts", path="minilm-onnx-text"),
    )
    results: dict[tuple[int, str], list[Figures]] = defaultdict(list)
    with serving(*launches, logs=bench.logs) as (numpys, graph, behind):
        lanes = [("NumPy, texts", numpys, _texts), ("ONNX, tokens", graph, _tokens), ("ONNX, texts", behind, _texts)]
        for size in SIZES:
            for _, server, bodies in lanes:
                _check(server, bodies(size), expected)
            for number in range(effort.rounds):
                progress(f"{size} rows a request, round {number + 1} of {effort.rounds}")
                turned = [*lanes[number % 3 :], *lanes[: number % 3]]
                for name, server, bodies in turned:
                    results[size, name].append(_visit(server, bodies(size), size, effort.seconds))
    rows = []
    for size in SIZES:
        found = {name: results[size, name] for name, *_ in lanes}
        base = [one["rows_per_second"] for one in found["NumPy, texts"]]
        speeds = {name: [one["rows_per_second"] for one in rounds] for name, rounds in found.items()}
        ratios = [
            spread([ours / theirs for ours, theirs in zip(speeds[name], base, strict=True)], 2)
            for name in ("ONNX, tokens", "ONNX, texts")
        ]
        locks = spread([one["locks_per_request"] for one in found["ONNX, tokens"]], 3)
        rows.append([size, *(spread(speed, 0) for speed in speeds.values()), *ratios, locks])
    head = ["rows a request", *(name for name, *_ in lanes), "tokens ÷ NumPy", "texts ÷ NumPy", "locks/request, tokens"]
    text = f"Rows a second, {CLIENTS} clients, server on CPU 0, load on CPU 1.\n\n{table(head, rows)}"
    data = [{"rows": size, "where": name, "rounds": rounds} for (size, name), rounds in results.items()]
    return Story("MiniLM as a graph, through the HTTP door", text, data)


def _batches(size: int) -> list[list[str]]:
    texts = sentences(ROWS)
    return [texts[start : start + size] for start in range(0, ROWS, size)]


def _texts(size: int) -> list[bytes]:
    return [compact(testing.infer_body({"text": ("BYTES", [len(one)], one)})) for one in _batches(size)]


def _tokens(size: int) -> list[bytes]:
    bodies = []
    for texts in _batches(size):
        named = zip((minilm_onnx.IDS, minilm_onnx.MASK), minilm_onnx.tokens(texts), strict=True)
        bodies.append(compact(testing.infer_body({k: ("INT64", v.shape, v.ravel().tolist()) for k, v in named})))
    return bodies


def _check(server: Served, bodies: list[bytes], expected: np.ndarray) -> None:
    size = ROWS // len(bodies)
    report = testing.load(server.url, bodies, clients=1, requests_per_client=len(bodies), keep_answers=True)
    for index, status, answer in report.answers:
        if status != 200:
            raise NotServing(f"{server.name} answered with status {status}: {answer[:200]!r}")
        found = np.asarray(json.loads(answer)["outputs"][0]["data"], np.float32).reshape(size, -1)
        if not np.allclose(found, expected[index * size : (index + 1) * size], rtol=0, atol=TOLERANCE):
            raise NotServing(f"{server.name} answered the texts {index * size} and on otherwise than NumPy")


def _visit(server: Served, bodies: list[bytes], size: int, seconds: float) -> Figures:
    rate = testing.load(server.url, bodies, clients=CLIENTS, requests_per_client=2).requests_per_second
    each = max(2, round(rate * seconds / CLIENTS))
    counted = counters(server)
    report = testing.load(server.url, bodies, clients=CLIENTS, requests_per_client=each, deadline=60.0)
    assert report.ok == report.planned, f"{server.name}: {report.ok} of {report.planned} answered"
    return {
        "rows_per_second": report.requests_per_second * size,
        **growth(counted, counters(server), report.ok),
    }
