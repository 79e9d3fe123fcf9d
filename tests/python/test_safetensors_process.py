"""Weights and the life of a process: what a truncated file does, Ctrl-C, fork, exit, threads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.python.support.weights import of_arrays

if TYPE_CHECKING:
    from pathlib import Path

    from tests.python.support.scripts import Finished, Script


def written(path: Path, mib: int = 4) -> Path:
    path.write_bytes(of_arrays({"a": ("U8", np.ones(mib << 20, np.uint8))}))
    return path


def ended(done: Finished, code: int = 0) -> list[str]:
    assert (done.code, done.err) == (code, ""), done
    return done.out


def test_auto_does_not_map_a_file_that_somebody_can_write(tmp_path: Path, script: Script) -> None:
    path = written(tmp_path / "writable.safetensors")
    done = script.run(f"""
    weights = penstock.load_safetensors({str(path)!r})
    print(weights["a"].base.kind)
    os.truncate({str(path)!r}, 100)
    print(int(weights["a"].sum()))
    """)
    assert ended(done) == ["read", str(4 << 20)]


def test_auto_maps_a_file_that_nobody_can_write(tmp_path: Path, script: Script) -> None:
    path = written(tmp_path / "fixed.safetensors")
    path.chmod(0o444)
    done = script.run(
        f"""
    weights = penstock.load_safetensors({str(path)!r})
    print(weights["a"].base.kind, int(weights["a"].sum()))
    print(sum({str(path)!r} in line for line in open("/proc/self/maps").read().splitlines()) > 0)
    del weights
    print(sum({str(path)!r} in line for line in open("/proc/self/maps").read().splitlines()))
    """.replace('open("/proc/self/maps").read()', '__import__("pathlib").Path("/proc/self/maps").read_text()')
    )
    assert ended(done) == [f"mapped {4 << 20}", "True", "0"]


def test_what_auto_is_there_for(tmp_path: Path, script: Script) -> None:
    """A map of a file that was truncated ends the process: the documentation says so, and it is so."""
    path = written(tmp_path / "mapped.safetensors")
    done = script.run(f"""
    weights = penstock.load_safetensors({str(path)!r}, mode="mmap")
    os.truncate({str(path)!r}, 100)
    print("truncated", flush=True)
    print(int(weights["a"].sum()))
    """)
    assert (done.code, done.out) == (-7, ["truncated"])


@pytest.mark.parametrize("mode", ["mmap", "read"])
def test_arrays_outlive_a_fork_and_the_end(tmp_path: Path, script: Script, mode: str) -> None:
    path = written(tmp_path / "forked.safetensors")
    done = script.run(f"""
    weights = penstock.load_safetensors({str(path)!r}, mode={mode!r})
    child = os.fork()
    if child == 0:
        code = int(weights["a"].sum() == {4 << 20} and len(penstock.load_safetensors({str(path)!r}, mode="read")) == 1)
        os._exit(42 + code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(int(weights["a"].sum()))
    """)
    assert ended(done) == ["43", str(4 << 20)]


SLOW = """
import ctypes, itertools
def endless(path, size):
    # A file of holes costs the disk nothing, and takes long enough to read.
    import json, struct
    header = json.dumps({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + size)
"""


def test_ctrl_c_ends_a_load(tmp_path: Path, script: Script) -> None:
    path = tmp_path / "huge.safetensors"
    done = script.interrupt(f"""{SLOW}
path = {str(path)!r}
endless(path, 1 << 30)
try:
    print("ready", flush=True)
    while True:
        penstock.load_safetensors(path, mode="read", sha256="0" * 64)
except KeyboardInterrupt:
    print("interrupted")
except penstock.errors.ChecksumMismatch:
    print("it was faster")
""")
    assert (done.code, done.err, done.out[-1]) == (0, "", "interrupted")


def test_a_load_in_a_daemon_thread_does_not_hold_the_exit_up(tmp_path: Path, script: Script) -> None:
    path = tmp_path / "huge.safetensors"
    done = script.run(f"""{SLOW}
path = {str(path)!r}
endless(path, 1 << 30)
def load():
    while True:
        penstock.load_safetensors(path, mode="read")
threading.Thread(target=load, daemon=True).start()
time.sleep(0.2)
print("end", flush=True)
""")
    assert ended(done) == ["end"]


def test_other_threads_run_while_weights_are_read(tmp_path: Path, script: Script) -> None:
    path = tmp_path / "huge.safetensors"
    done = script.run(f"""{SLOW}
sys.setswitchinterval(1000)
path = {str(path)!r}
endless(path, 1 << 28)
moved = 0
over = threading.Event()
def move():
    global moved
    while not over.is_set():
        moved += 1
        time.sleep(0.001)
threading.Thread(target=move).start()
try:
    penstock.load_safetensors(path, mode="read", sha256="0" * 64)
except penstock.errors.ChecksumMismatch:
    pass
seen = moved
over.set()
print(seen > 1)
""")
    assert ended(done) == ["True"]


def test_many_threads_may_load_the_same_file(tmp_path: Path, script: Script) -> None:
    path = written(tmp_path / "shared.safetensors")
    done = script.run(f"""
    sums = []
    def load(mode):
        for _ in range(5):
            sums.append(int(penstock.load_safetensors({str(path)!r}, mode=mode)["a"].sum()))
    threads = [threading.Thread(target=load, args=(mode,)) for mode in ["read", "mmap", "auto"] * 3]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print(len(sums), set(sums))
    """)
    assert ended(done) == [f"45 {{{4 << 20}}}"]


def test_what_was_read_is_given_back(tmp_path: Path, script: Script) -> None:
    path = written(tmp_path / "again.safetensors", 32)
    done = script.run(f"""
    import gc
    def rss():
        return int(__import__("pathlib").Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    for mode in ("read", "mmap"):
        penstock.load_safetensors({str(path)!r}, mode=mode)["a"].sum()
        before = rss()
        for _ in range(20):
            penstock.load_safetensors({str(path)!r}, mode=mode)["a"].sum()
        gc.collect()
        print(rss() - before < 8 << 20)
    """)
    assert ended(done) == ["True", "True"]


def test_files_are_closed_again(tmp_path: Path, script: Script) -> None:
    path = written(tmp_path / "closed.safetensors")
    done = script.run(f"""
    def opened():
        numbers = filter(os.path.islink, (f"/proc/self/fd/{{number}}" for number in os.listdir("/proc/self/fd")))
        return sum({str(path)!r} in os.readlink(number) for number in numbers)
    kept = [penstock.load_safetensors({str(path)!r}, mode=mode) for mode in ("read", "mmap")]
    print(opened())
    file = penstock.open_safetensors({str(path)!r}, mode="read")
    file["a"]
    file.close()
    print(opened())
    """)
    assert ended(done) == ["0", "0"]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux tells how many threads there are")
def test_loading_leaves_no_thread_behind(tmp_path: Path, script: Script) -> None:
    path = written(tmp_path / "threads.safetensors")
    done = script.run(f"""
    penstock.load_safetensors({str(path)!r}, mode="read")
    before = len(os.listdir("/proc/self/task"))
    for _ in range(10):
        penstock.load_safetensors({str(path)!r}, mode="read", threads=4)
    time.sleep(0.1)
    print(len(os.listdir("/proc/self/task")) <= before)
    """)
    assert ended(done) == ["True"]
