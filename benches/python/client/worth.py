"""What pooling is worth: the same requests over kept connections, over one each, and with a client each."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from benches.python.client.visits import Cell, Results, lanes, packed, rounds_of, server, setup
from benches.python.door.machine import serving
from benches.python.door.rounds import disturbance, ratios, spread
from benches.python.door.servers import Absent
from benches.python.door.story import Bench, Story
from benches.python.measure import table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benches.python.door.rounds import Figures

CLIENTS = ("penstock", "pyreqwest", "aiohttp", "httpx")
TASKS = 64
SECONDS = 0.5
WARM = 0.15
KEPT, CLOSED, FRESH = "one pool", "a connection for each request", "a client for each request"
SCHEMES = ("http", "https")
SHOWN = (("CPU µs/request", "cpu_us", 1), ("requests/s", "requests_per_second", 0), ("p50 ms", "p50_ms", 2))


def run(bench: Bench, only: Sequence[str] | None) -> Story:
    found, notes = lanes(bench, only or CLIENTS, ("asyncio",))
    effort = bench.effort(SECONDS)
    folder = bench.logs / "certificate"
    certificate = certificate_files(folder)
    launches = (server(bench.logs), server(bench.logs, certificate=certificate))
    results: Results = {}
    with serving(*launches, logs=bench.logs) as servers:
        for scheme, nginx in zip(SCHEMES, servers, strict=True):
            base = f"{scheme}://127.0.0.1:{nginx.port}"
            made = _cells(base, scheme, certificate[0] if scheme == "https" else None, effort.seconds)
            more, failures = rounds_of(found, made, nginx, effort)
            results.update(more)
            notes += failures
    rows = []
    for scheme in SCHEMES:
        for lane in found:
            kept = results.get((lane.name, f"{scheme}, {KEPT}"), [])
            for mode in (KEPT, CLOSED, FRESH):
                if rounds := results.get((lane.name, f"{scheme}, {mode}")):
                    figures = [{**one, "p50_ms": one["p50_us"] / 1e3} for one in rounds]
                    texts = [spread([one[key] for one in figures], digits) for _, key, digits in SHOWN]
                    times = [_times(rounds, kept, key) for key in ("cpu_us", "server_cpu_us")]
                    rows.append([scheme, lane.client, mode, *texts, *times])
    head = ["scheme", "client", "connections", *(title for title, *_ in SHOWN), "CPU ÷ one pool's", "nginx's CPU ÷"]
    text = "\n\n".join([table(head, rows), disturbance(results), *notes])
    return Story(f"With and without reuse, {TASKS} at once", text, packed(results))


def _times(rounds: Sequence[Figures], kept: Sequence[Figures], key: str) -> str:
    """Round by round; empty where one of the two is missing or too short to be seen."""
    values = ratios(rounds, kept, key) if len(rounds) == len(kept) else []
    return spread(values, 1) if values else ""


def _cells(base: str, scheme: str, authority: str | None, seconds: float) -> list[Cell]:
    common = {"kind": "closed", "tasks": TASKS, "seconds": seconds, "warm": WARM}
    pooled = setup(base, TASKS, authority=authority)
    modes = {
        KEPT: {"setup": pooled},
        CLOSED: {"setup": {**pooled, "keeps": False}},
        FRESH: {"setup": {**pooled, "connections": 1}, "fresh": True},
    }
    return [Cell(f"{scheme}, {mode}", {**common, **load}) for mode, load in modes.items()]


def certificate_files(folder: Path) -> tuple[str, str]:
    """A certificate for 127.0.0.1 that vouches for itself, and its key.

    Raises:
        Absent: where there is no openssl.
    """
    if shutil.which("openssl") is None:
        raise Absent("openssl is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    certificate, key = str(folder / "certificate.pem"), str(folder / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "7", "-subj", "/CN=penstock bench", "-addext", "subjectAltName=IP:127.0.0.1"]
    # Not an authority: a server's certificate that also is one is refused by strict clients.
    command += ["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return certificate, key
