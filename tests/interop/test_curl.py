"""curl against our doors: each version of HTTP, uploads of every shape, events as they come, TLS on both sides."""

from __future__ import annotations

import gzip
import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

import penstock
from tests.interop.support.certificates import write_certificates
from tests.interop.support.served import WIDE, double, in_flight, wide
from tests.python.support.security import HASH, KEY
from tests.python.support.waiting import Gate, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

INFER = "/v2/models/double/infer"
QUESTION = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 2]}]})
DOUBLED = [3.0, 4.0]
PROBE = "/v2/health/ready"
LIMIT = 60
VERSIONS = {"--http1.0": "1", "--http1.1": "1.1", "--http2-prior-knowledge": "2"}
versions = pytest.mark.parametrize(("flag", "version"), VERSIONS.items(), ids=VERSIONS)


@penstock.model("words", task="generate")
def words(request: penstock.GenerateRequest) -> Iterator[str]:
    for word in request.text.split():
        yield word + " "


@dataclass(frozen=True)
class Answer:
    status: int
    version: str
    connects: int
    """Connections that were made for it."""
    sent: int
    """Bytes of the body that were sent."""
    head: str
    """Those of all answers of one run."""
    body: bytes

    @property
    def numbers(self) -> list[float]:
        found: list[float] = json.loads(self.body)["outputs"][0]["data"]
        return found


@pytest.fixture
def curl(tmp_path: Path) -> Callable[..., list[Answer]]:
    """Runs curl; an answer for each URL, in their order."""

    def run(*arguments: str, stdin: bytes = b"") -> list[Answer]:
        wanted = json.dumps([f"%{{{name}}}" for name in ("http_code", "http_version", "num_connects", "size_upload")])
        command = ["curl", "-sS", "-m", str(LIMIT), "-w", f"{wanted}\n", "-D", str(tmp_path / "head")]
        bodies = []
        for argument in arguments:
            command.append(argument)
            if argument.startswith("http"):
                bodies.append(tmp_path / f"body-{len(bodies)}")
                command += ["-o", str(bodies[-1])]
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=LIMIT + 10, check=False)
        assert done.returncode == 0, done.stderr.decode()
        told = [json.loads(line) for line in done.stdout.decode().splitlines()]
        head = (tmp_path / "head").read_text()
        return [
            Answer(int(status), version, int(connects), int(sent), head, body.read_bytes())
            for (status, version, connects, sent), body in zip(told, bodies, strict=True)
        ]

    return run


@pytest.fixture(scope="module")
def server() -> Iterator[penstock.Server]:
    with penstock.Server([double, wide, words], port=0, compression="auto") as server:
        yield server


@versions
def test_each_version_of_http(
    server: penstock.Server, curl: Callable[..., list[Answer]], flag: str, version: str
) -> None:
    (answer,) = curl(flag, "-d", QUESTION, server.url + INFER)
    assert (answer.status, answer.numbers, answer.version) == (200, DOUBLED, version)


def test_an_upgrade_that_is_not_taken_is_answered_all_the_same(
    server: penstock.Server, curl: Callable[..., list[Answer]]
) -> None:
    (answer,) = curl("--http2", "-d", QUESTION, server.url + INFER)
    assert (answer.status, answer.numbers, answer.version) == (200, DOUBLED, "1.1")


def test_one_connection_for_many(server: penstock.Server, curl: Callable[..., list[Answer]]) -> None:
    answers = curl("--http1.1", "-d", QUESTION, *([server.url + INFER] * 5))
    assert [answer.numbers for answer in answers] == [DOUBLED] * 5
    assert sum(answer.connects for answer in answers) == 1


def test_a_head(server: penstock.Server, curl: Callable[..., list[Answer]]) -> None:
    for flag in ("--http1.1", "--http2-prior-knowledge"):
        (answer,) = curl(flag, "-I", server.url + "/v2")
        assert answer.status == 200
        assert "content-length" in answer.head.lower()


@pytest.mark.parametrize("flag", ["--http1.1", "--http2-prior-knowledge"])
def test_a_packed_question_and_a_packed_stream(
    server: penstock.Server, curl: Callable[..., list[Answer]], flag: str
) -> None:
    packed = gzip.compress(QUESTION.encode())
    header = "content-encoding: gzip"
    (answer,) = curl(flag, "-H", header, "--data-binary", "@-", server.url + INFER, stdin=packed)
    assert (answer.numbers, answer.sent) == (DOUBLED, len(packed))
    asked = json.dumps({"model": "words", "prompt": "so much water " * 200, "stream": True})
    (stream,) = curl(flag, "--compressed", "-d", asked, server.url + "/v1/completions")
    assert "content-encoding: " in stream.head.lower()
    assert "".join(texts(stream.body)) == "so much water " * 200


def texts(events: bytes) -> Iterator[str]:
    """What the events of a completion say."""
    for line in events.decode().splitlines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line[6:])["choices"][0]["text"]


def wide_question() -> bytes:
    x = {"name": "x", "datatype": "FP32", "shape": [1, WIDE], "data": [1.5] * WIDE}
    return json.dumps({"inputs": [x]}).encode()


@pytest.mark.parametrize("flag", ["--http1.1", "--http2-prior-knowledge"])
def test_an_upload_in_chunks(server: penstock.Server, curl: Callable[..., list[Answer]], flag: str) -> None:
    """From a pipe, of which curl does not know how long it is."""
    url = server.url + "/v2/models/wide/infer"
    (answer,) = curl(flag, "-X", "POST", "-T", "-", url, stdin=wide_question())
    assert answer.status == 200
    assert set(answer.numbers) == {3.0}
    assert len(answer.numbers) == WIDE


