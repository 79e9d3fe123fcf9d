"""`python -m benches.python.door`: measures the HTTP door and prints what it saw as Markdown.

Servers run on CPU 0, the load on CPU 1, BLAS on one thread. Each figure is the median of the rounds, with the least and
the greatest in brackets.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from pathlib import Path

from benches.python.door.machine import ONE_THREAD, ROOT, NotServing, carry_out, take_the_load_cpu

STORIES = {
    "cost": "cost",
    "peers": "peers_beside",
    "lone": "lone",
    "growth": "growth",
    "isolation": "isolation",
    "spinner": "spinner",
    "minilm": "minilm",
    "wrk": "wrk",
    "tuning": "tuning",
}
ON_REQUEST = ("tuning", "wrk")


def main() -> int:
    options = _options()
    os.environ.update(ONE_THREAD)
    take_the_load_cpu()
    # Imported only now: NumPy and the load generator read the settings above when they start.
    from benches.python.door.servers import Absent
    from benches.python.door.story import Bench
    from benches.python.measure import described, facts, write_json

    bench = Bench(options.hyper, options.out / "door-logs", options.out / "peers", options.rounds, options.quick)
    found = {**facts(), "cores": os.cpu_count()}
    report = {"facts": found, "rounds": 1 if options.quick else options.rounds, "stories": {}}
    print(f"{described(found)}\n\nServer on CPU 0, load on CPU 1.", flush=True)
    failed = False
    for name in options.only or [story for story in STORIES if story not in ON_REQUEST]:
        began = time.monotonic()
        print(f"{name}", file=sys.stderr, flush=True)
        try:
            story = importlib.import_module(f"benches.python.door.{STORIES[name]}").run(bench)
        except Absent as reason:
            print(f"\n### {name}\n\nLeft out: {reason}", flush=True)
            continue
        except NotServing as reason:
            failed = True
            print(f"\n### {name}\n\nNot measured: {reason}", flush=True)
            continue
        took = time.monotonic() - began
        print(f"\n### {story.title}\n\n{story.text}", flush=True)
        report["stories"][name] = {"title": story.title, "seconds": took, "data": story.data}
        write_json(options.json, report)
    return int(failed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benches.python.door", description=__doc__)
    out = ROOT / "target/bench"
    hyper = out / "build/release/examples/hyper_hello"
    parser.add_argument("--only", action="append", choices=STORIES, help="one story; may be repeated")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of every table (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="once and short: does it still run?")
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--out", type=Path, default=out, help="folder of logs and of the peers' environments")
    parser.add_argument("--hyper", type=Path, default=hyper, help="the program built from benches/hyper_hello.rs")
    options = parser.parse_args()
    options.out = options.out.resolve()
    options.hyper = options.hyper.resolve()
    if not options.hyper.is_file():
        parser.error(f"there is no {options.hyper}: cargo build --release --no-default-features --example hyper_hello")
    return options


if __name__ == "__main__":
    carry_out(main)
