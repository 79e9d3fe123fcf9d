"""Train the model: `python -m examples.byte_lm.train`, about ten minutes of one core. `--check` only compares.

Written out by hand, gradients and Adam included, and compared at the end with counts of trigrams, on text that neither
has seen.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Final

# Read by NumPy when it is imported: one core is what this is meant to take.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from safetensors.numpy import save_file

from examples.byte_lm.network import NOTHING, WEIGHTS, WINDOW, ByteLM, bits_of, chances, windows_of
from examples.byte_lm.text import split
from examples.byte_lm.trigrams import Trigrams

if TYPE_CHECKING:
    from collections.abc import Sequence

    from examples.byte_lm.network import Bytes, Floats

WIDTH: Final = 24
UNITS: Final = 640
STEPS: Final = 12_000
BATCH: Final = 512
WARM_UP: Final = 200
RATE: Final = 4e-3
DECAY: Final = 0.1
MOMENTS: Final = (0.9, 0.99)
TINY: Final = 1e-8
# So many of the units are left out of a step, so that none learns the text by heart.
LEFT_OUT: Final = 0.2
KEPT: Final = np.float32(1 / (1 - LEFT_OUT))
# So many of the windows are shortened, so that the model knows how texts begin, and short prompts.
SHORTENED: Final = 0.1
SHAPES: Final = {
    "vectors": (256, WIDTH),
    "first": (WINDOW * WIDTH, UNITS),
    "first_bias": (UNITS,),
    "second": (UNITS, UNITS),
    "second_bias": (UNITS,),
    "last": (UNITS, 256),
    "last_bias": (256,),
}


class Trainer:
    """The weights as one long vector, so that Adam goes over them in a few passes; the network looks at parts of it."""

    def __init__(self, source: np.random.Generator) -> None:
        size = sum(int(np.prod(shape)) for shape in SHAPES.values())
        self._weights, self._gradient, self._mean, self._square = np.zeros((4, size), np.float32)
        self._parts = _parts(self._weights)
        self._slopes = _parts(self._gradient)
        self._steps = 0
        self._source = source
        self.network = ByteLM(**self._parts)
        for name in ("first", "second"):
            part = self._parts[name]
            part[:] = source.standard_normal(part.shape, np.float32) * np.sqrt(2 / len(part))
        # Bytes far back begin with less of a say: what they tell is little, and would have to be unlearned first.
        say = 2 / np.sqrt(np.arange(WINDOW, 0, -1, dtype=np.float32))
        self._parts["first"] *= np.repeat(say, WIDTH)[:, np.newaxis]
        self._parts["vectors"][:] = source.standard_normal((256, WIDTH), np.float32)

    def step(self, windows: Bytes, following: Bytes, rate: float) -> float:
        """One step down the slope of a batch; the bits a byte that it had before the step."""
        net, slopes, rows = self.network, self._slopes, np.arange(len(following))
        seen = net.vectors[windows].reshape(len(windows), -1)
        first = np.maximum(seen @ net.first + net.first_bias, 0)
        first *= self._some(first.shape)
        inner = np.maximum(first @ net.second + net.second_bias, 0)
        inner *= self._some(inner.shape)
        second = inner + first
        scores = second @ net.last + net.last_bias
        bits = float(bits_of(scores, following).mean())

        back = chances(scores)
        back[rows, following] -= 1
        back /= len(following)
        self._through("last", second, back)
        back = back @ net.last.T
        into = back * (inner > 0) * KEPT
        self._through("second", first, into)
        back += into @ net.second.T
        back *= (first > 0) * KEPT
        self._through("first", seen, back)
        _add_up((back @ net.first.T).reshape(-1, WIDTH), windows.ravel(), slopes["vectors"])
        self._adam(rate)
        return bits

    def _some(self, shape: tuple[int, ...]) -> Floats:
        """Which units take part, and what makes up for the others: 0 or more than 1."""
        drawn = np.frombuffer(self._source.bytes(shape[0] * shape[1]), np.uint8).reshape(shape)
        return (drawn >= round(256 * LEFT_OUT)) * KEPT

    def _through(self, layer: str, entered: Floats, back: Floats) -> None:
        np.matmul(entered.T, back, out=self._slopes[layer])
        np.sum(back, axis=0, out=self._slopes[f"{layer}_bias"])

    def _adam(self, rate: float) -> None:
        self._steps += 1
        slow, slower = MOMENTS
        self._mean += (1 - slow) * (self._gradient - self._mean)
        self._square += (1 - slower) * (self._gradient**2 - self._square)
        spread = np.sqrt(self._square / (1 - slower**self._steps)) + TINY
        self._weights *= 1 - rate * DECAY
        self._weights -= rate / (1 - slow**self._steps) * self._mean / spread


def _parts(vector: Floats) -> dict[str, Floats]:
    parts, at = {}, 0
    for name, shape in SHAPES.items():
        size = int(np.prod(shape))
        parts[name] = vector[at : at + size].reshape(shape)
        at += size
    return parts


def _add_up(slopes: Floats, of: Bytes, out: Floats) -> None:
    """Sum the rows that belong to the same byte: sorted first, which is many times as fast as `np.add.at`."""
    order = np.argsort(of, kind="stable")
    present, begins = np.unique(of[order], return_index=True)
    out[:] = 0
    out[present] = np.add.reduceat(slopes[order], begins)


def train(text: Bytes, steps: int = STEPS, seed: int = 1) -> ByteLM:
    """Train a network; it is the same one for the same seed, on the same machine."""
    source = np.random.default_rng(seed)
    trainer = Trainer(source)
    windows, following = windows_of(text)
    began, bits = time.monotonic(), 0.0
    for step in range(steps):
        rate = RATE * min((step + 1) / WARM_UP, 0.5 + 0.5 * np.cos(np.pi * step / steps))
        chosen = source.integers(len(following), size=BATCH)
        batch = windows[chosen]
        _shorten(batch, source)
        bits += (trainer.step(batch, following[chosen], rate) - bits) * max(0.01, 1 / (step + 1))
        if (step + 1) % max(1, steps // 20) == 0:
            print(f"step {step + 1:6,}  {bits:.3f} bits per byte  {time.monotonic() - began:4.0f} s", flush=True)
    return trainer.network


def _shorten(windows: Bytes, source: np.random.Generator) -> None:
    missing = source.integers(1, WINDOW, size=len(windows)) * (source.random(len(windows)) < SHORTENED)
    windows[np.arange(WINDOW) < missing[:, np.newaxis]] = NOTHING


def save(network: ByteLM, path: Path) -> None:
    """Write the weights, as float16: a third of a bit in a thousand is what that costs."""
    names = [field.name for field in fields(network)]
    save_file({name: getattr(network, name).astype(np.float16) for name in names}, path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, save and compare; 0 where the model is better than trigrams."""
    parser = argparse.ArgumentParser(prog="train", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare the weights that there are, train nothing")
    parser.add_argument("--steps", type=int, default=STEPS, help="of training (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="file of the weights (default: %(default)s)")
    options = parser.parse_args(arguments)
    text, held_out = split()
    if not options.check:
        save(train(text, options.steps), options.out)
    model, counts = ByteLM.load(options.out).bits_per_byte(held_out), Trigrams.count(text).bits_per_byte(held_out)
    print(f"held-out text, {len(held_out):,} bytes: {model:.3f} bits per byte; counts of trigrams: {counts:.3f}")
    return 0 if model < counts else 1


if __name__ == "__main__":
    sys.exit(main())