def test_a_large_upload_waits_to_be_asked_for(server: penstock.Server, curl: Callable[..., list[Answer]]) -> None:
    url = server.url + "/v2/models/wide/infer"
    header = ["--http1.1", "-H", "expect: 100-continue"]
    (answer,) = curl(*header, "--data-binary", "@-", url, stdin=wide_question())
    assert answer.head.startswith("HTTP/1.1 100 Continue")
    assert (answer.status, len(answer.numbers)) == (200, WIDE)
    (refused,) = curl(*header, "--data-binary", "@-", server.url + "/v2/models/none/infer", stdin=wide_question())
    assert (refused.status, refused.sent) == (404, 0), "nobody asks for what nobody wants"


@pytest.mark.parametrize("flag", ["--http1.1", "--http2-prior-knowledge"])
def test_events_are_seen_as_they_are_said(flag: str) -> None:
    gate = Gate()

    @penstock.model("slow", task="generate")
    def slow(_: penstock.GenerateRequest) -> Iterator[str]:
        yield "first"
        gate.opened.wait(LIMIT)
        yield "second"

    asked = json.dumps({"model": "slow", "prompt": "", "stream": True})
    with penstock.Server(slow, port=0) as server:
        command = ["curl", "-sSN", flag, "-m", str(LIMIT), "-d", asked, server.url + "/v1/completions"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert list(texts(process.stdout.readline())) == ["first"]
            gate.open()
            rest = process.stdout.read()
        assert process.returncode == 0
        assert list(texts(rest)) == ["second", ""]
        assert rest.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("flag", ["--http1.1", "--http2-prior-knowledge"])
def test_a_stream_that_is_left_is_stopped(flag: str) -> None:
    left = Gate()

    @penstock.model("endless", task="generate")
    def endless(_: penstock.GenerateRequest) -> Iterator[str]:
        try:
            while True:
                left.opened.wait(0.01)
                yield "on "
        finally:
            left.entered.set()

    asked = json.dumps({"model": "endless", "prompt": "", "stream": True})
    with penstock.Server(endless, port=0) as server:
        command = ["curl", "-sSN", flag, "-m", str(LIMIT), "-d", asked, server.url + "/v1/completions"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline()
            process.terminate()
        assert left.entered.wait(LIMIT)
        until(lambda: in_flight(server) == 0)


def tls(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The settings of a server, and how curl is told whom to trust."""
    certificates = write_certificates(folder)
    files = {"tls_cert": folder / "server.pem", "tls_key": folder / "server.key"}
    return files, ["--cacert", str(certificates.authority)]


@pytest.mark.parametrize(("flag", "version"), [("--http1.1", "1.1"), ("--http2", "2")])
def test_over_tls(tmp_path: Path, curl: Callable[..., list[Answer]], flag: str, version: str) -> None:
    files, trust = tls(tmp_path / "tls")
    with penstock.Server(double, port=0, **files) as server:
        answers = curl(*trust, flag, "-d", QUESTION, server.url + INFER, server.url + INFER)
        assert [(answer.numbers, answer.version) for answer in answers] == [(DOUBLED, version)] * 2
        assert sum(answer.connects for answer in answers) == 1
        command = ["curl", "-sS", "-m", str(LIMIT), server.url + PROBE]
        stranger = subprocess.run(command, capture_output=True, timeout=LIMIT + 10, check=False)
        assert stranger.returncode == 60, "curl's word for a certificate that it does not trust"


def test_certificates_on_both_sides(tmp_path: Path, curl: Callable[..., list[Answer]]) -> None:
    files, trust = tls(tmp_path / "tls")
    ca, client, key = (str(tmp_path / "tls" / name) for name in ("authority.pem", "client.pem", "client.key"))
    with penstock.Server(double, port=0, **files, tls_client_ca=ca) as server:
        (answer,) = curl(*trust, "--cert", client, "--key", key, "-d", QUESTION, server.url + INFER)
        assert (answer.numbers, answer.version) == (DOUBLED, "2")
        command = ["curl", "-sS", "-m", str(LIMIT), *trust, server.url + PROBE]
        stranger = subprocess.run(command, capture_output=True, timeout=LIMIT + 10, check=False)
        assert stranger.returncode in (35, 55, 56), "it ends in the handshake, or right behind it"
        assert not stranger.stdout


def test_a_key(curl: Callable[..., list[Answer]]) -> None:
    with penstock.Server(double, port=0, api_keys={"team-a": HASH}) as server:
        for header in (f"authorization: Bearer {KEY}", f"x-api-key: {KEY}"):
            (answer,) = curl("-H", header, "-d", QUESTION, server.url + INFER)
            assert answer.numbers == DOUBLED
        (stranger,) = curl("-d", QUESTION, server.url + INFER)
        assert stranger.status == 401
        assert "www-authenticate: Bearer" in stranger.head


def test_many_at_a_time_over_one_connection(tmp_path: Path, curl: Callable[..., list[Answer]]) -> None:
    # In the clear, Debian 12's curl uses no connection of HTTP/2 twice: https://github.com/curl/curl/issues/10634
    files, trust = tls(tmp_path / "tls")
    count = 40
    with penstock.Server(double, port=0, **files) as server:
        answers = curl(*trust, "-Z", "--parallel-max", str(count), "-d", QUESTION, *([server.url + INFER] * count))
        assert [(answer.numbers, answer.version) for answer in answers] == [(DOUBLED, "2")] * count
        assert sum(answer.connects for answer in answers) < count
        assert server.stats().models["double"].requests == count
