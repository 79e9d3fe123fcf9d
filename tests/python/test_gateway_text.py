"""Text models of other servers: passed on as they are, stopped and paused with their readers, failed as they fail."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penstock
from penstock.errors import ConfigError, LoadFailed
from tests.python.support.http_server import HttpServer, Peer, Received, refusing_port
from tests.python.support.text_upstream import DONE, EVENTS, JSON, asked, begin, event, stream, upstream
from tests.python.support.waiting import PATIENCE, soon

if TYPE_CHECKING:
    from collections.abc import Iterator

CHAT: dict[str, Any] = {"model": "local", "messages": [{"role": "user", "content": "hé"}]}


def remote(server: HttpServer, **options: Any) -> penstock.RemoteModel:
    options = {"task": "generate", "upstream_name": "there", "load_retries": 0, **options}
    return penstock.RemoteModel("local", server.url, **options)


def served(server: HttpServer, **options: Any) -> penstock.Server:
    return penstock.Server([remote(server, **options)], port=0)


async def streamed(url: str, body: dict[str, Any], path: str = "/v1/chat/completions", **options: Any) -> list[str]:
    async with penstock.AsyncClient(url) as client, client.stream("POST", path, json=body, **options) as answer:
        answer.raise_for_status()
        return [each.data async for each in answer.sse()]


def test_a_request_goes_on_as_it_came_but_for_the_models_name() -> None:
    def answer(peer: Peer, request: Received) -> None:
        body = json.loads(request.body)
        peer.answer(json.dumps({"id": "x", "model": body["model"], "strange": [1, {"b": 2}]}), headers=JSON)

    tools = {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"model": 1}}}], "logprobs": True}
    with upstream(answer, "there") as up, served(up) as server, penstock.Client(server.url) as client:
        raw = json.dumps({**CHAT, **tools, "response_format": {"type": "json_object"}, "top_k": 1.50})
        said = client.post("/v1/chat/completions", content=raw.encode(), headers=JSON)
        assert (said.status_code, said.json()) == (200, {"id": "x", "model": "there", "strange": [1, {"b": 2}]})
        sent = next(each for each in up.requests if each.method == "POST")
        assert sent.body.decode() == raw.replace('"local"', '"there"', 1)
        assert sent.target == "/v1/chat/completions"
        assert sent.header("content-type") == "application/json"
        for path in ("/v1/completions", "/v1/embeddings"):
            assert client.post(path, json={"model": "local", "prompt": [1, 2]}).status_code == 200
        assert [each.target for each in up.requests if each.method == "POST"][1:] == [
            "/v1/completions",
            "/v1/embeddings",
        ]
        assert [row["id"] for row in client.get("/v1/models").json()["data"]] == ["local"]


def test_a_stream_comes_back_byte_by_byte_and_its_connection_serves_on() -> None:
    pieces = [
        event("a"),
        b": ping\n\n",
        event("b")[:20],
        event("b")[20:] + event("c"),
        b"event: e\r\nid: 7\r\ndata: x\r\n\r\n",
        DONE,
    ]
    expected = event("a") + event("b") + event("c") + b"event: e\r\nid: 7\r\ndata: x\r\n\r\n" + DONE

    with (
        upstream(lambda peer, _: stream(peer, pieces), "there") as up,
        served(up) as server,
        penstock.Client(server.url, headers={"Accept-Encoding": "identity"}) as client,
    ):
        before = up.connections
        for _ in range(5):
            with client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as answer:
                assert answer.headers["content-type"].startswith("text/event-stream")
                assert answer.read() == expected
        connections = {each.connection for each in up.requests if each.method == "POST"}
        assert len(connections) == 1, f"{connections} of {up.connections}, {before} before"
        text = server.metrics()
        assert "penstock_stream_pieces_total 25" in text
        assert 'penstock_requests_total{model="local",outcome="ok"} 5' in text


@pytest.mark.asyncio
async def test_tokens_come_as_they_are_made() -> None:
    go = threading.Semaphore(0)

    def answer(peer: Peer, _: Received) -> None:
        begin(peer)
        for text in "abc":
            peer.chunk(event(text))
            assert go.acquire(timeout=PATIENCE)
        peer.chunk(DONE)
        peer.chunk(b"")

    with upstream(answer, "there") as up, served(up) as server:
        async with (
            penstock.AsyncClient(server.url) as client,
            client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as said,
        ):
            texts = []
            async for each in said.sse():
                if each.data == "[DONE]":
                    break
                texts.append(each.json()["choices"][0]["delta"]["content"])
                go.release()
            assert texts == ["a", "b", "c"]


@pytest.mark.asyncio
async def test_a_client_that_leaves_has_the_upstream_stopped() -> None:
    ended = threading.Event()

    def answer(peer: Peer, _: Received) -> None:
        begin(peer)
        peer.chunk(event("a"))
        if peer.sees_end():
            ended.set()

    with upstream(answer, "there") as up, served(up) as server:
        async with penstock.AsyncClient(server.url) as client:
            async with client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as said:
                async for _ in said.sse():
                    break
            await soon(ended.is_set)
            ended.clear()
            # Also where nothing has come yet.
            task = asyncio.create_task(client.post("/v1/chat/completions", json=CHAT))
            await soon(lambda: len(asked(up)) == 2)
            task.cancel()
            await soon(ended.is_set)


@pytest.mark.asyncio
async def test_a_reader_that_is_too_slow_pauses_the_upstream() -> None:
    sent: list[int] = []
    done = threading.Event()

    def answer(peer: Peer, _: Received) -> None:
        begin(peer)
        for number in range(2000):
            peer.chunk(event("x" * 16_000))
            sent.append(number)
        peer.chunk(DONE)
        peer.chunk(b"")
        done.set()

    with upstream(answer, "there") as up, penstock.Server([remote(up)], port=0, compression="off") as server:
        async with (
            penstock.AsyncClient(server.url, stream_window=1 << 16) as client,
            client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as said,
        ):
            events = said.sse()
            await anext(aiter(events))
            while True:
                before = len(sent)
                await asyncio.sleep(0.5)
                if len(sent) == before:
                    break
            assert not done.is_set(), "32 MB were taken in for a reader that reads nothing"
            count = 1
            async for _ in events:
                count += 1
            assert count == 2001
        assert done.is_set()


def test_what_the_upstream_refuses_is_refused_with_its_own_words() -> None:
    body = json.dumps({"error": {"message": "slow down", "type": "rate", "param": None, "code": "rate_limit"}})
    answers = iter(
        [
            ("429 Too Many Requests", body, {"Retry-After": "7"}),
            ("400 Bad Request", body, {}),
            ("401 Unauthorized", body, {}),
            ("500 Internal Server Error", "<html>oops</html>", {}),
            ("503 Service Unavailable", "", {"Retry-After": "3"}),
            ("422 Unprocessable Entity", '{"detail": "no such thing"}', {}),
        ]
        * 2
    )

    def answer(peer: Peer, _: Received) -> None:
        status, said, headers = next(answers)
        peer.answer(said, status=status, headers={**JSON, **headers})

    with upstream(answer, "there") as up, served(up) as server, penstock.Client(server.url) as client:
        for stream_it in (False, True):
            ask = {**CHAT, "stream": stream_it}
            full = client.post("/v1/chat/completions", json=ask, retry=False)
            assert (full.status_code, full.text, full.headers["retry-after"]) == (429, body, "7")
            for status in (400, 401):
                refused = client.post("/v1/chat/completions", json=ask)
                assert (refused.status_code, refused.text) == (status, body)
            failed = client.post("/v1/chat/completions", json=ask)
            assert failed.status_code == 500
            assert "oops" in failed.json()["error"]["message"]
            busy = client.post("/v1/chat/completions", json=ask, retry=False)
            assert (busy.status_code, busy.headers["retry-after"]) == (503, "3")
            wrong = client.post("/v1/chat/completions", json=ask)
            assert (wrong.status_code, wrong.json()["error"]["message"]) == (422, "no such thing")


def test_a_body_that_names_no_model_is_refused_here() -> None:
    with (
        upstream(lambda peer, _: peer.answer("{}"), "there") as up,
        served(up) as server,
        penstock.Client(server.url) as client,
    ):
        for raw, words in [
            (b"{", "the body is no request"),
            (b"{}", "model is missing"),
            (b'{"model": "local", "model": "other"}', "model is given twice"),
        ]:
            refused = client.post("/v1/chat/completions", content=raw, headers=JSON)
            assert refused.status_code == 400
            assert words in refused.json()["error"]["message"]
        missing = client.post("/v1/chat/completions", json={**CHAT, "model": "other"})
        assert missing.status_code == 404
        assert asked(up) == []


@pytest.mark.asyncio
async def test_a_stream_that_breaks_off_ends_with_an_error_after_what_had_come() -> None:
    def answer(peer: Peer, request: Received) -> None:
        begin(peer)
        peer.chunk(event("a"))
        if json.loads(request.body).get("n") == 1:
            peer.reset()
        elif json.loads(request.body).get("n") == 2:
            peer.chunk(event("b")[:10])
            peer.chunk(b"")
        else:
            peer.sees_end()

    timeout = penstock.Timeout(first=PATIENCE, idle=0.3, total=PATIENCE)
    with upstream(answer, "there") as up, served(up, timeout=timeout) as server:
        for number, code in ((1, "stream_interrupted"), (2, "stream_interrupted"), (3, "idle_timeout")):
            data = await streamed(server.url, {**CHAT, "stream": True, "n": number})
            assert json.loads(data[0])["choices"][0]["delta"]["content"] == "a"
            assert json.loads(data[-1])["error"]["code"] == code, data
            assert "[DONE]" not in data


def test_time_outs_before_the_first_token_have_a_status() -> None:
    def answer(peer: Peer, request: Received) -> None:
        if request.target.endswith("completions") and json.loads(request.body).get("stream"):
            begin(peer)
            # It says that it is alive, and no token.
            peer.chunk(b": ping\n\n")
        peer.sees_end()

    timeout = penstock.Timeout(first=0.3, idle=PATIENCE, total=PATIENCE)
    with upstream(answer, "there") as up, served(up, timeout=timeout) as server, penstock.Client(server.url) as client:
        for stream_it in (True, False):
            late = client.post("/v1/chat/completions", json={**CHAT, "stream": stream_it})
            assert (late.status_code, late.json()["error"]["code"]) == (504, "first_chunk_timeout")
        late = client.post("/v1/chat/completions", json=CHAT, headers={"X-Request-Timeout": "0.1"})
        assert late.status_code == 504
        sent = [each for each in up.requests if each.method == "POST"]
        assert 0 < float(sent[-1].header("x-request-timeout") or 0) <= 0.1
        assert sent[0].header("x-request-timeout") is None


def test_what_answers_no_events_is_told_so() -> None:
    with (
        upstream(lambda peer, _: peer.answer("{}", headers=JSON), "there") as up,
        served(up) as server,
        penstock.Client(server.url) as client,
    ):
        wrong = client.post("/v1/chat/completions", json={**CHAT, "stream": True})
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (502, "protocol_error")


def test_questions_of_the_other_protocol_are_asked_in_the_upstreams_words() -> None:
    def answer(peer: Peer, request: Received) -> None:
        body = json.loads(request.body)
        assert body["stream"] is True
        text = [{"text": piece, "finish_reason": None} for piece in ("one ", "two ", "three")]
        events = [{"choices": [each]} for each in text]
        events += [
            {"choices": [{"text": "", "finish_reason": "length"}]},
            {"choices": [], "usage": {"prompt_tokens": 7}},
        ]
        stream(peer, [*(b"data: " + json.dumps(each).encode() + b"\n\n" for each in events), DONE])

    with upstream(answer, "there") as up, served(up) as server, penstock.Client(server.url) as client:
        ask = {"text_input": "abc", "parameters": {"temperature": 0, "stop": ["!"]}}
        assert client.post("/v2/models/local/generate", json=ask).json()["text_output"] == "one two three"
        [sent] = asked(up)
        assert (sent["model"], sent["prompt"], sent["temperature"], sent["stop"]) == ("there", "abc", 0, ["!"])
        with client.stream("POST", "/v2/models/local/generate_stream", json=ask) as said:
            assert [each.json()["text_output"] for each in said.sse()] == ["one ", "two ", "three"]
        short = {"text_input": "abc", "max_tokens": 2}
        assert client.post("/v2/models/local/generate", json=short).json()["text_output"] == "one two "


TERMS = {
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "tracestate": "a=b",
    "x-request-priority": "high",
    "x-request-tenant": "team a",
    "x-request-id": "r7",
    "x-request-timeout": "20",
}


@pytest.mark.asyncio
async def test_terms_go_along_whatever_is_asked_and_however() -> None:
    def answer(peer: Peer, request: Received) -> None:
        body = json.loads(request.body)
        if request.target == "/v1/embeddings":
            rows = [{"index": at, "embedding": [0.5]} for at, _ in enumerate(body["input"])]
            peer.answer(json.dumps({"data": rows}), headers=JSON)
        elif body.get("stream"):
            stream(peer, [b'data: {"choices": [{"text": "a"}]}\n\n', DONE])
        else:
            peer.answer("{}", headers=JSON)

    with upstream(answer, "there") as up:
        vectors = penstock.RemoteModel("vectors", up.url, task="embed", upstream_name="there")
        with penstock.Server([remote(up), vectors], port=0) as server:
            async with penstock.AsyncClient(server.url) as client:
                for path, asked_for in (
                    ("/v1/chat/completions", CHAT),
                    ("/v1/completions", {"model": "local", "prompt": "a", "stream": True}),
                    ("/v2/models/local/generate", {"text_input": "a"}),
                    ("/v2/models/local/generate_stream", {"text_input": "a"}),
                    ("/v1/embeddings", {"model": "vectors", "input": ["a", "b"]}),
                    ("/v1/embeddings", {"model": "vectors", "input": "a", "dimensions": 1}),
                ):
                    assert (await client.post(path, json=asked_for, headers=TERMS)).status_code == 200, path
            async with (
                penstock.AsyncClient(server.grpc_url) as client,
                client.stream_infer(timeout=20, metadata=TERMS) as calls,
            ):
                await calls.send("local", {"text_input": np.array(["abc"], object)})
                await calls.end()
                assert [each async for each in calls]
        sent = [each for each in up.requests if each.method == "POST"]
        assert len(sent) == 7
        for request in sent:
            told = {name: request.header(name) for name in TERMS}
            left = float(told.pop("x-request-timeout") or 0)
            assert 0 < left <= 20, request.target
            assert told == {name: value for name, value in TERMS.items() if name != "x-request-timeout"}, request.target


def test_what_only_some_of_a_batch_say_is_not_said_of_all_and_tokens_are_shared() -> None:
    gate, entered = threading.Event(), threading.Event()

    def answer(peer: Peer, request: Received) -> None:
        entered.set()
        assert gate.wait(PATIENCE)
        texts = json.loads(request.body)["input"]
        rows = [{"index": at, "embedding": [0.5]} for at, _ in enumerate(texts)]
        tokens = sum(len(text) + 1 for text in texts)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        peer.answer(json.dumps({"data": rows, "usage": usage}), headers=JSON)

    async def go(server: penstock.Server) -> None:
        async with penstock.AsyncClient(server.url) as client:

            async def ask(texts: list[str], number: int) -> dict[str, int]:
                headers = {"x-request-id": f"r{number}", "x-request-tenant": "team", "x-request-priority": "low"}
                asked_for = {"model": "local", "input": texts}
                answer = await client.post("/v1/embeddings", json=asked_for, headers=headers)
                usage: dict[str, int] = answer.json()["usage"]
                return usage

            first = asyncio.create_task(ask(["x"], 0))
            await soon(entered.is_set)
            several = [asyncio.create_task(ask(["y" * size, "z"], size)) for size in (1, 9, 29)]
            await soon(lambda: server.stats().models["local"].queued == 6)
            gate.set()
            for size, usage in zip((1, 9, 29), await asyncio.gather(*several), strict=True):
                # A token for each letter and one more for each text: the shares are what was counted.
                assert usage == {"prompt_tokens": size + 3, "total_tokens": size + 3}
            assert await first == {"prompt_tokens": 2, "total_tokens": 2}

    with upstream(answer, "there") as up, served(up, task="embed", concurrency=1, max_batch_size=16) as server:
        asyncio.run(go(server))
        alone, together = [each for each in up.requests if each.method == "POST"]
        assert (len(asked(up)[0]["input"]), len(asked(up)[1]["input"])) == (1, 6)
        assert (alone.header("x-request-id"), together.header("x-request-id")) == ("r0", None)
        for each in (alone, together):
            assert (each.header("x-request-tenant"), each.header("x-request-priority")) == ("team", "low")


def test_texts_of_many_requests_share_a_request_for_their_vectors() -> None:
    gate = threading.Event()

    def answer(peer: Peer, request: Received) -> None:
        assert gate.wait(PATIENCE)
        body = json.loads(request.body)
        if "bad" in body["input"]:
            peer.answer('{"error": {"message": "a text is bad"}}', status="400 Bad Request", headers=JSON)
            return
        if isinstance(body["input"], str) or "dimensions" in body:
            peer.answer('{"data": [], "usage": {"total_tokens": 5}}', headers=JSON)
            return
        rows = [{"index": at, "embedding": [float(len(text)), 0.5]} for at, text in enumerate(body["input"])]
        peer.answer(json.dumps({"data": rows[::-1]}), headers=JSON)

    async def go(server: penstock.Server) -> None:
        async with penstock.AsyncClient(server.url) as client:

            async def ask(text: str) -> Any:
                return await client.post("/v1/embeddings", json={"model": "local", "input": text})

            tasks = [asyncio.create_task(ask("x" * size)) for size in range(1, 41)]
            tasks.append(asyncio.create_task(ask("bad")))
            # All but those that the upstream was asked about.
            await soon(lambda: server.stats().models["local"].queued >= 41 - 16)
            gate.set()
            *answers, bad = await asyncio.gather(*tasks)
            for size, said in enumerate(answers, 1):
                assert said.json()["data"] == [{"object": "embedding", "index": 0, "embedding": [size, 0.5]}]
            assert (bad.status_code, bad.json()["error"]["message"]) == (400, "a text is bad")
            odd = await client.post("/v1/embeddings", json={"model": "local", "input": "a", "dimensions": 5})
            assert odd.json()["usage"] == {"total_tokens": 5}

    options = {"task": "embed", "concurrency": 1, "max_batch_size": 16}
    with upstream(answer, "there") as up, served(up, **options) as server:
        asyncio.run(go(server))
        sizes = [len(each["input"]) for each in asked(up)]
        assert max(sizes) > 4
        assert max(sizes) <= 16
        assert asked(up)[-1] == {"model": "there", "input": "a", "dimensions": 5}


def test_an_embedding_model_without_batches_passes_all_on() -> None:
    with (
        upstream(lambda peer, _: peer.answer('{"usage": {"total_tokens": 9}}', headers=JSON), "there") as up,
        served(up, task="embed", max_batch_size=1) as server,
        penstock.Client(server.url) as client,
    ):
        said = client.post("/v1/embeddings", json={"model": "local", "input": "a"})
        assert said.json() == {"usage": {"total_tokens": 9}}


def test_two_servers_are_one_fleet_and_one_that_is_down_is_passed_by() -> None:
    def say(name: str) -> Any:
        return lambda peer, _: peer.answer(json.dumps({"by": name}), headers=JSON)

    with upstream(say("a"), "there") as one, upstream(say("b"), "there") as two:
        urls = [one.url, two.url, f"http://127.0.0.1:{refusing_port()}"]
        model = penstock.RemoteModel("local", urls, task="generate", upstream_name="there", balance="round_robin")
        with penstock.Server([model], port=0) as server, penstock.Client(server.url) as client:
            said = [client.post("/v1/chat/completions", json=CHAT) for _ in range(12)]
            assert {each.status_code for each in said} == {200}
            assert {each.json()["by"] for each in said} == {"a", "b"}
            assert "penstock_pool_" in server.metrics()


def test_only_so_many_requests_are_under_way_and_the_others_wait_in_their_turn() -> None:
    gate = threading.Semaphore(0)
    most = [0, 0]
    lock = threading.Lock()

    def answer(peer: Peer, _: Received) -> None:
        with lock:
            most[0] += 1
            most[1] = max(most)
        assert gate.acquire(timeout=PATIENCE)
        with lock:
            most[0] -= 1
        peer.answer("{}", headers=JSON)

    async def go(url: str) -> None:
        async with penstock.AsyncClient(url) as client:
            tasks = [asyncio.create_task(client.post("/v1/chat/completions", json=CHAT)) for _ in range(8)]
            await soon(lambda: most[0] == 2)
            gate.release(8)
            assert {each.status_code for each in await asyncio.gather(*tasks)} == {200}

    with upstream(answer, "there") as up, served(up, concurrency=2, max_queue=100) as server:
        asyncio.run(go(server.url))
    assert most[1] == 2


def test_a_text_model_is_declared_as_one() -> None:
    url = "http://127.0.0.1:9/v1"
    model = penstock.RemoteModel("m", url, task="generate")
    assert (dict(model.inputs), dict(model.outputs)) == (
        {"text_input": ("string", ())},
        {"text_output": ("string", ())},
    )
    assert model.api == "openai"
    assert "generate" in repr(model)
    for options, words in [
        ({"task": "generate", "max_batch_size": 4}, "max_batch_size must be 1"),
        ({"task": "generate", "inputs": {"x": ("float32", [1])}}, "neither inputs nor outputs"),
        ({"task": "embed", "api": "generate"}, "api='openai'"),
        ({"task": "generate", "api": "soap"}, "api"),
        (
            {"task": "tensors", "api": "openai", "inputs": {"x": ("float32", [1])}, "outputs": {"y": ("float32", [1])}},
            "api",
        ),
    ]:
        with pytest.raises(ConfigError, match=words):
            penstock.RemoteModel("m", url, **options)  # type: ignore[arg-type]


def test_a_model_is_loaded_where_its_server_has_it() -> None:
    def answer(peer: Peer, _: Received) -> None:
        peer.answer("{}", headers=EVENTS)

    with upstream(answer, "there") as up, pytest.raises(LoadFailed, match="there is no model 'other'"):
        served(up, upstream_name="other").start()

    def strange(peer: Peer) -> None:
        for request in peer:
            status = "404 Not Found" if request.method == "GET" else "200 OK"
            peer.answer("{}", status=status, headers=JSON)

    # One that lists no models is believed.
    with HttpServer(strange) as up, served(up) as server, penstock.Client(server.url) as client:
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 200

    def closed(peer: Peer) -> None:
        for _ in peer:
            peer.answer("{}", status="401 Unauthorized", headers=JSON)

    with HttpServer(closed) as up, pytest.raises(LoadFailed, match="refuses whoever asks"):
        served(up).start()
    with pytest.raises(LoadFailed):
        penstock.Server(
            [penstock.RemoteModel("m", f"http://127.0.0.1:{refusing_port()}", task="generate", load_retries=0)], port=0
        ).start()


def test_a_url_may_end_with_the_version_of_the_api_and_headers_go_along() -> None:
    with (
        upstream(lambda peer, _: peer.answer("{}", headers=JSON), "there") as up,
        penstock.Server(
            [
                penstock.RemoteModel(
                    "local",
                    f"{up.url}/v1",
                    task="generate",
                    upstream_name="there",
                    headers={"Authorization": "Bearer k"},
                )
            ],
            port=0,
        ) as server,
        penstock.Client(server.url) as client,
    ):
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        own = {
            "Authorization": "Bearer mine",
            "X-Request-Id": "r-7",
            "X-Request-Priority": "high",
            "traceparent": trace,
        }
        said = client.post("/v1/chat/completions", json=CHAT, headers={**own, "traceparent": trace})
        assert said.status_code == 200
        sent = up.requests[-1]
        assert (sent.header("x-request-id"), sent.header("x-request-priority")) == ("r-7", "high")
        # Nobody records spans here: one of the gateway's own would be a parent that no one ever sees.
        assert sent.header("traceparent") == trace
        assert {each.header("authorization") for each in up.requests} == {"Bearer k"}
        assert up.requests[-1].target == "/v1/chat/completions"


def test_closing_the_server_ends_what_runs_there() -> None:
    ended = threading.Event()

    def answer(peer: Peer, _: Received) -> None:
        begin(peer)
        peer.chunk(event("a"))
        if peer.sees_end():
            ended.set()

    with upstream(answer, "there") as up:
        server = served(up)
        server.start()
        with (
            penstock.Client(server.url) as client,
            client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as said,
        ):
            events = iter(said.sse())
            assert "error" not in next(events).json()
            server.close(timeout=0.2)
            assert "error" in next(events).json()
        assert ended.wait(PATIENCE)


def test_models_whose_servers_are_slow_to_answer_are_loaded_side_by_side_and_anew() -> None:
    def behave(peer: Peer) -> None:
        for request in peer:
            if request.method == "GET":
                time.sleep(0.1)
            peer.answer(json.dumps({"id": "x"}), headers=JSON)

    with HttpServer(behave) as up:
        models = [penstock.RemoteModel(f"m{number}", up.url, task="generate") for number in range(6)]
        with penstock.Server(models, port=0) as server, penstock.Client(server.url) as client:
            for _ in range(2):
                for model in models:
                    said = client.post("/v1/chat/completions", json={**CHAT, "model": model.name})
                    assert said.status_code == 200
                server.cache.reload("m0").wait(PATIENCE)


@pytest.fixture
def byte_upstream() -> Iterator[penstock.Server]:
    @penstock.model("echo", task="generate")
    def echo(request: penstock.GenerateRequest) -> Iterator[str]:
        request.prompt_tokens = len(request.text)
        yield from request.text

    with penstock.Server([echo], port=0) as server:
        yield server


def test_another_penstock_is_an_upstream_by_both_protocols(byte_upstream: penstock.Server) -> None:
    [found] = penstock.RemoteModel.discover(byte_upstream.url)
    assert (found.name, found.__penstock_model__.task, found.api) == ("echo", "generate", "openai")
    by_text = penstock.RemoteModel("plain", byte_upstream.url, upstream_name="echo", task="generate", api="generate")
    with penstock.Server([found, by_text], port=0) as server, penstock.Client(server.url) as client:
        ask = {"model": "echo", "prompt": "aé水", "stream": True, "stream_options": {"include_usage": True}}
        with client.stream("POST", "/v1/completions", json=ask) as said:
            data = [each.data for each in said.sse()]
        assert data[-1] == "[DONE]"
        assert json.loads(data[-2])["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
        for name in ("echo", "plain"):
            chat = client.post("/v1/completions", json={"model": name, "prompt": "aé水"}).json()
            assert chat["choices"][0]["text"] == "aé水"
            told = client.post(f"/v2/models/{name}/generate", json={"text_input": "aé水"}).json()
            assert told["text_output"] == "aé水"
            lines = {"Accept": "application/x-ndjson"}
            ask = {"text_input": "ab"}
            with client.stream("POST", f"/v2/models/{name}/generate_stream", json=ask, headers=lines) as said:
                assert [each["text_output"] for each in said.ndjson()] == ["a", "b"]
            refused = client.post("/v1/completions", json={"model": name, "prompt": "a", "temperature": 3})
            assert refused.status_code == 400
            assert "temperature" in refused.json()["error"]["message"]
        unknown = client.post("/v2/models/plain/generate", json={"text_input": "a", "colour": 1})
        assert (unknown.status_code, "colour" in unknown.json()["error"]) == (400, True)


@pytest.mark.asyncio
async def test_text_comes_over_grpc_too(byte_upstream: penstock.Server) -> None:
    model = penstock.RemoteModel("local", byte_upstream.url, upstream_name="echo", task="generate")
    with penstock.Server([model], port=0) as server:
        async with penstock.AsyncClient(server.grpc_url) as client, client.stream_infer() as calls:
            await calls.send("local", {"text_input": np.array(["abc"], object)})
            await calls.end()
            said = [each["text_output"].tolist()[0] async for each in calls if "text_output" in each]
    assert [text.decode() if isinstance(text, bytes) else text for text in said] == ["a", "b", "c"]
