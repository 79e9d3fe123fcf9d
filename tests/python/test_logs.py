"""What the core says through `logging`: by a thread of its own, in order, and never at the cost of a request."""

from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penstock import Server, _logs, cli, logs, model
from penstock.errors import ConfigError
from tests.python.support.logs import Kept, as_they_were, readers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.python.support.scripts import Finished, Script

X = {"x": ("float32", [2])}
Y = {"y": ("float32", [2])}


@model("double", inputs=X, outputs=Y)
def double(x: Any) -> Any:
    return x * np.float32(2)


@pytest.fixture(autouse=True)
def _loggers_as_they_were() -> Iterator[None]:
    yield from as_they_were()


def ended(done: Finished) -> list[str]:
    assert (done.code, done.err) == (0, ""), done
    return done.out


# Events: the listener of a process that has no files left.

NO_FILES = """
import resource, socket
from penstock import Server, model

@model("double", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
def double(x):
    return x * 2

class Kept(logging.Handler):
    def emit(self, record):
        said.append(record)

said = []
logging.getLogger("penstock").addHandler(Kept())

def fail_to_accept(server, wait=True):
    # The client's socket gets the last file, so that none is left for the server's side of it.
    host, port = server.url[len("http://"):].split(":")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    client = socket.socket()
    resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, before[1]))
    client.connect((host, int(port)))
    end = time.monotonic() + 15
    while wait and not said and time.monotonic() < end:
        time.sleep(0.01)
    if not wait:
        time.sleep(0.3)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
    client.close()
"""


def test_an_event_of_the_core_becomes_a_record_with_its_own_time_and_fields(script: Script) -> None:
    done = script.run(f"""{NO_FILES}
before = time.time()
with Server([double], port=0) as server:
    fail_to_accept(server)
record = said[0]
print(record.name, record.levelname, record.failures, record.error, "|", record.getMessage())
print(before <= record.created <= time.time(), 0 <= record.relativeCreated < 60000, record.threadName)
""")
    first, second = ended(done)
    assert first.startswith("penstock.serve WARNING 1 ")
    assert "| a connection could not be accepted failures=1 error=" in first
    assert second == "True True penstock-log"


def test_events_below_the_level_of_the_loggers_stay_in_the_core(script: Script) -> None:
    done = script.run(f"""{NO_FILES}
logging.getLogger("penstock").setLevel(logging.ERROR)
with Server([double], port=0) as server:
    fail_to_accept(server, wait=False)
print(len(said))
""")
    assert ended(done) == ["0"]


def test_a_handler_that_raises_ends_nothing(script: Script) -> None:
    done = script.run(f"""{NO_FILES}
class Broken(logging.Handler):
    def emit(self, record):
        raise SystemExit("from the handler")

logging.getLogger("penstock").handlers.insert(0, Broken())
logging.getLogger("penstock.serve").addHandler(Kept())
with Server([double], port=0) as server:
    fail_to_accept(server)
    print(any(thread.name == "penstock-log" for thread in threading.enumerate()))
print(len(said))
""")
    assert done.code == 0
    assert done.out == ["True", "1"]
    assert "--- Logging error ---" in done.err
    assert "from the handler" in done.err


def test_a_child_of_a_fork_starts_clean_and_the_parent_goes_on(script: Script) -> None:
    done = script.run(f"""{NO_FILES}
import warnings
warnings.filterwarnings("ignore", category=DeprecationWarning)
server = Server([double], port=0).start()
sys.stdout.flush()
pid = os.fork()
if pid == 0:
    signal.alarm(20)
    server.close()
    with Server([double], port=0) as other:
        fail_to_accept(other)
    print("child", len(said), flush=True)
    os._exit(0)
print("exit", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
fail_to_accept(server)
server.close()
print("parent", len(said))
""")
    assert ended(done) == ["child 1", "exit 0", "parent 1"]


# The thread.


def test_the_thread_serves_every_server_and_ends_with_the_last() -> None:
    assert readers() == []
    with Server([double], port=0):
        with Server([double], port=0):
            assert len(readers()) == 1
        assert len(readers()) == 1
    assert readers() == []
    with Server([double], port=0) as server:
        assert len(readers()) == 1
        server.close()
        server.close()
        assert readers() == []


def test_a_server_that_cannot_listen_leaves_no_thread() -> None:
    with pytest.raises(ConfigError):
        Server([double], port=0, host="no.such.host.invalid").start()


