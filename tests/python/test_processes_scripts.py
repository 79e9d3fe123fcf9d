"""Worker processes of whole programs: scripts, servers, Ctrl-C, exits, forks. Nothing may stay behind, nor be said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penstock import Client
from tests.python.support.waiting import until

if TYPE_CHECKING:
    from tests.python.support.scripts import Finished, Script

FUNCTIONS = """
@batched(workers=penstock.Processes(1))
def who(x):
    return [os.getpid()] * len(x)

@batched(workers=penstock.Processes(1))
def sleeps(x):
    time.sleep(3600)
    return x

@batched(workers=penstock.Processes(1))
def spins(x):
    while True:
        pass
"""


def ended(done: Finished, code: int = 0) -> list[str]:
    assert (done.code, done.err) == (code, ""), done
    return done.out


def is_gone(number: int) -> bool:
    """It may be a zombie for as long as nobody has asked for it."""
    try:
        return "Z" in Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1][:3]
    except FileNotFoundError:
        return True


def test_functions_of_a_script_run_and_end_with_it(script: Script) -> None:
    done = script.run(f"""{FUNCTIONS}
if __name__ == "__main__":
    print(who.call(1))
else:
    print("imported as", __name__)
""")
    said, number = ended(done)
    assert said == "imported as __mp_main__"
    until(lambda: is_gone(int(number)))


def test_a_script_that_starts_processes_as_it_is_imported_is_told_so(script: Script) -> None:
    done = script.run(f"""{FUNCTIONS}
print(who.call(1))
""")
    assert done.code == 1
    assert done.out == []
    assert "what the script does under `if __name__ ==" in done.err.splitlines()[-1]


@pytest.mark.parametrize("fn", ["sleeps", "spins"])
def test_work_in_flight_does_not_hold_the_exit_up(fn: str, script: Script) -> None:
    done = script.run(f"""{FUNCTIONS}
async def main():
    future = {fn}(1)
    while not ({fn}.stats().running and {fn}._remotes[0].keeper.process_number):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    print({fn}._remotes[0].keeper.process_number)

if __name__ == "__main__":
    asyncio.run(main())
""")
    (number,) = ended(done)
    until(lambda: is_gone(int(number)))


def test_ctrl_c_ends_a_call_and_the_process(script: Script) -> None:
    done = script.interrupt(f"""{FUNCTIONS}
def watch():
    while not (sleeps.stats().running and sleeps._remotes[0].keeper.process_number):
        time.sleep(0.01)
    print("ready", flush=True)

if __name__ == "__main__":
    threading.Thread(target=watch, daemon=True).start()
    try:
        sleeps.call(1)
    except KeyboardInterrupt:
        print(sleeps._remotes[0].keeper.process_number)
""")
    (number,) = ended(done)
    until(lambda: is_gone(int(number)))


@pytest.mark.parametrize("fn", ["who", "spins"])
def test_a_parent_that_is_killed_takes_its_processes_along(fn: str, script: Script) -> None:
    process = script.start(f"""{FUNCTIONS}
async def main():
    future = {fn}(1)
    while not {fn}._remotes or not {fn}._remotes[0].keeper.process_number:
        await asyncio.sleep(0.01)
    await asyncio.sleep(1)
    print({fn}._remotes[0].keeper.process_number, flush=True)
    await asyncio.sleep(3600)

if __name__ == "__main__":
    asyncio.run(main())
""")
    assert process.stdout is not None
    number = int(process.stdout.readline())
    assert not is_gone(number)
    process.kill()
    assert script.finish(process).err == ""
    until(lambda: is_gone(number))


def test_a_forked_child_leaves_the_processes_alone(script: Script) -> None:
    done = script.run(f"""{FUNCTIONS}
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: the very matter

if __name__ == "__main__":
    before = who.call(1)
    if (child := os.fork()) == 0:
        try:
            who.call(1)
        except penstock.errors.Closed:
            sys.exit(7)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), who.call(1) == before)
""")
    assert ended(done) == ["7 True"]


STDIN = """
import penstock
def f(x):
    return x * 2
print(penstock.Batcher(f, workers=penstock.Processes(1)).call(21))
"""


def test_a_function_of_standard_input_needs_cloudpickle() -> None:
    pytest.importorskip("cloudpickle")
    command = [sys.executable, "-W", "error", "-"]
    done = subprocess.run(command, input=STDIN, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("42\n", "", 0)


APP = """
import os
import numpy as np
import penstock

@penstock.model("app", inputs={"x": ("float32", [])}, outputs={"y": ("int64", [])}, workers=penstock.Processes(2))
def app(x):
    if 13 in x.tolist():
        raise ValueError("thirteen")
    return np.full(len(x), os.getpid())
"""


@pytest.fixture
def serving(tmp_path: Path) -> Any:
    (tmp_path / "my-app.py").write_text(dedent(APP))
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-m", "penstock", "serve", str(tmp_path / "my-app.py"), "--port", "0", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "http://" in line, process.communicate()
        return process, next(word for word in line.split() if word.startswith("http://"))

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("arguments", [(), ("--workers", "2")])
def test_a_file_is_served_by_processes_and_leaves_none_behind(serving: Any, arguments: tuple[str, ...]) -> None:
    process, url = serving(*arguments)
    x = {"x": np.zeros(1, np.float32)}
    with Client(url) as client:
        numbers = {int(client.infer("app", x)["y"][0]) for _ in range(20)}
    assert process.pid not in numbers
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert all(map(is_gone, numbers))


def test_what_a_model_raises_is_logged_as_the_server_logs(serving: Any) -> None:
    process, url = serving("--log-format", "json")
    with Client(url) as client, pytest.raises(Exception, match="thirteen"):
        client.infer("app", {"x": np.full(1, 13, np.float32)})
    os.kill(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    (line,) = err.splitlines()
    assert '"logger": "penstock.server"' in line
    assert "ValueError: thirteen" in line
