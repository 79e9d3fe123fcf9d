"""The process that is measured: one client on one event loop, through the loads that it is told.

`python -m benches.python.client.worker CPU CLIENT LOOP SERVER LOADS`: SERVER is the numbers of the server's processes,
LOADS a JSON list of dicts as the functions of loads.py take them. Prints a list of as many figures. It runs in the
client's own environment, so that only the standard library is here.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from importlib import metadata

from benches.python.client import loads
from benches.python.client.clients import CLIENTS


def main() -> None:
    cpu, name, loop, server, wanted = sys.argv[1:]
    loads.SERVER.extend(map(int, server.split(",")))
    # Before the client is imported: what it sizes by the number of CPUs must see this one only.
    os.sched_setaffinity(0, {int(cpu)})
    client = CLIENTS[name]
    figures = [_run(client, loop, load) for load in json.loads(wanted)]
    package = client.package  # type: ignore[attr-defined]
    version = metadata.version(package) if package else ""
    print(json.dumps({"version": version, "figures": figures}), flush=True)
    # Not every client survives the end of the interpreter.
    os._exit(0)


def _run(client: object, loop: str, load: dict[str, object]) -> dict[str, object]:
    factory = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        try:
            return runner.run(loads.run(client, load))
        except Exception as error:  # noqa: BLE001 - whatever it is, the table says so
            return {"failed": f"{type(error).__name__}: {error}"[:300]}


if __name__ == "__main__":
    main()
