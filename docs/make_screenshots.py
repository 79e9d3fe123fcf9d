"""Writes the pictures of the dashboard in `docs/images`, of a server under load: `python docs/make_screenshots.py`.

Needs what `tools/bootstrap interop` installs.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

# Run by path, this file is no part of a package: its neighbours are found through the repository's root.
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import penstock  # noqa: E402  the path comes first
from examples.app_models import ByteLanguageModel  # noqa: E402
from tests.interop.support.chromium import Visit, chromium  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGES = ROOT / "docs" / "images"
TENSORS: dict[str, Any] = {"inputs": {"x": ("float32", [64])}, "outputs": {"y": ("float32", [8])}}
SECONDS = 75
FAILING = 0.004
VIEWS: dict[str, dict[str, Any]] = {
    "dashboard": {"size": (1440, 1180), "color_scheme": "light"},
    "dashboard-dark": {"size": (1440, 1180), "color_scheme": "dark"},
    "dashboard-phone": {"size": (390, 1180), "color_scheme": "light", "device_scale_factor": 2},
}


def slow(name: str, seconds: float, each: float, **policy: Any) -> Any:
    """A model on another device: so long a batch, and so much more a row."""

    @penstock.model(name, **TENSORS, **policy)
    def model(x: Any) -> Any:
        time.sleep(seconds + each * len(x))
        if name == "fraud-score" and random.random() < FAILING:
            raise ValueError("a feature is missing")
        return x[:, :8]

    return model


MODELS = [
    slow("digits", 0.0005, 0, max_batch_size=100),
    slow("ranker", 0.004, 0.00005, max_batch_size=64),
    slow("fraud-score", 0.002, 0, max_batch_size=32),
    slow("embedder", 0.02, 0.0002, max_batch_size=16, max_queue=24),
    ByteLanguageModel,
]
# Clients of each model, and the mean of their pauses.
CLIENTS = {"digits": (12, 0.05), "ranker": (12, 0.04), "fraud-score": (4, 0.08), "embedder": (16, 0.04)}


@contextmanager
def load(url: str) -> Iterator[None]:
    """Clients of all models, for as long as this is held."""
    over = threading.Event()
    row = {"x": np.random.default_rng(7).random((1, 64), dtype=np.float32)}

    def ask(client: penstock.Client, model: str, pause: float) -> None:
        while not over.wait(random.expovariate(1 / pause)):
            try:
                client.infer(model, row, timeout=0.06 if model == "embedder" else None)
            except penstock.PenstockError:
                continue

    def read(client: penstock.Client) -> None:
        path = "/v2/models/byte-lm/generate_stream"
        while not over.wait(random.random()):
            body = {"text_input": "The sea ", "parameters": {"max_tokens": random.randint(20, 120)}}
            with client.stream("POST", path, json=body) as stream:
                for _ in stream.sse():
                    pass

    with penstock.Client(url) as client:
        threads = [
            threading.Thread(target=ask, args=(client, model, pause))
            for model, (count, pause) in CLIENTS.items()
            for _ in range(count)
        ] + [threading.Thread(target=read, args=(client,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()


def main() -> None:
    """Opens every view, lets time pass, and takes the pictures."""
    IMAGES.mkdir(exist_ok=True)
    with penstock.Server(MODELS, port=8000) as server, load(server.url), chromium() as browser:
        visits = {name: Visit(browser, f"{server.url}/dashboard", **options) for name, options in VIEWS.items()}
        time.sleep(SECONDS)
        for name, visit in visits.items():
            visit.page.screenshot(path=str(IMAGES / f"{name}.png"))
            visit.close()


if __name__ == "__main__":
    main()
