"""What a server says of itself while it runs: metrics by the names of the guide, probes, lines of its log."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import re
import signal
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from penstock import AsyncClient, Client, Server, _logs, logs, model, testing
from tests.python.support.logs import Kept, as_they_were
from tests.python.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
ELSEWHERE = ("penstock_stream_", "penstock_pool_")
"""Families whose tables are in other guides."""
RARE = {
    "penstock_metrics_refused", "penstock_worker_restarts", "penstock_models_predicting",
    "penstock_models_prediction_accuracy", "penstock_models_predicted_preloads",
    "penstock_models_predicted_load_seconds",
}  # fmt: skip
"""Families that are there under conditions that the guide names."""


@model("double", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
def double(x: Any) -> Any:
    return x * np.float32(2)


@pytest.fixture(autouse=True)
def _loggers_as_they_were() -> Iterator[None]:
    yield from as_they_were()


def ask(url: str, headers: dict[str, str] | None = None) -> Any:
    body = json.dumps(testing.infer_body({"x": ("FP32", [1, 2], [1.0, 2.0])})).encode()
    request = urllib.request.Request(f"{url}/v2/models/double/infer", body, headers or {})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200
        return answer


async def test_what_streams_of_grpc_bring_is_counted_and_noted() -> None:
    with Kept("penstock.access") as kept, Server(double, port=0, access_log=True) as server:
        async with AsyncClient(server.grpc_url) as client, client.stream_infer() as stream:
            for _ in range(3):
                await stream.send("double", {"x": np.ones((50, 2), np.float32)})
            await stream.end()
            assert len([answer async for answer in stream]) == 3
        until(lambda: kept.records)
        text = server.metrics()
    sent = value(text, 'penstock_request_bytes_total{protocol="grpc"}')
    assert sent > 3 * 50 * 2 * 4
    assert kept.records[0].request_bytes == sent  # type: ignore[attr-defined]


def status(url: str, body: bytes | None = None) -> int:
    try:
        with urllib.request.urlopen(url, body, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def families(text: str) -> dict[str, str]:
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))


def documented() -> dict[str, str]:
    row = r"^\| ((?:`\w+`(?:, )?)+) \| (counter|gauge|histogram|info|unknown) \|"
    rows = re.findall(row, GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    each = ((name, kind) for names, kind in rows for name in re.findall(r"`(\w+)`", names))
    return {
        name.removesuffix("_total") if kind == "counter" else name.removesuffix("_info"): kind for name, kind in each
    }


async def test_the_guide_names_every_metric_with_its_type_and_no_other() -> None:
    with Server(double, port=0, max_body=1000) as server:
        async with AsyncClient(server.url) as client, AsyncClient(server.grpc_url) as over_grpc:
            for each in (client, over_grpc):
                await each.infer("double", {"x": np.ones((1, 2), np.float32)})
        assert status(server.url + "/nowhere") == 404
        assert await asyncio.to_thread(status, server.url + "/v2/models/double/infer", b"{" * 1001) == 413
        gc.collect()
        said = families(server.metrics())
    told = {name: kind for name, kind in said.items() if not name.startswith(ELSEWHERE)}
    wanted = documented()
    assert told.items() <= wanted.items(), told.items() - wanted.items()
    conditional = {
        name for name in wanted if "hit_rate" in name or "evictions" in name or "_tls_" in name or "_security_" in name
    } | RARE
    assert wanted.keys() - told.keys() <= conditional, wanted.keys() - told.keys()


def value(text: str, line: str) -> float:
    found = re.search(rf"^{re.escape(line)} (\S+)$", text, re.MULTILINE)
    assert found is not None, (line, text)
    return float(found[1])


def test_metrics_say_what_was_moved_and_how_long_it_took_of_late() -> None:
    with Server(double, port=0) as server:
        for _ in range(20):
            ask(server.url)
        gc.collect()
        text = server.metrics()
        assert value(text, 'penstock_request_bytes_total{protocol="http"}') > 20 * 50
        assert value(text, 'penstock_response_bytes_total{protocol="http"}') > 20 * 50
        assert value(text, 'penstock_response_bytes_total{protocol="grpc"}') == 0
        half, most = (
            value(text, f'penstock_request_seconds_quantile{{model="double",quantile="{share}"}}')
            for share in ("0.5", "0.999")
        )
        assert 0 < half <= most < 60
        assert value(text, 'penstock_gc_pause_seconds_count{generation="2"}') >= 1
        assert value(text, "penstock_http_accepted_total") == 20
        assert value(text, "penstock_log_dropped_total") == 0
        assert value(text, "process_cpu_seconds_total") > 0
    before = value(text, 'penstock_gc_pause_seconds_count{generation="2"}')
    gc.collect()
    with Server(double, port=0) as server:
        after = value(server.metrics(), 'penstock_gc_pause_seconds_count{generation="2"}')
    assert after - before <= 3, "what is collected while no server runs is not counted"


def test_a_server_has_started_once_its_models_were_there_and_for_good() -> None:
    opened = threading.Event()

    class Slow:
        def load(self, ctx: Any) -> None:
            assert opened.wait(60)

        def predict(self, x: Any) -> Any:
            return x

    slow = model("slow", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})(Slow)
    server = Server(slow, port=0)
    starting = threading.Thread(target=server.start)
    starting.start()
    until(lambda: server._native is not None and server._native.address is not None)
    until(lambda: status(server.url + "/v2/health/live") == 200)
    assert [status(f"{server.url}/v2/health/{probe}") for probe in ("started", "ready")] == [503, 503]
    opened.set()
    starting.join()
    with server, Client(server.url) as client:
        assert [status(f"{server.url}/v2/health/{probe}") for probe in ("started", "ready")] == [200, 200]
        client.unload_model("slow")
        assert status(server.url + "/v2/health/started") == 200


def test_a_server_that_leaves_answers_for_a_while_and_says_that_it_is_not_ready() -> None:
    with Server(double, port=0, drain_delay=3600) as server:
        server._delay = 2.0
        ended = threading.Event()
        closing = threading.Thread(target=lambda: (server.close(), ended.set()))
        with grpc.insecure_channel(server.grpc_url.removeprefix("grpc://")) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            closing.start()
            until(lambda: status(server.url + "/v2/health/ready") == 503)
            assert not ended.is_set()
            serving = {
                name: health.Check(health_pb2.HealthCheckRequest(service=name), timeout=30).status
                for name in ("", "penstock.live", "penstock.started")
            }
            assert serving == {"": 2, "penstock.live": 1, "penstock.started": 1}
            ask(server.url)
            assert status(server.url + "/v2/health/started") == 200
        closing.join()
        server.close()


async def test_leaving_does_not_block_the_loop_and_is_left_out_without_draining() -> None:
    began = time.monotonic()
    async with Server(double, port=0, drain_delay=3600) as server:
        await server.aclose(drain=False)
    assert time.monotonic() - began < 60
    server = Server(double, port=0, drain_delay=1.0)
    async with server:
        closing = asyncio.create_task(server.aclose())
        await asyncio.sleep(0)
        assert not server.ready
        await closing


def test_request_ids_are_said_and_made_where_somebody_will_look_for_them() -> None:
    with Server(double, port=0) as server:
        assert ask(server.url).headers["x-request-id"] is None
        assert ask(server.url, {"X-Request-Id": "a7"}).headers["x-request-id"] == "a7"
        assert server.explain(request_id="a7").batches
        assert ask(server.url, {"X-Request-Id": "b" * 500}).headers["x-request-id"] == "b" * 128
    with Kept(_logs.ACCESS) as kept, Server(double, port=0, access_log=True) as server:
        made = ask(server.url).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", made)
        with grpc.insecure_channel(server.grpc_url.removeprefix("grpc://")) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            _, call = health.Check.with_call(health_pb2.HealthCheckRequest(), metadata=[("x-request-id", "g1")])
            assert dict(call.initial_metadata())["x-request-id"] == "g1"
    assert [record.request_id for record in kept.records] == [made, "g1"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("as_json", [True, False])
def test_lines_that_the_core_writes_are_those_that_python_would_write(as_json: bool) -> None:
    direct = io.StringIO()
    logs.configure(json=as_json, stream=direct)
    try:
        requests = [
            ("/v2/models/double/infer", {"X-Request-Id": 'a"\\7'}),
            ("/nowhere/%C3%A9?secret=1", {}),
            ("/v2/models/double/infer", {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-00"}),
        ]
        with Server(double, port=0, access_log=True) as server:
            asked(server, requests)
        assert logs._handler is not None
        # A record that is made, by the same formatter.
        with Kept(_logs.ACCESS) as kept, Server(double, port=0, access_log=True) as server:
            asked(server, requests)
        formatter = logs._handler.formatter
        assert formatter is not None
        made = [formatter.format(record) for record in kept.records]
    finally:
        logging.root.removeHandler(logs._handler)  # type: ignore[arg-type]
        logs._handler = None
    written = [line for line in direct.getvalue().splitlines() if "penstock.access" in line][:3]
    assert len(written) == len(made) == 3
    for line, expected in zip(written, made, strict=True):
        if as_json:
            left, right = json.loads(line), json.loads(expected)
            assert list(left) == list(right)
            assert shapes(left) == shapes(right)
            same = {"level", "logger", "protocol", "method", "path", "status", "grpc_code", "request_bytes", "model",
                    "rows", "trace_id", "span_id", "key", "client"}  # fmt: skip
            assert {name: left[name] for name in same} == {name: right[name] for name in same}
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", left["time"])
        else:
            timeless = r"\d\d:\d\d:\d\d,\d{3}|[\d.]+ ms"
            assert re.sub(timeless, "", line) == re.sub(timeless, "", expected)
            moment = time.mktime(time.strptime(line[:19], "%Y-%m-%d %H:%M:%S"))
            assert abs(time.time() - moment) < 120, "by the clock on the wall"


def shapes(line: dict[str, Any]) -> dict[str, type]:
    return {name: type(value) for name, value in line.items()}


def asked(server: Server, requests: list[tuple[str, dict[str, str]]]) -> None:
    body = json.dumps(testing.infer_body({"x": ("FP32", [1, 2], [1.0, 2.0])})).encode()
    for path, headers in requests:
        try:
            urllib.request.urlopen(urllib.request.Request(server.url + path, body, headers), timeout=30).close()
        except urllib.error.HTTPError as error:
            error.close()


def test_a_handler_that_comes_later_gets_records(capsys: pytest.CaptureFixture[str]) -> None:
    written = io.StringIO()
    logs.configure(json=True, stream=written)
    try:
        with Server(double, port=0, access_log=True) as server:
            ask(server.url)
            until(lambda: "penstock.access" in written.getvalue())
            with Kept(_logs.ACCESS) as kept:
                ask(server.url)
                until(lambda: kept.records)
    finally:
        logging.root.removeHandler(logs._handler)  # type: ignore[arg-type]
        logs._handler = None
    assert len(kept.records) == 1
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals of Unix")
def test_a_second_signal_ends_a_server_that_leaves_at_once(tmp_path: Path) -> None:
    import subprocess
    import sys

    app = tmp_path / "app.py"
    app.write_text(
        "import penstock\n"
        '@penstock.model("double", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})\n'
        "def double(x):\n    return x\n"
    )
    command = [sys.executable, "-m", "penstock", "serve", str(app), "--port", "0", "--drain-delay", "600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        found = re.search(r"http://\S+", said)
        assert found is not None, said
        process.send_signal(signal.SIGTERM)
        until(lambda: status(found[0] + "/v2/health/ready") == 503)
        ask(found[0])
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM
