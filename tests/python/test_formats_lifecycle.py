"""Ctrl-C, the end of the process and forks while weights and graphs are loaded and run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.python.support.bad_files import GOOD_GRAPH, entry, safetensors

if TYPE_CHECKING:
    from pathlib import Path

    from tests.python.support.scripts import Finished, Script

GIB = 1 << 30


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A gibibyte of zeros in one file, which takes no room on a disk that knows of holes."""
    path = tmp_path / "large.safetensors"
    path.write_bytes(safetensors({f"w{n}": entry(n * GIB // 16, (n + 1) * GIB // 16) for n in range(16)}))
    os.truncate(path, path.stat().st_size + GIB)
    return path


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(GOOD_GRAPH)
    return path


def ended(done: Finished) -> list[str]:
    """What a script printed that ended as it should."""
    assert (done.code, done.err) == (0, ""), done
    return done.out


# Again and again, so that the signal never comes to late for the last one.
FOREVER = """
def told(done, total):
    global said
    if not said and 0 < done < total:
        said = True
        print("ready", flush=True)
said = False
def load(**more):
    while True:
        penstock.load_safetensors({path!r}, mode="read", progress=told, **more)
"""


@pytest.mark.parametrize("more", ["", "threads=1", "sha256='" + "0" * 64 + "'"], ids=["", "one-thread", "sha256"])
def test_ctrl_c_ends_a_load(script: Script, large: Path, more: str) -> None:
    done = script.interrupt(f"""{FOREVER.format(path=str(large))}
began = time.monotonic()
try:
    while True:
        try:
            load({more})
        except penstock.errors.ChecksumMismatch:
            pass
except KeyboardInterrupt:
    print("interrupted")
""")
    assert ended(done) == ["interrupted"]


def test_a_load_that_runs_does_not_hold_up_the_end(script: Script, large: Path) -> None:
    done = script.run(f"""{FOREVER.format(path=str(large))}
threading.Thread(target=load, daemon=True).start()
while not said:
    time.sleep(0.001)
""")
    assert ended(done) == ["ready"]


def test_the_end_while_a_server_loads(script: Script, large: Path) -> None:
    done = script.run(f"""
@penstock.model("heavy", inputs={{"x": ("float32", [1])}}, outputs={{"y": ("float32", [1])}}, load_timeout=600)
class Heavy:
    def load(self, ctx):
        print("loads", flush=True)
        while True:
            ctx.safetensors({str(large)!r}, mode="read")
    def predict(self, x):
        return x
server = penstock.Server([Heavy], port=0, preload=[]).start()
def ask():
    with penstock.Client(server.url) as client:
        try:
            client.infer("heavy", {{"x": np.ones((1, 1), "f4")}})
        except penstock.PenstockError as error:
            print(type(error).__name__, flush=True)
threading.Thread(target=ask, daemon=True).start()
while server.cache.index()[0].state != "loading":
    time.sleep(0.01)
server.close(drain=False)
print("closed")
""")
    assert ended(done)[-1] == "closed"


@pytest.mark.parametrize("mode", ["mmap", "read"])
def test_arrays_live_on_in_a_fork(script: Script, tmp_path: Path, mode: str) -> None:
    path = tmp_path / "w.safetensors"
    numbers = np.arange(1 << 16, dtype=np.float32)
    path.write_bytes(safetensors({"w": entry(0, numbers.nbytes)}, numbers.tobytes()))
    done = script.run(f"""
w = penstock.load_safetensors({str(path)!r}, mode={mode!r})["w"]
number = os.fork()
if number == 0:
    assert w.sum() == np.arange(1 << 16, dtype="f4").sum()
    again = penstock.load_safetensors({str(path)!r}, mode={mode!r})["w"]
    assert (again == w).all()
    del w, again
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]), w[5])
""")
    assert ended(done) == ["7 5.0"]


@pytest.mark.parametrize("threads", [1, 3])
def test_a_child_opens_graphs_of_its_own_and_ends(script: Script, graph: Path, threads: int) -> None:
    done = script.run(f"""
x = np.ones((2, 2), np.float32)
session = penstock.load_onnx({str(graph)!r}, threads={threads}, inter_threads={threads})
session.run({{"x": x}})
number = os.fork()
if number == 0:
    try:
        session.run({{"x": x}})
    except penstock.errors.Closed as error:
        assert "before a fork" in str(error)
        session.close()
        session = penstock.load_onnx({str(graph)!r})
        print(session.run({{"x": x}})["y"].sum(), flush=True)
        sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]), session.run({{"x": x}})["y"].sum())
""")
    assert ended(done) == ["8.0", "7 8.0"]


def test_a_child_of_a_server_of_graphs_ends(script: Script, graph: Path) -> None:
    done = script.run(f"""
server = penstock.Server([penstock.onnx_model("double", {str(graph)!r}, threads=2, workers=2)], port=0).start()
with penstock.Client(server.url) as client:
    ask = lambda: client.infer("double", {{"x": np.ones((3, 2), np.float32)}})["y"].sum()
    ask()
    number = os.fork()
    if number == 0:
        sys.exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]), ask())
server.close()
""")
    assert ended(done) == ["7 12.0"]


@pytest.mark.parametrize("said", [None, "1", "0"])
def test_the_library_tells_its_makers_nothing_unless_it_may(
    script: Script, graph: Path, monkeypatch: pytest.MonkeyPatch, said: str | None
) -> None:
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    if said is not None:
        monkeypatch.setenv("ORT_DISABLE_TELEMETRY", said)
    done = script.run(f"""
before = len(os.listdir("/proc/self/task"))
session = penstock.load_onnx({str(graph)!r})
# The thread that loaded may need a moment to end.
until = time.monotonic() + 2
while (more := len(os.listdir("/proc/self/task")) - before) and time.monotonic() < until:
    time.sleep(0.01)
print(os.environ["ORT_DISABLE_TELEMETRY"], more)
""")
    switch, threads = ended(done)[0].split()
    # Where it may, the library decides: some environments, such as those of CI, it leaves alone by itself.
    assert switch == "0" if said == "0" else (switch, threads) == ("1", "0")


def test_the_end_with_requests_in_flight_at_a_graph(script: Script, graph: Path) -> None:
    done = script.run(f"""
model = penstock.onnx_model("double", {str(graph)!r}, workers=2)
server = penstock.Server([model], port=0).start()
def ask():
    with penstock.Client(server.url) as client:
        try:
            while True:
                client.infer("double", {{"x": np.ones((3, 2), np.float32)}})
        except penstock.PenstockError:
            pass
for _ in range(4):
    threading.Thread(target=ask, daemon=True).start()
while server.stats().models["double"].requests < 100:
    time.sleep(0.001)
print("asked")
""")
    assert ended(done) == ["asked"]


def test_loading_again_and_again_takes_no_more_memory(script: Script, tmp_path: Path, graph: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(safetensors({"w": entry(0, 1 << 22)}, bytes(1 << 22)))
    done = script.run(f"""
def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
def load(times):
    for _ in range(times):
        penstock.load_safetensors({str(path)!r}, mode="read")["w"].sum()
        penstock.load_safetensors({str(path)!r}, mode="mmap")["w"].sum()
        penstock.load_onnx({str(graph)!r}).run({{"x": np.ones((2, 2), np.float32)}})
load(20)
before = resident()
load(200)
print(resident() - before < 16 << 20, len(os.listdir("/proc/self/fd")) < 20)
""")
    assert ended(done) == ["True True"]
