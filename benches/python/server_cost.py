"""CPU time a request of the HTTP door with the MLP of the peers' table, beside bare hyper with a fixed answer.

The server has CPU 0 to itself and the load generator CPU 1. Rounds of the two servers alternate; CPU time is the
operating system's, of the whole server process.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from penstock import testing

ROOT = Path(__file__).resolve().parents[2]
TICK = os.sysconf("SC_CLK_TCK")
CLIENTS = (1, 64, 256)


class Served:
    """A server process on CPU 0."""

    def __init__(self, name: str, command: list[str], path: str) -> None:
        environment = dict(os.environ, OPENBLAS_NUM_THREADS="1")
        self.name = name
        self.process = subprocess.Popen(
            ["taskset", "-c", "0", *command], stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
        )
        assert self.process.stdout is not None
        port = re.search(r"(\d+)\s*$", self.process.stdout.readline().strip())
        assert port is not None, f"{name} named no port"
        self.base = f"http://127.0.0.1:{port[1]}"
        self.url = self.base + path

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def counters(self) -> dict[str, float]:
        if self.name != "penstock":
            return {}
        text = urllib.request.urlopen(self.base + "/metrics").read().decode()
        names = ("penstock_lock_acquisitions_total", "penstock_batch_size_sum", "penstock_batch_size_count")
        found = {name: re.search(name + r"\{[^}]*\} (\S+)", text) for name in names}
        return {name: float(match[1]) if match else 0.0 for name, match in found.items()}

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


def measure(server: Served, bodies: list[Any], clients: int, seconds: float) -> dict[str, float]:
    """One round: enough requests for about `seconds` at the rate that a short run shows."""
    probe = testing.load(server.url, bodies, clients=clients, requests_per_client=max(20, 2000 // clients))
    each = max(50, int(probe.requests_per_second * seconds / clients))
    before, counted = server.cpu_seconds(), server.counters()
    report = testing.load(server.url, bodies, clients=clients, requests_per_client=each)
    after, counted_after = server.cpu_seconds(), server.counters()
    assert report.ok == report.planned, f"{server.name}: {report}"
    row = {
        "requests_per_second": report.requests_per_second,
        "cpu_us": (after - before) / report.ok * 1e6,
        "p50_us": report.p50 * 1e6,
        "p99_us": report.p99 * 1e6,
    }
    if counted:
        grown = {name: counted_after[name] - counted[name] for name in counted}
        row["batch"] = grown["penstock_batch_size_sum"] / max(1, grown["penstock_batch_size_count"])
        row["locks"] = grown["penstock_lock_acquisitions_total"] / report.ok
    return row


def show(results: dict[tuple[str, int], list[dict[str, float]]]) -> None:
    """Prints the medians with their ranges as a Markdown table."""
    print("| server | clients | requests/s | CPU µs/request | p50 µs | p99 µs | rows/batch | locks/request |")
    print("|---|---|---|---|---|---|---|---|")
    for (name, clients), rounds in results.items():
        cells = [name, str(clients)]
        for key, digits in (("requests_per_second", 0), ("cpu_us", 1), ("p50_us", 0), ("p99_us", 0)):
            values = [one[key] for one in rounds]
            middle = statistics.median(values)
            cells.append(f"{middle:,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})")
        for key, digits in (("batch", 1), ("locks", 4)):
            values = [one[key] for one in rounds if key in one]
            cells.append(f"{statistics.median(values):.{digits}f}" if values else "")
        print("| " + " | ".join(cells) + " |")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hello", required=True, help="the program built from benches/hyper_hello.rs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rounds, seconds = (1, 0.2) if options.quick else (options.rounds, 2.0)
    rng = np.random.default_rng(1)
    bodies = [testing.infer_body({"x": ("FP32", [1, 64], rng.random(64).round(6).tolist())}) for _ in range(100)]
    command = [sys.executable, "-m", "penstock", "serve", "examples/mlp.py", "--port", "0"]
    servers = [
        Served("bare hyper", [options.hello], "/"),
        Served("penstock", command, "/v2/models/mlp/infer"),
    ]
    os.sched_setaffinity(0, {1 % (os.cpu_count() or 1)})
    results: dict[tuple[str, int], list[dict[str, float]]] = {}
    try:
        for clients in CLIENTS:
            for _ in range(rounds):
                for server in servers:
                    results.setdefault((server.name, clients), []).append(measure(server, bodies, clients, seconds))
                    time.sleep(0.05)
    finally:
        for server in servers:
            server.stop()
    show(results)
    if options.json:
        rows = [{"server": name, "clients": count, "rounds": kept} for (name, count), kept in results.items()]
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