def test_the_finest_level_is_that_of_the_most_talkative_logger() -> None:
    logging.root.setLevel(logging.WARNING)
    assert _logs.finest_level() == logging.WARNING
    logging.getLogger("penstock.serve").setLevel(logging.DEBUG)
    assert _logs.finest_level() == logging.DEBUG
    logging.getLogger(_logs.ACCESS).setLevel(1)
    assert _logs.finest_level() == logging.DEBUG, "requests are no events"


def test_attributes_that_a_log_record_has_already_are_renamed() -> None:
    with Kept("penstock.serve") as kept:
        _logs._hand_on("penstock.serve", logging.ERROR, 1e9 + 0.25, "words", {"name": "x", "message": 1, "free": 2})
    record = kept.records[0]
    assert (record.name, record.name_, record.message_, record.free) == ("penstock.serve", "x", 1, 2)  # type: ignore[attr-defined]
    assert (record.created, record.msecs) == (1e9 + 0.25, 250.0)
    assert record.relativeCreated < 0


def test_lost_records_are_reported_with_their_number_once_a_second_at_most() -> None:
    with Kept("penstock.logs") as kept:
        losses = _logs._Losses()
        losses.add(0)
        losses.add(3)
        losses.add(4)
        assert [record.dropped for record in kept.records] == [3]  # type: ignore[attr-defined]
        losses.report()
        losses.report()
    assert kept.lines[1].startswith(
        "7 log records were dropped" if len(kept.lines) > 2 else "4 log records were dropped"
    )
    assert len(kept.lines) == 2
    assert kept.records[0].levelno == logging.WARNING


def test_access_log_must_be_a_truth_value() -> None:
    with pytest.raises(ConfigError, match="access_log"):
        Server([double], access_log="perhaps")


# Formats.


def record_of(**attributes: Any) -> logging.LogRecord:
    made = {"name": "penstock.access", "levelno": 20, "levelname": "INFO", "msg": "a\nline", "created": 1700000000.5}
    return logging.makeLogRecord(made | attributes)


def test_a_record_is_one_line_of_json() -> None:
    line = logs.JsonFormatter().format(record_of(status=200, model=None, seconds=0.5, path="/v2/ü"))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.500000+00:00",
        "level": "INFO",
        "logger": "penstock.access",
        "message": "a\nline",
        "status": 200,
        "model": None,
        "seconds": 0.5,
        "path": "/v2/ü",
    }


def test_json_has_words_for_everything() -> None:
    circle: list[Any] = []
    circle.append(circle)
    odd = {"nan": float("nan"), "inside": [float("inf")], "circle": circle, "object": object, "keys": {(1, 2): 3}}
    line = json.loads(logs.JsonFormatter().format(record_of(**odd, time="mine")), parse_constant=pytest.fail)
    assert line["nan"] == "nan"
    assert line["time"].startswith("2023")
    assert set(odd) < set(line)


def test_json_tells_of_exceptions_and_stacks() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonFormatter())
    logger = logging.getLogger("apart")
    logger.propagate = False
    logger.addHandler(handler)
    try:
        int("so it is")
    except ValueError:
        logger.exception("failed %s", "twice", stack_info=True)
    line = json.loads(stream.getvalue())
    assert line["message"] == "failed twice"
    assert "'so it is'" in line["exception"]
    assert "Stack (most recent call last)" in line["stack"]


def test_configure_writes_to_one_stream_and_replaces_only_itself() -> None:
    first, second = io.StringIO(), io.StringIO()
    other = logging.NullHandler()
    logging.root.addHandler(other)
    logs.configure(stream=first, level="debug")
    logging.getLogger("penstock.serve").debug("as text")
    logs.configure(stream=second, json=True, level=logging.ERROR)
    logging.getLogger("penstock.serve").error("as json")
    logging.getLogger("penstock.serve").warning("too little")
    assert first.getvalue().endswith(" DEBUG penstock.serve as text\n")
    assert [json.loads(line)["message"] for line in second.getvalue().splitlines()] == ["as json"]
    assert other in logging.root.handlers
    with pytest.raises(ValueError, match="LOUD"):
        logs.configure(level="loud")


def test_the_command_line_knows_the_formats_and_levels(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["serve", str(tmp_path / "none.py"), "--log-format", "json", "--log-level", "INFO"]) == 2
    assert isinstance(logging.root.handlers[-1].formatter, logs.JsonFormatter)
    assert logging.root.level == logging.INFO
    for wrong in (["--log-format", "xml"], ["--log-level", "loud"]):
        assert cli.main(["serve", "app.py", *wrong]) == 2
        assert f"{wrong[0]} must be" in capsys.readouterr().err
