"""100 clients with 50 requests each: how often a connection is used again, and what 100 open ones hold of memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benches.python.client import nginx as server_program
from benches.python.client.visits import Cell, lanes, packed, rounds_of, server, setup
from benches.python.door.machine import serving
from benches.python.door.rounds import disturbance, spread
from benches.python.door.story import Bench, Story
from benches.python.measure import table

if TYPE_CHECKING:
    from collections.abc import Sequence

CLIENTS = ("penstock", "pyreqwest", "aiohttp", "httpx", "httpx2")
TASKS, EACH = 100, 50
REUSE, MEMORY = f"{TASKS} x {EACH}", f"{TASKS} open"


def run(bench: Bench, only: Sequence[str] | None) -> Story:
    found, notes = lanes(bench, only or CLIENTS, ("asyncio",))
    effort = bench.effort(0)
    with serving(server(bench.logs), logs=bench.logs) as (nginx,):
        asked = Cell(REUSE, {"kind": "reused", "setup": setup(nginx.base, TASKS), "tasks": TASKS, "each": EACH})
        slow = setup(nginx.base, TASKS, path=server_program.SLOW_PATH)
        memory = Cell(MEMORY, {"kind": "memory", "setup": slow, "connections": TASKS})
        results = {}
        # A process each: what the requests left behind is not what connections hold.
        for cell in (asked, memory):
            more, failures = rounds_of(found, [cell], nginx, effort)
            results.update(more)
            notes += failures
    rows, held = [], []
    for lane in found:
        if rounds := results.get((lane.name, REUSE)):
            reuse = spread([100 * one["reuse"] for one in rounds], 2)
            counts = [spread([one[key] for one in rounds], digits) for key, digits in _COUNTS]
            rows.append([lane.client, *counts, reuse, rounds[-1]["stats"]])
        if rounds := results.get((lane.name, MEMORY)):
            held.append([lane.client, *(spread([one[key] / scale for one in rounds], 2) for key, scale in _HELD)])
    parts = [
        table(
            ["client", "connections", "CPU µs/request", "requests/s", "reuse %, by nginx", "reused, by its own count"],
            rows,
        ),
        f"Resident memory, MB, of a process that had its client imported and {TASKS} tasks run before:\n\n"
        + table(["client", "made and asked once", f"with {TASKS} open", "open, by nginx"], held),
        disturbance(results),
    ]
    return Story(f"{TASKS} clients x {EACH} requests", "\n\n".join([*parts, *notes]), packed(results))


_COUNTS = (("connections", 0), ("cpu_us", 1), ("requests_per_second", 0))
_MB = 1e6 / 1024
_HELD = (("first_kib", _MB), ("open_kib", _MB), ("open", 1.0))
