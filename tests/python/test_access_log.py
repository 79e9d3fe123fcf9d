"""Access records: one for each request, and never at its cost."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penstock import Server, _logs, model, testing
from tests.python.support.logs import Blocked, Kept, as_they_were, readers
from tests.python.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.python.support.scripts import Finished, Script

ATTRIBUTES = {
    "peer", "protocol", "method", "path", "status", "grpc_code", "seconds", "request_bytes", "response_bytes",
    "request_id", "trace_id", "span_id", "model", "rows", "batch", "reason", "load_seconds", "queue_seconds",
    "slot_seconds", "gather_seconds", "model_seconds", "scatter_seconds", "encode_seconds",
}  # fmt: skip


@model("double", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
def double(x: Any) -> Any:
    return x * np.float32(2)


@pytest.fixture(autouse=True)
def _loggers_as_they_were() -> Iterator[None]:
    yield from as_they_were()


def ended(done: Finished) -> list[str]:
    assert (done.code, done.err) == (0, ""), done
    return done.out


def ask(server: Server, times: int = 1) -> None:
    body = json.dumps(testing.infer_body({"x": ("FP32", [1, 2], [1.0, 2.0])})).encode()
    for _ in range(times):
        with urllib.request.urlopen(f"{server.url}/v2/models/double/infer", body, timeout=30) as answer:
            assert answer.status == 200


def test_each_request_is_logged_once_in_order_with_its_attributes() -> None:
    before = time.time()
    with Kept(_logs.ACCESS) as kept, Server([double], port=0, access_log=True) as server:
        ask(server, 3)
        for path in ("/v2/health/live", "/nowhere?secret=1"):
            try:
                urllib.request.urlopen(server.url + path, timeout=30).close()
            except urllib.error.HTTPError as error:
                error.close()
    seen = [(record.method, record.path, record.status) for record in kept.records]  # type: ignore[attr-defined]
    assert seen == [("POST", "/v2/models/double/infer", 200)] * 3 + [
        ("GET", "/v2/health/live", 200),
        ("GET", "/nowhere", 404),
    ]
    for record in kept.records:
        assert vars(record).keys() >= ATTRIBUTES
        assert (record.name, record.levelno, record.protocol) == (_logs.ACCESS, logging.INFO, "http/1.1")  # type: ignore[attr-defined]
        assert 0 < record.seconds < 60  # type: ignore[attr-defined]
        assert before <= record.created <= time.time()
    assert kept.lines[0].startswith("127.0.0.1 POST /v2/models/double/infer 200 ")
    assert kept.records[0].request_bytes > 0  # type: ignore[attr-defined]
    created = [record.created for record in kept.records]
    assert created == sorted(created)


def test_nothing_is_logged_where_nobody_asked() -> None:
    logging.getLogger(_logs.ACCESS).setLevel(logging.INFO)
    with Kept(_logs.ACCESS) as kept, Server([double], port=0) as server:
        ask(server)
    assert kept.records == []


def test_a_level_that_the_user_chose_stays() -> None:
    logging.getLogger(_logs.ACCESS).setLevel(logging.ERROR)
    with Kept(_logs.ACCESS) as kept, Server([double], port=0, access_log=True) as server:
        ask(server)
    assert kept.records == []


def test_requests_are_answered_while_a_handler_blocks() -> None:
    with Blocked(_logs.ACCESS) as blocked, Server([double], port=0, access_log=True) as server:
        ask(server)
        assert blocked.entered.wait(30)
        end = time.monotonic() + 2
        asked = 1
        while time.monotonic() < end:
            ask(server, 10)
            asked += 10
        assert blocked.records == []
        blocked.opened.set()
        server.close()
        assert len(blocked.records) == asked


def test_what_a_blocked_handler_has_no_room_for_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_logs, "CAPACITY", 10)
    with Kept("penstock.logs") as losses, Blocked(_logs.ACCESS) as blocked:
        with Server([double], port=0, access_log=True) as server:
            ask(server)
            assert blocked.entered.wait(30)
            journal = server._journal
            assert journal is not None
            ask(server, 30)
            until(lambda: journal.dropped == 20)
            blocked.opened.set()
        assert len(blocked.records) == 11
    assert sum(record.dropped for record in losses.records) == 20  # type: ignore[attr-defined]


async def test_aclose_waits_for_the_last_records_without_blocking_the_loop() -> None:
    with Blocked(_logs.ACCESS) as blocked:
        server = Server([double], port=0, access_log=True)
        async with server:
            await asyncio.to_thread(ask, server)
            asyncio.get_running_loop().call_later(0.1, blocked.opened.set)
        assert len(blocked.records) == 1


def test_a_handler_may_close_the_server() -> None:
    server = Server([double], port=0, access_log=True).start()
    closed = threading.Event()

    class Closes(Kept):
        def emit(self, record: logging.LogRecord) -> None:
            server.close()
            closed.set()

    with Closes(_logs.ACCESS):
        ask(server)
        assert closed.wait(30)
    until(lambda: not readers())


def test_records_reach_a_file_even_when_the_interpreter_ends_without_closing(script: Script, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    done = script.run(f"""
import urllib.request
from penstock import Server, model

@model("double", inputs={{"x": ("float32", [2])}}, outputs={{"y": ("float32", [2])}})
def double(x):
    return x * 2

logging.getLogger("penstock.access").addHandler(logging.FileHandler({str(path)!r}, mode="w"))
server = Server([double], port=0, access_log=True).start()
urllib.request.urlopen(server.url + "/v2/health/live").close()
""")
    assert ended(done) == []
    assert path.read_text().count("GET /v2/health/live 200") == 1


def test_a_handler_that_never_returns_does_not_hold_the_exit_up(script: Script) -> None:
    done = script.run("""
import urllib.request
from penstock import Server, model

@model("double", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
def double(x):
    return x * 2

class Sleeps(logging.Handler):
    def emit(self, record):
        entered.set()
        time.sleep(3600)

entered = threading.Event()
logging.getLogger("penstock.access").addHandler(Sleeps())
server = Server([double], port=0, access_log=True).start()
urllib.request.urlopen(server.url + "/v2/health/live").close()
entered.wait(20)
logging.raiseExceptions = False
import atexit
atexit.unregister(logging.shutdown)  # it waits for the handler's lock, with or without Penstock
print("end")
""")
    assert ended(done) == ["end"]
