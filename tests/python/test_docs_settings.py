"""The guide's tables of settings are those that the code makes, and nothing is missing in them."""

from __future__ import annotations

from pathlib import Path

import pytest

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
