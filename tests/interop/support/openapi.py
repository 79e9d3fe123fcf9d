"""The published description, and what schemathesis finds that a live server does not keep to.

A description that is the same for every server cannot say which tensors a model takes. A narrowed copy says it, so that
a request that fits the copy must not be refused; everything else of it stays as it is published.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[3]
HOOKS = "tests.interop.support.openapi_checks"
LIMIT = 300


# What a server may well say of itself is no mistake of it: switched off, not ready, out of time.
SETTINGS = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 501, 503, 504]
"""


def for_one_server(published: Mapping[str, Any]) -> Any:
    """A copy without what only a gateway may say (`default`): whatever the servers behind it do."""
    description = copy.deepcopy(dict(published))
    for item in description["paths"].values():
        for operation in item.values():
            if isinstance(operation, dict):
                operation["responses"].pop("default", None)
    return description


def narrowed(description: Any, names: Mapping[str, str], schemas: Mapping[str, Mapping[str, Any]]) -> Any:
    """A copy in which each path is for the model `names[path]`, and properties of schemas are what `schemas` says."""
    description = copy.deepcopy(description)
    for path, name in names.items():
        item = description["paths"][path]
        given = {"name": name, "version": "1"}
        item["parameters"] = [
            {"name": part, "in": "path", "required": True, "schema": {"enum": [value]}}
            for part, value in given.items()
            if f"{{{part}}}" in path
        ]
    for schema, properties in schemas.items():
        description["components"]["schemas"][schema]["properties"].update(properties)
    return description


def tried(description: Any, url: str, folder: Path, *flags: str, examples: int, **environment: str) -> str:
    """What schemathesis prints of a run in which it found nothing; fails with what it found."""
    file = folder / "openapi.json"
    file.write_text(json.dumps(description))
    (folder / "schemathesis.toml").write_text(SETTINGS)
    program = [sys.executable, "-m", "schemathesis.cli", "run", str(file), "--url", url]
    options = ["--checks", "all", "--max-examples", str(examples), "--generation-database", "none"]
    options += ["--continue-on-failure", "--request-timeout", "60", "--no-color", "--warnings", "off", *flags]
    done = subprocess.run(
        [*program, *options],
        env={**os.environ, "SCHEMATHESIS_HOOKS": HOOKS, "PYTHONPATH": str(ROOT), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    return done.stdout
