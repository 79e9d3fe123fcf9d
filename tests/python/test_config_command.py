"""`penstock config` says what `penstock serve` would have in force; `penstock serve` has it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from penstock import cli

if TYPE_CHECKING:
    from pathlib import Path

APP = """
import penstock

@penstock.model("digits", inputs={"x": ("float32", [])}, outputs={"y": ("float32", [])}, max_batch_size=64)
def digits(x):
    return x
"""
FILE = """
[server]
max_body = "2KiB"
max_head = "10KiB"

[listen]
port = 0

[model.digits]
max_batch_size = 32
"""


WEIGHTS = """
[model.digits]
weights = { a = 2.0, b = 1.0 }
preferred_batch_sizes = [4, 8]
pad = { multiple = 8 }
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("PENSTOCK_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "of_config.py").write_text(APP)
    (tmp_path / "penstock.toml").write_text(FILE)
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["config", *arguments]) == 0
    return capsys.readouterr().out


def line(text: str, name: str) -> str:
    return next(" ".join(each.split()) for each in text.splitlines() if each.split()[:1] == [name])


def test_it_prints_every_setting_with_its_source(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_MAX_BODY", "3KiB")
    text = printed(capsys, "of_config.py", "--max-head", "9KiB")
    assert text.startswith(f"file: {place / 'penstock.toml'}\n\n[listen]\n")
    over = "(default 64 MiB), over penstock.toml:3 [server] max_body: 2 KiB"
    assert line(text, "max_body") == f"max_body 3 KiB PENSTOCK_MAX_BODY {over}"
    assert line(text, "max_head").startswith("max_head 9 KiB --max-head (default 64 KiB)")
    assert line(text, "max_streams") == "max_streams 128"
    of_model = text.partition("[model.digits@1]\n")[2]
    declared = "over the model's declaration: 64"
    said = f"max_batch_size 32 penstock.toml:10 [model.digits] max_batch_size (default 100), {declared}"
    assert line(of_model, "max_batch_size") == said
    assert "file: none\n" in printed(capsys, "--config", "")


def test_it_prints_json(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = json.loads(printed(capsys, "of_config.py", "--json", "--max-body", "1KiB"))
    assert said["file"] == str(place / "penstock.toml")
    found = next(each for each in said["settings"] if each["name"] == "max_body")
    assert found == {
        "name": "max_body",
        "section": "server",
        "key": "max_body",
        "value": 1024,
        "default": 64 << 20,
        "source": {"kind": "command line", "name": "--max-body"},
        "shadowed": [{"kind": "file", "name": "penstock.toml:3 [server] max_body", "value": 2048}],
        "variable": "PENSTOCK_MAX_BODY",
        "flag": "--max-body",
    }
    assert {each["key"]: each["value"] for each in said["models"]["digits@1"]}["max_batch_size"] == 32
    assert said["notes"] == []


def test_it_looks_into_a_directory_of_models(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = place / "zoo" / "digits" / "3"
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(APP)
    (place / "penstock.toml").write_text("[models]\nmodels = 'zoo'\nallow_python = true\nsettle = 0.001\n" + WEIGHTS)
    said = json.loads(printed(capsys, "--json"))
    values = {each["key"]: each["value"] for each in said["models"]["digits@3"]}
    assert (values["max_batch_size"], values["weights"]) == (64, {"a": 2.0, "b": 1.0})
    assert (values["preferred_batch_sizes"], values["pad"]) == ([4, 8], "Pad(value=0.0, multiple=8)")


@pytest.mark.parametrize("name", ["max_body", "server.max_body", "PENSTOCK_MAX_BODY", "--max-body"])
def test_it_explains_a_setting_by_each_of_its_names(place: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    text = printed(capsys, "--max-body=1KiB", f"--explain={name}")
    assert text.startswith("max_body = 1 KiB\n  bytes of a request body, or of a message of gRPC")
    assert [each.split()[0] for each in text.splitlines()[3:6]] == ["command", "file", "default"]


def test_it_explains_what_is_said_of_a_model(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("digits.max_batch_size", "digits@1.max_batch_size"):
        assert printed(capsys, "of_config.py", "--explain", name).startswith("digits@1.max_batch_size = 32\n")
    assert "(default 5 s)" not in printed(capsys, "--explain", "client.connect_timeout")
    assert cli.main(["config", "--explain", "max_boddy"]) == 2
    assert "there is no setting 'max_boddy'; did you mean max_body?" in capsys.readouterr().err


def test_it_tells_of_what_is_probably_not_meant(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_MAX_BODDY", "1")
    monkeypatch.setenv("PENSTOCK_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("PENSTOCK_SOMETHING_OF_OUR_OWN_ENTIRELY", "1")
    (place / "penstock.toml").write_text("[model.digit]\nmax_wait = 1\n")
    text = printed(capsys, "of_config.py")
    assert re.findall("note: (.*)", text) == [
        "PENSTOCK_MAX_BODDY is no setting; did you mean PENSTOCK_MAX_BODY?",
        "penstock.toml:2 [model.digit]: there is no model 'digit'; did you mean [model.digits]?",
    ]
    assert "digit'" not in printed(capsys), "without an app, nobody has said what there is"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[server]\nmax_body = 'x'\n", "penstock.toml:2 [server] max_body must be a size"),
        ("[servr]\n", "did you mean [server]?"),
        ("[model.digits]\nmax_wait = 'x'\n", "penstock.toml:2 [model.digits] max_wait"),
    ],
)
def test_it_refuses_what_serve_would_refuse(
    place: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    (place / "penstock.toml").write_text(text)
    for command in ("config", "serve"):
        assert cli.main([command, "of_config.py"]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize("workers", [1, 2])
def test_serve_has_in_force_what_config_prints(place: Path, workers: int) -> None:
    (place / "penstock.toml").write_text(FILE + "\n[model.digit]\nmax_wait = 1\n")
    arguments = [sys.executable, "-m", "penstock", "serve", "of_config.py", f"--workers={workers}"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().split()[-3]
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{url}/v2/models/digits/infer", b"x" * 2100, timeout=60)
        with refused.value as error:
            assert error.code == 413
        if workers > 1:
            # What it reads when it comes: the new one serves by the new file.
            (place / "penstock.toml").write_text(FILE.replace("2KiB", "4KiB"))
            process.send_signal(signal.SIGHUP)
            while status(url) == 413:
                pass
        process.terminate()
        said = process.stderr.read()
        assert process.wait(60) == 0, said
        assert "did you mean [model.digits]?" in said


def test_a_process_alone_takes_up_at_a_hangup_what_it_can_and_names_the_rest(place: Path) -> None:
    (place / "penstock.toml").write_text(FILE)
    arguments = [sys.executable, "-m", "penstock", "serve", "of_config.py", "--port=0"]
    with subprocess.Popen(
        arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().split()[-3]

        def told(text: str) -> str:
            assert process.stderr is not None
            (place / "penstock.toml").write_text(text)
            process.send_signal(signal.SIGHUP)
            assert "certificates and keys" in process.stderr.readline()
            return process.stderr.readline()

        try:
            logging = '\n[logging]\nlog_format = "json"\n'
            assert told(FILE + logging) == "penstock: log_format is json now\n"
            assert status(url) == 413
            assert "max_body changed, and will be in force after a restart" in told(
                FILE.replace("2KiB", "4KiB") + logging
            )
            assert status(url) == 413, "a limit is read at the start"
            assert "what was before stays in force" in told(FILE.replace("2KiB", "2 cabbages"))
            assert "[model] changed" in told(FILE.replace("= 32", "= 16") + logging)
        finally:
            process.terminate()
            said = process.stderr.read()
            assert process.wait(60) == 0, said


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(f"{url}/v2/models/digits/infer", b"x" * 2100, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_the_help_has_every_setting_in_its_group(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["serve", "--help"])
    text = capsys.readouterr().out
    for title in ("listen:", "limits:", "models:", "batches:", "logging:"):
        assert f"\n{title}\n" in text
    assert "--max-batch-size" in text
    assert "--client" not in text


def test_an_argument_of_serve_is_one_of_config(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said: Any = json.loads(
        printed(capsys, "of_config.py", "--json", "--access-log", "--preload", "a,b", "--preload", "c")
    )
    values = {each["name"]: each["value"] for each in said["settings"]}
    assert (values["access_log"], values["preload"]) == (True, ["a", "b", "c"])
