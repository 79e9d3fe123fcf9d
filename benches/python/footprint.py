"""What Penstock costs where it does nothing: processor time while it waits, time and memory to import it.

Idle: a process with an open batcher of each kind, all used once, on a running event loop, and a server where
there is one. Ticks are `utime + stime` of /proc/self/stat over five seconds; they must be 0. A tick is 10 ms,
so the process's own clock is shown too, beside that of a process which has nothing open.

Import: fresh interpreters, taking turns, after one of each to warm the caches. Memory is what VmRSS grew by.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from measure import described, facts, paired_ratio, spread, table, write_json

IDLE_SECONDS = 5.0
INTERPRETERS = 15
TIME_LIMIT, MEMORY_LIMIT = 1.3, 12.0
NUMPY, PENSTOCK, BOTH = "import numpy", "import penstock", "import numpy, penstock"

IMPORT = """
import json, time
def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
before, start, cpu = resident(), time.perf_counter(), time.process_time()
{statement}
wall, cpu = time.perf_counter() - start, time.process_time() - cpu
print(json.dumps(dict(wall=wall * 1e3, cpu=cpu * 1e3, memory=(resident() - before) / 1024)))
"""


def ticks() -> int:
    """User and system time of this process, in ticks."""
    stat = Path("/proc/self/stat").read_text(encoding="utf-8")
    # The name of the program may hold spaces: count the fields from its closing bracket.
    after_name = stat.rpartition(")")[2].split()
    return int(after_name[11]) + int(after_name[12])


def batchers() -> dict[str, Any]:
    """An open batcher of each kind."""
    import penstock

    def double(x: Any) -> Any:
        return x * 2.0

    async def slow_double(x: Any) -> Any:
        return x * 2.0

    return {
        "worker": penstock.Batcher(double),
        "two workers": penstock.Batcher(double, workers=2),
        "window": penstock.Batcher(double, dispatch="window", max_wait=0.01),
        "minimum": penstock.Batcher(double, min_batch_size=4, max_wait=0.01),
        "inline": penstock.Batcher(double, workers="inline"),
        "async def": penstock.Batcher(slow_double),
    }


def server() -> Any:
    """A server of one model, not yet started; `None` where Penstock has none."""
    import penstock

    if not hasattr(penstock, "Server"):
        return None

    @penstock.model("double", inputs={"x": ("float32", [64])}, outputs={"y": ("float32", [64])})
    def double(x: Any) -> Any:
        return x * 2.0

    return penstock.Server([double], port=0)


def answer_once(url: str) -> None:
    """Sends a server one request, so that it has run before it idles."""
    import urllib.request

    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 64], "data": [1.0] * 64}
    body = json.dumps({"inputs": [tensor]}).encode()
    request = urllib.request.Request(f"{url}/v2/models/double/infer", body)
    with urllib.request.urlopen(request, timeout=10) as response:
        response.read()


async def idle_child(seconds: float, *, bare: bool) -> dict[str, Any]:
    """Opens everything, or nothing, uses it once, and waits."""
    import numpy as np

    row = np.ones(64, np.float32)
    everything = {} if bare else batchers()
    for batcher in everything.values():
        await batcher(row)
    served = None if bare else server()
    if served is not None:
        served.__enter__()
        await asyncio.to_thread(answer_once, served.url)
    await asyncio.sleep(0.3)  # what the last answers left to do
    before, clock = ticks(), time.process_time_ns()
    await asyncio.sleep(seconds)
    result = {
        "open": [*everything, *(["server"] if served else [])],
        "seconds": seconds,
        "ticks": ticks() - before,
        "cpu_us": (time.process_time_ns() - clock) / 1e3,
    }
    if served is not None:
        served.__exit__(None, None, None)
    for batcher in everything.values():
        await batcher.aclose()
    return result


def idle(seconds: float, *, bare: bool = False) -> dict[str, Any]:
    """What a process of its own measured while it idled."""
    child = [sys.executable, __file__, "--idle-child", str(seconds), *(["--bare"] if bare else [])]
    found: dict[str, Any] = json.loads(subprocess.run(child, check=True, capture_output=True, text=True).stdout)
    return found


def one_import(statement: str) -> dict[str, float]:
    """Time and memory of an import in a fresh interpreter."""
    child = [sys.executable, "-c", IMPORT.format(statement=statement)]
    # As users start it, but for the script's folder and PYTHONPATH: those would make the search path longer.
    done = subprocess.run(
        child, check=True, capture_output=True, text=True, cwd="/", env={**os.environ, "PYTHONPATH": ""}
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def imports(count: int) -> dict[str, list[dict[str, float]]]:
    """The same for each import, in turns."""
    found: dict[str, list[dict[str, float]]] = {NUMPY: [], PENSTOCK: [], BOTH: []}
    for number in range(-1, count):
        for statement, results in found.items():
            result = one_import(statement)
            if number >= 0:
                results.append(result)
    return found


def column(results: list[dict[str, float]], name: str) -> list[float]:
    """One number of each result."""
    return [result[name] for result in results]


def judged(found: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """Penstock's import beside NumPy's: by itself, and with NumPy, which it loads on first use only."""
    alone = found[NUMPY]
    verdicts = []
    for statement in (PENSTOCK, BOTH):
        time_ratio = paired_ratio(column(found[statement], "wall"), column(alone, "wall"))
        cpu_ratio = paired_ratio(column(found[statement], "cpu"), column(alone, "cpu"))
        extra = median(column(found[statement], "memory")) - median(column(alone, "memory"))
        met = time_ratio.median <= TIME_LIMIT and extra <= MEMORY_LIMIT
        word = "met" if met else "missed"
        numbers = {"time_ratio": time_ratio, "cpu_ratio": cpu_ratio, "extra_mib": extra}
        verdicts.append({"statement": statement, **numbers, "verdict": word})
    return verdicts


def report(waited: dict[str, Any], found: dict[str, list[dict[str, float]]], verdicts: list[dict[str, Any]]) -> str:
    """The tables."""
    idled = (
        f"Idle for {waited['seconds']:g} s with {', '.join(waited['open'])} open: "
        f"**{waited['ticks']} ticks**, limit 0 ({waited['cpu_us']:.0f} µs of CPU time; "
        f"with nothing open {waited['bare_cpu_us']:.0f} µs)."
    )
    rows = [
        (f"`{name}`", *(spread(column(results, part), 1) for part in ("wall", "cpu", "memory")))
        for name, results in found.items()
    ]
    beside = [
        (f"`{v['statement']}`", v["time_ratio"], v["cpu_ratio"], f"{v['extra_mib']:+.1f}", v["verdict"])
        for v in verdicts
    ]
    limits = f"limits {TIME_LIMIT} of the wall time and {MEMORY_LIMIT:g} MiB more"
    return "\n\n".join(
        [
            idled,
            f"Import in fresh interpreters, median (least-greatest) of {len(found[NUMPY])}:",
            table(["statement", "wall ms", "CPU ms", "RSS MiB"], rows),
            f"Beside `{NUMPY}`, ratios with 95 % intervals; {limits}:",
            table(["statement", "wall", "CPU", "MiB more", "verdict"], beside),
        ]
    )


def main() -> int:
    """Prints the tables and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 interpreters and 1 s: a smoke test, no result")
    parser.add_argument("--json", type=Path, help="where to write everything that was measured")
    parser.add_argument("--idle-child", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.idle_child is not None:
        print(json.dumps(asyncio.run(idle_child(arguments.idle_child, bare=arguments.bare))))
        return 0

    machine = facts()
    print(f"{described(machine)}\n")
    seconds = 1.0 if arguments.quick else IDLE_SECONDS
    waited = {**idle(seconds), "bare_cpu_us": idle(seconds, bare=True)["cpu_us"]}
    found = imports(3 if arguments.quick else INTERPRETERS)
    verdicts = judged(found)
    print(report(waited, found, verdicts))
    write_json(arguments.json, {"facts": machine, "idle": waited, "imports": found, "verdicts": verdicts})
    return 0


if __name__ == "__main__":
    sys.exit(main())
