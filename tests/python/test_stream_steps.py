"""Text models at the door: what they yield, how their texts end, who goes away, and readers that are too slow."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from penstock import AsyncClient, Batch, ItemError, Server, model
from tests.python.support.waiting import PATIENCE, soon, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

    from penstock import GenerateRequest

TEXT = "zwölf Boxkämpfer €uro 😀!"


@model("spell", task="generate", batched=True, max_batch_size=16)
def spell(batch: Batch) -> Iterator[dict[int, bytes]]:
    """Says the prompt byte by byte, for all that are live at once, and then why it ends."""
    left: dict[int, bytes] = {}
    while batch.live:
        for i in batch:
            if i not in left:
                left[i] = batch[i].text.encode()
                batch[i].prompt_tokens = len(left[i])
        step = {i: left[i][:1] for i in batch}
        left.update({i: left[i][1:] for i in step})
        yield step
        for i in step:
            if not left[i]:
                batch.finish(i, "exhausted")
        batch.join()


@model("each", task="generate")
def each(request: GenerateRequest) -> Generator[str, None, str]:
    yield from request.text
    request.prompt_tokens = 7
    return "exhausted"


@model("each-async", task="generate")
async def each_async(request: GenerateRequest) -> AsyncIterator[str]:
    for letter in request.text:
        await asyncio.sleep(0)
        yield letter


def completion(name: str, prompt: str, **parameters: Any) -> dict[str, Any]:
    return {"json": {"model": name, "prompt": prompt, "max_tokens": 10_000, **parameters}}


async def complete(client: AsyncClient, name: str, prompt: str, **parameters: Any) -> Any:
    answer = await client.post("/v1/completions", **completion(name, prompt, **parameters))
    return answer.raise_for_status().json()


async def parts(client: AsyncClient, name: str, prompt: str) -> list[str]:
    """The text of an answer as it came."""
    body = {"text_input": prompt, "max_tokens": 10_000}
    async with client.stream("POST", f"/v2/models/{name}/generate_stream", json=body) as answer:
        return [event.json()["text_output"] async for event in answer.raise_for_status().sse()]


async def test_characters_that_a_model_cuts_come_whole() -> None:
    with Server([spell], port=0) as server:
        async with AsyncClient(server.url) as client:
            assert await parts(client, "spell", TEXT) == list(TEXT)


async def test_texts_of_one_batch_end_each_in_its_time_and_others_join() -> None:
    with Server([spell, each, each_async], port=0) as server:
        async with AsyncClient(server.url) as client:
            for name, reason, tokens in (
                ("spell", "exhausted", None),
                ("each", "exhausted", 7),
                ("each-async", "stop", 0),
            ):
                prompts = [f"{n}" * (1 + n % 7) + TEXT for n in range(40)]
                asked = [complete(client, name, prompt) for prompt in prompts]
                for prompt, answer in zip(
                    prompts, await asyncio.wait_for(asyncio.gather(*asked), PATIENCE), strict=True
                ):
                    (choice,) = answer["choices"]
                    assert (choice["text"], choice["finish_reason"]) == (prompt, reason)
                    expected = len(prompt.encode()) if tokens is None else tokens
                    assert answer["usage"]["prompt_tokens"] == expected
        assert server.stats().models["spell"].requests == 40


async def test_the_lock_is_taken_for_the_batch_and_not_for_its_steps() -> None:
    with Server([spell], port=0) as server:
        async with AsyncClient(server.url) as client:
            answers = await asyncio.gather(*(complete(client, "spell", "x" * 500) for _ in range(8)))
            assert [len(answer["choices"][0]["text"]) for answer in answers] == [500] * 8
        stats = server.stats().models["spell"]
        assert stats.lock_acquisitions <= stats.batches + 1


@pytest.mark.parametrize("form", [list, tuple, dict])
async def test_a_step_is_a_list_or_a_tuple_or_a_dictionary(form: Callable[[Any], Any]) -> None:
    @model("forms", task="generate", batched=True)
    def forms(batch: Batch) -> Iterator[Any]:
        yield None
        for letter in ("a", b"b", None, "c"):
            yield dict.fromkeys(batch, letter) if form is dict else form([letter for _ in batch])

    with Server([forms], port=0) as server:
        async with AsyncClient(server.url) as client:
            answer = await complete(client, "forms", "x")
            assert answer["choices"][0]["text"] == "abc"
            assert answer["choices"][0]["finish_reason"] == "stop"
            assert answer["usage"]["completion_tokens"] == 3


async def test_a_value_that_is_no_text_or_a_refusal_fails_its_own_request() -> None:
    @model("picky", task="generate", batched=True)
    def picky(batch: Batch) -> Iterator[Any]:
        wrong = {"number": 1, "refused": ItemError("not this one"), "surrogate": "\ud800"}
        yield {i: wrong.get(batch[i].text, "fine") for i in batch}

    with Server([picky], port=0) as server:
        async with AsyncClient(server.url) as client:
            prompts = ("number", "refused", "surrogate", "good")
            asked = [client.post("/v1/completions", **completion("picky", prompt)) for prompt in prompts]
            number, refused, surrogate, good = await asyncio.wait_for(asyncio.gather(*asked), PATIENCE)
    assert (number.status_code, refused.status_code, surrogate.status_code) == (500, 400, 500)
    assert "str or bytes, not int" in number.text
    assert "not this one" in refused.text
    assert "utf-8" in surrogate.text
    assert good.json()["choices"][0]["text"] == "fine"


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (lambda _: ["a", "b", "c"], "3 texts for 1 live"),
        (lambda _: {7: "a"}, "value for 7, which is not live"),
        (lambda _: {"x": "a"}, "value for 'x', which is not live"),
        (lambda _: "text", "a list with a text for each live request, or a dict, not a str"),
    ],
)
async def test_a_step_that_does_not_fit_its_batch_fails_all_of_it(step: Any, words: str) -> None:
    @model("misfit", task="generate", batched=True)
    def misfit(batch: Batch) -> Iterator[Any]:
        yield step(batch)

    with Server([misfit], port=0) as server:
        async with AsyncClient(server.url) as client:
            answer = await client.post("/v1/completions", **completion("misfit", "x"))
    assert answer.status_code == 500
    assert words in answer.json()["error"]["message"]


async def test_a_reason_is_a_text() -> None:
    @model("reasons", task="generate", batched=True)
    def reasons(batch: Batch) -> Iterator[Any]:
        yield ["x" for _ in batch]
        for i in batch:
            batch.finish(i, 3)

    with Server([reasons], port=0) as server:
        async with AsyncClient(server.url) as client:
            answer = await client.post("/v1/completions", **completion("reasons", "x"))
    assert answer.status_code == 500
    assert "reason as a str" in answer.text


async def test_a_failure_in_the_middle_is_the_last_event() -> None:
    read = threading.Event()

    @model("breaks", task="generate")
    def breaks(request: GenerateRequest) -> Iterator[str]:
        yield request.text
        assert read.wait(PATIENCE)
        raise ValueError("no further")

    with Server([breaks], port=0) as server:
        async with AsyncClient(server.url) as client:
            options = completion("breaks", "so far", stream=True)
            async with client.stream("POST", "/v1/completions", **options) as answer:
                events = []
                async for event in answer.sse():
                    events.append(event.data)
                    read.set()
    assert json.loads(events[0])["choices"][0]["text"] == "so far"
    assert "no further" in json.loads(events[1])["error"]["message"]
    assert len(events) == 2


class Endless:
    """A model that goes on until nobody listens; it is let go on step by step."""

    def __init__(self, kind: str) -> None:
        self.closed = threading.Event()
        self.begun = threading.Semaphore(0)
        self.steps = threading.Semaphore(0)
        self.taken = 0

        def one(request: GenerateRequest) -> Iterator[str]:
            self.begun.release()
            try:
                while True:
                    self.step()
                    yield request.text
            finally:
                self.closed.set()

        async def one_async(request: GenerateRequest) -> AsyncIterator[str]:
            self.begun.release()
            try:
                while True:
                    await asyncio.to_thread(self.step)
                    yield request.text
            finally:
                self.closed.set()

        def many(batch: Batch) -> Iterator[list[str]]:
            self.begun.release()
            try:
                while batch.live:
                    self.step()
                    yield [batch[i].text for i in batch]
                    batch.join()
            finally:
                self.closed.set()

        function: Any = {"one": one, "one_async": one_async, "many": many}[kind]
        self.model = model("endless", task="generate", batched=kind == "many")(function)

    def step(self) -> None:
        assert self.steps.acquire(timeout=PATIENCE)
        self.taken += 1


@pytest.mark.parametrize("kind", ["one", "one_async", "many"])
@pytest.mark.parametrize("steps", [0, 3])
async def test_a_client_that_goes_away_stops_its_generation_within_one_step(kind: str, steps: int) -> None:
    endless = Endless(kind)
    with Server([endless.model], port=0) as server:
        wire = Wire(server, "endless", "x")
        assert await asyncio.to_thread(endless.begun.acquire, timeout=PATIENCE)
        for _ in range(steps):
            endless.steps.release()
            await asyncio.to_thread(wire.receive, b"text_output")
        wire.close()
        until(lambda: server.stats().connections == 0)
        # The step that it is at, and none after it.
        endless.steps.release(100)
        assert await asyncio.to_thread(endless.closed.wait, PATIENCE)
        assert endless.taken == steps + 1


@pytest.mark.parametrize("kind", ["one", "many"])
async def test_a_client_that_leaves_the_queue_never_reaches_the_model(kind: str) -> None:
    endless = Endless(kind)
    with Server([endless.model], port=0) as server:
        first = Wire(server, "endless", "x")
        assert await asyncio.to_thread(endless.begun.acquire, timeout=PATIENCE)
        second = Wire(server, "endless", "y")
        until(lambda: server.stats().models["endless"].queued == 1)
        second.close()
        until(lambda: server.stats().connections == 1)
        first.close()
        until(lambda: server.stats().connections == 0)
        endless.steps.release(100)
        assert await asyncio.to_thread(endless.closed.wait, PATIENCE)
        until(lambda: server.stats().models["endless"].queued == 0)
        assert not endless.begun.acquire(blocking=False)


LARGE = "x" * 50_000


@model("flood", task="generate", batched=True, max_batch_size=8)
def flood(batch: Batch) -> Iterator[dict[int, str]]:
    """So many large pieces as the prompt says; what it knows of a request it keeps while that is paused."""
    left: dict[int, int] = {}
    while batch.live:
        for i in batch:
            left.setdefault(i, int(batch[i].text))
        step = dict.fromkeys(batch, LARGE)
        left.update({i: left[i] - 1 for i in step})
        yield step
        for i in step:
            if left[i] == 0:
                batch.finish(i)
        batch.join()


@model("flood-each", task="generate", workers=8)
def flood_each(request: GenerateRequest) -> Iterator[str]:
    for _ in range(int(request.text)):
        yield LARGE


@model("flood-async", task="generate")
async def flood_async(request: GenerateRequest) -> AsyncIterator[str]:
    for _ in range(int(request.text)):
        yield LARGE


FLOODS = {"flood": flood, "flood-each": flood_each, "flood-async": flood_async}
MANY = 400


@pytest.mark.parametrize("name", FLOODS)
async def test_a_slow_reader_pauses_its_own_text_and_nobody_elses(name: str) -> None:
    with Server([FLOODS[name]], port=0, stream_window=200_000) as server:
        slow = Wire(server, name, str(MANY))
        await soon(lambda: metric(server, "pauses_total") >= 1)
        async with AsyncClient(server.url) as client:
            # Twice: one that comes while all are too slow, and one with it.
            for _ in range(2):
                answer = await asyncio.wait_for(complete(client, name, "20"), PATIENCE)
                assert len(answer["choices"][0]["text"]) == 20 * len(LARGE)
        assert metric(server, "held_bytes") <= 400_000
        assert await asyncio.to_thread(slow.count, LARGE.encode()) == MANY
        slow.close()


async def test_a_stream_may_drop_what_has_no_room() -> None:
    with Server([flood], port=0, stream_window=200_000, slow_reader="drop") as server:
        slow = Wire(server, "flood", str(MANY))
        await soon(lambda: metric(server, "dropped_total") >= 1)
        until(lambda: server.stats().models["flood"].queued == 0)
        came = await asyncio.to_thread(slow.count, LARGE.encode())
        assert came + metric(server, "dropped_total") == MANY
        slow.close()


async def test_a_paused_text_ends_with_its_server() -> None:
    server = Server([flood], port=0, stream_window=200_000, drain_timeout=0.2)
    server.start()
    slow = Wire(server, "flood", str(MANY))
    await soon(lambda: metric(server, "pauses_total") >= 1)
    await asyncio.to_thread(server.close)
    slow.close()


def metric(server: Server, name: str) -> float:
    lines = server.metrics().splitlines()
    return float(next(line.split()[-1] for line in lines if line.startswith(f"penstock_stream_{name}")))


class Wire:
    """A client that reads when it is told to."""

    def __init__(self, server: Server, name: str, prompt: str) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(("127.0.0.1", urlsplit(server.url).port))
        body = json.dumps({"text_input": prompt, "max_tokens": 10_000})
        head = f"POST /v2/models/{name}/generate_stream HTTP/1.1\r\nhost: test\r\ncontent-length: {len(body)}\r\n\r\n"
        self._socket.sendall((head + body).encode())

    def receive(self, word: bytes) -> bytes:
        """Reads until a word has come."""
        came = b""
        while word not in came:
            piece = self._socket.recv(1 << 16)
            assert piece, "the connection has ended"
            came += piece
        return came

    def count(self, word: bytes) -> int:
        """Reads to the end of the answer: how often a word stands in it."""
        came = bytearray()
        while not came.endswith(b"0\r\n\r\n"):
            piece = self._socket.recv(1 << 20)
            assert piece, "the connection has ended"
            came += piece
        head, _, chunked = bytes(came).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        return unchunked(chunked).count(word)

    def close(self) -> None:
        with closing(self._socket):
            self._socket.shutdown(socket.SHUT_RDWR)


def unchunked(body: bytes) -> bytes:
    whole = bytearray()
    at = 0
    while (end := body.index(b"\r\n", at)) and (size := int(body[at:end], 16)):
        whole += body[end + 2 : end + 2 + size]
        at = end + 2 + size + 2
    return bytes(whole)
