"""`python -m examples.recipes DIR [NAME ...]`: writes these recipes, or all whose packages are installed."""

from __future__ import annotations

import sys
from pathlib import Path

from examples.recipes.write import RECIPES, missing, write


def main(arguments: list[str]) -> int:
    """Write what was asked for; 0 if that went well."""
    if not arguments or not set(arguments[1:]) <= RECIPES.keys():
        print(f"usage: python -m examples.recipes DIR [{' | '.join(RECIPES)}] ...", file=sys.stderr)
        return 2
    directory, *names = arguments
    for name in names or RECIPES:
        if lacking := missing(name):
            print(f"{name}: left out, because these are not installed: {', '.join(lacking)}")
        else:
            print(f"{name}: {write(Path(directory), name)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
