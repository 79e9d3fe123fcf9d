"""`python -m benches.python.scenarios.soak`: ten minutes of load, streams and model loads, and whether all stays flat.

300 connections at 50 requests a second each, as far as the capacity allows; beside them a Python client that streams,
leaves streams, and asks for models that do not fit into memory together. Server on CPU 0, everything else on CPU 1.
Exit status 1 says that something grows, or that a request got lost or was answered wrongly.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benches.python.door.machine import ONE_THREAD, ROOT, STARTS_WITHIN, NotServing, carry_out, take_the_load_cpu

if TYPE_CHECKING:
    from benches.python.door.machine import Launch, Served
    from benches.python.scenarios.sampling import Company, Sample

HERE = Path(__file__).resolve().parent
CONNECTIONS, EACH = 300, 50.0
MINUTES, QUICK_MINUTES = 10.0, 0.2
SAMPLES = 120
LEAST_INTERVAL = 0.25
ROOM = 0.8
"""The asked rate may be this part of the capacity at most; else half of the capacity is sent."""

CAPACITY_SECONDS = 3.0
WEIGHTS = 4 << 20
ROOM_FOR_TWO = "10MiB"
LEAKED = 1000
"""So often at most the server leaks in a run: enough to be noticed, and a machine survives it."""

LEAKS = ("memory", "handles", "threads", "objects", "tasks")


def main() -> int:
    options = _options()
    os.environ.update(ONE_THREAD)
    take_the_load_cpu()
    # Imported only now: NumPy and the load generator read the settings above when they start.
    from benches.python.measure import described, facts, write_json
    from benches.python.scenarios import chart, page, soak_told
    from benches.python.scenarios.judge import TooFew

    found = {**facts(), "cores": os.cpu_count()}
    print(f"{described(found)}\n", flush=True)
    try:
        with tempfile.TemporaryDirectory() as folder:
            run = _soaked(options, Path(folder))
        trends = soak_told.trends(run["samples"], judged=run["judged"])
    except (NotServing, TooFew, OSError, subprocess.TimeoutExpired) as reason:
        print(f"The soak did not come to its end: {reason or type(reason).__name__}", flush=True)
        return 1
    text, failures = soak_told.told(run, trends), soak_told.failures(run, trends)
    print(text, flush=True)
    write_json(options.json, {"facts": found, **run, "failures": failures})
    if options.write is not None:
        note = (
            f"{run['connections']} connections at {run['rate']:,.0f} requests/s in all, streams and model loads beside"
        )
        shown = page.draw(options.write, "soak.svg", chart.of_soak(run["samples"], note), "What is held over time")
        page.put(options.write, "soak", f"{described(found)}.\n\n{shown}\n\n{text}")
    for failure in failures:
        print(f"soak: {failure}", file=sys.stderr)
    return int(bool(failures))


def launch(weights: Path, leaks: list[str], seconds: float) -> Launch:
    """The server of the soak, which leaks on request."""
    from benches.python.door.servers import penstock

    plain = penstock()
    command = [str(HERE / "apps.py") if part.endswith("apps.py") else part for part in plain.command]
    environment = {"PENSTOCK_SOAK_WEIGHTS": str(weights)}
    if leaks:
        environment |= {"PENSTOCK_SOAK_LEAK": ",".join(leaks), "PENSTOCK_SOAK_LEAK_SECONDS": str(seconds / LEAKED)}
    return replace(plain, name="penstock soak", command=(*command, "--memory", ROOM_FOR_TWO), environment=environment)


def _soaked(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The run: what was sent, what was sampled, what came of it."""
    import numpy as np

    from benches.python.door.machine import serving
    from benches.python.door.workload import OIP_JSON, check
    from benches.python.scenarios.sampling import company, longest_collection

    weights = folder / "weights"
    np.ones(WEIGHTS // 4, np.float32).tofile(weights)
    with serving(launch(weights, options.leak, options.minutes * 60), logs=options.out / "scenarios-logs") as (server,):
        check(server, OIP_JSON)
        with company(server.base) as client:
            run = _loaded(options, server, client)
            run["company"] = client.end()
        check(server, OIP_JSON)
        run["longest_collection_ms"] = longest_collection(server)
    return run


def _loaded(options: argparse.Namespace, server: Served, client: Company) -> dict[str, Any]:
    from benches.python.door.rounds import progress
    from benches.python.scenarios import load
    from benches.python.scenarios.load import Load

    count, seconds = options.connections, options.minutes * 60
    probe = Load(count, seconds=min(CAPACITY_SECONDS, seconds / 4), warmup=0.3)
    capacity = load.send(server, probe)["requests_per_second"]
    asked = count * options.each
    rate = asked if asked <= ROOM * capacity else capacity / 2
    progress(f"capacity {capacity:,.0f}/s; {rate:,.0f}/s for {seconds:,.0f} s")
    whole = Load(count, rate=rate, seconds=seconds)
    sending = load.start(server, whole)
    try:
        samples = _sampled(server, client, sending, count, seconds)
        report = load.finish(sending, whole.deadline)
    finally:
        if sending.poll() is None:
            sending.kill()
            sending.communicate()
    figures = {"connections": count, "asked": asked, "capacity": capacity, "rate": rate, "seconds": seconds}
    return {**figures, "judged": not options.quick, "leak": options.leak, "report": report, "samples": samples}


def _sampled(
    server: Served, client: Company, sending: subprocess.Popen[str], connections: int, seconds: float
) -> list[Sample]:
    """Samples for as long as the load lasts; none of its beginning and end, where connections come and go."""
    from benches.python.scenarios.processes import held
    from benches.python.scenarios.sampling import sample

    interval = max(LEAST_INTERVAL, seconds / SAMPLES)
    until = time.monotonic() + STARTS_WITHIN
    while held(server.process.pid).sockets <= connections and sending.poll() is None and time.monotonic() < until:
        time.sleep(interval / 10)
    began, samples = time.monotonic(), []
    while time.monotonic() - began < seconds - interval / 2 and sending.poll() is None:
        due = time.monotonic() + interval
        samples.append(sample(server, client, began))
        time.sleep(max(0.0, due - time.monotonic()))
    return samples


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benches.python.scenarios.soak", description=__doc__)
    add = parser.add_argument
    add("--minutes", type=float, help=f"of load (default: {MINUTES:g})")
    add("--quick", action="store_true", help="does it still run? Too short for a verdict on what grows")
    add("--connections", type=int, default=CONNECTIONS, help="of the load (default: %(default)s)")
    add("--each", type=float, default=EACH, help="requests a second of each connection (default: %(default)s)")
    add("--leak", action="append", default=[], choices=LEAKS, help="have the server leak, to see that it is noticed")
    add("--json", type=Path, help="where the figures go, every sample among them")
    add("--out", type=Path, default=ROOT / "target/bench", help="folder of logs (default: %(default)s)")
    add("--write", type=Path, help="the page whose block of figures is replaced, docs/scenarios.md")
    options = parser.parse_args()
    options.out = options.out.resolve()
    options.minutes = options.minutes or (QUICK_MINUTES if options.quick else MINUTES)
    return options


if __name__ == "__main__":
    carry_out(main)
