"""What a look at a directory of models finds, and what it leaves alone."""

from __future__ import annotations

import os
import pickle
import shutil
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock import ModelDirectory, PenstockError
from penstock.errors import ConfigError
from penstock.models import LoadContext, LoadedModel, ModelSpec, spec_of
from penstock.repository import Scan
from tests.python.support.directories import MODEL, write, write_model

IGNORED = ".* is not taken up"


def directory(root: Path, **settings: Any) -> ModelDirectory:
    return ModelDirectory(root, **{"allow_python": True, "settle": 0, **settings})


def spec(scan: Scan, reference: str) -> ModelSpec:
    found = spec_of(scan.found[reference].model)
    assert found is not None
    return found


def computed(scan: Scan, reference: str) -> list[list[float]]:
    """What the model makes of ones."""
    declared = spec(scan, reference)
    loaded = LoadedModel(declared)
    function = loaded.load(LoadContext(declared.name, declared.version, directory=declared.directory))
    return [list(map(float, row)) for row in function(np.ones((1, 2), np.float32))]


def test_the_highest_version_is_found(tmp_path: Path) -> None:
    for version, by in ((1, 2), (2, 3), (10, 5)):
        write_model(tmp_path, version=version, by=by)
    write(tmp_path / "README.md", "of no interest")
    write(tmp_path / ".git" / "1" / "model.py", "1/0")
    write(tmp_path / "times" / "notes" / "README.md", "of no interest")
    scan = directory(tmp_path).scan()
    assert list(scan.found) == ["times@10"]
    assert not scan.skipped
    found = scan.found["times@10"]
    assert (found.name, found.version, found.reference) == ("times", "10", "times@10")
    assert found.directory == (tmp_path / "times" / "10").resolve()
    assert (found.pinned, found.preload, found.warnings) == (False, True, ())
    assert (spec(scan, "times@10").name, spec(scan, "times@10").version) == ("times", "10")
    assert computed(scan, "times@10") == [[5.0, 5.0]]


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ("all", {"times@3", "times@2", "times@1"}),
        ({"latest": 2}, {"times@3", "times@2"}),
        ([1, 3], {"times@3", "times@1"}),
    ],
)
def test_a_policy_says_which_versions(tmp_path: Path, versions: Any, expected: set[str]) -> None:
    for version in (1, 2, 3):
        write_model(tmp_path, version=version)
    assert set(directory(tmp_path, versions=versions).scan().found) == expected


def test_the_policy_of_a_model_is_stronger_and_names_what_is_missing(tmp_path: Path) -> None:
    for version in (1, 2, 3):
        write_model(tmp_path, version=version)
    write(tmp_path / "times" / "model.toml", "versions = [2, 7]")
    scan = directory(tmp_path, versions="all").scan()
    assert set(scan.found) == {"times@2"}
    assert scan.skipped == {"times/7": "its settings ask for this version, which there is not"}


def test_the_next_version_stands_in_for_one_that_is_wrong(tmp_path: Path) -> None:
    write_model(tmp_path, version=1)
    write(tmp_path / "times" / "2" / "model.py", "raise OSError('no such thing')")
    scan = directory(tmp_path).scan()
    assert set(scan.found) == {"times@1"}
    assert scan.skipped == {"times/2": "LoadFailed: model.py raised OSError: no such thing"}


def test_what_did_not_change_is_the_very_same(tmp_path: Path) -> None:
    write_model(tmp_path)
    models = directory(tmp_path)
    first = models.scan().found["times@1"]
    assert models.scan().found["times@1"] is first
    write(tmp_path / "other" / "1" / "model.py", MODEL.format(name="other"))
    assert models.scan().found["times@1"] is first


@pytest.mark.parametrize("name", ["by.txt", "model.py", "new.txt", "model.toml", "../model.toml", "deep/er/file"])
def test_a_change_of_any_file_is_a_change_of_its_version(tmp_path: Path, name: str) -> None:
    folder = write_model(tmp_path)
    models = directory(tmp_path)
    first = models.scan().found["times@1"]
    text = (folder / name).read_text() if (folder / name).exists() else ""
    write(folder / name, text + {".py": "\n#", ".toml": "pinned = true"}.get(Path(name).suffix, " "))
    second = models.scan().found["times@1"]
    assert second.fingerprint != first.fingerprint
    assert second.pinned == name.endswith(".toml")


