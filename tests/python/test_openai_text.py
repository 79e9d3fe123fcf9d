"""Text models behind OpenAI's API and the generate extension: whole answers, streams, ends, refusals."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import penstock
from penstock import GenerateRequest, errors
from penstock.testing import TestClient
from tests.python.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

LONG = "x" * 10_000
ENDED: list[str] = []
"""Models whose generators have been closed, or have come to their end."""


@penstock.model("words", task="generate")
def words(request: GenerateRequest) -> Iterator[str]:
    """The words of the prompt, one at a time; it says how many there are."""
    said = request.text.split(" ")
    request.prompt_tokens = len(said)
    try:
        for number, word in enumerate(said):
            if word == "fail" and number:
                raise ValueError("it fails")
            yield word if number == 0 else f" {word}"
    finally:
        ENDED.append("words")
    return "length" if said[-1] == "cut" else None  # type: ignore[return-value]  # the reason


@penstock.model("endless", task="generate")
async def endless(request: GenerateRequest) -> AsyncIterator[str]:
    """Numbers, without an end."""
    number = int(request.text or 0)
    request.prompt_tokens = 1
    try:
        while True:
            yield f"{number} "
            number += 1
            await asyncio.sleep(0.001)
    finally:
        ENDED.append("endless")


@penstock.model("shown", task="generate")
def shown(request: GenerateRequest) -> str:
    """All that it was asked, as JSON."""
    names = ["prompt", "messages", "max_tokens", "temperature", "top_p", "stop", "seed", "metadata", "model", "user"]
    asked = {name: getattr(request, name) for name in [*names, "stream", "text"]}
    return json.dumps(asked)


@penstock.model("letters", task="generate", batched=True, max_batch_size=8)
class Letters:
    """The prompt byte by byte, all requests one step at a time."""

    largest = 0

    def predict(self, batch: penstock.Batch) -> Iterator[list[bytes]]:
        left: dict[int, Iterator[int]] = {}
        while batch.live:
            step = []
            for index in batch:
                if index not in left:
                    left[index] = iter(batch[index].text.encode())
            Letters.largest = max(Letters.largest, len(batch))
            for index in batch.live:
                byte = next(left[index], None)
                if byte is None:
                    batch.finish(index, "stop")
                else:
                    step.append(bytes([byte]))
            if step:
                yield step
            batch.join()
            time.sleep(0.001)


@penstock.model("steps", inputs={"count": ("int64", [])}, outputs={"square": ("int64", [])}, max_batch_size=4)
def steps(batch: penstock.Batch) -> Iterator[dict[int, Any]]:
    """The squares of the numbers up to one, each as a step."""
    done = dict.fromkeys(batch.live, 0)
    while batch.live:
        yield {index: done[index] ** 2 for index in batch}
        for index in batch.live:
            done[index] += 1
            if done[index] > batch[index]:
                batch.finish(index)


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(penstock.Server([words, endless, shown, Letters, steps])) as client:
        yield client


def complete(client: TestClient, prompt: Any, model: str = "words", **body: Any) -> Any:
    answer = client.post("/v1/completions", json={"model": model, "prompt": prompt, **body})
    return answer.raise_for_status().json()


def events(content: bytes) -> list[Any]:
    """The data of the events, parsed; the last of OpenAI's stays what it is."""
    parts = content.decode().strip().split("\n\n")
    assert all(part.startswith(("data: ", ": ")) for part in parts), content
    data = [part.removeprefix("data: ") for part in parts if part.startswith("data: ")]
    return [one if one == "[DONE]" else json.loads(one) for one in data]


def streamed(client: TestClient, path: str = "/v1/completions", **body: Any) -> list[Any]:
    answer = client.post(path, json={"model": "words", "stream": True, **body}).raise_for_status()
    assert answer.headers["content-type"].startswith("text/event-stream")
    return events(answer.content)


