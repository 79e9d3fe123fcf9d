"""A model that sleeps beside a fast one: does it delay the fast one, or a health check?"""

from __future__ import annotations

import threading
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING

from benches.python.door.client import latencies
from benches.python.door.machine import Served, serving
from benches.python.door.rounds import Figures, progress, spread
from benches.python.door.servers import penstock
from benches.python.door.story import Bench, Story
from benches.python.door.workload import OIP_JSON, check, compact
from benches.python.measure import table
from penstock import testing

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 2.0
WARM_UP = 0.3
ROW = compact(testing.infer_body({"x": ("FP32", [1, 1], [1.0])}))
SLEEPERS = 64
BUSY = 64
ASKED = {"second model": ("/v2/models/mlp/infer", OIP_JSON.bodies[0]), "/v2/health/live": ("/v2/health/live", None)}
BESIDE: dict[str, tuple[tuple[str, int], ...]] = {
    "nothing": (),
    f"a model that sleeps 200 ms, {SLEEPERS} clients": (("sleeper", SLEEPERS),),
    f"an async model that sleeps 200 ms, {SLEEPERS} clients": (("async_sleeper", SLEEPERS),),
    f"the sleeper, and the second model itself under {BUSY} clients": (("sleeper", SLEEPERS), ("mlp", BUSY)),
}


def run(bench: Bench) -> Story:
    effort = bench.effort(SECONDS)
    results: dict[tuple[str, str], list[Figures]] = defaultdict(list)
    with serving(penstock("sleeper,async_sleeper,mlp"), logs=bench.logs) as (door,):
        check(door, OIP_JSON)
        for number in range(effort.rounds):
            progress(f"round {number + 1} of {effort.rounds}")
            for beside, loads in BESIDE.items():
                with _load(door, loads, len(ASKED) * effort.seconds):
                    for what, (path, body) in ASKED.items():
                        latencies(door, path, body, min(WARM_UP, effort.seconds))
                        results[beside, what].append(latencies(door, path, body, effort.seconds))
    keys = ("p50_ms", "p99_ms", "max_ms")
    rows = [
        [beside, what, *(spread([one[key] for one in rounds], 2) for key in keys), sum(one["errors"] for one in rounds)]
        for (beside, what), rounds in results.items()
    ]
    text = table(["beside", "asked, one connection", "p50 ms", "p99 ms", "greatest ms", "errors"], rows)
    data = [{"beside": beside, "asked": what, "rounds": rounds} for (beside, what), rounds in results.items()]
    return Story("A model that sleeps beside a fast one", text, data)


@contextmanager
def _load(door: Served, loads: tuple[tuple[str, int], ...], seconds: float) -> Iterator[None]:
    """Closed loops on some models while the block runs; longer by far than it, and ended by their deadline."""
    threads = []
    for model, clients in loads:
        url = f"{door.base}/v2/models/{model}/infer"
        bodies = OIP_JSON.bodies if model == "mlp" else [ROW]
        settings = {"clients": clients, "requests_per_client": 100_000, "deadline": seconds + 4 * WARM_UP}
        threads.append(threading.Thread(target=testing.load, args=(url, bodies), kwargs=settings))
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join()
