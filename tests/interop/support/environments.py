"""Programs of others that live in virtual environments of their own, under target/interop."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FOLDER = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "interop"


def require(environment: str, program: str) -> Path:
    """A program of an environment; skips where that was not made."""
    found = FOLDER / environment / "bin" / program
    if not found.exists():
        pytest.skip(f"there is no {found}; tools/test-interop installs it")
    return found
