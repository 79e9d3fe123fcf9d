"""The demo's texts: completions as they are written, alone and 64 at a time, and embeddings by OpenAI's endpoints."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

import penstock
from examples.byte_lm.network import ByteLM, window_after
from examples.byte_lm.text import split
from examples.byte_lm.trigrams import Trigrams
from examples.demo_subjects import CAT, KITTEN, STOCKS
from examples.minilm import MiniLM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from examples.demo_server import ServerProcess

MODEL: Final = "byte-lm"
DONE: Final = "[DONE]"
PROMPT: Final = "The borrow checker "
CROWD: Final = 64
OPENINGS: Final = ("The compiler ", "A trait ", "If the value ", "When you write ", "Ownership ", "An iterator ")
SHORT: Final = 120
LONG: Final = 400
# Scores differ in their last digits with how many share a step. The likeliest byte need not be the same one then.
LEEWAY: Final = 1e-3
TOLERANCE: Final = 1e-4
# Bytes of a letter, at most.
LETTER: Final = 4


@dataclass(frozen=True, slots=True)
class Flow:
    """What clients saw of their streams.

    Attributes:
        clients: streams at a time.
        tokens: of all of them; the model's tokens are bytes.
        tokens_per_second: of all together.
        first_ms: from the request to its first token, the middle one.
        gap_p50_ms: between two arrivals on a stream.
        gap_p99_ms: likewise.
    """

    clients: int
    tokens: int
    tokens_per_second: float
    first_ms: float
    gap_p50_ms: float
    gap_p99_ms: float


@dataclass(frozen=True, slots=True)
class Completion:
    """One text that was streamed, and when each piece of it came."""

    prompt: str
    text: str
    reason: str
    asked: float
    came: list[float]


def tell(server: ServerProcess, *, quick: bool) -> tuple[dict[str, Any], list[str]]:
    """Let the model write; what was seen, and what is not as it should be."""
    tokens = SHORT if quick else LONG
    model, trigrams = _bits()
    print(f"\n{MODEL}: {model:.3f} bits per byte of held-out text; counts of trigrams: {trigrams:.3f}")
    failures = [] if model < trigrams else [f"{MODEL}: {model:.3f} bits per byte is no better than trigrams"]
    flows, written = asyncio.run(_write(server.url, tokens))
    for flow in flows:
        print(
            f"{MODEL}: {flow.clients} at a time: {flow.tokens_per_second:,.0f} tokens per second, the first after"
            f" {flow.first_ms:.1f} ms, the next every {flow.gap_p50_ms:.2f} ms (p99 {flow.gap_p99_ms:.2f})"
        )
    failures += check(ByteLM.load(), written, tokens)
    facts = {"bits_per_byte": model, "trigrams": trigrams, "flows": [asdict(flow) for flow in flows]}
    return facts, failures


def tell_embeddings(server: ServerProcess) -> tuple[dict[str, Any], list[str]]:
    """Ask for embeddings as OpenAI's clients do; what was found, and what is not as it should be."""
    texts = [CAT, KITTEN, STOCKS]
    with penstock.Client(server.url) as client:
        answer = client.post("/v1/embeddings", json={"model": "minilm", "input": texts}).raise_for_status().json()
    vectors = np.array([one["embedding"] for one in answer["data"]], np.float32)
    apart = float(np.abs(vectors - MiniLM.load().encode(texts)).max())
    print(f"minilm: /v1/embeddings gives {len(vectors)} vectors of {vectors.shape[1]}, {apart:.1e} from direct calls")
    wrong = [f"minilm: /v1/embeddings is {apart:.1e} from direct calls"] if apart > TOLERANCE else []
    return {"largest_difference": apart}, wrong


def check(network: ByteLM, written: Sequence[Completion], tokens: int) -> list[str]:
    """Hold texts of temperature 0 against the model: every byte must be the likeliest after those before it."""
    found = []
    for one in written:
        # A letter that the last token cut off stands as a replacement character, for no bytes of its own.
        prompt, text = one.prompt.encode(), one.text.rstrip("\ufffd").encode()
        windows = np.stack([window_after((prompt + text)[: len(prompt) + place]) for place in range(len(text))])
        scores = network.scores(windows)
        behind = scores.max(axis=1) - scores[np.arange(len(text)), np.frombuffer(text, np.uint8)]
        if not tokens - LETTER < len(text) <= tokens or one.reason != "length" or behind.max() > LEEWAY:
            found.append(f"{MODEL}: after {one.prompt!r} it wrote {one.text!r} ({one.reason}), which the model did not")
    return found


def _bits() -> tuple[float, float]:
    text, held_out = split()
    return ByteLM.load().bits_per_byte(held_out), Trigrams.count(text).bits_per_byte(held_out)


async def _write(url: str, tokens: int) -> tuple[list[Flow], list[Completion]]:
    async with penstock.AsyncClient(url, pool=penstock.Pool(max_size=CROWD)) as client:
        print(f"{MODEL}: as it is written, at temperature 0.7:\n  {PROMPT}", end="", flush=True)
        await complete(client, PROMPT, tokens, show=True, temperature=0.7, top_p=0.95, seed=1)
        for temperature, top_p in ((0.0, 1.0), (1.3, 1.0), (1.3, 0.5)):
            one = await complete(client, PROMPT, SHORT, temperature=temperature, top_p=top_p, seed=1)
            print(f"  temperature {temperature}, top_p {top_p}: {_line(one.text)}")
        alone = [await complete(client, OPENINGS[0], tokens, temperature=0)]
        began = time.perf_counter()
        prompts = [f"{number} {OPENINGS[number % len(OPENINGS)]}" for number in range(CROWD)]
        together = await asyncio.gather(*(complete(client, prompt, tokens, temperature=0) for prompt in prompts))
    took = time.perf_counter() - began
    return [_flow(alone, alone[0].came[-1] - alone[0].asked), _flow(together, took)], [*alone, *together]


async def complete(
    client: penstock.AsyncClient, prompt: str, tokens: int, *, show: bool = False, **options: float
) -> Completion:
    """Ask for a text, and note when each piece of it comes. `options` are those of the completion."""
    body = {"model": MODEL, "prompt": prompt, "max_tokens": tokens, "stream": True, **options}
    pieces: list[str] = []
    came: list[float] = []
    reason = ""
    asked = time.perf_counter()
    async with client.stream("POST", "/v1/completions", json=body) as stream:
        stream.raise_for_status()
        async for event in stream.sse():
            if event.data == DONE:
                break
            choice = event.json()["choices"][0]
            reason = choice["finish_reason"] or reason
            if choice["text"]:
                pieces.append(choice["text"])
                came.append(time.perf_counter())
                if show:
                    print(_line(choice["text"]), end="", flush=True)
    if show:
        print()
    return Completion(prompt, "".join(pieces), reason, asked, came)


def _flow(written: Sequence[Completion], seconds: float) -> Flow:
    gaps = [late - early for one in written for early, late in zip(one.came, one.came[1:], strict=False)]
    tokens = sum(len(one.text.encode()) for one in written)
    return Flow(
        clients=len(written),
        tokens=tokens,
        tokens_per_second=tokens / seconds,
        first_ms=1e3 * statistics.median(one.came[0] - one.asked for one in written),
        gap_p50_ms=1e3 * float(np.percentile(gaps, 50)),
        gap_p99_ms=1e3 * float(np.percentile(gaps, 99)),
    )


def _line(text: str) -> str:
    """On one line, whatever it is."""
    return text.replace("\n", " / ")
