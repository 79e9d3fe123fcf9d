"""`penstock serve --models`, driven by tritonclient while its directory changes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.python.support.directories import write, write_model
from tests.python.support.waiting import until

with warnings.catch_warnings():
    # What these packages import is not ours to answer for.
    warnings.simplefilter("ignore")
    import tritonclient.grpc as triton_grpc
    import tritonclient.http as triton_http
    from tritonclient.utils import InferenceServerException

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE = 60.0


@contextmanager
def serving(root: Path, *options: str, target: str | None = None) -> Iterator[str]:
    """The place of a server of a directory, in a process of its own; what it logs lies beside the directory."""
    command = [sys.executable, "-m", "penstock", "serve", *([target] if target else []), "--port", "0"]
    command += ["--models", str(root), "--settle", "0.1", *options]
    with (root.parent / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=dict(os.environ))
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            place = re.search(r"http://(\S+)", line)
            assert place, line + (root.parent / "log").read_text()
            yield place[1]
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@pytest.fixture(params=[triton_http, triton_grpc], ids=["http", "grpc"])
def triton(request: pytest.FixtureRequest) -> Any:
    return request.param


def ask(triton: Any, client: Any, model: str, version: str = "") -> list[float]:
    tensor = triton.InferInput("x", [1, 2], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 2), np.float32))
    return client.infer(model, [tensor], model_version=version).as_numpy("y")[0].tolist()


def index(client: Any) -> dict[tuple[str, str], tuple[str, str]]:
    """State and reason of each version of each model; to ask for it has the directory looked at."""
    found = client.get_model_repository_index()
    if isinstance(found, list):
        return {(row["name"], row.get("version", "")): (row.get("state", ""), row.get("reason", "")) for row in found}
    return {(row.name, row.version): (row.state, row.reason) for row in found.models}


def test_models_come_and_go_with_their_folders(tmp_path: Path, triton: Any) -> None:
    root = tmp_path / "models"
    write_model(root, "times", 1, by=2)
    write_model(root, "steady", 1, by=5)
    with serving(root, "--allow-python") as place, triton.InferenceServerClient(place) as client:
        assert ask(triton, client, "times") == [2.0, 2.0]
        assert index(client) == {("steady", "1"): ("READY", ""), ("times", "1"): ("READY", "")}

        # A version that is added is loaded, and takes the place of the one before.
        write_model(root, "times", 2, by=3)
        until(lambda: index(client) and ask(triton, client, "times") == [3.0, 3.0])
        until(lambda: ("times", "1") not in index(client))

        # One that is new is made known by the call that loads it.
        write_model(root, "fresh", 1, by=7)
        until(lambda: _loads(client, "fresh"))
        assert ask(triton, client, "fresh") == [7.0, 7.0]

        # What is wrong is said, and says nothing of the others.
        write(root / "wrong" / "1" / "model.py", "raise OSError('out of paper')")
        until(lambda: "out of paper" in index(client).get(("wrong", "1"), ("", ""))[1])
        with pytest.raises(InferenceServerException):
            ask(triton, client, "wrong")
        assert ask(triton, client, "steady") == [5.0, 5.0]

        # A change is taken up.
        write(root / "times" / "2" / "by.txt", "4")
        until(lambda: index(client) and ask(triton, client, "times") == [4.0, 4.0])

        # What is deleted goes, and the version before comes back.
        shutil.rmtree(root / "times" / "2")
        until(lambda: index(client) and ask(triton, client, "times") == [2.0, 2.0])
        shutil.rmtree(root / "fresh")
        until(lambda: ("fresh", "1") not in index(client))
        with pytest.raises(InferenceServerException):
            ask(triton, client, "fresh")

        # A directory that disappears leaves what is served, and may come back.
        root.rename(tmp_path / "away")
        rows = index(client)
        assert rows["steady", "1"] == ("READY", "")
        assert ask(triton, client, "steady") == [5.0, 5.0]
        (tmp_path / "away").rename(root)
        write_model(root, "late", 1, by=9)
        until(lambda: index(client).get(("late", "1")) == ("READY", ""))
        assert ask(triton, client, "late") == [9.0, 9.0]

        client.unload_model("steady")
        assert index(client)["steady", "1"][0] != "READY"
        client.load_model("steady")
        assert ask(triton, client, "steady") == [5.0, 5.0]
    assert "out of paper" in (tmp_path / "log").read_text()


def _loads(client: Any, model: str) -> bool:
    try:
        client.load_model(model)
    except InferenceServerException:
        return False
    return True


def test_a_directory_beside_an_app(tmp_path: Path, triton: Any) -> None:
    root = tmp_path / "models"
    write_model(root)
    app = write(tmp_path / "app.py", (root / "times" / "1" / "model.py").read_text().replace('"times"', '"own"'))
    write(tmp_path / "by.txt", "6")
    app.write_text(app.read_text().replace("ctx.directory", f"__import__('pathlib').Path({str(tmp_path)!r})"))
    with serving(root, "--allow-python", target=str(app)) as place, triton.InferenceServerClient(place) as client:
        assert ask(triton, client, "own") == [6.0, 6.0]
        assert ask(triton, client, "times") == [2.0, 2.0]


def test_an_empty_directory_fills(tmp_path: Path, triton: Any) -> None:
    root = tmp_path / "models"
    root.mkdir()
    with serving(root, "--allow-python") as place, triton.InferenceServerClient(place) as client:
        assert client.is_server_ready()
        assert index(client) == {}
        write_model(root)
        until(lambda: index(client).get(("times", "1")) == ("READY", ""))
        assert ask(triton, client, "times") == [2.0, 2.0]


def test_python_is_not_run_without_its_flag(tmp_path: Path, triton: Any) -> None:
    root = tmp_path / "models"
    write_model(root)
    with serving(root) as place, triton.InferenceServerClient(place) as client:
        assert "--allow-python" in index(client)["times", "1"][1]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ([], "there is nothing to serve"),
        (["--models", "/nowhere/at/all"], "there is no directory /nowhere/at/all"),
        (["--models", ""], "--models must be the path of a directory"),
    ],
)
def test_what_cannot_be_is_said(options: list[str], why: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "penstock", "serve", "--port", "0", *options],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    assert why in done.stderr


def test_every_process_of_several_looks_for_itself(tmp_path: Path) -> None:
    root = tmp_path / "models"
    write_model(root, "times", 1, by=2)

    def on_every_connection(expected: list[float]) -> bool:
        answers = []
        for _ in range(16):
            with triton_http.InferenceServerClient(place) as client:
                answers.append(ask(triton_http, client, "times"))
        return answers == [expected] * 16

    with serving(root, "--allow-python", "--workers", "2", "--poll-seconds", "0.2") as place:
        assert on_every_connection([2.0, 2.0])
        write_model(root, "times", 2, by=3)
        until(lambda: on_every_connection([3.0, 3.0]))
