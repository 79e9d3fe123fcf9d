"""wrk and h2load as load: every answer is 2xx, and what they counted is what the server says it counted."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

import penstock
from tests.interop.support.certificates import write_certificates
from tests.interop.support.metrics import grown, samples, scraped
from tests.interop.support.served import double, in_flight
from tests.python.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INFER = "/v2/models/double/infer"
REQUESTS = "penstock_requests_total"
QUESTION = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 2]}]})
# What wrk counts it prints for people; this prints it for programs, and looks at every answer.
SCRIPT = """
wrk.method, wrk.body = "POST", '{question}'
wrong = 0
function response(status, headers, body)
    if status ~= 200 or not body:find('"data":[3.0,4.0]', 1, true) then wrong = wrong + 1 end
end
local threads = {{}}
function setup(thread) table.insert(threads, thread) end
function done(summary, latency, requests)
    local e, wrong = summary.errors, 0
    for _, thread in ipairs(threads) do wrong = wrong + thread:get("wrong") end
    io.write(string.format('\\n{{"requests": %d, "failed": %d, "wrong": %d}}\\n', summary.requests,
        e.connect + e.read + e.write + e.status + e.timeout, wrong))
end
"""


@penstock.model("counts", task="generate")
def counts(_: penstock.GenerateRequest) -> Iterator[str]:
    for number in range(10):
        yield f"{number} "


@pytest.fixture
def server() -> Iterator[penstock.Server]:
    with penstock.Server([double, counts], port=0) as server:
        yield server


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_wrk(server: penstock.Server, tmp_path: Path) -> None:
    script = tmp_path / "ask.lua"
    script.write_text(SCRIPT.format(question=QUESTION))
    connections = 32
    before = scraped(server.url)
    out = run("wrk", "-t", "2", "-c", str(connections), "-d", "2s", "-s", str(script), server.url + INFER)
    told = json.loads(out.splitlines()[-1])
    assert (told["failed"], told["wrong"]) == (0, 0), out
    assert told["requests"] > connections
    # The last are counted late.
    until(lambda: grown(before, scraped(server.url), REQUESTS, "outcome=ok") >= told["requests"])
    # It leaves while requests are on their way.
    until(lambda: in_flight(server) == 0)
    after = scraped(server.url)
    counted = grown(before, after, REQUESTS, "model=double")
    assert told["requests"] <= counted <= told["requests"] + connections
    assert grown(before, after, "penstock_batch_size_sum", "model=double") <= counted
    assert all("status=200" in key for key in after if key.startswith("penstock_http_responses_total"))


def h2load(*arguments: str) -> str:
    """What it prints, once all its requests have had answers of 2xx."""
    out = run("h2load", *arguments)
    counted = re.search(
        r"requests: (\d+) total, (\d+) started, (\d+) done, (\d+) succeeded, 0 failed, 0 errored, 0 timeout", out
    )
    assert counted, out
    assert len(set(counted.groups())) == 1, out
    assert f"status codes: {counted[1]} 2xx, 0 3xx, 0 4xx, 0 5xx" in out, out
    return out


@pytest.mark.parametrize("version", ["h2c", "http/1.1"])
def test_h2load(server: penstock.Server, tmp_path: Path, version: str) -> None:
    question = tmp_path / "question.json"
    question.write_text(QUESTION)
    flags = ["--h1", "-m", "1"] if version == "http/1.1" else ["-m", "32"]
    before = samples(server.metrics())

    def counted(name: str, *labels: str) -> float:
        return grown(before, samples(server.metrics()), name, *labels)

    out = h2load(*flags, "-n", "4000", "-c", "16", "-t", "2", "-d", str(question), server.url + INFER)
    assert f"Application protocol: {version}" in out
    # The last are counted late.
    until(lambda: counted(REQUESTS, "model=double", "outcome=ok") == 4000)
    until(lambda: counted("penstock_batch_size_sum", "model=double") == 4000)
    until(lambda: counted("penstock_http_responses_total", "status=200") == 4000)
    assert counted("penstock_http_accepted_total") == 16


def test_h2load_over_tls(tmp_path: Path) -> None:
    write_certificates(tmp_path)
    question = tmp_path / "question.json"
    question.write_text(QUESTION)
    files = {"tls_cert": tmp_path / "server.pem", "tls_key": tmp_path / "server.key"}
    with penstock.Server(double, port=0, **files) as server:
        out = h2load("-n", "2000", "-c", "8", "-m", "16", "-d", str(question), server.url + INFER)
        assert "Application protocol: h2" in out
        until(lambda: server.stats().models["double"].requests == 2000)


def test_h2load_reads_streams(server: penstock.Server, tmp_path: Path) -> None:
    question = tmp_path / "question.json"
    question.write_text(json.dumps({"model": "counts", "prompt": "", "stream": True}))
    before = scraped(server.url)
    h2load("-n", "500", "-c", "8", "-m", "16", "-d", str(question), server.url + "/v1/completions")
    until(lambda: grown(before, scraped(server.url), REQUESTS, "model=counts", "outcome=ok") == 500)
