"""`python -m benches.python.streaming`: measures streamed answers and prints what it saw as Markdown.

What is measured runs on CPU 0, what it talks to on CPU 1. Each figure is the median of the rounds, with the least and
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

STORIES = {"server": "cost", "client": "client_cost", "lone": "lone", "slow": "slow"}


def main() -> int:
    options = _options()
    os.environ.update(ONE_THREAD)
    take_the_load_cpu()
    # Imported only now: NumPy reads the settings above when it starts.
    from benches.python.door.servers import Absent
    from benches.python.door.story import Bench
    from benches.python.measure import described, facts, write_json
    from benches.python.streaming.pour import Broken

    bench = Bench(options.hyper, options.out / "streaming-logs", options.out / "peers", options.rounds, options.quick)
    found = {**facts(), "cores": os.cpu_count()}
    report = {"facts": found, "rounds": 1 if options.quick else options.rounds, "stories": {}}
    print(described(found), flush=True)
    failed = False
    for name in options.only or STORIES:
        began = time.monotonic()
        print(f"{name}", file=sys.stderr, flush=True)
        try:
            story = importlib.import_module(f"benches.python.streaming.{STORIES[name]}").run(bench)
        except Absent as reason:
            print(f"\n### {name}\n\nLeft out: {reason}", flush=True)
            continue
        except (NotServing, Broken, OSError) as reason:
            failed = True
            print(f"\n### {name}\n\nNot measured: {reason}", flush=True)
            continue
        print(f"\n### {story.title}\n\n{story.text}", flush=True)
        report["stories"][name] = {"title": story.title, "seconds": time.monotonic() - began, "data": story.data}
        write_json(options.json, report)
    return int(failed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benches.python.streaming", description=__doc__)
    out = ROOT / "target/bench"
    hyper = out / "build/release/examples/hyper_stream"
    parser.add_argument("--only", action="append", choices=STORIES, help="one story; may be repeated")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of every table (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="once and short: does it still run?")
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--out", type=Path, default=out, help="folder of logs and of the peers' environments")
    parser.add_argument("--hyper", type=Path, default=hyper, help="the program built from benches/hyper_stream.rs")
    options = parser.parse_args()
    options.out = options.out.resolve()
    options.hyper = options.hyper.resolve()
    if not options.hyper.is_file():
        parser.error(f"there is no {options.hyper}: cargo build --release --no-default-features --example hyper_stream")
    return options


if __name__ == "__main__":
    carry_out(main)
