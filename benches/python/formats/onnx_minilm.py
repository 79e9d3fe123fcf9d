"""MiniLM as a graph beside the same model in NumPy: rows a second over the very same tokens, on one CPU, one thread."""

from __future__ import annotations

import time
from collections import defaultdict
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from benches.python.door.machine import NotServing, take_the_load_cpu
from benches.python.door.rounds import progress, spread
from benches.python.door.servers import Absent
from benches.python.door.story import Bench, Story
from benches.python.measure import table
from examples import minilm_onnx
from examples.demo_subjects import sentences
from examples.minilm import MiniLM, MiniLMMissing

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = (1, 2, 4, 8, 16, 32, 64)
SECONDS = 0.4
TOLERANCE = 1e-4
NUMPY, OURS, THEIRS = "NumPy", "penstock.load_onnx", "onnxruntime, its Python API"


def run(bench: Bench) -> Story:
    try:
        model, path = MiniLM.load(), minilm_onnx.written()
    except MiniLMMissing as missing:
        raise Absent(str(missing)) from missing
    take_the_load_cpu()
    sessions = _sessions(path)
    effort = bench.effort(SECONDS)
    rates: dict[tuple[int, str], list[float]] = defaultdict(list)
    apart = 0.0
    for size in SIZES:
        calls = _calls(model, sessions, sentences(size))
        expected = calls[NUMPY]()
        apart = max(apart, *(float(np.max(np.abs(call() - expected))) for call in calls.values()))
        for number in range(effort.rounds):
            progress(f"batches of {size}, round {number + 1} of {effort.rounds}")
            names = list(calls)
            for name in [*names[number % len(names) :], *names[: number % len(names)]]:
                rates[size, name].append(size * _rate(calls[name], effort.seconds))
    if not apart <= TOLERANCE:
        raise NotServing(f"the graph is {apart:.1e} from NumPy's model")
    rows = []
    for size in SIZES:
        kinds = [name for one, name in rates if one == size]
        beside = [ours / theirs for ours, theirs in zip(rates[size, OURS], rates[size, NUMPY], strict=True)]
        rows.append([size, *(spread(rates[size, name], 0) for name in kinds), spread(beside, 2)])
    text = table(["rows", *kinds, f"{OURS} ÷ {NUMPY}"], rows)
    text = f"Rows a second, tokens ready-made; vectors differ by {apart:.1e} at most.\n\n{text}"
    data = [{"rows": size, "where": name, "rates": found} for (size, name), found in rates.items()]
    return Story("MiniLM as a graph", text, data)


def _sessions(path):
    """The graph by Penstock, and by onnxruntime's own API where that is installed: a function of tokens each."""
    import penstock

    session = penstock.load_onnx(path)
    found = {OURS: lambda given: session(given)[minilm_onnx.EMBEDDING]}
    if find_spec("onnxruntime") is not None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        other = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        found[THEIRS] = lambda given: other.run([minilm_onnx.EMBEDDING], given)[0]
    return found


def _calls(model: MiniLM, sessions, texts: list[str]) -> dict[str, Callable[[], np.ndarray]]:
    ids, mask = minilm_onnx.tokens(texts)
    given = {minilm_onnx.IDS: ids, minilm_onnx.MASK: mask}
    wide, real = ids.astype(np.intp), mask.astype(np.bool_)
    calls = {NUMPY: lambda: model.embed(wide, real)}
    return calls | {name: lambda session=session: session(given) for name, session in sessions.items()}


def _rate(call: Callable[[], np.ndarray], seconds: float) -> float:
    """Calls a second."""
    call()
    count, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < seconds or count == 0:
        call()
        count += 1
    return count / took
