"""The FastAPI recipe: in process over ASGI, and once as users run it, under uvicorn."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import penstock
from examples import fastapi_app
from examples.mlp import mlp
from penstock import testing

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(7).standard_normal((50, 64), np.float32)


@pytest.fixture(autouse=True)
def _any_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastapi_app, "INFERENCE_PORT", 0)


def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(fastapi_app.app), base_url="http://app")


async def test_requests_to_a_route_share_calls_of_the_model(rows: np.ndarray) -> None:
    async with fastapi_app.app.router.lifespan_context(fastapi_app.app), client() as ask:
        answers = await asyncio.gather(*(ask.post("/classify", json={"x": row.tolist()}) for row in rows))
        stats = (await ask.get("/stats")).json()
    for answer, expected in zip(answers, mlp(rows), strict=True):
        assert answer.status_code == 200
        np.testing.assert_allclose(answer.json()["y"], expected, rtol=1e-4, atol=1e-4)
    assert stats["requests"] == 50
    assert stats["batches"] < 50


async def test_the_server_beside_the_app_answers_as_long_as_the_app_lives(rows: np.ndarray) -> None:
    async with fastapi_app.app.router.lifespan_context(fastapi_app.app):
        server = fastapi_app.app.state.server
        body = testing.infer_body({"x": ("FP32", rows.shape, rows.tolist())})
        async with httpx.AsyncClient() as ask:
            answer = await ask.post(f"{server.url}/v2/models/mlp/infer", json=body)
        assert answer.status_code == 200
        assert answer.json()["outputs"][0]["shape"] == [50, 8]
    assert not server.ready
    # And once more: a lifespan may begin again, in tests for example.
    async with fastapi_app.app.router.lifespan_context(fastapi_app.app), client() as ask:
        assert (await ask.post("/classify", json={"x": rows[0].tolist()})).status_code == 200


async def test_errors_have_their_status(rows: np.ndarray) -> None:
    async with fastapi_app.app.router.lifespan_context(fastapi_app.app), client() as ask:
        assert (await ask.post("/classify", json={"x": [1.0]})).status_code == 422
        await fastapi_app.app.state.classify.aclose()
        refused = await ask.post("/classify", json={"x": rows[0].tolist()})
        assert refused.status_code == penstock.errors.Closed.http_status
        assert "closed" in refused.json()["error"]


def test_under_uvicorn_it_serves_both_and_ends_in_order(rows: np.ndarray) -> None:
    command = [sys.executable, "-m", "uvicorn", "examples.fastapi_app:app", "--port", "0"]
    environment: dict[str, Any] = {**os.environ, "INFERENCE_PORT": "0"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            lines = iter(process.stderr.readline, "")
            url = next(found[0] for line in lines if (found := re.search(r"http://[\d.]+:\d+", line)))
            answer = httpx.post(f"{url}/classify", json={"x": rows[0].tolist()}, timeout=30)
            assert answer.status_code == 200
            np.testing.assert_allclose(answer.json()["y"], mlp(rows[:1])[0], rtol=1e-4, atol=1e-4)
        finally:
            process.terminate()
        _, err = process.communicate(timeout=30)
    assert "Application shutdown complete" in err
    # uvicorn ends itself by the signal that it got, once it is done.
    assert process.returncode in (0, -signal.SIGTERM)
