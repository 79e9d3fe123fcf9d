"""From no request to 16,000 waiting for one of 64 connections: CPU a request, sockets, and whose turn it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benches.python.client.visits import Cell, Results, lanes, packed, rounds_of, server, setup
from benches.python.door.machine import serving
from benches.python.door.rounds import disturbance, ratios, spread
from benches.python.door.story import Bench, Story
from benches.python.measure import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benches.python.client.visits import Lane

CLIENTS = ("penstock", "the loop alone", "pyreqwest", "aiohttp", "httpx")
CONNECTIONS = 64
WAITING = (0, 64, 256, 1_000, 4_000, 16_000)
FIRST, LAST = WAITING[1], WAITING[-1]
REQUESTS = 32_000
QUICK_REQUESTS = 1_000
ROUNDS = 5
# What costs them milliseconds at a thousand would take minutes beyond.
SHORTENED = {"httpx": 1_000, "httpx2": 1_000, "niquests": 1_000}


def run(bench: Bench, only: Sequence[str] | None) -> Story:
    found, notes = lanes(bench, only or CLIENTS)
    effort = bench.effort(0, ROUNDS)
    results: Results = {}
    with serving(server(bench.logs), logs=bench.logs) as (nginx,):
        for lane_set, most in _by_length(found):
            requests = QUICK_REQUESTS if bench.quick else min(REQUESTS, 2 * most)
            made = [_cell(nginx.base, count, requests) for count in WAITING if count <= most]
            more, failures = rounds_of(lane_set, made, nginx, effort, watch=True)
            results.update(more)
            notes += failures
    parts = [_cost(found, results), _order(found, results), disturbance(results)]
    return Story("A long queue before 64 connections", "\n\n".join([*parts, *notes]), packed(results))


def _by_length(found: Sequence[Lane]) -> list[tuple[list[Lane], int]]:
    quick = [lane for lane in found if lane.client not in SHORTENED]
    slow = [lane for lane in found if lane.client in SHORTENED]
    return [(quick, LAST)] * bool(quick) + [(slow, 1_000)] * bool(slow)


def _cell(base: str, waiting: int, requests: int) -> Cell:
    load = {"kind": "queued", "setup": setup(base, CONNECTIONS), "tasks": CONNECTIONS + waiting, "requests": requests}
    return Cell(f"{waiting:,}", load)


def _cost(found: Sequence[Lane], results: Results) -> str:
    rows = []
    for lane in found:
        by_count = {count: results.get((lane.name, f"{count:,}"), []) for count in WAITING}
        few, most = by_count[FIRST], by_count[LAST]
        grown = spread(ratios(most, few), 2) if few and len(few) == len(most) else ""
        texts = [spread([one["cpu_us"] for one in rounds]) if rounds else "" for rounds in by_count.values()]
        if any(texts):
            rows.append([lane.client, lane.loop, *texts, grown])
    head = ["client", "loop", *(f"{count:,} waiting" for count in WAITING), f"{LAST:,} ÷ {FIRST}"]
    return "CPU µs a request:\n\n" + table(head, rows)


def _order(found: Sequence[Lane], results: Results) -> str:
    rows = []
    for lane in found:
        mine = [(load, rounds) for (name, load), rounds in results.items() if name == lane.name]
        if not mine or lane.client == "the loop alone":
            continue
        load, rounds = mine[-1]
        every = [figures for _, others in mine for figures in others]
        row = [lane.client, lane.loop, load, int(max(one["overtaken"] for one in every))]
        row += [spread([one["p50_us"] / 1e3 for one in rounds]), spread([one["p99_us"] / 1e3 for one in rounds])]
        row += [int(max(one["sockets"] for one in every)), int(max(one["connections"] for one in every))]
        rows.append(row)
    head = ["client", "loop", "waiting", "most places out of turn", "p50 ms", "p99 ms"]
    head += ["most sockets seen", "most connections in a load, by nginx"]
    return "Whose turn it is, and how many connections (the worst of all rounds and loads):\n\n" + table(head, rows)
