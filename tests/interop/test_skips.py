"""What is left out is said, and fails the run under CI."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ONE = """
import pytest

def test_here():
    pass

@pytest.mark.skip(reason="no such server here")
def test_away():
    pass
"""
WHOLE = "import pytest\n\npytest.skip('nothing of it is here', allow_module_level=True)\n"
NONE = "def test_here():\n    pass\n"


def run(folder: Path, text: str, *, ci: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_sample.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\n")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.interop.support.skips", "-p", "no:cacheprovider", folder],
        env={**os.environ, "CI": ci, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("text", "words"), [(ONE, "test_away: no such server here"), (WHOLE, "test_sample.py: nothing of it is here")]
)
def test_a_skip_is_printed_with_its_reason_and_fails_under_ci(tmp_path: Path, text: str, words: str) -> None:
    calm = run(tmp_path, text, ci="")
    assert words in calm.stdout
    strict = run(tmp_path, text, ci="true")
    assert words in strict.stdout
    assert "under CI every variant has to run" in strict.stdout
    assert strict.returncode != 0
    if text == ONE:
        assert calm.returncode == 0


def test_a_whole_run_passes_under_ci(tmp_path: Path) -> None:
    whole = run(tmp_path, NONE, ci="true")
    assert whole.returncode == 0
    assert "left out" not in whole.stdout
