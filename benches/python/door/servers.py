"""The servers of the tables, and how each is started with its best settings (found by `--only tuning`)."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benches.python.door.machine import Launch
from benches.python.door.workload import ECHO, LOAD_TAKES_HEADERS, OIP_BINARY, OIP_JSON, PLAIN_JSON, Dialect

if TYPE_CHECKING:
    from benches.python.door.machine import Served

HERE = Path(__file__).resolve().parent
APPS = HERE / "apps.py"
PEERS = HERE / "peers"
INSTALLS_WITHIN = 600


class Absent(RuntimeError):
    """Something to measure that cannot be had here."""


def bare_hyper(program: Path) -> Launch:
    """The floor: hyper on one thread, which answers a POST with its body."""
    return Launch("bare hyper", (str(program), "{port}"), "/")


def penstock(models: str = "mlp", *, name: str = "penstock", path: str = "mlp", cpus: str = "0") -> Launch:
    """The door as `penstock serve` starts it, everything at its default; `models` are functions of apps.py."""
    command = (sys.executable, "-m", "penstock", "serve", str(APPS), "--port", "{port}")
    environment = {"PENSTOCK_BENCH_MODELS": models}
    return Launch(name, command, f"/v2/models/{path}/infer", environment, cpus=cpus, ready="/v2/health/ready")


def binary_is_left_out(server: Served) -> str | None:
    """Why binary tensors cannot be measured, or `None` where they can."""
    if "binary_tensor_data" not in server.get("/v2"):
        return "the server's metadata does not name the extension binary_tensor_data"
    if not LOAD_TAKES_HEADERS:
        return "penstock.testing.load takes no headers"
    return None


PENSTOCK_DIALECT = OIP_JSON
PENSTOCK_BINARY = OIP_BINARY
HYPER_DIALECT = ECHO


@dataclass(frozen=True)
class Peer:
    """A server to compare with.

    Attributes:
        name: as in the tables.
        home: its virtual environment, and the file of its requirements.
        command: with `{bin}` for the folder of its programs.
        path: where it is asked.
        settings: what was set, for the table.
        wait_ms: how long it gathers a batch, where that can be set.
        ready: a path that answers with 200 once it serves, where listening alone does not say so.
        apps: the folder of its application and of its requirements.
    """

    name: str
    home: str
    command: tuple[str, ...]
    path: str
    dialect: Dialect
    settings: str
    wait_ms: float = 0
    environment: tuple[tuple[str, str], ...] = ()
    ready: str | None = None
    apps: Path = PEERS

    def launch(self, homes: Path) -> Launch:
        """How it is started; installs it first.

        Raises:
            Absent: where that cannot be done.
        """
        own = self.apps / f"{self.home}.txt"
        programs = install(homes, self.home, own if own.is_file() else None)
        environment = {
            "PYTHONPATH": os.pathsep.join(dict.fromkeys([str(self.apps), str(PEERS)])),
            "PEER_WAIT_MS": f"{self.wait_ms:g}",
            "PYTHONDONTWRITEBYTECODE": "1",
            **dict(self.environment),
        }
        command = tuple(part.replace("{bin}", str(programs)) for part in self.command)
        return Launch(self.name, command, self.path, environment, self.apps, ready=self.ready)

    def waiting(self, milliseconds: float) -> Peer:
        """The same, with another wait."""
        return replace(self, name=f"{self.name} {milliseconds:g} ms", wait_ms=milliseconds)


def install(homes: Path, name: str, requirements: Path | None = None) -> Path:
    """Makes a peer's virtual environment as its requirements ask; gives the folder of its programs."""
    listed = requirements or PEERS / f"{name}.txt"
    wanted = listed.read_text()
    home = homes / name
    stamp = home / "installed.txt"
    if not stamp.exists() or stamp.read_text() != wanted:
        pip = [
            str(home / "bin/python"),
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            "-r",
            str(listed),
        ]
        for command in ([sys.executable, "-m", "venv", "--clear", str(home)], pip):
            try:
                subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALLS_WITHIN)
            except subprocess.CalledProcessError as error:
                raise Absent(f"{name}: {error.stderr.strip().splitlines()[-1:]}") from error
            except (OSError, subprocess.TimeoutExpired) as error:
                raise Absent(f"{name}: {error}") from error
        stamp.write_text(wanted)
    return home / "bin"


_UVICORN = (
    *("{bin}/uvicorn", "fastapi_app:app", "--port", "{port}", "--loop", "uvloop", "--http", "httptools"),
    *("--no-access-log", "--log-level", "warning", "--ws", "none", "--lifespan", "off"),
)
_GRANIAN = (
    *("{bin}/granian", "asgi_app:app", "--interface", "asginl", "--port", "{port}", "--http", "1", "--no-ws"),
    *(
        "--loop",
        "uvloop",
        "--workers",
        "1",
        "--runtime-mode",
        "mt",
        "--runtime-threads",
        "1",
        "--backpressure",
        "4096",
        "--no-access-log",
    ),
    *("--log-level", "warning"),
)
_MLSERVER_PORTS = (
    ("MLSERVER_HTTP_PORT", "{port}"),
    ("MLSERVER_GRPC_PORT", "{spare}"),
    ("MLSERVER_METRICS_PORT", "{spare2}"),
)

MOSEC = Peer(
    "mosec + orjson",
    "mosec",
    ("{bin}/python", "mosec_app.py", "--address", "127.0.0.1", "--port", "{port}", "--log-level", "warning"),
    "/inference",
    PLAIN_JSON,
    "orjson, one worker, batch 100",
    wait_ms=1,
)
GRANIAN = Peer(
    "granian + asyncio batcher",
    "granian",
    _GRANIAN,
    "/",
    PLAIN_JSON,
    "ASGI, uvloop, one runtime thread (mt), orjson, batch 100",
)
FASTAPI = Peer("FastAPI", "fastapi", _UVICORN, "/plain", PLAIN_JSON, "uvicorn, uvloop, httptools, pydantic, no batches")
FASTAPI_BATCHED = replace(
    FASTAPI,
    name="FastAPI + asyncio batcher",
    path="/batched",
    settings="uvicorn, uvloop, httptools, pydantic, batch 100",
)
MLSERVER = Peer(
    "MLServer",
    "mlserver",
    ("{bin}/mlserver", "start", "mlserver_app"),
    "/v2/models/mlp/infer",
    OIP_JSON,
    "parallel_workers 0, adaptive batching 100 / 5 ms, no gzip, no debug, no access log",
    environment=_MLSERVER_PORTS,
)
ALL_PEERS = (MOSEC, GRANIAN, FASTAPI, FASTAPI_BATCHED, MLSERVER)
