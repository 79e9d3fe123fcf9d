"""A single stream: its first token, and its tokens as fast as they can be had, by server and by client."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from benches.python.client.visits import SERVER_CPU
from benches.python.door.machine import serving
from benches.python.door.rounds import progress, spread
from benches.python.door.story import Bench, Story
from benches.python.measure import table
from benches.python.streaming.ask import Flow
from benches.python.streaming.client_cost import lanes, visit
from benches.python.streaming.pour import Caller
from benches.python.streaming.servers import bare_hyper, launches

if TYPE_CHECKING:
    from benches.python.door.machine import Served

FLOW = Flow(burst=200, pause_ms=0, tokens=200)
TIMES = 100
QUICK_TIMES = 6
KEYS = ("first_p50_us", "token_p50_us")
HEAD = ("first token µs", "µs/token of 200")


def run(bench: Bench) -> Story:
    times, rounds = (QUICK_TIMES, 1) if bench.quick else (TIMES, bench.effort(0, 5).rounds)
    servers, notes = _servers(bench, times, rounds)
    clients, failed = _clients(bench, times, rounds)
    text = "\n\n".join(
        [
            "By server, over one connection, read by a bare socket:",
            table(["server", *HEAD], _rows(servers)),
            "By client, from bare hyper:",
            table(["client", *HEAD], _rows(clients)),
            *notes,
            *failed,
        ]
    )
    return Story("A single stream", text, {"servers": servers, "clients": clients})


def _servers(bench: Bench, times: int, rounds: int) -> tuple[dict[str, list[dict[str, float]]], list[str]]:
    wanted, notes = launches(bench)
    results: dict[str, list[dict[str, float]]] = defaultdict(list)
    with serving(*wanted, logs=bench.logs) as servers:
        for number in range(rounds):
            for server in servers:
                progress(f"a single stream, round {number + 1} of {rounds}: {server.name}")
                results[server.name].append(_one_by_one(server, times))
    return dict(results), notes


def _one_by_one(server: Served, times: int) -> dict[str, float]:
    first, lasted = [], []
    with Caller(server.port) as caller:
        for _ in range(times):
            began = time.perf_counter()
            first.append(caller.ask(FLOW) - began)
            lasted.append(time.perf_counter() - began)
    half = times // 2
    return {
        "first_p50_us": float(np.median(first[half:])) * 1e6,
        "token_p50_us": float(np.median(lasted[half:])) / FLOW.tokens * 1e6,
    }


def _clients(bench: Bench, times: int, rounds: int) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    found, notes = lanes(bench, ("asyncio",))
    results: dict[str, list[dict[str, Any]]] = defaultdict(list)
    failed: dict[str, None] = dict.fromkeys(notes)
    with serving(bare_hyper(bench, SERVER_CPU), logs=bench.logs) as (server,):
        for number in range(rounds):
            for lane in found:
                progress(f"a single stream, round {number + 1} of {rounds}: {lane.name}")
                figures = visit(lane, server, FLOW, times, 0)
                if "failed" in figures:
                    failed[f"{lane.name} failed: {figures['failed']}."] = None
                else:
                    results[lane.client].append(figures)
    return dict(results), list(failed)


def _rows(results: dict[str, list[dict[str, Any]]]) -> list[list[str]]:
    return [
        [name, *(spread([figures[key] for figures in rounds], 1) for key in KEYS)] for name, rounds in results.items()
    ]
