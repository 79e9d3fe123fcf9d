"""One `await` a request: CPU time, rate and latency beside other clients; and a thousand requests in one call."""

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

CLIENTS = ("penstock", "pyreqwest", "aiohttp", "httpx", "httpx2")
SECONDS = 0.5
WARM = 0.15
LOT = 1000
AT_ONCE = 64
GET, POST = f"GET, {AT_ONCE} at once", f"POST, {AT_ONCE} at once"
LONE, MORE = "GET, one at a time", "GET, 256 at once"
LOTS = f"GET, {LOT:,} a call"
DETAIL = (
    ("CPU µs/request", "cpu_us", 1),
    ("requests/s", "requests_per_second", 0),
    ("p50 µs", "p50_us", 0),
    ("p99 µs", "p99_us", 0),
    ("nginx CPU µs", "server_cpu_us", 1),
    ("nginx busy", "server_cpus", 2),
)
SUMMARY = ((GET, "cpu_us"), (POST, "cpu_us"), (MORE, "cpu_us"), (LOTS, "cpu_us"), (LONE, "p50_us"))


def run(bench: Bench, only: Sequence[str] | None) -> Story:
    found, notes = lanes(bench, only or CLIENTS)
    effort = bench.effort(SECONDS)
    with serving(server(bench.logs), logs=bench.logs) as (nginx,):
        made = cells(nginx.base, effort.seconds)
        results, failures = rounds_of(found, made, nginx, effort)
    parts = [_summary(found, results), _compared(found, results), _detail(results), disturbance(results)]
    return Story("Cost of a request", "\n\n".join([*parts, *notes, *failures]), packed(results))


def cells(base: str, seconds: float) -> list[Cell]:
    """No task waits for a connection here: there are as many connections as tasks. Lots of a thousand do."""
    length = {"seconds": seconds, "warm": WARM}

    def closed(name: str, tasks: int, method: str = "get") -> Cell:
        load = {"kind": "closed", "setup": setup(base, tasks), "tasks": tasks, "method": method, **length}
        return Cell(name, load)

    lots = {"kind": "many", "setup": setup(base, AT_ONCE), "count": LOT, **length}
    return [closed(GET, AT_ONCE), closed(POST, AT_ONCE, "post"), closed(MORE, 256), Cell(LOTS, lots), closed(LONE, 1)]


def _summary(found: Sequence[Lane], results: Results) -> str:
    rows = []
    for lane in found:
        texts = [_cell(results, lane, name, key) for name, key in SUMMARY]
        if any(texts):
            rows.append([lane.client, _version(results, lane), lane.loop, *texts])
    head = ["client", "version", "loop", *(f"{name}: {_unit(key)}" for name, key in SUMMARY)]
    return table(head, rows)


def _unit(key: str) -> str:
    return {"cpu_us": "CPU µs/request", "p50_us": "p50 µs"}[key]


def _cell(results: Results, lane: Lane, name: str, key: str) -> str:
    rounds = results.get((lane.name, name))
    return spread([figures[key] for figures in rounds]) if rounds else ""


def _version(results: Results, lane: Lane) -> str:
    return next((str(rounds[0]["version"]) for (name, _), rounds in results.items() if name == lane.name), "")


def _compared(found: Sequence[Lane], results: Results) -> str:
    """Every client's figure over Penstock's of the same loop and round."""
    rows = []
    for lane in found:
        texts = []
        for name, key in SUMMARY:
            theirs, ours = results.get((lane.name, name)), results.get((f"penstock on {lane.loop}", name))
            same = theirs and ours and len(theirs) == len(ours)
            texts.append(spread(ratios(theirs, ours, key), 2) if same else "")
        if lane.client != "penstock" and any(texts):
            rows.append([lane.client, lane.loop, *texts])
    if not rows:
        return "There is nothing to compare with Penstock."
    head = ["client", "loop", *(f"{name}: {_unit(key)}" for name, key in SUMMARY)]
    return "The same ÷ Penstock's, round by round:\n\n" + table(head, rows)


def _detail(results: Results) -> str:
    rows = []
    for (name, load), rounds in sorted(results.items(), key=lambda item: item[0][1]):
        texts = [spread([figures[key] for figures in rounds], digits) for _, key, digits in DETAIL]
        rows.append([load, name, *texts])
    head = ["load", "client", *(title for title, *_ in DETAIL)]
    return f"In full (p50 and p99 of `{LOTS}` are of a whole call):\n\n" + table(head, rows)
