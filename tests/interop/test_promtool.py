"""The metrics of a server, as Prometheus's own tool and its own parser judge them."""

from __future__ import annotations

import subprocess
import urllib.request
from typing import TYPE_CHECKING, Any

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import penstock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric


@penstock.model("double", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
def double(x: Any) -> Any:
    return x * np.float32(2)


class Parsed:
    """The families of a text, for a registry that writes them as `promtool` reads them."""

    def __init__(self, text: str) -> None:
        self._families = list(text_string_to_metric_families(text))

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def test_promtool_has_nothing_to_say_against_the_metrics() -> None:
    with penstock.Server(double, port=0) as server:
        with penstock.Client(server.url) as client:
            for _ in range(10):
                client.infer("double", {"x": np.ones((1, 2), np.float32)})
        with urllib.request.urlopen(f"{server.url}/metrics", timeout=30) as answer:
            text = answer.read().decode()
    registry = CollectorRegistry()
    registry.register(Parsed(text))
    classic = generate_latest(registry)
    judged = subprocess.run(
        ["promtool", "check", "metrics"], input=classic, capture_output=True, timeout=60, check=False
    )
    assert (judged.returncode, judged.stdout, judged.stderr) == (0, b"", b"")
