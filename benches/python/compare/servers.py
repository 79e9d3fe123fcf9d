"""The servers that are compared, with the settings that `--only tuning` found best, for the small network in JSON.

Their applications of bare floats and of MiniLM have the same settings, which were not looked for anew.
"""

from __future__ import annotations

import contextlib
import os
import sysconfig
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from benches.python.compare.workload import INSTANCES, LOTS_OF_ONE, NAMED_JSON, NAMED_OIP, RAW, text_json
from benches.python.door.machine import ROOT, NotServing, Served
from benches.python.door.servers import FASTAPI, FASTAPI_BATCHED, GRANIAN, MLSERVER, MOSEC, Absent, Peer
from benches.python.door.workload import OIP_BINARY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benches.python.door.machine import Launch
    from benches.python.door.story import Bench

APPS = Path(__file__).resolve().parent / "peers"
STARTS_WITHIN = 150.0
"""Seconds: all of them start on one CPU, and Ray is a dozen processes."""

LITSERVE = Peer(
    "LitServe",
    "litserve",
    ("{bin}/python", "litserve_app.py", "{port}"),
    "/predict",
    NAMED_JSON,
    "uvloop, one front, one worker, batch 100",
    wait_ms=5,
    ready="/health",
    apps=APPS,
)
BENTOML = Peer(
    "BentoML",
    "bentoml",
    ("{bin}/bentoml", "serve", "bentoml_app:Mlp", "--host", "127.0.0.1", "--port", "{port}"),
    "/predict",
    LOTS_OF_ONE,
    "one worker, adaptive batches of up to 100, no metrics, no traces, no access log, no request too late",
    environment=(("BENTOML_DO_NOT_TRACK", "True"), ("BENTOML_HOME", str(ROOT / "target/bench/bentoml"))),
    ready="/readyz",
    apps=APPS,
)
RAY = Peer(
    "Ray Serve",
    "ray",
    ("{bin}/python", "ray_app.py", "{port}"),
    "/",
    NAMED_JSON,
    "one proxy, one replica, orjson, batch 100, no dashboard, no access log",
    wait_ms=5,
    environment=(("RAY_USAGE_STATS_ENABLED", "0"), ("RAY_AUTH_MODE", "disabled")),
    ready="/",
    apps=APPS,
)
KSERVE = Peer(
    "KServe",
    "kserve",
    ("{bin}/python", "kserve_app.py", "{port}"),
    "/v2/models/mlp/infer",
    NAMED_OIP,
    "one process, no access log and no traces; no batches: its batcher is another container",
    ready="/v2/health/ready",
    apps=APPS,
)
KSERVE_FIRST = replace(KSERVE, name="KServe, protocol v1", path="/v1/models/mlp:predict", dialect=INSTANCES)
EVERY = (MOSEC, GRANIAN, FASTAPI, FASTAPI_BATCHED, LITSERVE, BENTOML, RAY, MLSERVER, KSERVE_FIRST, KSERVE)

MOSEC_RAW = replace(
    MOSEC,
    name="mosec, bare floats",
    command=("{bin}/python", "mosec_raw_app.py", *MOSEC.command[2:]),
    dialect=RAW,
    settings="no protocol, one worker, batch 100",
    apps=APPS,
)
GRANIAN_RAW = replace(
    GRANIAN,
    name="granian + asyncio batcher, bare floats",
    command=("{bin}/granian", "asgi_raw_app:app", *GRANIAN.command[2:]),
    dialect=RAW,
    settings="no protocol, ASGI, uvloop, one runtime thread (mt), batch 100",
    apps=APPS,
)


def binary() -> tuple[Peer, ...]:
    """Those that take tensors as bytes."""
    return (MOSEC_RAW, GRANIAN_RAW, replace(KSERVE, name="KServe, binary tensors", dialect=OIP_BINARY))


def embedding() -> tuple[Peer, ...]:
    """The two best of the others, with MiniLM."""
    paths = (ROOT, ROOT / "python", sysconfig.get_path("purelib"))
    environment = (("PEER_MODEL_PATH", os.pathsep.join(map(str, paths))),)
    mosec = ("{bin}/python", "mosec_minilm_app.py", *MOSEC.command[2:])
    granian = ("{bin}/granian", "asgi_minilm_app:app", *GRANIAN.command[2:])
    peers = (
        replace(MOSEC, command=mosec, settings="orjson, one worker, batch 64"),
        replace(GRANIAN, command=granian, settings=GRANIAN.settings.replace("100", "64")),
    )
    return tuple(replace(peer, apps=APPS, dialect=text_json(), environment=environment) for peer in peers)


@contextlib.contextmanager
def started(launches: Sequence[Launch], logs: Path, notes: list[str]) -> Iterator[dict[str, Served]]:
    """The servers that came up, by their names, until the block is left; why others did not, the notes say.

    Those that did not stand still, for they would take CPU from the others.
    """
    with contextlib.ExitStack() as stack:
        # What is ended cannot tidy up after itself.
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="peers-", ignore_cleanup_errors=True))
        servers = []
        for launch in launches:
            environment = {**launch.environment, "PEER_TEMPORARY": folder}
            servers.append(Served(replace(launch, environment=environment), logs))
            stack.callback(servers[-1].stop)
        ready = {}
        for server in servers:
            try:
                server.wait_until_ready(STARTS_WITHIN)
            except NotServing as reason:
                server.freeze()
                notes.append(f"{server.name} is left out: {reason}.")
            else:
                ready[server.name] = server
        yield ready


def launches(bench: Bench, peers: Sequence[Peer], notes: list[str]) -> list[Launch]:
    """How each peer that can be had here is started; the notes say why the others cannot."""
    found = []
    for peer in peers:
        try:
            found.append(peer.launch(bench.peers))
        except Absent as reason:
            notes.append(f"{peer.name} is left out: {reason}.")
    return found
