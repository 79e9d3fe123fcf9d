"""Peers that vanish without a word: no FIN, no RST, no acknowledgement.

The wire itself is taken away, in a network of the script's own.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.python.support.scripts import Script

ALONE = ("unshare", "--map-root-user", "--net")
"""A network of its own, in which one may do as one likes, whoever one is outside."""


def _may_have_a_network() -> bool:
    try:
        return subprocess.run([*ALONE, "true"], capture_output=True, timeout=10, check=False).returncode == 0
    except FileNotFoundError:
        return False


pytestmark = pytest.mark.skipif(
    not _may_have_a_network(), reason="no network of one's own (unshare), which the wire is taken away from"
)

HEAD = """
import fcntl, socket, struct
from penstock.errors import DeadlineExceeded, PenstockError, TransportError

def wire(is_there):
    # SIOCSIFFLAGS: IFF_UP, IFF_LOOPBACK, IFF_RUNNING.
    with socket.socket() as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sh", b"lo", 0x49 if is_there else 0x08))

def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)

@penstock.model("double", inputs={"x": ("float32", [1])}, outputs={"y": ("float32", [1])})
def double(x):
    return x * 2

@penstock.model("large", inputs={"x": ("float32", [1])}, outputs={"y": ("float32", [-1])})
def large(x):
    return np.zeros((len(x), 4_000_000), np.float32)

wire(True)
"""

CLIENT = """
def ask(client):
    return client.infer("double", {"x": np.ones((1, 1), np.float32)})["y"][0, 0]

limits = penstock.Timeout(connect=0.5, acquire=1, first=0.5, idle=0.5, total=2)
with penstock.Server([double], port=0) as server:
    for url in (server.url, server.grpc_url):
        client = penstock.Client(url, timeout=limits)
        assert ask(client) == 2
        wire(False)
        for _ in range(3):
            began = time.monotonic()
            try:
                ask(client)
            except (DeadlineExceeded, TransportError) as error:
                kind = type(error).__name__
            else:
                raise AssertionError("it was answered by nobody")
            assert time.monotonic() - began < 8, kind
        until(lambda: client.stats().total.outstanding == 0 and client.stats().total.waiting == 0)
        wire(True)

        def answers():
            try:
                return ask(client) == 2
            except PenstockError:
                return False

        until(answers)
        wire(False)
        # Closing waits for nobody who is not there.
        began = time.monotonic()
        client.close(drain=False)
        assert time.monotonic() - began < 5
        wire(True)
print("done")
"""

SERVER = """
def connections(server):
    line = next(line for line in server.metrics().splitlines() if line.startswith("penstock_http_connections "))
    return int(float(line.split()[1]))

def speak(server, words):
    far = socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])))
    far.sendall(words)
    return far

def request(model, length):
    body = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1]}]}'
    return b"POST /v2/models/%s/infer HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (
        model, len(body), body[:length]
    )

limits = {"idle_timeout": 1.0, "header_timeout": 1.0, "body_timeout": 1.0, "drain_timeout": 2.0}
with penstock.Server([double, large], port=0, **limits) as server:
    before = len(os.listdir("/proc/self/fd"))
    peers = [
        speak(server, b""),
        speak(server, b"POST /v2/models/double/infer HT"),
        speak(server, request(b"double", 20)),
        speak(server, request(b"double", None)),
        # More than the kernel takes: the rest of the answer is on its way when the peer goes.
        speak(server, request(b"large", None)),
        speak(server, b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + bytes(3) + b"\\x04" + bytes(5)),
    ]
    assert peers[3].recv(1000).startswith(b"HTTP/1.1 200")
    assert peers[4].recv(1000).startswith(b"HTTP/1.1 200")
    until(lambda: connections(server) == len(peers))
    wire(False)
    until(lambda: connections(server) == 0)
    for peer in peers:
        peer.close()
    until(lambda: len(os.listdir("/proc/self/fd")) <= before)
    wire(True)
    with penstock.Client(server.url) as client:
        assert client.infer("double", {"x": np.ones((1, 1), np.float32)})["y"][0, 0] == 2
    late = speak(server, request(b"large", None))
    assert late.recv(1000)
    wire(False)
    began = time.monotonic()
# Draining ends in its time, whoever it waits for.
assert time.monotonic() - began < 10
late.close()
print("done")
"""


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_peer_that_vanishes_without_a_word_is_let_go_of_in_time(side: str, script: Script) -> None:
    assert sys.platform == "linux"
    finished = script.finish(script.start(HEAD + (CLIENT if side == "client" else SERVER), before=ALONE), limit=90)
    assert (finished.code, finished.out) == (0, ["done"]), finished.err
