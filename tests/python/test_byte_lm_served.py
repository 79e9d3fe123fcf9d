"""The language model of the examples behind the door: batched across requests, and no text the worse for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("safetensors")
pytest.importorskip("sklearn")

import penstock
from examples import demo_text
from examples.app_models import ByteLanguageModel
from examples.byte_lm.generation import Writing, step
from examples.byte_lm.network import ByteLM
from examples.demo_text import Completion

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKENS = 60


@pytest.fixture(scope="module")
def network() -> ByteLM:
    return ByteLM.load()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with penstock.Server([ByteLanguageModel], port=0) as server:
        yield server.url


def complete(url: str, prompt: str, **options: Any) -> dict[str, Any]:
    body = {"model": "byte-lm", "prompt": prompt, "max_tokens": TOKENS, **options}
    with penstock.Client(url) as client:
        answer: dict[str, Any] = client.post("/v1/completions", json=body).raise_for_status().json()
    return answer


def text(url: str, prompt: str, **options: Any) -> str:
    (choice,) = complete(url, prompt, **options)["choices"]
    written: str = choice["text"]
    return written


def test_no_temperature_writes_what_the_model_finds_likeliest(url: str, network: ByteLM) -> None:
    written = Completion("A trait ", text(url, "A trait ", temperature=0), "length", 0.0, [])
    assert demo_text.check(network, [written], TOKENS) == []
    wrong = Completion("A trait ", "x" + written.text[1:], "length", 0.0, [])
    assert len(demo_text.check(network, [wrong], TOKENS)) == 1


async def test_requests_that_share_steps_are_each_written_as_if_alone(url: str, network: ByteLM) -> None:
    prompts = [f"{opening}{number} " for number, opening in enumerate(("The ", "When you ", "If ", "Each ") * 6)]

    async def streamed(client: penstock.AsyncClient, seed: int, prompt: str) -> str:
        body = {"model": "byte-lm", "prompt": prompt, "max_tokens": TOKENS, "seed": seed, "top_p": 0.9, "stream": True}
        async with client.stream("POST", "/v1/completions", json=body) as stream:
            events = [event async for event in stream.sse() if event.data != "[DONE]"]
        return "".join(event.json()["choices"][0]["text"] for event in events)

    async with penstock.AsyncClient(url) as client:
        written = await asyncio.gather(*(streamed(client, seed, prompt) for seed, prompt in enumerate(prompts)))
    for seed, (prompt, one) in enumerate(zip(prompts, written, strict=True)):
        alone = [Writing.after(prompt.encode(), 1.0, 0.9, seed)]
        expected = b"".join(step(network, alone)[0] for _ in range(TOKENS)).decode(errors="replace")
        # A letter that is cut off by the end of the text is told in another way.
        assert one.rstrip("\ufffd") == expected.rstrip("\ufffd"), prompt


def test_a_stop_ends_the_text_before_it(url: str) -> None:
    whole = text(url, "The compiler ", temperature=0)
    (choice,) = complete(url, "The compiler ", temperature=0, stop=[whole[10:14]])["choices"]
    assert choice["text"] == whole[: whole.index(whole[10:14])]
    assert choice["finish_reason"] == "stop"


def test_temperature_and_top_p_matter(url: str) -> None:
    likeliest = text(url, "The compiler ", temperature=0)
    assert text(url, "The compiler ", temperature=1.5, top_p=0) == likeliest
    assert text(url, "The compiler ", temperature=1.5, seed=1) != likeliest
    assert (
        text(url, "The compiler ", seed=1) == text(url, "The compiler ", seed=1) != text(url, "The compiler ", seed=2)
    )