def test_a_whole_completion(client: TestClient) -> None:
    answer = complete(client, "zwölf 水 wheels")
    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl-")
    assert answer["model"] == "words"
    assert answer["choices"] == [
        {"index": 0, "text": "zwölf 水 wheels", "logprobs": None, "finish_reason": "stop"},
    ]
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    assert complete(client, "a cut")["choices"][0]["finish_reason"] == "length"


def test_a_whole_chat(client: TestClient) -> None:
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]},
    ]
    answer = client.post("/v1/chat/completions", json={"model": "words", "messages": messages}).json()
    assert answer["object"] == "chat.completion"
    message = answer["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "system: be brief\nuser: hello\nassistant: ", "refusal": None}


def test_a_stream_of_a_completion(client: TestClient) -> None:
    said = streamed(client, prompt="one two three")
    assert said[-1] == "[DONE]"
    assert [one["choices"][0]["text"] for one in said[:-1]] == ["one", " two", " three", ""]
    assert [one["choices"][0]["finish_reason"] for one in said[:-1]] == [None, None, None, "stop"]
    assert len({one["id"] for one in said[:-1]}) == 1
    assert all("usage" not in one for one in said[:-1])


def test_a_stream_of_a_chat_says_what_it_took(client: TestClient) -> None:
    said = streamed(
        client,
        "/v1/chat/completions",
        messages=[{"role": "user", "content": "x"}],
        stream_options={"include_usage": True},
    )
    deltas = [one["choices"][0]["delta"] for one in said[:-2]]
    assert deltas[0] == {"role": "assistant", "content": "user:"}
    assert deltas[-1] == {}
    assert "".join(delta.get("content", "") for delta in deltas) == "user: x\nassistant: "
    assert all(one["usage"] is None for one in said[:-2])
    assert said[-2]["choices"] == []
    assert said[-2]["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["words", "letters"])
def test_stop_texts_end_an_answer_wherever_the_model_cut_them(
    client: TestClient,
    model: str,
    stream: bool,
) -> None:
    body = {"prompt": "water turns the wheel — again", "model": model, "stop": ["wheel —", "s the w"]}
    if stream:
        said = streamed(client, **body)
        text = "".join(one["choices"][0]["text"] for one in said[:-1])
        reason = said[-2]["choices"][0]["finish_reason"]
    else:
        choice = complete(client, body.pop("prompt"), **body)["choices"][0]
        text, reason = choice["text"], choice["finish_reason"]
    assert (text, reason) == ("water turn", "stop")


def test_no_more_tokens_than_were_asked_for(client: TestClient) -> None:
    answer = complete(client, "7", "endless", max_tokens=3)
    assert (answer["choices"][0]["text"], answer["choices"][0]["finish_reason"]) == ("7 8 9 ", "length")
    assert answer["usage"] == {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
    said = streamed(client, model="endless", prompt="1", max_tokens=2)
    assert [one["choices"][0]["text"] for one in said[:-1]] == ["1 ", "2 ", ""]
    told = streamed(client, model="endless", prompt="1", stop="3", stream_options={"include_usage": True})
    assert told[-2]["usage"]["prompt_tokens"] == 1
    chat = {"model": "endless", "messages": [{"role": "user", "content": ""}], "max_completion_tokens": 1}
    assert client.post("/v1/chat/completions", json=chat).status_code == 500, "its text is no number"
    until(lambda: ENDED.count("endless") >= 2)


def test_without_a_limit_it_is_2048(client: TestClient) -> None:
    assert complete(client, "0", "endless")["usage"]["completion_tokens"] == 2048


def test_several_choices_and_prompts(client: TestClient) -> None:
    answer = complete(client, ["a b", "c"], n=2)
    assert [choice["text"] for choice in answer["choices"]] == ["a b", "a b", "c", "c"]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9}
    said = streamed(client, prompt="a b", n=3)
    texts = ["", "", ""]
    for one in said[:-1]:
        texts[one["choices"][0]["index"]] += one["choices"][0]["text"]
    assert texts == ["a b"] * 3
    seeds = [json.loads(one["text"])["seed"] for one in complete(client, "x", "shown", n=3, seed=5)["choices"]]
    assert seeds == [5, 6, 7]


def test_the_model_is_told_all_that_was_asked(client: TestClient) -> None:
    body = {
        "max_tokens": 5,
        "temperature": 0,
        "top_p": 0.25,
        "stop": "\u0000",
        "seed": -1,
        "metadata": {"team": "a"},
        "user": "u",
    }
    asked = json.loads(complete(client, "once", "shown", **body)["choices"][0]["text"])
    assert asked == {
        **body,
        "stop": ["\u0000"],
        "prompt": "once",
        "messages": None,
        "model": "shown",
        "stream": False,
        "text": "once",
    }
    usual = json.loads(complete(client, "once", "shown")["choices"][0]["text"])
    assert (usual["max_tokens"], usual["temperature"], usual["top_p"], usual["stop"]) == (2048, 1.0, 1.0, [])


def test_requests_of_a_batched_model_step_together(client: TestClient) -> None:
    texts = [f"{number} — zwölf 水 {'x' * number}" for number in range(12)]
    got: dict[int, str] = {}

    def ask(number: int) -> None:
        got[number] = complete(client, texts[number], "letters")["choices"][0]["text"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [got[number] for number in range(12)] == texts
    assert 1 < Letters.largest <= 8


def test_failures_are_told_before_and_within_a_stream(client: TestClient) -> None:
    whole = client.post("/v1/completions", json={"model": "words", "prompt": "a fail"})
    assert (whole.status_code, whole.json()["error"]["type"]) == (500, "server_error")
    # So much leaves before the model is heard any further.
    said = streamed(client, prompt=f"{LONG} fail")
    assert said[0]["choices"][0]["text"] == LONG
    assert "it fails" in said[-1]["error"]["message"]
    assert said[-1]["error"]["code"] == "model_error"
    early = client.post("/v1/completions", json={"model": "endless", "prompt": "x", "stream": True})
    assert (early.status_code, early.json()["error"]["code"]) == (500, "model_error")


@pytest.mark.parametrize(
    ("body", "parameter", "words"),
    [
        ({"temperature": 3}, "temperature", "between 0 and 2"),
        ({"top_p": 1.5}, "top_p", "between 0 and 1"),
        ({"max_tokens": 0}, "max_tokens", "at least 1"),
        ({"logprobs": 2}, "logprobs", "not supported"),
        ({"echo": True}, "echo", "not supported"),
        ({"prompt": [1, 2]}, "prompt", "tokens"),
        ({"stop": list("abcde")}, "stop", "up to 4"),
        ({"n": 200}, "n", "128"),
        ({"best_off": 1}, "best_off", "no parameter"),
        ({"model": "steps"}, "model", "not for text"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    client: TestClient, body: dict[str, Any], parameter: str, words: str
) -> None:
    answer = client.post("/v1/completions", json={"model": "words", "prompt": "x", **body})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["type"]) == (400, parameter, "invalid_request_error")
    assert words in error["message"]


def test_images_are_refused_by_name(client: TestClient) -> None:
    parts = [{"type": "image_url", "image_url": {"url": "data:"}}]
    body = {"model": "words", "messages": [{"role": "user", "content": parts}]}
    error = client.post("/v1/chat/completions", json=body).json()["error"]
    assert error["param"] == "messages[0].content[0]"
    assert "image_url" in error["message"]


def test_the_generate_extension(client: TestClient) -> None:
    path = "/v2/models/words/generate"
    body = {"id": "7", "text_input": "a b c", "parameters": {"max_tokens": 2}}
    assert client.post(path, json=body).json() == {
        "id": "7",
        "model_name": "words",
        "model_version": "1",
        "text_output": "a b",
    }
    flat = client.post("/v2/models/words/versions/1/generate", json={"text_input": "a b", "stop": "b"}).json()
    assert flat["text_output"] == "a "
    said = client.post(f"{path}_stream", json={"text_input": "a b"})
    assert [one["text_output"] for one in events(said.content)] == ["a", " b"]
    lines = client.post(f"{path}_stream", json={"text_input": "a b"}, headers={"accept": "application/x-ndjson"})
    assert lines.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line)["text_output"] for line in lines.content.splitlines()] == ["a", " b"]
    failed = client.post(f"{path}_stream", json={"text_input": f"{LONG} fail"})
    assert "it fails" in events(failed.content)[-1]["error"]
    refused = client.post(path, json={"text_input": "a", "parameters": {"colour": 1}})
    assert (refused.status_code, refused.json()) == (400, {"error": "colour is no parameter of this endpoint"})


def test_the_steps_of_a_model_of_tensors(client: TestClient) -> None:
    body = {"id": "9", "inputs": [{"name": "count", "shape": [1], "datatype": "INT64", "data": [3]}]}
    said = events(client.post("/v2/models/steps/generate_stream", json=body).raise_for_status().content)
    assert [one["outputs"][0]["data"] for one in said] == [[0], [1], [4], [9]]
    assert {one["id"] for one in said} == {"9"}
    assert client.post("/v2/models/steps/generate", json=body).status_code == 400
    two = {"inputs": [{"name": "count", "shape": [2], "datatype": "INT64", "data": [3, 4]}]}
    refused = client.post("/v2/models/steps/generate_stream", json=two)
    assert "a stream answers one" in refused.json()["error"]


def test_a_model_of_text_answers_no_inference_of_tensors(client: TestClient) -> None:
    body = {"inputs": [{"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["x"]}]}
    answer = client.post("/v2/models/words/infer", json=body)
    assert answer.status_code == 400
    assert "generate" in answer.json()["error"]


def test_a_stream_has_the_time_that_its_request_has(client: TestClient) -> None:
    late = client.post(
        "/v1/completions",
        json={"model": "endless", "prompt": "0", "stream": True},
        headers={"x-request-timeout": "0.2"},
    )
    assert events(late.content)[-1]["error"]["code"] == "deadline_exceeded"
    whole = client.post(
        "/v1/completions", json={"model": "endless", "prompt": "0"}, headers={"x-request-timeout": "0.2"}
    )
    assert (whole.status_code, whole.json()["error"]["code"]) == (504, "deadline_exceeded")


def test_a_full_queue_says_when_to_come_again() -> None:
    gate, entered = threading.Event(), threading.Event()

    @penstock.model("slow", task="generate", max_queue=1)
    def slow(_: GenerateRequest) -> Iterator[str]:
        entered.set()
        gate.wait(30)
        yield "x"

    with TestClient(penstock.Server(slow)) as client:
        answers: list[Any] = []
        ask = lambda: answers.append(client.post("/v1/completions", json={"model": "slow", "prompt": "x"}))  # noqa: E731
        threads = [threading.Thread(target=ask) for _ in range(4)]
        threads[0].start()
        assert entered.wait(30)
        for thread in threads[1:]:
            thread.start()
        until(lambda: len(answers) == 2)
        gate.set()
        for thread in threads:
            thread.join(30)
        refused = answers[0]
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        with pytest.raises(errors.Overloaded):
            refused.raise_for_status()
        assert [answer.status_code for answer in answers[2:]] == [200, 200]


def test_a_request_cannot_be_changed() -> None:
    request = GenerateRequest(messages=({"role": "user", "content": "hi"},))
    assert request.text == "user: hi\nassistant: "
    assert request.prompt_tokens is None
    request.prompt_tokens = 3
    assert request.prompt_tokens == 3
    with pytest.raises(AttributeError, match="cannot be changed"):
        request.prompt = "x"  # type: ignore[misc]
