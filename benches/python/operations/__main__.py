"""`python -m benches.python.operations`: what operations cost a server, as Markdown.

Servers run on CPU 0, the load and whoever looks on CPU 1, BLAS on one thread. Each figure is the median of the rounds,
with the least and the greatest in brackets.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

from benches.python.door.machine import ONE_THREAD, ROOT, NotServing, take_the_load_cpu

STORIES = {
    "cost": "what logs, traces and metrics cost a request",
    "dashboard": "a dashboard that is open, and a scrape each second, at 200 % load",
}


def main() -> int:
    options = _options()
    os.environ.update(ONE_THREAD)
    if options.chromium:
        os.environ["PENSTOCK_BENCH_CHROMIUM"] = "1"
    take_the_load_cpu()
    # Imported only now: NumPy and the load generator read the settings above when they start.
    from benches.python.door.story import Bench
    from benches.python.measure import described, facts, write_json

    bench = Bench(Path(), options.out / "operations-logs", options.out / "peers", options.rounds, options.quick)
    found = {**facts(), "cores": os.cpu_count()}
    report = {"facts": found, "rounds": 1 if options.quick else options.rounds, "stories": {}}
    print(f"{described(found)}\n\nServer on CPU 0, load on CPU 1.", flush=True)
    for name in options.stories or STORIES:
        print(name, file=sys.stderr, flush=True)
        try:
            story = importlib.import_module(f"benches.python.operations.{name}").run(bench)
        except NotServing as reason:
            print(f"\n### {name}\n\nNot measured: {reason}", flush=True)
            return 1
        print(f"\n### {story.title}\n\n{story.text}", flush=True)
        report["stories"][name] = {"title": story.title, "data": story.data}
        write_json(options.json, report)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benches.python.operations", description=__doc__)
    parser.add_argument("stories", nargs="*", choices=[*STORIES, []], help=f"which: {', '.join(STORIES)}")
    parser.add_argument("--chromium", action="store_true", help="the dashboard is open in a real Chromium")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of every table (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="once and short: does it still run?")
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--out", type=Path, default=ROOT / "target/bench", help="folder of logs")
    options = parser.parse_args()
    options.out = options.out.resolve()
    return options


if __name__ == "__main__":
    sys.exit(main())
