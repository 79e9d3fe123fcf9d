"""`python -m benches.python.gateway mlserver|proxy`: measures the gateway, and prints what it saw as Markdown."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from benches.python.door.machine import ONE_THREAD, ROOT, NotServing, carry_out, take_the_load_cpu


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benches.python.gateway", description=__doc__)
    out = ROOT / "target/bench"
    program = out / "build/release/examples/hyper_proxy"
    parser.add_argument("story", choices=("mlserver", "proxy"))
    parser.add_argument("--rounds", type=int, default=7, help="rounds (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each visit (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--out", type=Path, default=out, help="folder of logs and of the peers' environments")
    parser.add_argument("--proxy", type=Path, default=program, help="the program built from benches/hyper_proxy.rs")
    options = parser.parse_args()
    if options.story == "proxy" and not options.proxy.is_file():
        parser.error(f"there is no {options.proxy}: cargo build --release --no-default-features --example hyper_proxy")
    os.environ.update(ONE_THREAD)
    take_the_load_cpu()
    # Imported only now: NumPy and the load generator read the settings above when they start.
    from benches.python.door.servers import Absent
    from benches.python.gateway import stories
    from benches.python.measure import described, facts, write_json

    found = {**facts(), "cores": os.cpu_count()}
    print(f"{described(found)}\n", flush=True)
    bench = stories.Bench(options.proxy.resolve(), options.out.resolve(), options.rounds, options.seconds)
    try:
        text, results = getattr(stories, options.story)(bench)
    except (Absent, NotServing) as reason:
        print(f"Not measured: {reason}", flush=True)
        return 1
    print(text, flush=True)
    write_json(options.json, {"facts": found, "rounds": options.rounds, options.story: results})
    return 0


if __name__ == "__main__":
    carry_out(main)
