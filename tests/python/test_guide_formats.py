"""What the guides show that is not Python: settings of models are understood, and commands are ones that there are.

Their Python blocks are run by `test_docs.py`.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from typing import TYPE_CHECKING

import pytest

from penstock import cli
from penstock._repository_settings import read_toml
from penstock._repository_triton import read_pbtxt
from penstock.settings import SECTIONS, Settings
from tests.python.test_docs import PAGES, ROOT, Block, blocks

if TYPE_CHECKING:
    from pathlib import Path

GUIDES = [*PAGES, ROOT / "examples" / "README.md"]
CONSOLE = [
    (page, line)
    for page in GUIDES
    for block in blocks(page)
    if block.language == "console"
    for line in re.findall(r"^\$ (.*\bpenstock (?:serve|tune|bench|config|key|top)\b.*)$", block.text, re.MULTILINE)
]


def of(language: str) -> list[tuple[Path, Block]]:
    return [(page, block) for page in GUIDES for block in blocks(page) if block.language == language]


def is_of_a_server(block: Block) -> bool:
    """Whether a block of TOML is a `penstock.toml`, and not the settings of one model in a directory."""
    return tomllib.loads(block.text).keys() <= {"model", *(each.section for each in SECTIONS)}


@pytest.mark.parametrize(("page", "line"), CONSOLE, ids=[line for _, line in CONSOLE])
def test_commands_have_the_flags_that_are_shown(page: Path, line: str) -> None:
    words = shlex.split(line, comments=True)
    arguments = words[words.index("penstock") + 1 :]
    # What another program is given, or a file: `penstock config | less`.
    ends = [arguments.index(each) for each in ("|", ">", "&") if each in arguments]
    cli._parser().parse_args(arguments[: min(ends, default=None)])


def test_settings_of_servers_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for page, block in of("toml"):
        if is_of_a_server(block):
            (tmp_path / "penstock.toml").write_text(block.text, encoding="utf-8")
            assert Settings.resolve(SECTIONS, {}, environment={}), f"{page.name}:{block.line} says nothing"


def test_settings_of_models_are_understood() -> None:
    for page, block in of("toml"):
        if is_of_a_server(block):
            continue
        settings = read_toml(block.text.encode(), f"{page.name}:{block.line}", of_version=False)
        assert settings, f"{page.name}:{block.line} says nothing"
    for page, block in of("protobuf"):
        name = re.search(r'^name: "(\w+)"$', block.text, re.MULTILINE)
        assert name, f"{page.name}:{block.line} has no name"
        read_pbtxt(block.text.encode(), name[1])


def test_files_of_a_guide_are_there() -> None:
    """What it says lies in `examples/` does."""
    for page in PAGES:
        for path in re.findall(r"`(examples/[\w./-]+)`", page.read_text(encoding="utf-8")):
            assert (ROOT / path).exists(), f"{page.name} names {path}"
