"""Versions of what lies in a peer's environment."""

from __future__ import annotations

import re
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

BESIDE = {
    "mosec": ("mosec", "orjson"),
    "granian": ("granian", "uvloop", "orjson"),
    "fastapi": ("fastapi", "uvicorn", "uvloop", "httptools", "pydantic"),
    "litserve": ("litserve", "fastapi", "uvicorn", "uvloop"),
    "bentoml": ("bentoml", "starlette", "uvicorn"),
    "ray": ("ray", "uvicorn", "uvloop", "orjson"),
    "mlserver": ("mlserver", "fastapi", "uvicorn"),
    "kserve": ("kserve", "fastapi", "uvicorn", "uvloop"),
}
"""By the name of the environment: the peer, and what its figures depend on."""


def installed(home: Path) -> dict[str, str]:
    """The packages of a virtual environment and their versions."""
    folders = [str(one) for one in home.glob("lib/python3*/site-packages")]
    found = metadata.distributions(path=folders)
    return {re.sub(r"[-_.]+", "-", one.metadata["Name"]).lower(): one.version for one in found}


def of_peer(homes: Path, home: str) -> str:
    """Those that matter, in words."""
    found = installed(homes / home)
    return ", ".join(f"{name} {found[name]}" for name in (*BESIDE.get(home, (home,)), "numpy") if name in found)
