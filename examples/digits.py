"""Handwritten digits: a classifier trained at start on the images that scikit-learn bundles, in NumPy at run time.

`python -m examples.digits` trains it and checks its accuracy on the images held out.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEED: Final = 0
HELD_OUT_SHARE: Final = 0.2
HIDDEN: Final = 64
BRIGHTEST: Final = 16.0
ACCURACY_FLOOR: Final = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class DigitClassifier:
    """One hidden layer between 64 pixels and 10 digits; all weights float32, inputs first."""

    hidden_weight: NDArray[np.float32]  # [64, HIDDEN]
    hidden_bias: NDArray[np.float32]  # [HIDDEN]
    weight: NDArray[np.float32]  # [HIDDEN, 10]
    bias: NDArray[np.float32]  # [10]

    @classmethod
    def train(cls) -> DigitClassifier:
        """Train on the images that are not held out: about a second, the same weights every time.

        Raises `ModuleNotFoundError` without scikit-learn, which nothing else here needs.
        """
        images, _, labels, _ = _split()
        network = import_module("sklearn.neural_network").MLPClassifier(
            (HIDDEN,), alpha=1e-2, learning_rate_init=5e-3, tol=1e-3, random_state=SEED
        )
        network.fit(images / BRIGHTEST, labels)
        (hidden_weight, weight), (hidden_bias, bias) = network.coefs_, network.intercepts_
        # Pixels arrive as 0..16: their scale belongs in the weights, where it costs nothing.
        return cls(*(array.astype(np.float32) for array in (hidden_weight / BRIGHTEST, hidden_bias, weight, bias)))

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probability of each digit, float32 [n, 10], for images of float32 [n, 64] with pixels 0..16."""
        hidden: NDArray[np.float32] = x @ self.hidden_weight
        hidden += self.hidden_bias
        np.maximum(hidden, 0, out=hidden)
        odds: NDArray[np.float32] = hidden @ self.weight
        odds += self.bias
        odds -= odds.max(axis=1, keepdims=True)
        np.exp(odds, out=odds)
        odds /= odds.sum(axis=1, keepdims=True)
        return odds


def seen() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Images for training, float32 [1437, 64] with pixels 0..16, and their digits, int64 [1437]."""
    images, _, labels, _ = _split()
    return images.astype(np.float32), labels.astype(np.int64)


def held_out() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Images that training never sees, float32 [360, 64] with pixels 0..16, and their digits, int64 [360]."""
    _, images, _, labels = _split()
    return images.astype(np.float32), labels.astype(np.int64)


def _split() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    # Imported by name, and late: scikit-learn takes a second to import and has no types.
    images, labels = import_module("sklearn.datasets").load_digits(return_X_y=True)
    split = import_module("sklearn.model_selection").train_test_split
    seen, unseen, seen_labels, unseen_labels = split(
        images, labels, test_size=HELD_OUT_SHARE, random_state=SEED, stratify=labels
    )
    return seen, unseen, seen_labels, unseen_labels


def main() -> int:
    """Print the accuracy on the images held out; 0 if it is high enough, else 1."""
    images, labels = held_out()
    accuracy = float(np.mean(DigitClassifier.train().predict(images).argmax(axis=1) == labels))
    sys.stdout.write(f"accuracy {accuracy:.3f} on {len(labels)} held-out images\n")
    return int(accuracy < ACCURACY_FLOOR)


if __name__ == "__main__":
    sys.exit(main())
