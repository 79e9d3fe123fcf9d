"""What server and client hold, every few seconds, and what the server says of itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benches.python.door.machine import LOAD_CPU, ROOT, NotServing
from benches.python.scenarios.judge import Bound
from benches.python.scenarios.processes import held

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benches.python.door.machine import Served

Sample = dict[str, float]
ENDS_WITHIN = 30.0
STARTS_WITHIN = 60.0
LOOK = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [0.0]}]}).encode()

BOUNDS = {
    "server_memory": Bound("the server's memory", "MiB", 4.0),
    "server_handles": Bound("the server's open handles", "handles", 3.0),
    "server_sockets": Bound("the server's sockets", "sockets", 3.0),
    "server_threads": Bound("the server's threads", "threads", 0.9),
    "server_tasks": Bound("the server's asyncio tasks", "tasks", 0.9),
    "server_objects": Bound("the server's Python objects", "objects", 2000.0),
    "connections": Bound("the server's own count of connections", "connections", 3.0),
    "client_memory": Bound("the Python client's memory", "MiB", 4.0),
    "client_handles": Bound("the Python client's open handles", "handles", 3.0),
    "client_threads": Bound("the Python client's threads", "threads", 0.9),
    "client_tasks": Bound("the Python client's asyncio tasks", "tasks", 0.9),
}
"""What must stay flat, and what may be called so."""

METRICS = {
    "connections": "penstock_http_connections",
    "streams_open": "penstock_stream_open",
    "queue": "penstock_queue_depth",
    "locks": "penstock_lock_acquisitions_total",
    "lock_wait": "penstock_lock_wait_seconds_total",
    "collections": "penstock_gc_pause_seconds_count",
    "collection_seconds": "penstock_gc_pause_seconds_sum",
    "cpu": "process_cpu_seconds_total",
    "loads": "penstock_models_loads_total",
    "evictions": "penstock_models_evictions_total",
}


class Company:
    """The Python client of `company.py`, in a process of its own, and what it said last."""

    def __init__(self, url: str) -> None:
        command = ["taskset", "-c", str(LOAD_CPU), sys.executable, "-m", "benches.python.scenarios.company", url]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
        self.last: dict[str, Any] = {}
        self._spoke = threading.Event()
        self._words = ""
        self._threads = [threading.Thread(target=one, daemon=True) for one in (self._listen, self._note)]
        for thread in self._threads:
            thread.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.last = json.loads(line)
            self._spoke.set()

    def _note(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._words = (self._words + line)[-2000:]

    def wait_until_working(self) -> None:
        """Returns when it has said its first line.

        Raises:
            NotServing: where it has not.
        """
        if not self._spoke.wait(STARTS_WITHIN):
            raise NotServing(f"the Python client said nothing: {self._words}")

    def check(self) -> None:
        """Raises:
        NotServing: where it has ended.
        """
        if self.process.poll() is not None:
            raise NotServing(f"the Python client ended with status {self.process.returncode}: {self._words}")

    def end(self) -> dict[str, Any]:
        """Lets it end, and gives its last line.

        Raises:
            NotServing: where it failed.
        """
        assert self.process.stdin is not None
        self.process.stdin.close()
        if self.process.wait(ENDS_WITHIN) != 0:
            self.check()
        for thread in self._threads:
            thread.join(ENDS_WITHIN)
        return self.last


@contextmanager
def company(url: str) -> Iterator[Company]:
    """The client, until the block is left."""
    made = Company(url)
    try:
        made.wait_until_working()
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
            made.process.wait()


def metrics(server: Served) -> dict[str, float]:
    """The sums of some metrics over their labels."""
    text = server.get("/metrics")
    found = {}
    for key, name in METRICS.items():
        values = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)", text, re.MULTILINE)
        found[key] = sum(map(float, values))
    return found


def longest_collection(server: Served) -> float:
    """The bound in ms below which every pause of the garbage collector stayed; infinite where there is none."""
    counts: dict[float, float] = {}
    pattern = re.compile(r'^penstock_gc_pause_seconds_bucket\{[^}]*?le="([^"]+)"[^}]*\} (\S+)', re.MULTILINE)
    for bound, count in pattern.findall(server.get("/metrics")):
        counts[float(bound)] = counts.get(float(bound), 0.0) + float(count)
    most = max(counts.values(), default=0.0)
    return min((bound for bound, count in counts.items() if count == most), default=0.0) * 1e3


def looked(server: Served) -> tuple[float, float]:
    """Tasks of the server's own event loop, and objects that the collector watches: a model of the soak says it."""
    request = urllib.request.Request(server.base + "/v2/models/looks/infer", LOOK)
    with urllib.request.urlopen(request, timeout=20) as answer:
        tasks, objects = json.loads(answer.read())["outputs"][0]["data"]
    return float(tasks), float(objects)


def sample(server: Served, client: Company, began: float) -> Sample:
    """Everything at one moment."""
    client.check()
    ours, theirs = held(server.process.pid), held(client.process.pid)
    tasks, objects = looked(server)
    said = client.last
    found = {f"server_{name}": float(value) for name, value in vars(ours).items()}
    found |= {f"client_{name}": float(value) for name, value in vars(theirs).items()}
    found |= metrics(server)
    found |= {f"client_{name}": said[name] for name in ("tasks", "p50_ms", "p99_ms") if name in said}
    return found | {"seconds": time.monotonic() - began, "server_tasks": tasks, "server_objects": objects}
