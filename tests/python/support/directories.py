"""Directories of models, as somebody would write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MODEL = """
import numpy as np
import penstock

@penstock.model("{name}", inputs={{"x": ("float32", [2])}}, outputs={{"y": ("float32", [2])}})
class Times:
    def load(self, ctx):
        self.directory = ctx.directory
        self.by = np.float32((ctx.directory / "by.txt").read_text())

    def predict(self, x):
        return x * self.by
"""


def write(path: Path, text: str | bytes = "") -> Path:
    """A file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def write_model(root: Path, name: str = "times", version: int | str = 1, by: float = 2) -> Path:
    """A model in Python that multiplies by what is in a file beside it; gives its folder."""
    folder = root / name / str(version)
    write(folder / "by.txt", str(by))
    write(folder / "model.py", MODEL.format(name=name))
    return folder
