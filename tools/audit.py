"""Reads what Penstock is built from: licences, sources, banned crates, and what is known against any of it.

The rules are those of `deny.toml`. Where cargo-deny and pip-audit are installed and their data can be had, they check,
too; this does what can be done without a network, and says what was not done.
"""

from __future__ import annotations

import argparse
import json
import operator
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = sorted([*ROOT.glob("tools/requirements-*.txt"), *ROOT.glob("examples/**/requirements.txt")])
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;]+)", re.MULTILINE)
REQUIREMENT = re.compile(r"(\^|~|<=|>=|<|>|=)?\s*(\d[\w.+-]*)")
COMPARED = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
SECONDS = 100
"""A tool with data of its own may take this long."""


def crates() -> list[dict[str, Any]]:
    """Every package of the lock file, but our own."""
    command = ["cargo", "metadata", "--format-version=1", "--locked", "--all-features"]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
    return [package for package in metadata["packages"] if package["source"] is not None]


def is_allowed(expression: str, allowed: set[str]) -> bool:
    """Whether an SPDX expression can be met by the licences that are allowed; `/` is how OR was written once."""
    words = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))

    def either() -> bool:
        met = both()
        while words and words[0] == "OR":
            words.pop(0)
            met = both() or met
        return met

    def both() -> bool:
        met = one()
        while words and words[0] == "AND":
            words.pop(0)
            met = one() and met
        return met

    def one() -> bool:
        word = words.pop(0)
        if word == "(":
            met = either()
            words.pop(0)
            return met
        if words[:1] == ["WITH"]:
            words.pop(0)
            return f"{word} WITH {words.pop(0)}" in allowed or word in allowed
        return word in allowed

    return either()


def version(text: str) -> tuple[int, ...]:
    """A version's numbers; what stands behind them is left out."""
    numbers = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(number) for number in numbers[0].split(".")) if numbers else (0,)


def meets(found: str, requirement: str) -> bool:
    """Whether a version meets a requirement as Cargo writes them: `>= 1.2, < 2`, `^1.2`."""
    return all(_meets_one(version(found), *parts) for parts in REQUIREMENT.findall(requirement))


def _meets_one(found: tuple[int, ...], sign: str, text: str) -> bool:
    wanted = version(text)
    whole = (*found, 0, 0, 0)[: max(3, len(found))]
    full = (*wanted, 0, 0, 0)[:3]
    if sign in COMPARED:
        return COMPARED[sign](whole, full)
    if sign == "=":
        return whole[: len(wanted)] == wanted
    if sign == "~":
        return whole >= full and whole[: min(2, len(wanted))] == wanted[:2]
    # What Cargo holds to be compatible: the first number that is not 0 stays.
    fixed = next((at + 1 for at, number in enumerate(wanted) if number), len(wanted))
    return whole >= full and whole[:fixed] == full[:fixed]


def against_rules(packages: list[dict[str, Any]], rules: dict[str, Any]) -> list[str]:
    """What breaks the rules on licences, bans and sources."""
    allowed, wrong = set(rules["licenses"]["allow"]), []
    banned = {ban["crate"] for ban in rules["bans"]["deny"]}
    sources = {f"registry+{registry}" for registry in rules["sources"]["allow-registry"]}
    for package in packages:
        name = f"{package['name']} {package['version']}"
        if package["name"] in banned:
            wrong.append(f"{name} is banned")
        if package["source"] not in sources:
            wrong.append(f"{name} comes from {package['source']}")
        licence = package["license"]
        if licence is None or not is_allowed(licence, allowed):
            wrong.append(f"{name} has the licence {licence or 'that its file says'}, which is not allowed")
    return wrong


def against_rustsec(packages: list[dict[str, Any]], folder: Path, ignored: set[str]) -> list[str]:
    """What RustSec's database knows against the crates; notes on crates that are not maintained are told as such."""
    wrong = []
    for package in packages:
        for path in sorted((folder / "crates" / package["name"]).glob("*.md")):
            front = path.read_text(encoding="utf-8").split("```toml", 1)[1].split("```", 1)[0]
            advisory = tomllib.loads(front)
            about, versions = advisory["advisory"], advisory.get("versions", {})
            safe = [*versions.get("patched", []), *versions.get("unaffected", [])]
            if about["id"] in ignored or "withdrawn" in about:
                continue
            if not any(meets(package["version"], requirement) for requirement in safe):
                kind = about.get("informational", "weakness")
                wrong.append(f"{package['name']} {package['version']}: {about['id']} ({kind})")
    return wrong


