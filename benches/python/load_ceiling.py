"""What the load generator itself can do and costs, beside wrk: the ceiling of everything that is measured with it.

Bare hyper with a fixed answer has CPU 0 to itself, the load generator CPU 1. Rounds of the two alternate; CPU time is
the operating system's, of the load generator alone. A second table says how late its open loop is.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import described, facts, paired_ratio, spread, table, write_json

from penstock import testing

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = (1, 64, 256)
RATES = (1_000, 10_000, 30_000)
BODY = b'{"inputs":[' + b" " * 588 + b"]}"  # as long as 64 floats
Round = dict[str, float]


def cpu_seconds(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def with_penstock(url: str, clients: int, seconds: float) -> Round:
    probe = testing.load(url, [BODY], clients=clients, requests_per_client=max(20, 4000 // clients))
    each = max(50, int(probe.requests_per_second * seconds / clients))
    before = cpu_seconds(resource.RUSAGE_SELF)
    report = testing.load(url, [BODY], clients=clients, requests_per_client=each)
    cpu = cpu_seconds(resource.RUSAGE_SELF) - before
    assert report.ok == report.planned, report
    return {"requests_per_second": report.requests_per_second, "cpu_us": cpu / report.ok * 1e6}


def with_wrk(url: str, clients: int, seconds: float) -> Round:
    script = "wrk.method='POST'\nwrk.body='" + BODY.decode() + "'\nwrk.headers['Content-Type']='application/json'\n"
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as lua:
        lua.write(script)
        lua.flush()
        command = ["wrk", "-t1", f"-c{clients}", f"-d{max(1, round(seconds))}s", "-s", lua.name, url]
        before = cpu_seconds(resource.RUSAGE_CHILDREN)
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    cpu = cpu_seconds(resource.RUSAGE_CHILDREN) - before
    requests, rate = re.search(r"(\d+) requests in", said), re.search(r"Requests/sec:\s+(\S+)", said)
    assert requests, said
    assert rate, said
    return {"requests_per_second": float(rate[1]), "cpu_us": cpu / int(requests[1]) * 1e6}


def ceiling(url: str, rounds: int, seconds: float) -> dict[int, dict[str, list[Round]]]:
    """Rounds in turn, of each program at each number of clients."""
    programs = {"penstock": with_penstock} | ({"wrk": with_wrk} if shutil.which("wrk") else {})
    found: dict[int, dict[str, list[Round]]] = {}
    for clients in CLIENTS:
        here = found.setdefault(clients, {name: [] for name in programs})
        for _ in range(rounds):
            for name, measure in programs.items():
                here[name].append(measure(url, clients, seconds))
    return found


def lateness(url: str, seconds: float) -> list[list[object]]:
    """How late the open loop is with clients that have nothing else to do."""
    rows: list[list[object]] = []
    command = [sys.executable, "-m", "penstock", "bench", url, "--body", BODY.decode(), "-c", "64", "--json", "-"]
    for rate in RATES:
        for spacing in ([], ["--poisson"]):
            asked = [*command, "--rate", str(rate), "-d", str(seconds), "--warmup", "0.3", *spacing]
            report = json_of(asked)
            lag = [f"{report['lag'][part] * 1e6:,.0f}" for part in ("p50", "p99", "max")]
            cells = [f"{report['requests_per_second']:,.0f}", *lag, f"{report['generator_cpu_us_per_request']:.1f}"]
            rows.append([f"{rate:,}", "Poisson" if spacing else "constant", *cells])
    return rows


def json_of(command: list[str]) -> dict[str, object | dict[str, float]]:
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    report: dict[str, object | dict[str, float]] = json.loads(said)
    return report


def show(found: dict[int, dict[str, list[Round]]]) -> None:
    """Prints the medians with their ranges, and the ratio of the pairs."""
    rows = []
    for clients, programs in found.items():
        for name, rounds in programs.items():
            rates = [one["requests_per_second"] for one in rounds]
            costs = [one["cpu_us"] for one in rounds]
            ratio = ""
            if name != "wrk" and "wrk" in programs:
                ratio = str(paired_ratio(costs, [one["cpu_us"] for one in programs["wrk"]]))
            rows.append([name, clients, f"{sorted(rates)[len(rates) // 2]:,.0f}", spread(costs, 1), ratio])
    print(table(["load generator", "clients", "requests/s", "its CPU, µs/request", "CPU beside wrk"], rows))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hello", required=True, help="the program built from benches/hyper_hello.rs")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rounds, seconds = (1, 0.3) if options.quick else (options.rounds, 2.0)
    machine = facts()
    pinned = ["taskset", "-c", "0", options.hello]
    with subprocess.Popen(pinned, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{server.stdout.readline().strip()}/"
            os.sched_setaffinity(0, {1 % (os.cpu_count() or 1)})
            found = ceiling(url, rounds, seconds)
            show(found)
            late = lateness(url, seconds)
        finally:
            server.terminate()
    head = ["asked/s", "spacing", "answered/s", "lag p50, µs", "p99", "max", "its CPU, µs/request"]
    print("\n" + table(head, late))
    print("\n" + described(machine))
    write_json(options.json, {"facts": machine, "ceiling": {str(clients): one for clients, one in found.items()}})


if __name__ == "__main__":
    main()
