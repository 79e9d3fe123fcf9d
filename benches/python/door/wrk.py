"""The cost table again with wrk for the load: two load generators, one conclusion."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import defaultdict
from typing import TYPE_CHECKING

from benches.python.door.cost import packed
from benches.python.door.machine import Served, serving
from benches.python.door.rounds import Figures, Lane, progress, ratios, spread, turning
from benches.python.door.servers import HYPER_DIALECT, PENSTOCK_DIALECT, Absent, bare_hyper, penstock
from benches.python.door.story import Bench, Story
from benches.python.door.workload import check
from benches.python.measure import table

if TYPE_CHECKING:
    from pathlib import Path

CLIENTS = (64, 256)
SECONDS = 2.0
ROUNDS = 3
SCRIPT = """
local bodies = {BODIES}
local index = 0
request = function()
  index = index % #bodies + 1
  return wrk.format("POST", nil, nil, bodies[index])
end
done = function(summary, latency, requests)
  local e = summary.errors
  local errors = e.connect + e.read + e.write + e.status + e.timeout
  print(string.format('{"requests":%d,"us":%d,"errors":%d,"p50_us":%f,"p99_us":%f}',
    summary.requests, summary.duration, errors, latency:percentile(50), latency:percentile(99)))
end
"""


def run(bench: Bench) -> Story:
    if shutil.which("wrk") is None:
        raise Absent("wrk is not installed")
    effort = bench.effort(SECONDS, ROUNDS)
    results: dict[tuple[str, int], list[Figures]] = defaultdict(list)
    with serving(bare_hyper(bench.hyper), penstock(), logs=bench.logs) as (hyper, door):
        lanes = [Lane("bare hyper echo", hyper, HYPER_DIALECT), Lane("penstock", door, PENSTOCK_DIALECT)]
        scripts = {}
        for lane in lanes:
            check(lane.server, lane.dialect)
            scripts[lane.name] = _script(bench.logs / f"wrk-{lane.server.port}.lua", lane.dialect.bodies)
        for count in CLIENTS:
            for number, order in turning(lanes, effort.rounds):
                progress(f"{count} clients, round {number + 1} of {effort.rounds}")
                for lane in order:
                    results[lane.name, count].append(_visit(lane.server, scripts[lane.name], count, effort.seconds))
    rows = []
    for (name, count), rounds in results.items():
        shown = (("requests_per_second", 0), ("cpu_us", 1), ("p50_us", 0), ("p99_us", 0), ("errors", 0))
        cells = [spread([one[key] for one in rounds], digits) for key, digits in shown]
        rows.append([name, count, *cells, spread(ratios(rounds, results["bare hyper echo", count]), 2)])
    head = ["server", "clients", "requests/s", "CPU µs/request", "p50 µs", "p99 µs", "errors", "CPU ÷ hyper"]
    return Story("Cost of a request by wrk", table(head, rows), packed(results))


def _script(path: Path, bodies: list[bytes]) -> Path:
    # JSON strings of ASCII are Lua strings, too.
    path.write_text(SCRIPT.replace("BODIES", ",".join(json.dumps(body.decode()) for body in bodies)))
    return path


def _visit(server: Served, script: Path, clients: int, seconds: float) -> Figures:
    """wrk takes whole seconds only."""
    length = f"{max(1, round(seconds))}s"
    command = ["wrk", "-t1", f"-c{clients}", f"-d{length}", "-s", str(script), server.url]
    before = server.cpu_seconds()
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=10 * seconds + 30)
    spent = server.cpu_seconds() - before
    seen = json.loads(done.stdout.strip().splitlines()[-1])
    return {
        "requests_per_second": seen["requests"] / seen["us"] * 1e6,
        "cpu_us": spent / max(1, seen["requests"]) * 1e6,
        "p50_us": seen["p50_us"],
        "p99_us": seen["p99_us"],
        "errors": float(seen["errors"]),
    }