def pins() -> dict[str, set[str]]:
    """Every Python package that a file of requirements pins, and its versions."""
    found: dict[str, set[str]] = {}
    for path in REQUIREMENTS:
        for name, pinned in PIN.findall(path.read_text(encoding="utf-8")):
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), set()).add(pinned)
    return found


def against_pysec(pinned: dict[str, set[str]], folder: Path) -> list[str]:
    """What PyPA's database knows against the pins."""
    import yaml  # noqa: PLC0415  only this needs it

    wrong = []
    for name, versions in pinned.items():
        for path in sorted((folder / "vulns" / name).glob("*.yaml")):
            advisory = yaml.safe_load(path.read_text(encoding="utf-8"))
            affected = advisory.get("affected", [])
            wrong += [
                f"{name} {one}: {advisory['id']}"
                for one in sorted(versions)
                if "withdrawn" not in advisory and any(_is_affected(one, each) for each in affected)
            ]
    return wrong


def _is_affected(pinned: str, affected: dict[str, Any]) -> bool:
    if pinned in affected.get("versions", []):
        return True
    for each in affected.get("ranges", []):
        if each["type"] != "ECOSYSTEM":
            continue
        within = False
        for event in each["events"]:
            if "introduced" in event:
                within = within or version(pinned) >= version(str(event["introduced"]))
            elif "fixed" in event and version(pinned) >= version(str(event["fixed"])):
                within = False
        if within:
            return True
    return False


def by_tool(name: str, command: list[str], not_had: str) -> tuple[str, list[str]]:
    """What a tool of others says: what was done, and what is wrong."""
    if shutil.which(command[0]) is None:
        return f"{name}: not installed", []
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"{name}: gave no answer within {SECONDS} s", []
    said = done.stdout + done.stderr
    if re.search(not_had, said):
        return f"{name}: its data could not be had", []
    return f"{name}: ran", [f"{name}:\n{said.strip()}"] if done.returncode else []


def main() -> int:
    """Prints what was done and what is wrong; 1 where anything is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rustsec", type=Path, metavar="DIR", help="a clone of RustSec/advisory-db")
    parser.add_argument("--pysec", type=Path, metavar="DIR", help="a clone of pypa/advisory-database")
    options = parser.parse_args()
    rules = tomllib.loads((ROOT / "deny.toml").read_text(encoding="utf-8"))
    packages, pinned = crates(), pins()
    done = [f"{len(packages)} crates: licences, sources and bans"]
    wrong = against_rules(packages, rules)
    if options.rustsec:
        wrong += against_rustsec(packages, options.rustsec, set(rules["advisories"]["ignore"]))
        done.append(f"{len(packages)} crates: {options.rustsec}")
    if options.pysec:
        wrong += against_pysec(pinned, options.pysec)
        done.append(f"{len(pinned)} Python packages: {options.pysec}")
    tools = [
        ("cargo-deny", ["cargo-deny", "check", "--hide-inclusion-graph"], "failed to fetch|dns error|resolve host")
    ]
    each = ["-r", str(ROOT / "tools/requirements-dev.txt"), "--no-deps", "--disable-pip"]
    tools += [
        (
            "pip-audit",
            ["pip-audit", "--progress-spinner=off", *each],
            "ConnectionError|ServiceError|could not be audited",
        )
    ]
    for tool in tools:
        told, found = by_tool(*tool)
        done.append(told)
        wrong += found
    print("\n".join(f"audit: {line}" for line in done))
    if not (options.rustsec and options.pysec):
        print("audit: known weaknesses were looked for by what is named above, and by nothing else (RUSTSEC=, PYSEC=)")
    for line in wrong:
        print(f"audit FAILED: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
