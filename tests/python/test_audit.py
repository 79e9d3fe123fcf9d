"""What `tools/audit.py` makes of licences, sources and advisories."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPECIFICATION = importlib.util.spec_from_file_location("audit", ROOT / "tools" / "audit.py")
assert SPECIFICATION is not None
assert SPECIFICATION.loader is not None
audit: Any = importlib.util.module_from_spec(SPECIFICATION)
sys.modules["audit"] = audit
SPECIFICATION.loader.exec_module(audit)

CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"
RULES = {
    "licenses": {"allow": ["MIT", "Apache-2.0", "ISC"]},
    "bans": {"deny": [{"crate": "openssl"}]},
    "sources": {"allow-registry": ["https://github.com/rust-lang/crates.io-index"]},
}


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("GPL-3.0", False),
        ("MIT OR GPL-3.0", True),
        ("MIT/Apache-2.0", True),
        ("GPL-3.0 AND MIT", False),
        ("Apache-2.0 AND ISC", True),
        ("(GPL-3.0 OR MIT) AND (ISC AND Apache-2.0)", True),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", False),
        ("Apache-2.0 WITH LLVM-exception OR GPL-3.0", True),
    ],
)
def test_a_licence_is_allowed_where_a_choice_of_it_is(expression: str, allowed: bool) -> None:
    assert audit.is_allowed(expression, {"MIT", "Apache-2.0", "ISC"}) is allowed


@pytest.mark.parametrize(
    ("version", "requirement", "met"),
    [
        ("0.23.46", ">= 0.23.5", True),
        ("0.23.4", ">=0.23.5", False),
        ("1.2.3", "^1.2", True),
        ("1.1.9", "^1.2", False),
        ("0.3.1", "^0.2.5", False),
        ("0.2.9", "^0.2.5", True),
        ("0.22.1", ">= 0.22.4, < 0.23.0", False),
        ("0.22.4", ">= 0.22.4, < 0.23.0", True),
        ("1.0.0", "< 1.0.0", False),
        ("1.2.3", "=1.2.3", True),
        ("1.2.4", "~1.2.3", True),
        ("1.3.0", "~1.2.3", False),
        ("1.2.3", "> 1.2.3", False),
    ],
)
def test_versions_meet_requirements_as_cargo_has_it(version: str, requirement: str, met: bool) -> None:
    assert audit.meets(version, requirement) is met


def test_what_breaks_the_rules_is_named() -> None:
    def package(name: str, licence: str | None = "MIT", source: str = CRATES_IO) -> dict[str, Any]:
        return {"name": name, "version": "1.0.0", "license": licence, "source": source}

    wrong = audit.against_rules(
        [
            package("fine"),
            package("openssl"),
            package("copyleft", "GPL-3.0"),
            package("silent", None),
            package("elsewhere", source="git+https://github.com/a/b"),
        ],
        RULES,
    )
    assert [line.split()[0] for line in wrong] == ["openssl", "copyleft", "silent", "elsewhere"]


def test_what_is_known_against_a_crate_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "crates" / "old"
    folder.mkdir(parents=True)
    for name, more in (("A", ""), ("B", 'withdrawn = "2024-01-01"\n'), ("C", 'informational = "unmaintained"\n')):
        text = f'```toml\n[advisory]\nid = "{name}"\n{more}[versions]\npatched = [">= 1.2.0"]\n```\n# Words\n'
        (folder / f"{name}.md").write_text(text)
    found = audit.against_rustsec([{"name": "old", "version": "1.1.0"}], tmp_path, set())
    assert found == ["old 1.1.0: A (weakness)", "old 1.1.0: C (unmaintained)"]
    assert audit.against_rustsec([{"name": "old", "version": "1.1.0"}], tmp_path, {"A", "C"}) == []
    assert audit.against_rustsec([{"name": "old", "version": "1.2.0"}], tmp_path, set()) == []


def test_what_penstock_is_built_from_keeps_the_rules() -> None:
    assert audit.against_rules(audit.crates(), audit.tomllib.loads((ROOT / "deny.toml").read_text())) == []
    assert "numpy" in audit.pins()
