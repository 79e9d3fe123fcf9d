"""The plugin of the wheel: pytest finds it, it imports nothing that nobody asks for, and it can be left out."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np

import penstock
from penstock.errors import TransportError

if TYPE_CHECKING:
    from pathlib import Path

    from penstock.pytest_plugin import MakeClient, MakePipeline, MakeServer
    from penstock.testing import FakeUpstream

TESTS = """
import numpy as np
import penstock

@penstock.model("double", inputs={"x": ("float32", [1])}, outputs={"y": ("float32", [1])})
def double(x):
    return x * 2

X = {"x": np.ones((1, 1), np.float32)}

def test_server(penstock_server, penstock_client):
    server = penstock_server(double, max_in_flight=5)
    assert penstock_client(server).infer("double", X)["y"] == 2
    assert penstock_client(server.grpc_url).infer("double", X)["y"] == 2

def test_pipeline(penstock_pipeline):
    assert penstock_pipeline([double], batch=False).call("double", X)["y"] == 2

def test_upstream(fake_upstream, penstock_client):
    fake_upstream.fail(503)
    client = penstock_client(fake_upstream)
    assert [client.post("/v2/models/echo/infer", json={}).status_code for _ in range(2)] == [503, 400]

def test_clock(virtual_clock):
    cache = penstock.ModelCache(clock=virtual_clock)
    virtual_clock.advance(5)
    cache.close()
"""


def pytest_of(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(TESTS)
    # Of another plugin, which warns where it is not said.
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *arguments, "test_it.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)


def test_a_project_that_has_penstock_has_the_fixtures(tmp_path: Path) -> None:
    ran = pytest_of(tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "4 passed" in ran.stdout


def test_it_can_be_left_out(tmp_path: Path) -> None:
    ran = pytest_of(tmp_path, "-p", "no:penstock")
    assert ran.returncode == 1
    assert "fixture 'penstock_server' not found" in ran.stdout


def test_it_imports_nothing_before_a_test_asks(tmp_path: Path) -> None:
    code = (
        "import sys, penstock.pytest_plugin; "
        "print([name for name in ('numpy', 'asyncio', 'penstock.server', 'penstock.client') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "[]"


def test_fixtures_here(
    penstock_server: MakeServer,
    penstock_client: MakeClient,
    penstock_pipeline: MakePipeline,
    fake_upstream: FakeUpstream,
) -> None:
    @penstock.model("double", inputs={"x": ("float32", [1])}, outputs={"y": ("float32", [1])})
    def double(x: np.ndarray) -> np.ndarray:
        return x * 2

    x = {"x": np.ones((1, 1), np.float32)}
    server = penstock_server([double])
    client = penstock_client(server, pool=False)
    pipeline = penstock_pipeline(double)
    assert client.infer("double", x)["y"].tolist() == pipeline.call("double", x)["y"].tolist() == [[2]]
    fake_upstream.drop()
    try:
        penstock_client(fake_upstream, retry=penstock.Retry(attempts=1)).post("/v2/models/echo/infer", json={})
    except TransportError:
        pass
    else:
        raise AssertionError("the connection was not dropped")
