"""The `openai` client through a gateway: to a server of other people's making, and to Penstock in another process."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pytest

import penstock
from tests.python.support.waiting import soon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.interop.conftest import Application

ROOT = Path(__file__).resolve().parents[2]
MESSAGES: Any = [{"role": "user", "content": "abc — 水"}]
WHOLE = "water turns the wheel — naïve 水"
NAMES = ("plain", "endless", "breaks-off", "stalls", "overloaded-once", "unknown")


@pytest.fixture
def shaped(applications: Callable[..., list[Application]]) -> Application:
    """Starlette under uvicorn, in the shape of OpenAI's API."""
    return applications("openai_shaped")[0]


@pytest.fixture
def gateway(shaped: Application) -> Iterator[penstock.Server]:
    timeout = penstock.Timeout(first=20, idle=1, total=60)
    models = [penstock.RemoteModel(name, shaped.url, task="generate", timeout=timeout) for name in NAMES]
    models.append(penstock.RemoteModel("vectors", shaped.url, task="embed", upstream_name="plain", max_batch_size=64))
    with penstock.Server(models, port=0) as server:
        yield server


def ledger(server: Application) -> dict[str, Any]:
    with urllib.request.urlopen(server.url + "/ledger", timeout=10) as answer:
        counted: dict[str, Any] = json.load(answer)
    return counted


def client_of(server: penstock.Server, **options: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=30, **options)


async def test_answers_and_streams(gateway: penstock.Server) -> None:
    async with client_of(gateway) as client:
        assert NAMES[0] in [model.id async for model in client.models.list()]
        answer = await client.chat.completions.create(
            model="plain",
            messages=MESSAGES,
            tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
            logprobs=True,
        )
        assert answer.choices[0].message.content == "水 — cba"
        assert answer.usage is not None
        assert answer.usage.total_tokens == 2
        stream = await client.chat.completions.create(model="plain", messages=MESSAGES, stream=True)
        texts = [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert "".join(texts) == WHOLE


async def test_many_streams_share_few_connections(gateway: penstock.Server, shaped: Application) -> None:
    async def one(client: openai.AsyncOpenAI) -> str:
        stream = await client.chat.completions.create(model="plain", messages=MESSAGES, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async with client_of(gateway) as client:
        for _ in range(4):
            assert set(await asyncio.gather(*(one(client) for _ in range(16)))) == {WHOLE}
    counted = await asyncio.to_thread(ledger, shaped)
    assert counted["requests"]["plain"] == 64
    assert len(counted["connections"]) <= 16


async def test_vectors_of_many_callers_share_requests(gateway: penstock.Server, shaped: Application) -> None:
    async with client_of(gateway) as client:
        asked = [client.embeddings.create(model="vectors", input=["x" * size, "bcd"]) for size in range(1, 65)]
        answers = await asyncio.gather(*asked)
    for size, answer in enumerate(answers, 1):
        assert [row.embedding for row in answer.data] == [[float(size), 0.5, -1.0], [3.0, 0.5, -1.0]]
    assert (await asyncio.to_thread(ledger, shaped))["requests"]["plain"] < 64


async def test_its_retries_see_what_the_upstream_says(gateway: penstock.Server, shaped: Application) -> None:
    async with client_of(gateway, max_retries=2) as client:
        answer = await client.chat.completions.create(model="overloaded-once", messages=MESSAGES)
        assert answer.choices[0].message.content == "水 — cba"
        with pytest.raises(openai.NotFoundError, match="The model `unknown` does not exist"):
            await client.chat.completions.create(model="unknown", messages=MESSAGES)
    assert (await asyncio.to_thread(ledger, shaped))["requests"]["overloaded-once"] == 2


async def heard(stream: Any, texts: list[str]) -> None:
    """Adds what the stream says, to its end, to a list that outlives an error."""
    async for chunk in stream:
        texts.append(chunk.choices[0].delta.content or "")  # noqa: PERF401


async def test_a_stream_that_breaks_off_or_stalls(gateway: penstock.Server) -> None:
    for name in ("breaks-off", "stalls"):
        texts: list[str] = []
        async with client_of(gateway, max_retries=0) as client:
            stream = await client.chat.completions.create(model=name, messages=MESSAGES, stream=True)
            with pytest.raises(openai.APIError):
                await heard(stream, texts)
        assert texts == ["water "]


async def test_the_upstream_is_stopped_when_its_reader_leaves(gateway: penstock.Server, shaped: Application) -> None:
    async with client_of(gateway) as client:
        stream = await client.chat.completions.create(model="endless", messages=MESSAGES, stream=True)
        async for chunk in stream:
            if chunk.choices[0].delta.content == "on ":
                break
        await stream.close()
    await soon(lambda: ledger(shaped)["left"].get("endless") == 1)


@pytest.fixture
def language_model(tmp_path: Path) -> Iterator[str]:
    """The byte language model of the examples, served by a process of its own."""
    pytest.importorskip("sklearn")
    app = tmp_path / "app.py"
    app.write_text("from examples.app_models import ByteLanguageModel\n\nmodels = [ByteLanguageModel]\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "penstock", "serve", str(app), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout is not None
        url = re.search(r"http://\S+", process.stdout.readline())
        assert url
        yield url[0]
    finally:
        process.terminate()
        process.wait(60)
        assert process.stdout is not None
        process.stdout.close()


async def test_a_language_model_says_the_same_through_the_gateway(language_model: str) -> None:
    ask: dict[str, Any] = {"model": "byte-lm", "prompt": "The water ", "max_tokens": 40, "temperature": 0}
    [model] = penstock.RemoteModel.discover(language_model)
    with penstock.Server([model], port=0) as server:
        async with (
            client_of(server) as through,
            openai.AsyncOpenAI(base_url=f"{language_model}/v1", api_key="none") as direct,
        ):
            expected = await direct.completions.create(**ask)
            answer = await through.completions.create(**ask)
            assert answer.choices[0].text == expected.choices[0].text
            assert answer.usage == expected.usage
            stream = await through.completions.create(**ask, stream=True)
            assert "".join([chunk.choices[0].text async for chunk in stream]) == expected.choices[0].text
