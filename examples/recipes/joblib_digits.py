"""A pipeline of scikit-learn's that joblib saved; in a model directory this file is `digits-joblib/1/model.py`.

A joblib file is a pickle: whoever wrote it has this process do what they like. Load none that you did not write, or
take the ONNX file that `write.py` makes of the same pipeline, which is only numbers.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import joblib
import numpy as np
from sklearn.exceptions import InconsistentVersionWarning

import penstock

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A pipeline that another scikit-learn saved may give other answers. For the whole process, because
# `warnings.catch_warnings` is not made for loads that run side by side in threads.
warnings.filterwarnings("error", category=InconsistentVersionWarning)


@penstock.model(
    "digits-joblib",
    inputs={"x": ("float32", [64])},
    outputs={"digit": ("int64", []), "probabilities": ("float32", [10])},
    max_batch_size=100,
)
class Digits:
    """Which digit an image of 8 by 8 pixels shows."""

    def load(self, _ctx: penstock.LoadContext) -> None:
        """Read the pipeline that lies beside this file."""
        self._pipeline = joblib.load(Path(__file__).with_name("pipeline.joblib"))

    def predict(self, x: NDArray[np.float32]) -> dict[str, NDArray[np.generic]]:
        """The likeliest digit, int64 [n], and the odds, float32 [n, 10], for pixels 0..16, float32 [n, 64]."""
        # One call, although `predict` would be shorter: it computes the same odds once more.
        probabilities = self._pipeline.predict_proba(x)
        digit = self._pipeline.classes_[probabilities.argmax(axis=1)]
        # scikit-learn computes in float64. What is declared is what has to come.
        return {"digit": digit, "probabilities": probabilities.astype(np.float32)}
