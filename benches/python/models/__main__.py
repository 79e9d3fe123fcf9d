"""`python -m benches.python.models`: measures the model cache and prints what it saw as Markdown.

Each figure is the median of the rounds, with the least and the greatest in brackets.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from pathlib import Path

from benches.python.measure import described, facts, write_json
from benches.python.models.story import Rounds

STORIES = ("hits", "cold", "disk", "served")


def main() -> int:
    options = _options()
    found = {**facts(), "cores": os.cpu_count()}
    report = {"facts": found, "rounds": options.rounds, "stories": {}}
    print(described(found), flush=True)
    for name in options.only or STORIES:
        began = time.monotonic()
        print(name, file=sys.stderr, flush=True)
        rounds = Rounds(1 if options.quick else options.rounds, options.quick)
        story = importlib.import_module(f"benches.python.models.{name}").run(rounds)
        print(f"\n### {story.title}\n\n{story.text}", flush=True)
        report["stories"][name] = {"title": story.title, "seconds": time.monotonic() - began, "data": story.data}
        write_json(options.json, report)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benches.python.models", description=__doc__)
    parser.add_argument("--only", action="append", choices=STORIES, help="one story; may be repeated")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of every table (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="once and short: does it still run?")
    parser.add_argument("--json", type=Path, help="where the figures go")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
