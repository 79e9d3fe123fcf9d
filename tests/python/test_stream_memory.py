"""What streams hold: the peak of a process above what it holds at rest, while much flows through it."""

from __future__ import annotations

import contextlib
import json
import re
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.python.support.http_server import HttpServer
from tests.python.support.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.python.support.http_server import Peer

MB = 1_000_000
LONG = 100 * MB
"""Bytes of a long answer."""
STREAMS, PIECES, PIECE = 200, 20, 4096
"""Answers at a time, and what each is made of."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")

SERVER = """
import threading, time
import penstock

@penstock.model("batched", task="generate", batched=True, max_batch_size=256)
def batched(batch):
    # As a model that takes some time for a step: the reader, in Python, keeps up with it.
    while batch.live:
        time.sleep(0.1)
        yield ["x" * %(piece)d] * len(batch.live)
        batch.join()

@penstock.model("long", task="generate")
def long(request):
    for _ in range(%(long)d // 65536):
        yield "x" * 65536

with penstock.Server([batched, long], port=0, grpc_port=None) as server:
    print(server.url, flush=True)
    threading.Event().wait()
"""

CLIENT = """
import asyncio, re, sys, time
import penstock

def status(name):
    with open("/proc/self/status") as file:
        return int(re.search(name + r":\\\\s+(\\\\d+) kB", file.read())[1]) * 1024

def rest():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return status("VmRSS")

url, form, pause = sys.argv[1], sys.argv[2], float(sys.argv[3])

def blocking():
    with penstock.Client(url) as client:
        held = 0
        for target in ("/short", "/long"):
            at_rest = rest()
            total = 0
            with client.stream("GET", target) as stream:
                items = getattr(stream, form)()
                for count, item in enumerate(items):
                    total += len(item if isinstance(item, (bytes, str)) else item.data)
                    if count == 10:
                        time.sleep(pause)
            held = status("VmHWM") - at_rest
        print(total, held)

async def asynchronous():
    async with penstock.AsyncClient(url) as client:
        held = 0
        for target in ("/short", "/long"):
            at_rest = rest()
            total = 0
            async with client.stream("GET", target) as stream:
                items = getattr(stream, form)()
                count = 0
                async for item in items:
                    total += len(item if isinstance(item, (bytes, str)) else item.data)
                    count += 1
                    if count == 10:
                        await asyncio.sleep(pause)
            held = status("VmHWM") - at_rest
        print(total, held)

asyncio.run(asynchronous()) if sys.argv[4] == "async" else blocking()
"""


class Watched:
    """A server in a process of its own, whose memory is looked at from outside."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._folder = Path(f"/proc/{process.pid}")
        assert process.stdout is not None
        host, _, port = process.stdout.readline().strip().removeprefix("http://").partition(":")
        self._address = (host, int(port))
        self._at_rest = 0

    def rest(self) -> None:
        """From here on it counts."""
        (self._folder / "clear_refs").write_text("5")
        self._at_rest = self._status("VmRSS")

    @property
    def held(self) -> int:
        """Bytes of its peak above what it held at rest."""
        return self._status("VmHWM") - self._at_rest

    def ask(self, model: str, max_tokens: int) -> socket.socket:
        """Asks for a streamed answer."""
        body = json.dumps({"text_input": "go", "max_tokens": max_tokens}).encode()
        asking = socket.create_connection(self._address, PATIENCE)
        head = f"POST /v2/models/{model}/generate_stream HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        asking.sendall(head.encode() + body)
        return asking

    def _status(self, name: str) -> int:
        found = re.search(rf"{name}:\s+(\d+) kB", (self._folder / "status").read_text())
        assert found is not None
        return int(found[1]) * 1024


@contextlib.contextmanager
def serving() -> Iterator[Watched]:
    script = SERVER % {"piece": PIECE, "long": LONG}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Watched(process)
        finally:
            process.kill()


@pytest.fixture
def server() -> Iterator[Watched]:
    with serving() as watched:
        yield watched


def read(asking: list[socket.socket]) -> list[int]:
    """Reads answers to their ends: how many bytes each has."""
    lengths = dict.fromkeys(asking, 0)
    with select.epoll() as poll, contextlib.ExitStack() as stack:
        by_number = {each.fileno(): stack.enter_context(each) for each in asking}
        for number in by_number:
            poll.register(number, select.EPOLLIN)
        while by_number:
            ready = poll.poll(PATIENCE)
            assert ready, "nothing came any more"
            for number, _ in ready:
                data = by_number[number].recv(1 << 17)
                lengths[by_number[number]] += len(data)
                if data.endswith(b"0\r\n\r\n") or not data:
                    poll.unregister(number)
                    del by_number[number]
    return list(lengths.values())


def held_for_two_hundred() -> int:
    """Bytes that a server holds which answers as many at a time."""
    with serving() as server:
        read([server.ask("batched", 2)])
        server.rest()
        lengths = read([server.ask("batched", PIECES) for _ in range(STREAMS)])
        assert min(lengths) > PIECES * PIECE
        return server.held


def test_two_hundred_batched_streams_of_4_kib_chunks_hold_less_than_ten_megabytes() -> None:
    # A reader that the machine keeps waiting leaves the server what all streams may hold, 10 MiB: not every time.
    tries = (held_for_two_hundred() for _ in range(3))
    assert any(held < 10 * MB for held in tries)


@pytest.mark.parametrize("pause", [0.0, 1.0], ids=["fast", "slow"])
def test_an_answer_of_100_mb_holds_less_than_four_megabytes_of_the_server(server: Watched, pause: float) -> None:
    read([server.ask("long", 1)])
    server.rest()
    asking = server.ask("long", 2048)
    asking.recv(1 << 16)
    time.sleep(pause)
    (length,) = read([asking])
    assert length > LONG * 0.99
    assert server.held < 4 * MB


def pour(peer: Peer) -> None:
    """Answers with events of 4 KiB, 100 MB of them or one."""
    event = b"data: " + b"x" * 4000 + b"\n\n"
    for request in peer:
        count = 1 if request.target == "/short" else LONG // len(event)
        peer.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % (count * len(event))
        )
        for _ in range(count // 100):
            peer.send(event * 100)
        peer.send(event * (count % 100))


@pytest.mark.parametrize("kind", ["async", "blocking"])
@pytest.mark.parametrize("form", ["chunks", "sse", "lines"])
@pytest.mark.parametrize("pause", [0.0, 0.5], ids=["fast", "slow"])
def test_an_answer_of_100_mb_holds_less_than_four_megabytes_of_the_client(kind: str, form: str, pause: float) -> None:
    with HttpServer(pour) as server:
        arguments = [sys.executable, "-c", CLIENT.replace("\\\\", "\\"), server.url, form, str(pause), kind]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=PATIENCE * 4, check=False)
    assert done.returncode == 0, done.stderr
    total, held = map(int, done.stdout.split())
    assert total > LONG * 0.99
    assert held < 4 * MB
