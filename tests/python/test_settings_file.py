"""Any text as `penstock.toml`: it is read or refused, and errors name the line on which a key stands."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock._settings_file import SettingsFile
from penstock._settings_model import settings_of
from penstock.errors import ConfigError
from penstock.settings import SECTIONS

PATIENT = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
PIECES = st.sampled_from(
    [
        "[",
        "]",
        "server",
        "model",
        ".",
        "=",
        '"',
        "'",
        '"""',
        "'''",
        "\n",
        "#",
        "{",
        "}",
        ",",
        "1",
        "max_body",
        " ",
        "\\",
        "\t",
    ]
)
KEYS = st.text("abcxyz_-019", min_size=1, max_size=6)
VALUES = st.one_of(
    st.integers(-9, 9).map(str),
    st.sampled_from(
        [
            "true",
            '"a = 1"',
            "'[b]'",
            "[1, 2]",
            "{ q = 1 }",
            '"""\n[c]\nx = 1\n"""',
            "'''\ny = 2'''",
            '"#"',
            "[\n 1,\n 2\n]",
        ]
    ),
)
SAID = st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=4), max_size=4)


def read(text: str) -> SettingsFile:
    return SettingsFile(Path("penstock.toml"), "penstock.toml", text)


@PATIENT
@given(st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=30).map("".join)))
def test_any_text_is_read_or_refused(text: str) -> None:
    known: dict[str, list[str]] = {}
    for kind in SECTIONS:
        known.setdefault(kind.section, []).extend(each.name for each in settings_of(kind))
    with contextlib.suppress(ConfigError):
        file = read(text)
        for section in file.tables:
            file.where(section)
        file.check_names(known)


@PATIENT
@given(SAID, st.lists(st.sampled_from(["", "# a = 1", "   "]), max_size=3), st.booleans())
def test_the_line_is_that_of_the_key(said: dict[str, dict[str, str]], between: list[str], dotted: Any) -> None:
    lines: list[str] = []
    stands: dict[tuple[str, str], int] = {}
    for section, table in said.items():
        if not dotted:
            lines += [*between, f"[{section}] # here"]
        for key, value in table.items():
            lines += between
            stands[section, key] = len("\n".join(lines).split("\n")) + 1 if lines else 1
            lines.append(f"{section}.'{key}' = {value}" if dotted else f' "{key}"  = {value} # there')
    file = read("\n".join(lines))
    for (section, key), line in stands.items():
        assert file.where(section, key) == f"penstock.toml:{line} [{section}] {key}"