def test_the_policy_alone_changes_no_version(tmp_path: Path) -> None:
    write_model(tmp_path)
    models = directory(tmp_path)
    first = models.scan().found["times@1"]
    write(tmp_path / "times" / "model.toml", "versions = 'all'")
    assert models.scan().found["times@1"] is first


def test_a_version_that_is_deleted_is_gone(tmp_path: Path) -> None:
    write_model(tmp_path, version=1)
    write_model(tmp_path, version=2)
    models = directory(tmp_path)
    assert set(models.scan().found) == {"times@2"}
    shutil.rmtree(tmp_path / "times" / "2")
    assert set(models.scan().found) == {"times@1"}
    shutil.rmtree(tmp_path / "times")
    assert models.scan() == Scan()


def test_a_version_that_becomes_wrong_stays_what_it_was(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    models = directory(tmp_path)
    first = models.scan().found["times@1"]
    write(folder / "model.py", "1/0")
    scan = models.scan()
    assert scan.found == {"times@1": first}
    assert "ZeroDivisionError" in scan.skipped["times/1"]
    write(folder / "model.py", MODEL.format(name="times"))
    scan = models.scan()
    assert not scan.skipped
    assert scan.found["times@1"].fingerprint != first.fingerprint


def test_settings_that_become_wrong_leave_every_version_as_it_was(tmp_path: Path) -> None:
    write_model(tmp_path, version=1)
    write_model(tmp_path, version=2)
    models = directory(tmp_path, versions="all")
    first = models.scan().found
    write(tmp_path / "times" / "model.toml", "pinned = 1")
    shutil.rmtree(tmp_path / "times" / "2")
    scan = models.scan()
    assert scan.found == {"times@1": first["times@1"]}
    assert scan.skipped == {"times": "ConfigError: times/model.toml: pinned must be true or false, not 1"}
    (tmp_path / "times" / "model.toml").unlink()
    assert models.scan().found["times@1"] is first["times@1"]


class TestHalfWritten:
    def test_a_version_is_taken_up_once_it_has_settled(self, tmp_path: Path) -> None:
        write_model(tmp_path)
        models = directory(tmp_path, settle=0.4)
        scan = models.scan()
        assert not scan.found
        assert scan.skipped == {"times/1": "its files changed less than 0.4 seconds ago"}
        assert 0 < scan.settling <= 0.4
        assert set(models.scan(wait=30).found) == {"times@1"}

    def test_a_change_is_taken_up_once_it_has_settled(self, tmp_path: Path) -> None:
        folder = write_model(tmp_path)
        models = directory(tmp_path, settle=0.3)
        first = models.scan(wait=30).found["times@1"]
        write(folder / "by.txt", "7")
        scan = models.scan()
        assert scan.found["times@1"] is first
        assert list(scan.skipped) == ["times/1"]
        assert models.scan(wait=30).found["times@1"] is not first

    def test_a_clock_that_is_wrong_holds_nothing_back(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_model(tmp_path)
        models = directory(tmp_path, settle=0.3)
        long_ago = time.time() - 3600
        monkeypatch.setattr(time, "time", lambda: long_ago)
        scan = models.scan()
        assert list(scan.skipped) == ["times/1"]
        assert set(models.scan(wait=30).found) == {"times@1"}

    @pytest.mark.parametrize("name", ["model.onnx.tmp", "deep/weights.part", "weights.incomplete", "folder.tmp/x"])
    def test_a_file_that_is_being_written(self, tmp_path: Path, name: str) -> None:
        folder = write_model(tmp_path)
        write(folder / name, "")
        scan = directory(tmp_path).scan()
        assert not scan.found
        assert "still being written" in scan.skipped["times/1"]
        assert scan.settling == 0

    @pytest.mark.parametrize("name", ["times.tmp/1", "times/1.part", "times/2.incomplete"])
    def test_a_folder_that_is_being_written(self, tmp_path: Path, name: str) -> None:
        write_model(tmp_path, "other")
        write(tmp_path / name / "model.py", MODEL.format(name="times"))
        scan = directory(tmp_path).scan()
        assert list(scan.found) == ["other@1"]
        assert any("still being written" in why for why in scan.skipped.values())

    @pytest.mark.parametrize("name", [".times/1", "times/.1"])
    def test_what_is_hidden_is_nothing(self, tmp_path: Path, name: str) -> None:
        write(tmp_path / name / "model.py", MODEL.format(name="times"))
        scan = directory(tmp_path).scan()
        assert not scan.found
        assert all("no version" in why for why in scan.skipped.values())

    def test_a_folder_that_is_renamed_into_place(self, tmp_path: Path) -> None:
        write_model(tmp_path, version=".upload")
        models = directory(tmp_path)
        assert not models.scan().found
        (tmp_path / "times" / ".upload").rename(tmp_path / "times" / "1")
        assert list(models.scan().found) == ["times@1"]

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        (tmp_path / "times" / "1").mkdir(parents=True)
        assert directory(tmp_path).scan().skipped == {"times/1": "it is empty"}


class TestNames:
    @pytest.mark.parametrize("name", ["two words", "ümlaut", "-x", "a@b", "a:b", "_x"])
    def test_of_models(self, tmp_path: Path, name: str) -> None:
        write_model(tmp_path, name)
        scan = directory(tmp_path).scan()
        assert not scan.found
        assert "a model's name is made of" in scan.skipped[name]

    @pytest.mark.parametrize(
        "version", ["0", "01", "v1", "1.0", "-1", "1e3", "9" * 20, "latest", "\N{ARABIC-INDIC DIGIT ONE}"]
    )
    def test_of_versions(self, tmp_path: Path, version: str) -> None:
        write_model(tmp_path, version=version)
        scan = directory(tmp_path).scan()
        assert not scan.found
        assert "a version is a" in scan.skipped["times"]
        assert "a version is a whole number above 0" in scan.skipped[f"times/{version}"]

    def test_a_model_that_lies_outside_of_a_folder(self, tmp_path: Path) -> None:
        write(tmp_path / "digits.onnx")
        assert "NAME/VERSION" in directory(tmp_path).scan().skipped["digits.onnx"]

    def test_that_are_no_text(self, tmp_path: Path) -> None:
        write_model(tmp_path)
        (tmp_path / os.fsdecode(b"\xff") / "1").mkdir(parents=True)
        (tmp_path / "times" / os.fsdecode(b"\xfe")).mkdir()
        write(tmp_path / "times" / os.fsdecode(b"\xfe") / "model.py")
        scan = directory(tmp_path).scan()
        assert list(scan.found) == ["times@1"]
        assert all(text.encode() for text in (*scan.skipped, *scan.skipped.values()))
        assert len(scan.skipped) == 2

    def test_a_reason_is_short(self, tmp_path: Path) -> None:
        write(tmp_path / "times" / "1" / "model.py", "raise ValueError('x' * 1_000_000)")
        assert len(directory(tmp_path).scan().skipped["times/1"]) <= 2000


class TestEscapes:
    """Nothing is followed out of the directory."""

    def outside(self, tmp_path: Path) -> tuple[Path, Path]:
        root = tmp_path / "root"
        root.mkdir()
        return root, write_model(tmp_path / "outside", version=1)

    def refused(self, root: Path) -> None:
        scan = directory(root).scan()
        assert not scan.found
        assert any(why.startswith("PathEscape: ") for why in scan.skipped.values()), scan.skipped

    def test_a_link_to_a_model(self, tmp_path: Path) -> None:
        root, folder = self.outside(tmp_path)
        (root / "times").symlink_to(folder.parent)
        self.refused(root)

    def test_a_link_to_a_version(self, tmp_path: Path) -> None:
        root, folder = self.outside(tmp_path)
        (root / "times").mkdir()
        (root / "times" / "1").symlink_to(folder)
        self.refused(root)

    @pytest.mark.parametrize("name", ["model.py", "extra/weights.bin"])
    def test_a_link_to_a_file(self, tmp_path: Path, name: str) -> None:
        root, folder = self.outside(tmp_path)
        inner = write_model(root)
        (inner / name).unlink(missing_ok=True)
        (inner / name).parent.mkdir(exist_ok=True)
        (inner / name).symlink_to(folder / "model.py")
        self.refused(root)

    def test_a_link_to_settings(self, tmp_path: Path) -> None:
        root, _ = self.outside(tmp_path)
        write_model(root)
        secret = write(tmp_path / "secret.toml", "password = 'x'")
        (root / "times" / "model.toml").symlink_to(secret)
        self.refused(root)

    def test_a_link_that_climbs(self, tmp_path: Path) -> None:
        root, _ = self.outside(tmp_path)
        inner = write_model(root)
        (inner / "up").symlink_to("../../../outside")
        self.refused(root)

    def test_links_inside_are_followed(self, tmp_path: Path) -> None:
        """As volumes of Kubernetes lay them, whose content is swapped by one link."""
        for number, by in ((1, 2), (2, 3)):
            write_model(tmp_path / f"..data_{number}", by=by)
        (tmp_path / "..data").symlink_to("..data_1")
        (tmp_path / "times").symlink_to("..data/times")
        models = directory(tmp_path)
        scan = models.scan()
        assert computed(scan, "times@1") == [[2.0, 2.0]]
        (tmp_path / "new").symlink_to("..data_2")
        (tmp_path / "new").rename(tmp_path / "..data")
        again = models.scan()
        assert again.found["times@1"].fingerprint != scan.found["times@1"].fingerprint
        assert computed(again, "times@1") == [[3.0, 3.0]]

    def test_the_directory_itself_may_be_a_link(self, tmp_path: Path) -> None:
        write_model(tmp_path / "first", by=2)
        write_model(tmp_path / "second", by=3)
        (tmp_path / "current").symlink_to("first")
        models = directory(tmp_path / "current")
        assert computed(models.scan(), "times@1") == [[2.0, 2.0]]
        (tmp_path / "new").symlink_to("second")
        (tmp_path / "new").rename(tmp_path / "current")
        assert computed(models.scan(), "times@1") == [[3.0, 3.0]]

    def test_links_in_a_circle(self, tmp_path: Path) -> None:
        folder = write_model(tmp_path)
        (folder / "a").symlink_to("b")
        (folder / "b").symlink_to("a")
        scan = directory(tmp_path).scan()
        assert not scan.found
        assert list(scan.skipped) == ["times/1"]

    @pytest.mark.parametrize("place", ["x", "times/2", "times/1/x", "times/model.toml"])
    def test_a_link_that_the_system_cannot_follow(self, tmp_path: Path, place: str) -> None:
        write_model(tmp_path)
        write_model(tmp_path, "other")
        (tmp_path / place).symlink_to("x" * 300)
        scan = directory(tmp_path).scan()
        assert "other@1" in scan.found
        assert ("times@1" in scan.found) == (place in {"x", "times/2"})
        assert len(scan.skipped) == 1

    @pytest.mark.timeout(60)
    def test_links_to_themselves_do_not_multiply(self, tmp_path: Path) -> None:
        folder = write_model(tmp_path)
        for name in "abcdefgh":
            (folder / name).symlink_to(".")
        scan = directory(tmp_path).scan()
        assert scan.skipped["times/1"].startswith("UnsafeFormat: ")

    def test_a_link_to_nothing(self, tmp_path: Path) -> None:
        folder = write_model(tmp_path)
        (folder / "weights").symlink_to("nothing")
        scan = directory(tmp_path).scan()
        assert not scan.found
        assert "no such file" in scan.skipped["times/1"]

    @pytest.mark.parametrize(
        "place", ["times/1/weights", "times/model.toml", "times/config.pbtxt", "times/1/model.toml"]
    )
    def test_a_pipe_is_not_opened(self, tmp_path: Path, place: str) -> None:
        write_model(tmp_path)
        os.mkfifo(tmp_path / place)
        scan = directory(tmp_path).scan()
        assert not scan.found
        assert any(why.startswith("UnsafeFormat: ") for why in scan.skipped.values()), scan.skipped

    def test_a_socket_is_no_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = write_model(tmp_path)
        monkeypatch.chdir(folder)  # a socket's path is short
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("s")
            assert "UnsafeFormat" in directory(tmp_path).scan().skipped["times/1"]

    def test_settings_are_short(self, tmp_path: Path) -> None:
        write_model(tmp_path)
        write(tmp_path / "times" / "model.toml", "#" * ((1 << 20) + 1))
        assert "longer than 1048576 bytes" in directory(tmp_path).scan().skipped["times"]


class TestPermissions:
    def test_python_is_not_run_without(self, tmp_path: Path) -> None:
        mark = tmp_path / "mark"
        write(tmp_path / "models" / "times" / "1" / "model.py", f"open({str(mark)!r}, 'w')")
        scan = directory(tmp_path / "models", allow_python=False).scan()
        assert not scan.found
        assert scan.skipped["times/1"].startswith("UnsafeFormat: model.py is Python, which is run only with")
        assert not mark.exists()

    def test_an_onnx_file_beside_does_not_stand_in_for_it(self, tmp_path: Path) -> None:
        write(write_model(tmp_path) / "model.onnx", b"")
        scan = directory(tmp_path, allow_python=False).scan()
        assert not scan.found
        assert "model.py" in scan.skipped["times/1"]

    @pytest.mark.parametrize("name", ["model.pkl", "model.pickle", "model.joblib"])
    def test_pickles_are_not_read_without(self, tmp_path: Path, name: str) -> None:
        write(tmp_path / "times" / "1" / name, pickle.dumps(Harm()))
        scan = directory(tmp_path).scan()
        assert scan.skipped["times/1"].startswith(f"UnsafeFormat: {name} is a pickle")
        assert "harmed" not in sys.modules

    @pytest.mark.parametrize("name", ["model.pt", "pytorch_model.bin"])
    def test_pickles_of_pytorch_are_named(self, tmp_path: Path, name: str) -> None:
        write(tmp_path / "times" / "1" / name, b"")
        scan = directory(tmp_path, allow_pickle=True).scan()
        assert "safetensors" in scan.skipped["times/1"]

    @pytest.mark.parametrize("name", ["weights.safetensors", "model.onnx/model.onnx", "something.txt"])
    def test_a_folder_without_a_model(self, tmp_path: Path, name: str) -> None:
        write(tmp_path / "times" / "1" / name, b"")
        assert directory(tmp_path).scan().skipped["times/1"].startswith("ConfigError: ")


class Harm:
    def __reduce__(self) -> Any:
        return exec, ("import sys; sys.modules['harmed'] = sys",)


class TestPython:
    def test_versions_are_modules_of_their_own(self, tmp_path: Path) -> None:
        for version in (1, 2):
            folder = write_model(tmp_path, version=version)
            write(folder / "by.txt", "0")
            source = MODEL.format(name="times").replace("x * self.by", "x * helper.BY")
            write(folder / "model.py", "from . import helper\n" + source)
            write(folder / "helper.py", f"BY = {version + 2}")
        models = directory(tmp_path, versions="all")
        scan = models.scan()
        assert not scan.skipped
        assert computed(scan, "times@1") == [[3.0, 3.0]]
        assert computed(scan, "times@2") == [[4.0, 4.0]]
        assert not {"helper", "model"} & set(sys.modules)
        # What Python leaves behind is no change.
        assert models.scan().found["times@1"] is scan.found["times@1"]
        time.sleep(0.01)
        write(tmp_path / "times" / "2" / "helper.py", "BY = 5")
        assert computed(models.scan(), "times@2") == [[5.0, 5.0]]

    def test_old_modules_do_not_pile_up(self, tmp_path: Path) -> None:
        folder = write_model(tmp_path, "piling")
        models = directory(tmp_path)
        for number in range(6):
            write(folder / "by.txt", "1" * (number + 1))
            assert models.scan().found
        assert len([name for name in sys.modules if name.startswith("penstock_model_piling_1_")]) == 2

    @pytest.mark.parametrize(
        ("source", "why"),
        [
            ("", "declares none"),
            ("class TritonPythonModel: pass", "TritonPythonModel is Triton's"),
            (MODEL.format(name="times") + MODEL.format(name="times").replace("Times", "More"), "declares times, times"),
            (MODEL.format(name="other"), "declares the model 'other', and its folder is called 'times'"),
            ("def (", "LoadFailed: model.py raised SyntaxError"),
            ("import nothing_of_that_name", "LoadFailed: model.py raised ModuleNotFoundError"),
            ("raise SystemExit(3)", "LoadFailed: model.py raised SystemExit: 3"),
            ("import penstock\n@penstock.model('times', inputs={}, outputs={})\ndef f(x): ...", "ConfigError"),
            (b"\xff\xfe", "LoadFailed: model.py raised SyntaxError"),
            (b"\0", "LoadFailed: model.py raised"),
        ],
    )
    def test_a_file_that_cannot_be_used(self, tmp_path: Path, source: str | bytes, why: str) -> None:
        write_model(tmp_path, "good")
        write(tmp_path / "times" / "1" / "model.py", source)
        modules = set(sys.modules)
        scan = directory(tmp_path).scan()
        assert list(scan.found) == ["good@1"]
        assert why in scan.skipped["times/1"]
        assert not [name for name in set(sys.modules) - modules if "times" in name]

    def test_the_traceback_is_logged_once(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        write(tmp_path / "times" / "1" / "model.py", "def f():\n    return 1 / 0\nf()")
        models = directory(tmp_path)
        for _ in range(3):
            assert not models.scan().found
        assert caplog.text.count("return 1 / 0") == 1
        assert caplog.text.count("times/1 of the models in") == 1

    def test_a_failure_is_tried_again_after_a_while(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path / "times" / "1" / "model.py", "import comes_later\n" + MODEL.format(name="times"))
        models = directory(tmp_path)
        assert not models.scan().found
        monkeypatch.setitem(sys.modules, "comes_later", sys)
        assert not models.scan().found
        monkeypatch.setattr("penstock._repository_scan._AGAIN_SECONDS", 0.0)
        assert models.scan().found


class TestTheDirectoryItself:
    def test_must_be_there(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="there is no directory"):
            ModelDirectory(tmp_path / "nothing")
        with pytest.raises(ConfigError, match="there is no directory"):
            ModelDirectory(write(tmp_path / "file"))

    def test_may_be_empty(self, tmp_path: Path) -> None:
        assert directory(tmp_path).scan() == Scan()

    def test_that_disappears_leaves_what_was_found(self, tmp_path: Path) -> None:
        root = tmp_path / "root"
        write_model(root)
        models = directory(root)
        first = models.scan()
        root.rename(tmp_path / "away")
        scan = models.scan()
        assert scan.gone
        assert scan.found == first.found
        assert list(scan.skipped) == ["."]
        assert "what was found before stays" in scan.skipped["."]
        (tmp_path / "away").rename(root)
        scan = models.scan()
        assert not scan.gone
        assert not scan.skipped
        assert scan.found["times@1"] is first.found["times@1"]

    def test_that_becomes_an_empty_mount_leaves_what_was_found(self, tmp_path: Path) -> None:
        root = tmp_path / "root"
        write_model(root)
        models = directory(root)
        first = models.scan()
        root.rename(tmp_path / "away")
        root.mkdir()
        scan = models.scan()
        assert scan.gone
        assert scan.found == first.found
        write_model(root, "other")
        assert list(models.scan().found) == ["other@1"]

    def test_that_is_emptied_is_empty(self, tmp_path: Path) -> None:
        write_model(tmp_path)
        models = directory(tmp_path)
        assert models.scan().found
        shutil.rmtree(tmp_path / "times")
        assert models.scan() == Scan()

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_that_cannot_be_read(self, tmp_path: Path) -> None:
        write_model(tmp_path)
        models = directory(tmp_path)
        first = models.scan()
        tmp_path.chmod(0)
        try:
            scan = models.scan()
        finally:
            tmp_path.chmod(0o700)
        assert scan.gone
        assert scan.found == first.found

    @pytest.mark.parametrize(
        ("settings", "why"),
        [
            ({"allow_python": 1}, "allow_python must be true or false"),
            ({"allow_pickle": "yes"}, "allow_pickle must be true or false"),
            ({"settle": -1}, "settle must be"),
            ({"settle": 1e9}, "settle must be at most 3600"),
            ({"versions": "latest"}, "versions must be"),
            ({"versions": {"latest": 0}}, "versions must be"),
            ({"versions": []}, "versions must be"),
            ({"versions": [0]}, "versions must be"),
            ({"versions": ["1"]}, "versions must be"),
        ],
    )
    def test_refuses_settings_that_cannot_be(self, tmp_path: Path, settings: dict[str, Any], why: str) -> None:
        with pytest.raises(ConfigError, match=why):
            ModelDirectory(tmp_path, **settings)

    def test_is_not_pickled(self, tmp_path: Path) -> None:
        with pytest.raises(TypeError, match="make one from its path"):
            pickle.dumps(ModelDirectory(tmp_path))

    def test_says_what_it_is(self, tmp_path: Path) -> None:
        write_model(tmp_path)
        models = directory(tmp_path)
        assert "nothing found yet" in repr(models)
        models.scan()
        assert "times@1" in repr(models)
        assert models.path == tmp_path

    def test_is_looked_at_by_one_at_a_time(self, tmp_path: Path) -> None:
        write_model(tmp_path)
        models = directory(tmp_path)
        scans: list[Scan | PenstockError] = []
        threads = [threading.Thread(target=lambda: scans.append(models.scan())) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len({id(scan.found["times@1"]) for scan in scans if isinstance(scan, Scan)}) == 1
