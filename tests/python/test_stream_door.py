"""Answers that come in pieces, as a server's settings, its close and its test client have them."""

from __future__ import annotations

import http.client
import itertools
import json
import socket
import threading
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

import penstock
from penstock import GenerateRequest, Server, model
from penstock.errors import ConfigError
from penstock.settings import DoorSettings
from penstock.testing import TestClient

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 30.0


@model("count", task="generate")
def count(request: GenerateRequest) -> Iterator[str]:
    for number in range(int(request.text)):
        yield f"{number} "


class Endless:
    """Says words until nobody listens, and remembers that it was stopped."""

    def __init__(self) -> None:
        self.steps = 0
        self.stopped = threading.Event()

    def __call__(self, request: GenerateRequest) -> Iterator[str]:
        try:
            for number in itertools.count():
                self.steps += 1
                yield f"{number} "
                time.sleep(0.01)
        finally:
            self.stopped.set()


def endless() -> tuple[Endless, Any]:
    words = Endless()

    @model("endless", task="generate")
    def said(request: GenerateRequest) -> Iterator[str]:
        yield from words(request)

    return words, said


def texts(stream: bytes) -> list[str]:
    events = [line[6:] for line in stream.decode().splitlines() if line.startswith("data: ")]
    return [json.loads(event).get("text_output", "") for event in events]


def test_the_test_client_gets_a_stream_as_a_whole() -> None:
    with TestClient(Server(count)) as client:
        answer = client.post("/v2/models/count/generate_stream", json={"text_input": "3"})
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "".join(texts(answer.content)) == "0 1 2 "
        lines = client.post(
            "/v2/models/count/generate_stream", json={"text_input": "2"}, headers={"accept": "application/x-ndjson"}
        )
        assert [json.loads(line)["text_output"] for line in lines.text.splitlines()] == ["0 ", "1 "]


@contextmanager
def asked(server: Server, name: str, text: str) -> Iterator[http.client.HTTPResponse]:
    host, port = server.url.removeprefix("http://").split(":")
    with closing(http.client.HTTPConnection(host, int(port), timeout=PATIENCE)) as connection:
        connection.request("POST", f"/v2/models/{name}/generate_stream", json.dumps({"text_input": text}))
        with connection.getresponse() as answer:
            yield answer


def test_a_client_that_leaves_stops_the_generator() -> None:
    words, said = endless()
    with Server(said, port=0) as server:
        with asked(server, "endless", "go") as answer:
            assert answer.readline().startswith(b"data: ")
        assert words.stopped.wait(PATIENCE)
        after = words.steps
        assert "penstock_stream_cancelled_total 1" in server.metrics()
        time.sleep(0.1)
        assert words.steps == after


def test_a_server_that_runs_out_of_time_ends_its_streams_with_words() -> None:
    words, said = endless()
    server = Server(said, port=0).start()
    with asked(server, "endless", "go") as answer:
        assert answer.readline().startswith(b"data: ")
        server.close(timeout=0.3)
        last = answer.read().decode().strip().splitlines()[-1]
    assert "drain_timeout" in json.loads(last.removeprefix("data: "))["error"]
    assert words.stopped.wait(PATIENCE)


def test_a_quiet_stream_sends_comments() -> None:
    release = threading.Event()

    @model("slow", task="generate")
    def slow(_: GenerateRequest) -> Iterator[str]:
        yield "a"
        release.wait(PATIENCE)
        yield "b"

    with Server(slow, port=0, keep_alive=0.1) as server, asked(server, "slow", "go") as answer:
        assert texts(answer.readline()) == ["a"]
        assert answer.readline() == b"\n"
        assert answer.readline().startswith(b":")
        release.set()
        assert texts(answer.read()) == ["b"]


def test_a_stream_is_packed_unless_a_setting_forbids_it() -> None:
    for compression, coding in (("auto", "gzip"), ("off", None)):
        with TestClient(Server(count, compression=compression)) as client:
            answer = client.post(
                "/v2/models/count/generate_stream",
                json={"text_input": "200"},
                headers={"accept-encoding": "gzip"},
            )
            assert answer.headers.get("content-encoding") == coding


def test_one_slow_reader_does_not_hold_the_other_up() -> None:
    piece = "x" * 16_000

    @model("wide", task="generate", batched=True)
    def wide(batch: penstock.Batch) -> Iterator[Any]:
        left = dict.fromkeys(batch.live, 400)
        while batch.live:
            for index in list(batch.live):
                left[index] = left.get(index, 400) - 1
                if left[index] < 0:
                    batch.finish(index)
            yield dict.fromkeys(batch.live, piece)
            batch.join()

    with Server(wide, port=0, stream_window="256KiB") as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), PATIENCE) as idle:
            body = b'{"text_input": "go"}'
            head = f"POST /v2/models/wide/generate_stream HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
            idle.sendall(head.encode() + body)
            with asked(server, "wide", "go") as answer:
                assert len("".join(texts(answer.read()))) == 400 * len(piece)
            metrics = server.metrics()
        pauses = next(line for line in metrics.splitlines() if line.startswith("penstock_stream_pauses_total "))
        assert int(pauses.split()[1]) >= 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("compression", "zip"), ("slow_reader", "wait"), ("slow_reader", True), ("keep_alive", 0), ("stream_window", 0)],
)
def test_a_setting_that_cannot_be_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        Server(count, **{name: value})


def test_choices_come_from_every_source() -> None:
    environment = {"PENSTOCK_SLOW_READER": "drop"}
    assert DoorSettings.resolve({"slow_reader": "buffer"}, {}, environment).slow_reader == "drop"
    assert DoorSettings.resolve({}, {"slow_reader": "pause"}, environment).slow_reader == "pause"
    with pytest.raises(ConfigError, match="PENSTOCK_SLOW_READER must be 'pause' or 'buffer' or 'drop'"):
        DoorSettings.resolve({}, {}, {"PENSTOCK_SLOW_READER": "x"})
