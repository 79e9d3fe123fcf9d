"""BentoML with its adaptive batches; what it would refuse as too late is answered here."""

import os

import bentoml
import numpy as np
from network import mlp

WITHIN_MS = int(os.environ.get("PEER_WITHIN_MS", "60000"))


@bentoml.service(
    workers=1,
    traffic={"timeout": 60},
    metrics={"enabled": False},
    tracing={"sample_rate": 0.0},
    logging={"access": {"enabled": False}},
)
class Mlp:
    @bentoml.api(batchable=True, max_batch_size=100, max_latency_ms=WITHIN_MS)
    def predict(self, x: np.ndarray) -> np.ndarray:
        return mlp(x.astype(np.float32))
