"""Prints the line coverage of src/ from an lcov file, tests left out.

llvm-cov's own report counts what `#[cfg(test)]` guards, and of two builds of one function only the
better covered; its line counts, read here, are the sum over all builds.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

CFG_TEST = re.compile(r"(\s*)#\[cfg\((?:all\(|any\()?(?:test|loom)\b.*\]$")


def test_lines(source: list[str]) -> Iterator[int]:
    """The numbers of the lines that belong to items under `#[cfg(test)]`, in rustfmt's layout."""
    number = 0
    while number < len(source):
        guard = CFG_TEST.match(source[number])
        number += 1
        if not guard:
            continue
        yield number
        # The item ends with the first line at its own depth that closes it.
        end = re.compile(rf"{guard[1]}(?:\S.*)?[;}}],?$")
        while number < len(source):
            number += 1
            yield number
            if end.match(source[number - 1]):
                break


def read(lcov: Path, root: Path) -> dict[str, dict[int, int]]:
    """Hits by line, for every file under src/."""
    files: dict[str, dict[int, int]] = {}
    lines: dict[int, int] = {}
    for record in lcov.read_text().splitlines():
        kind, _, value = record.partition(":")
        if kind == "SF":
            path = Path(value)
            inside = path.is_relative_to(root / "src") and path.stem != "tests"
            name = str(path.relative_to(root)) if inside else ""
            lines = files.setdefault(name, {}) if inside and "tests" not in path.parts else {}
        elif kind == "DA":
            number, hits = value.split(",")[:2]
            lines[int(number)] = lines.get(int(number), 0) + int(hits)
    return files


def main() -> int:
    """Prints the table; the exit status says whether the total is high enough."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lcov", type=Path)
    parser.add_argument("--fail-under", type=float, default=0.0)
    arguments = parser.parse_args()
    root = Path.cwd()

    print(f"{'Name':<44}{'Lines':>7}{'Missed':>8}{'Cover':>8}   Missing")
    total = total_missed = 0
    for name, hits in sorted(read(arguments.lcov, root).items()):
        skipped = set(test_lines((root / name).read_text().splitlines()))
        counted = {number: count for number, count in hits.items() if number not in skipped}
        missed = sorted(number for number, count in counted.items() if count == 0)
        if not counted:
            continue
        total += len(counted)
        total_missed += len(missed)
        cover = 100 * (1 - len(missed) / len(counted))
        print(f"{name:<44}{len(counted):>7}{len(missed):>8}{cover:>7.1f}%   {ranges(missed)}")
    cover = 100 * (1 - total_missed / total) if total else 0.0
    print(f"{'TOTAL':<44}{total:>7}{total_missed:>8}{cover:>7.1f}%")
    return 2 if cover < arguments.fail_under else 0


def ranges(numbers: list[int], most: int = 8) -> str:
    """1, 2, 3, 7 becomes 1-3, 7; after `most` ranges, dots."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in spans]
    return ", ".join(texts[:most] + ["..."] * (len(texts) > most))


if __name__ == "__main__":
    sys.exit(main())
