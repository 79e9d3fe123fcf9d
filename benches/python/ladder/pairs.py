"""What two parts are worth together, beyond the rungs: fewer requests upstream, and loads that block no stream."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import cycle, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

import penstock
from benches.python.door.machine import serving
from benches.python.door.rounds import progress, spread, total, turning
from benches.python.door.servers import penstock as plain
from benches.python.gateway.stories import gateway
from benches.python.ladder.asking import Load, in_time
from benches.python.ladder.questions import BIG, MIXED, Call, questions, workload
from benches.python.ladder.rungs import ALL, ALONE, BASELINE, CLIENTS, THREE, TWO
from benches.python.ladder.visits import Phases, counters, launch
from benches.python.measure import table
from examples import demo_text, minilm_onnx

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from benches.python.door.machine import Served
    from benches.python.ladder.rungs import Rung
    from benches.python.ladder.visits import Effort

    Meanwhile = Callable[[penstock.AsyncClient], Awaitable[None]]

Pair = dict[str, Any]
STREAMS = 4
LONG = 200
"""Tokens of a text that is written while others load."""
CALM_SECONDS = 1.0
WANTED = (3, 0, 1, 2)
"""The large models in the order that they are asked for: there is room for three, so each has the next one leave."""


def pairs(logs: Path, effort: Effort) -> list[Pair]:
    """A title, a table and the figures of each."""
    found = []
    for measure in (upstream, loading):
        progress(measure.__name__)
        found.append(measure(logs, effort))
    return found


def upstream(logs: Path, effort: Effort) -> Pair:
    """A gateway before a server, with and without kept connections and batches: what reaches the server behind."""
    rungs = (BASELINE, ALONE[0], ALONE[1], TWO)
    known = questions(["mlp"])
    seen: dict[str, list[dict[str, float]]] = {rung.name: [] for rung in rungs}
    with serving(plain(name="ladder upstream", cpus="1"), logs=logs) as [behind]:
        fronts = []
        for rung in rungs:
            front = gateway("mlp", behind.base, "0", name=f"ladder gateway {rung.name}")
            fronts.append(replace(front, environment={**front.environment, **rung.environment()}))
        with serving(*fronts, logs=logs) as servers:
            for _, order in turning([*zip(rungs, servers, strict=True)], effort.rounds):
                for rung, server in order:
                    calls = cycle([Call("mlp", index) for index in range(len(known["mlp"]))])
                    before = counters(behind)
                    figures = Phases(server, rung, known).measure(calls, Load(CLIENTS, effort.many))
                    after = counters(behind)
                    figures["upstream"] = (after["hits"] - before["hits"]) / figures["requests"]
                    # The second look at the counters is a connection of its own.
                    figures["opened"] = (after["accepted"] - before["accepted"] - 1) / figures["requests"]
                    seen[rung.name].append(figures)
    rows = [
        [
            name,
            spread([each["upstream"] for each in rounds], 3),
            spread([each["opened"] for each in rounds], 3),
            spread([each["requests_per_second"] for each in rounds], 0),
        ]
        for name, rounds in seen.items()
    ]
    head = ["a gateway before the MLP, 100 clients", "requests upstream/request", "connections upstream", "requests/s"]
    return {"title": "Pooling and batching: what reaches an upstream", "table": table(head, rows), "data": seen}


def loading(logs: Path, effort: Effort) -> Pair:
    """Texts that are written while nothing loads, and while models come and go."""
    rungs = (THREE, ALL)
    seen: dict[str, list[dict[str, float]]] = {rung.name: [] for rung in rungs}
    with serving(*(launch(workload(MIXED, 1), rung) for rung in rungs), logs=logs) as servers:
        for _, order in turning([*zip(rungs, servers, strict=True)], effort.rounds):
            for rung, server in order:
                seen[rung.name].append(_beside_loads(server, rung, min(CALM_SECONDS, effort.many)))
    columns = ("calm_p99_ms", "calm_max_ms", "busy_p99_ms", "busy_max_ms", "loads", "load_ms")
    rows = [[name, *(spread([each[key] for each in rounds]) for key in columns)] for name, rounds in seen.items()]
    head = [
        f"{STREAMS} texts at a time",
        *("gap between tokens ms, p99", "max", "the same while models load, p99", "max"),
        *("loads", "a load, ms"),
    ]
    return {"title": "Streaming and loading: streams beside loads", "table": table(head, rows), "data": seen}


def _beside_loads(server: Served, rung: Rung, seconds: float) -> dict[str, float]:
    calm = _gaps(server, rung, lambda _: asyncio.sleep(seconds))
    before = _loads(server)
    busy = _gaps(server, rung, _load)
    count, spent = (after - first for after, first in zip(_loads(server), before, strict=True))
    figures = {"loads": count, "load_ms": spent / max(1.0, count) * 1e3}
    for name, gaps in (("calm", calm), ("busy", busy)):
        figures[f"{name}_p99_ms"] = float(np.percentile(gaps, 99)) * 1e3
        figures[f"{name}_max_ms"] = max(gaps) * 1e3
    return figures


def _loads(server: Served) -> tuple[float, float]:
    text = server.get("/metrics")
    return total("penstock_models_load_seconds_count", text), total("penstock_models_load_seconds_sum", text)


def _gaps(server: Served, rung: Rung, meanwhile: Meanwhile) -> list[float]:
    """Seconds between the tokens of texts that are written while something else goes on."""
    return in_time(rung, _writing(server.base, rung, meanwhile))


async def _writing(url: str, rung: Rung, meanwhile: Meanwhile) -> list[float]:
    gaps: list[float] = []
    async with penstock.AsyncClient(url, pool=rung.pool()) as client:
        # The byte model itself is not what is waited for here.
        await demo_text.complete(client, "once ", 1, temperature=0)
        over = asyncio.Event()

        async def write(number: int) -> None:
            while not over.is_set():
                text = await demo_text.complete(client, f"{number} A trait ", LONG, temperature=0)
                gaps.extend(late - early for early, late in pairwise(text.came))

        async with asyncio.TaskGroup() as tasks:
            for number in range(STREAMS):
                tasks.create_task(write(number))
            await meanwhile(client)
            over.set()
    return gaps


async def _load(client: penstock.AsyncClient) -> None:
    """Has each of the large models loaded, for the one that was used longest ago."""
    inputs = {"text": np.array(["a cat sits on the mat"], object)}
    ids, mask = minilm_onnx.tokens(["a cat sits on the mat"])
    tokens = {minilm_onnx.IDS: ids, minilm_onnx.MASK: mask}
    for place in WANTED:
        await client.infer(BIG[place], tokens if "onnx" in BIG[place] else inputs)
