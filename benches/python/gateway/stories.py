"""The two comparisons of the gateway: with the server behind it alone, and with a bare proxy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benches.python.door.machine import Launch, serving
from benches.python.door.servers import PEERS, install, penstock
from benches.python.door.workload import OIP_BINARY, OIP_JSON, check
from benches.python.gateway.visits import CLIENTS, Lane, interleaved, middle
from benches.python.measure import paired_ratio, spread, table

if TYPE_CHECKING:
    from benches.python.gateway.visits import Figures

HERE = Path(__file__).resolve().parent
COLUMNS = (
    ("requests/s", "requests_per_second", 0),
    ("CPU µs/request in front", "front_us", 1),
    ("CPU µs/request upstream", "upstream_us", 1),
    ("p50 ms", "p50_us", 0),
    ("p99 ms", "p99_us", 0),
    ("errors", "errors", 0),
)


@dataclass(frozen=True)
class Bench:
    """Where things are and how much is to be done."""

    proxy: Path
    out: Path
    rounds: int
    seconds: float


def gateway(model: str, upstream: str, cpus: str, name: str = "penstock gateway") -> Launch:
    """`penstock serve` with a remote model, everything at its default."""
    environment = {"BENCH_MODEL": model, "BENCH_UPSTREAM": upstream}
    serve = penstock(name=name, path=model, cpus=cpus)
    command = (*serve.command[:4], str(HERE / "apps.py"), *serve.command[5:])
    return Launch(name, command, serve.path, environment, cpus=cpus, ready=serve.ready)


def mlserver(bench: Bench) -> tuple[str, dict[str, list[Figures]]]:
    """MLServer alone, and with the gateway before it: MLServer on CPU 0, gateway and load on CPU 1."""
    programs = install(bench.out / "peers", "mlserver")
    ports = {"MLSERVER_HTTP_PORT": "{port}", "MLSERVER_GRPC_PORT": "{spare}", "MLSERVER_METRICS_PORT": "{spare2}"}
    environment = {"PYTHONPATH": f"{HERE / 'mlserver_app'}:{PEERS}", "PYTHONDONTWRITEBYTECODE": "1", **ports}
    command = (str(programs / "mlserver"), "start", str(HERE / "mlserver_app"))
    upstream = Launch("MLServer", command, "/v2/models/alone/infer", environment, HERE, ready="/v2/models/alone/ready")
    logs = bench.out / "gateway-logs"
    with serving(upstream, logs=logs) as (behind,):
        direct = f"{behind.base}/v2/models"
        with serving(gateway("alone", behind.base, "1"), logs=logs) as (front,):
            check(front, OIP_JSON)
            lanes = [
                Lane("MLServer", f"{direct}/alone/infer", OIP_JSON, None, behind),
                Lane("MLServer, batching by itself", f"{direct}/gathered/infer", OIP_JSON, None, behind),
                Lane("Penstock before MLServer", front.url, OIP_JSON, front, behind),
            ]
            results = interleaved(lanes, bench.rounds, bench.seconds)
    text = [_table(results), ""]
    ours = results["Penstock before MLServer"]
    for name in ("MLServer", "MLServer, batching by itself"):
        faster = paired_ratio(_each(ours, "requests_per_second"), _each(results[name], "requests_per_second"))
        spared = paired_ratio(_each(results[name], "upstream_us"), _each(ours, "upstream_us"))
        later = paired_ratio(_each(ours, "p99_us"), _each(results[name], "p99_us"))
        text.append(
            f"Beside {name}: {faster} x the requests a second, {spared} x the requests for the same CPU time upstream, "
            f"p99 {later} of its."
        )
    return "\n".join(text), results


def proxy(bench: Bench) -> tuple[str, dict[str, list[Figures]]]:
    """The gateway beside bare hyper that hands on: upstream and load on CPU 1, what is measured on CPU 0."""
    logs = bench.out / "gateway-logs"
    with serving(penstock(name="penstock upstream", cpus="1"), logs=logs) as (behind,):
        bare = Launch("bare hyper proxy", (str(bench.proxy), str(behind.port), "{port}"), "/v2/models/mlp/infer")
        with serving(bare, gateway("mlp", behind.base, "0"), logs=logs) as (passing, front):
            lanes = []
            for form, dialect in (("JSON", OIP_JSON), ("binary", OIP_BINARY)):
                for name, server in (("bare hyper proxy", passing), ("Penstock", front)):
                    check(server, dialect)
                    lanes.append(Lane(f"{name}, {form}", server.url, dialect, server, behind))
            results = interleaved(lanes, bench.rounds, bench.seconds)
    text = [_table(results), ""]
    for form in ("JSON", "binary"):
        cost = paired_ratio(
            _each(results[f"Penstock, {form}"], "front_us"), _each(results[f"bare hyper proxy, {form}"], "front_us")
        )
        text.append(f"CPU a request of the gateway beside bare hyper, {form}: {cost}.")
    return "\n".join(text), results


def _each(rounds: list[Figures], key: str) -> list[float]:
    return [max(figures[key], 1e-9) for figures in rounds]


def _table(results: dict[str, list[Figures]]) -> str:
    rows = []
    for name, rounds in results.items():
        cells = []
        for _, key, digits in COLUMNS:
            scale = 1000 if key.startswith("p") else 1
            cells.append(spread([figures[key] / scale for figures in rounds], 1 if scale > 1 else digits))
        rows.append([name, *cells, f"{100 * middle(rounds, 'upstream_busy'):.0f} %"])
    return f"{CLIENTS} clients, single rows.\n\n" + table(["", *(title for title, *_ in COLUMNS), "CPU upstream"], rows)
