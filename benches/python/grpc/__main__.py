"""`python -m benches.python.grpc`: measures gRPC and prints what it saw as Markdown.

What is measured runs on CPU 0, what it is measured with on CPU 1. Each figure is the median of the rounds, with the
least and the greatest in brackets.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from pathlib import Path

from benches.python.door.machine import ONE_THREAD, ROOT, NotServing, carry_out, take_the_load_cpu

STORIES = ("client", "door", "both")
ROUNDS = 5


def main() -> int:
    options = _options()
    os.environ.update(ONE_THREAD)
    take_the_load_cpu()
    # Imported only now: NumPy reads the settings above when it starts.
    from benches.python.door.servers import Absent
    from benches.python.door.story import Bench
    from benches.python.measure import described, facts, write_json

    bench = Bench(options.tonic, options.out / "grpc-logs", options.out / "peers", options.rounds, options.quick)
    found = {**facts(), "cores": os.cpu_count()}
    report = {"facts": found, "rounds": 1 if options.quick else options.rounds, "stories": {}}
    print(f"{described(found)}\n\nWhat is measured on CPU 0, the other side on CPU 1.", flush=True)
    failed = False
    for name in options.only or STORIES:
        began = time.monotonic()
        print(f"{name}", file=sys.stderr, flush=True)
        try:
            story = importlib.import_module(f"benches.python.grpc.{name}").run(bench, options.clients)
        except Absent as reason:
            print(f"\n### {name}\n\nLeft out: {reason}", flush=True)
            continue
        except NotServing as reason:
            failed = True
            print(f"\n### {name}\n\nNot measured: {reason}", flush=True)
            continue
        print(f"\n### {story.title}\n\n{story.text}", flush=True)
        report["stories"][name] = {"title": story.title, "seconds": time.monotonic() - began, "data": story.data}
        write_json(options.json, report)
    return int(failed)


def _options() -> argparse.Namespace:
    from benches.python.grpc.clients import CLIENTS

    parser = argparse.ArgumentParser(prog="python -m benches.python.grpc", description=__doc__)
    out = ROOT / "target/bench"
    tonic = out / "build/release/examples/grpc_echo"
    parser.add_argument("--only", action="append", choices=STORIES, help="one story; may be repeated")
    parser.add_argument("--client", action="append", dest="clients", choices=CLIENTS, help="one client; likewise")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of every table (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="once and short: does it still run?")
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--out", type=Path, default=out, help="folder of logs and environments")
    parser.add_argument("--tonic", type=Path, default=tonic, help="the program built from benches/grpc_echo.rs")
    options = parser.parse_args()
    options.out, options.tonic = options.out.resolve(), options.tonic.resolve()
    if not options.tonic.is_file():
        parser.error(f"there is no {options.tonic}: cargo build --release --no-default-features --example grpc_echo")
    return options


if __name__ == "__main__":
    carry_out(main)
