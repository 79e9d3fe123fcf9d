"""The guide's tables of settings are those that the code makes, and nothing is missing in them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from penstock import cli
from penstock._settings_model import Resolved, described, settings_of
from penstock.settings import SECTIONS
from tools import settings_table

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"


def test_the_tables_are_as_the_code_is() -> None:
    page = GUIDE.read_text(encoding="utf-8")
    assert settings_table.written(page) == page, "run python tools/settings_table.py"


@pytest.mark.parametrize("kind", SECTIONS, ids=lambda kind: kind.__name__)
def test_every_setting_is_described_by_its_class(kind: type[Resolved]) -> None:
    short = {each.name: each.metadata["help"] for each in settings_of(kind)}
    attributes = (kind.__doc__ or "").partition("Attributes:")[2]
    assert [name for name in short if f" {name}: " not in attributes] == [], "a class lists its settings as Attributes"
    assert list(described(kind)) == list(short)
    assert all(described(kind).values())


def test_no_two_settings_have_one_name() -> None:
    names = [kind.prefix + each.name for kind in SECTIONS for each in settings_of(kind)]
    assert sorted(names) == sorted(set(names))


def block(language: str, holds: str) -> str:
    """The block of the guide that holds a text."""
    found = re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    return next(text for text in found if holds in text)


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("PENSTOCK_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    declared = "@penstock.model('digits', inputs={'x': ('float32', [])}, outputs={'y': ('float32', [])})"
    (tmp_path / "app.py").write_text(f"import penstock\n\n\n{declared}\ndef digits(x):\n    return x\n")
    (tmp_path / "penstock.toml").write_text(block("toml", "[listen]"))
    return tmp_path / "app.py"


@pytest.mark.parametrize("words", ["config app.py --drain-timeout", "config app.py --explain max_body"])
def test_what_the_guide_shows_is_printed(
    app: Path, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, *shown = block("console", words).splitlines()
    variable, _, *arguments = asked.removeprefix("$ ").split()
    monkeypatch.setenv(*variable.split("="))
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out.splitlines()
    for line in shown:
        if not line.strip().startswith(("...", "file: ")):
            assert line in printed


def test_the_error_of_the_guide_is_the_error(app: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (app.parent / "penstock.toml").write_text("[server]\nmax_body = '16 megabytes'\n")
    asked, shown = block("console", "16 megabytes").splitlines()
    assert cli.main(asked.split()[2:]) == 2
    assert capsys.readouterr().err == f"{shown}\n"
