"""What the image serves: put your models here."""

import numpy as np

import penstock


@penstock.model("double", inputs={"x": ("float32", [3])}, outputs={"y": ("float32", [3])}, max_batch_size=64)
def double(x: np.ndarray) -> np.ndarray:
    """Float32 [n, 3] in and out."""
    return x * 2
