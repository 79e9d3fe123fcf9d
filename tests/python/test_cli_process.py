"""What `penstock serve` sets for the process that is its own, and what it leaves to others."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

APP = """
import sys
import numpy as np
import penstock
{choice}

@penstock.model("interval", inputs={{"x": ("int64", [])}}, outputs={{"y": ("float64", [])}})
def interval(x):
    return np.full(len(x), round(sys.getswitchinterval(), 6))
"""
BODY = b'{"inputs":[{"name":"x","shape":[1],"datatype":"INT64","data":[1]}]}'


@pytest.mark.parametrize(
    ("choice", "seconds"), [("", "0.0001"), ("sys.setswitchinterval(0.002)", "0.002")], ids=["default", "chosen"]
)
def test_the_switch_interval_is_short_unless_the_app_chooses(tmp_path: Path, choice: str, seconds: str) -> None:
    app = tmp_path / "app.py"
    app.write_text(APP.format(choice=choice))
    command = [sys.executable, "-m", "penstock", "serve", str(app), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        url = re.search(r"http://\S+", line)
        assert url, line
        request = urllib.request.Request(url[0] + "/v2/models/interval/infer", data=BODY)
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert f'"data":[{seconds}]' in answer.read().decode()
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    finally:
        server.kill()
        server.wait()
        if server.stdout is not None:
            server.stdout.close()
