"""`python -m benches.python.batching`: measures what batching promises, and prints it as Markdown.

Each figure is the median of the rounds, with the least and the greatest in brackets; what is compared takes turns.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

from benches.python.measure import described, facts, write_json

STORIES = ("poison", "efficiency", "lengths", "overload", "processes")
ROUNDS = 5


def main() -> int:
    options = _options()
    rounds = 1 if options.quick else options.rounds
    found = facts()
    report = {"facts": found, "rounds": rounds, "stories": {}}
    print(described(found), flush=True)
    for name in options.only or STORIES:
        began = time.monotonic()
        print(name, file=sys.stderr, flush=True)
        story = importlib.import_module(f"benches.python.batching.{name}").run(rounds, quick=options.quick)
        print(f"\n### {story.title}\n\n{story.text}", flush=True)
        report["stories"][name] = {"title": story.title, "seconds": time.monotonic() - began, "data": story.data}
        write_json(options.json, report)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benches.python.batching", description=__doc__)
    parser.add_argument("--only", action="append", choices=STORIES, help="one story; may be repeated")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of every table (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="once and short: does it still run?")
    parser.add_argument("--json", type=Path, help="where the figures go")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        status = main()
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)
