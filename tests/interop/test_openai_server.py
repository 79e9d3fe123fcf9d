"""The `openai` client against Penstock's server: chat, completions and embeddings, streaming and not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import openai
import pytest

import penstock
from penstock.transport import AsyncTransport, Transport
from tests.python.support.waiting import soon, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from numpy.typing import NDArray

MESSAGES: Any = [{"role": "user", "content": "abc — 水"}]
WHOLE = "user: abc — 水\nassistant: "
LEFT: list[str] = []


@penstock.model("letters", task="generate", batched=True, max_batch_size=64)
def letters(batch: penstock.Batch) -> Iterator[dict[int, bytes]]:
    """The prompt byte by byte, all requests one step at a time."""
    left: dict[int, list[bytes]] = {}
    while batch.live:
        for index in batch:
            if index not in left:
                request = batch[index]
                request.prompt_tokens = len(request.text.encode())
                left[index] = [bytes([byte]) for byte in request.text.encode()][::-1]
        yield {index: left[index].pop() for index in batch if left[index]}
        for index in batch.live:
            if not left[index]:
                batch.finish(index)
        batch.join()


@penstock.model("endless", task="generate")
async def endless(_: penstock.GenerateRequest) -> AsyncIterator[str]:
    try:
        while True:
            yield "on "
            await asyncio.sleep(0.002)
    finally:
        LEFT.append("endless")


@penstock.model("breaks", task="generate")
def breaks(_: penstock.GenerateRequest) -> Iterator[str]:
    # So much leaves before the model is heard any further.
    yield "water " * 2_000
    raise RuntimeError("it broke")


@penstock.model("vectors", task="embed")
def vectors(texts: list[str]) -> NDArray[np.float32]:
    return np.array([[len(text), 0.5, -1.0] for text in texts], np.float32)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with penstock.Server([letters, endless, breaks, vectors], port=0) as server:
        yield server.url + "/v1"


@pytest.fixture(params=["its own transport", "penstock's"])
def asynchronous(request: pytest.FixtureRequest, url: str) -> Callable[..., openai.AsyncOpenAI]:
    def make(**options: Any) -> openai.AsyncOpenAI:
        if request.param == "penstock's":
            import httpx2

            options["http_client"] = httpx2.AsyncClient(transport=AsyncTransport(), timeout=30)
        return openai.AsyncOpenAI(base_url=url, api_key="none", **{"max_retries": 0, **options})

    return make


@pytest.fixture(params=["its own transport", "penstock's"])
def blocking(request: pytest.FixtureRequest, url: str) -> Iterator[openai.OpenAI]:
    options: dict[str, Any] = {}
    if request.param == "penstock's":
        import httpx2

        options["http_client"] = httpx2.Client(transport=Transport(), timeout=30)
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, **options) as client:
        yield client


def text_of(chunk: Any) -> str:
    return (chunk.choices[0].delta.content or "") if chunk.choices else ""


async def test_chat(asynchronous: Callable[..., openai.AsyncOpenAI]) -> None:
    async with asynchronous() as client:
        answer = await client.chat.completions.create(model="letters", messages=MESSAGES, user="u", seed=1)
        choice = answer.choices[0]
        assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", WHOLE, "stop")
        size = len(WHOLE.encode())
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (size, size)

        stream = await client.chat.completions.create(
            model="letters", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(map(text_of, chunks)) == WHOLE
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-2].choices[0].finish_reason == "stop"
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.total_tokens == 2 * size
        assert len({chunk.id for chunk in chunks}) == 1

        async with client.chat.completions.stream(model="letters", messages=MESSAGES, n=2) as events:
            async for _ in events:
                pass
            final = await events.get_final_completion()
        assert [choice.message.content for choice in final.choices] == [WHOLE, WHOLE]


def test_chat_without_asyncio(blocking: openai.OpenAI) -> None:
    answer = blocking.chat.completions.create(model="letters", messages=MESSAGES, stop=[" — ", "x"], temperature=0)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("user: abc", "stop")
    stream = blocking.chat.completions.create(model="letters", messages=MESSAGES, stream=True, max_completion_tokens=4)
    chunks = list(stream)
    assert "".join(map(text_of, chunks)) == "user"
    assert chunks[-1].choices[0].finish_reason == "length"


async def test_completions(asynchronous: Callable[..., openai.AsyncOpenAI]) -> None:
    async with asynchronous() as client:
        answer = await client.completions.create(model="letters", prompt=["zwölf", "two"], n=2, max_tokens=100)
        assert [choice.text for choice in answer.choices] == ["zwölf", "zwölf", "two", "two"]
        stream = await client.completions.create(model="letters", prompt="zwölf", stream=True)
        assert "".join([chunk.choices[0].text async for chunk in stream]) == "zwölf"


def test_completions_without_asyncio(blocking: openai.OpenAI) -> None:
    assert blocking.completions.create(model="letters", prompt="zwölf").choices[0].text == "zwölf"
    stream = blocking.completions.create(model="letters", prompt="one two", stream=True, stop="t")
    assert "".join(chunk.choices[0].text for chunk in stream) == "one "


async def test_embeddings(asynchronous: Callable[..., openai.AsyncOpenAI]) -> None:
    async with asynchronous() as client:
        # It asks for base64 by itself.
        rows = await client.embeddings.create(model="vectors", input=["a", "bcd"])
        assert [row.embedding for row in rows.data] == [[1.0, 0.5, -1.0], [3.0, 0.5, -1.0]]


def test_embeddings_and_models_without_asyncio(blocking: openai.OpenAI) -> None:
    rows = blocking.embeddings.create(model="vectors", input="abcd", encoding_format="float")
    assert rows.data[0].embedding == [4.0, 0.5, -1.0]
    assert [model.id for model in blocking.models.list()] == ["breaks", "endless", "letters", "vectors"]
    assert blocking.models.retrieve("letters").owned_by == "penstock"


async def test_many_streams_at_a_time(asynchronous: Callable[..., openai.AsyncOpenAI]) -> None:
    async with asynchronous() as client:

        async def one(number: int) -> str:
            stream = await client.completions.create(model="letters", prompt=f"number {number}", stream=True)
            return "".join([chunk.choices[0].text async for chunk in stream])

        said = await asyncio.gather(*(one(number) for number in range(100)))
    assert said == [f"number {number}" for number in range(100)]


def test_errors_are_the_clients_own(blocking: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        blocking.chat.completions.create(model="other", messages=MESSAGES)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as refused:
        blocking.chat.completions.create(model="letters", messages=MESSAGES, temperature=3)
    assert (refused.value.param, refused.value.type) == ("temperature", "invalid_request_error")
    with pytest.raises(openai.BadRequestError, match="tools"):
        blocking.chat.completions.create(
            model="letters", messages=MESSAGES, tools=[{"type": "function", "function": {"name": "f"}}]
        )
    with pytest.raises(openai.NotFoundError):
        blocking.responses.create(model="letters", input="x")
    stream = blocking.chat.completions.create(model="breaks", messages=MESSAGES, stream=True)
    texts = []
    with pytest.raises(openai.APIError, match="it broke"):
        texts.extend(text_of(chunk) for chunk in stream)
    assert "".join(texts) == "water " * 2_000
    with pytest.raises(openai.InternalServerError, match="it broke"):
        blocking.chat.completions.create(model="breaks", messages=MESSAGES)


async def test_a_stream_that_is_left_ends_its_generation(asynchronous: Callable[..., openai.AsyncOpenAI]) -> None:
    before = len(LEFT)
    async with asynchronous() as client:
        stream = await client.chat.completions.create(model="endless", messages=MESSAGES, stream=True)
        async with stream:
            async for chunk in stream:
                if text_of(chunk):
                    break
        await soon(lambda: len(LEFT) == before + 1)
        waiting = asyncio.create_task(
            client.chat.completions.create(model="endless", messages=MESSAGES, max_tokens=1_000_000)
        )
        await asyncio.sleep(0.2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await soon(lambda: len(LEFT) == before + 2)


def test_a_stream_that_is_left_without_asyncio(blocking: openai.OpenAI) -> None:
    before = len(LEFT)
    with blocking.chat.completions.create(model="endless", messages=MESSAGES, stream=True) as stream:
        next(iter(stream))
    until(lambda: len(LEFT) == before + 1)
