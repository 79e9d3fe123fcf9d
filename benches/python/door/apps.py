"""The models that the benchmarks serve: `PENSTOCK_BENCH_MODELS` says which of them, in a comma-separated list."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np

import penstock

# `penstock serve FILE` puts the file's folder on the path, the examples lie beside `benches`.
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from examples.mlp import mlp

SLEEP = 0.2
BRIEF = 0.002
ONE_FLOAT = {"inputs": {"x": ("float32", [1])}, "outputs": {"y": ("float32", [1])}}


@penstock.model("sleeper", max_batch_size=100, **ONE_FLOAT)
def sleeper(x):
    """Sleeps 200 ms a batch, as a model on another device does."""
    time.sleep(SLEEP)
    return x


@penstock.model("async_sleeper", max_batch_size=100, **ONE_FLOAT)
async def async_sleeper(x):
    """The same on Penstock's own event loop."""
    await asyncio.sleep(SLEEP)
    return x


@penstock.model("device", max_batch_size=100, inputs={"x": ("float32", [64])}, outputs={"y": ("float32", [8])})
def device(x):
    """The network after 2 ms in which the interpreter is free: a model on another device."""
    time.sleep(BRIEF)
    return mlp(x)


_gate = threading.Event()


@penstock.model("gate", max_batch_size=100, inputs={"x": ("float32", [64])}, outputs={"y": ("float32", [8])})
def gate(x):
    """Answers nobody until the model `key` was asked."""
    _gate.wait(60)
    return mlp(x)


@penstock.model("key", max_batch_size=1, **ONE_FLOAT)
def key(x):
    """Opens the gate for good."""
    _gate.set()
    return x


_spin = threading.Event()


def _spinning():
    count = 0
    while True:
        _spin.wait()
        while _spin.is_set():
            count += 1


@penstock.model("control", max_batch_size=1, inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [1])})
def control(x):
    """`[1 to spin or 0, switch interval in ms]`: one Python thread that does nothing else, or none."""
    if not any(thread.name == "spinner" for thread in threading.enumerate()):
        threading.Thread(target=_spinning, name="spinner", daemon=True).start()
    sys.setswitchinterval(float(x[0, 1]) / 1000)
    if x[0, 0]:
        _spin.set()
    else:
        _spin.clear()
    return np.full((1, 1), sys.getswitchinterval() * 1000, np.float32)


@penstock.model("minilm", inputs={"text": ("string", [])}, outputs={"embedding": ("float32", [384])}, max_batch_size=64)
class MiniLMModel:
    """The model of `examples/minilm.py`."""

    def load(self, _context):
        from examples.minilm import MiniLM

        self.model = MiniLM.load()

    def predict(self, text):
        """Texts to unit vectors."""
        return self.model.encode(text)


def _mlp_onnx():
    """The network as a graph: the interpreter has no part in it."""
    from examples import mlp_onnx

    return penstock.onnx_model("mlp_onnx", mlp_onnx.written(), max_batch_size=100)


def _minilm_onnx():
    from examples import minilm_onnx

    return minilm_onnx.served()


def _minilm_onnx_text():
    from examples import minilm_onnx

    return minilm_onnx.TextEmbeddings


_served = {
    "mlp": mlp,
    "sleeper": sleeper,
    "device": device,
    "async_sleeper": async_sleeper,
    "gate": gate,
    "key": key,
    "control": control,
    "minilm": MiniLMModel,
}
_made = {"mlp_onnx": _mlp_onnx, "minilm-onnx": _minilm_onnx, "minilm-onnx-text": _minilm_onnx_text}
"""Those that need packages of their own, and a file that is written first."""

models = [_made[name]() if name in _made else _served[name] for name in os.environ["PENSTOCK_BENCH_MODELS"].split(",")]
