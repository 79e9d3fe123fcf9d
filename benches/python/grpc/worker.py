"""The process that is measured: one client on one event loop, through the loads that it is told.

`python -m benches.python.grpc.worker CPU CLIENT LOOP SERVER LOADS`: SERVER is the numbers of the server's processes,
LOADS a JSON list of dicts: `setup`, and the arguments of `closed`. Prints a list of as many figures. It runs in the
client's own environment, so that only the standard library is here.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from importlib import metadata
from typing import Any

from benches.python.client import loads
from benches.python.grpc.clients import CLIENTS, Setup


def main() -> None:
    cpu, name, loop, server, wanted = sys.argv[1:]
    loads.SERVER.extend(map(int, server.split(",")))
    # Before the client is imported: what it sizes by the number of CPUs must see this one only.
    os.sched_setaffinity(0, {int(cpu)})
    client = CLIENTS[name]
    figures = [_run(client, loop, load) for load in json.loads(wanted)]
    version = metadata.version(client.package)  # type: ignore[attr-defined]
    print(json.dumps({"version": version, "figures": figures}), flush=True)
    # Not every client survives the end of the interpreter.
    os._exit(0)


def _run(client: Any, loop: str, load: dict[str, Any]) -> dict[str, Any]:
    if not hasattr(client, load["method"]):
        return {"failed": "it has no such call"}
    factory = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    setup = Setup(**load.pop("setup"))
    with asyncio.Runner(loop_factory=factory) as runner:
        try:
            return runner.run(loads.closed(client, setup, **load))  # type: ignore[arg-type]  as one client of ours
        except Exception as error:  # noqa: BLE001 - whatever it is, the table says so
            return {"failed": f"{type(error).__name__}: {error}"[:300]}


if __name__ == "__main__":
    main()
