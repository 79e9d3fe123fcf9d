"""`python -m benches.python.compare`: Penstock beside other people's servers, clients and readers of weights.

What is measured has a CPU to itself. Each figure is the median of the rounds, with the least and the greatest in
brackets; ratios are Penstock's figure ÷ the other's, round by round.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benches.python.door.machine import ONE_THREAD, ROOT, NotServing, take_the_load_cpu

if TYPE_CHECKING:
    from benches.python.compare.outcome import Outcome

STORIES = ("servers", "binary", "minilm", "clients", "openai", "grpc", "weights")
ON_REQUEST = ("tuning",)
ROUNDS = 5


def main() -> int:
    options = _options()
    os.environ.update(ONE_THREAD)
    # Imported only now: NumPy and the load generator read the settings above when they start.
    from benches.python.compare import page
    from benches.python.measure import described, facts, write_json

    failed = False
    if options.rendered is None:
        take_the_load_cpu()
        found = {**facts(), "cores": os.cpu_count()}
        report: dict[str, Any] = {"facts": found, "rounds": 1 if options.quick else options.rounds, "stories": {}}
        print(f"{described(found)}\n", flush=True)
        for name in options.only or STORIES:
            outcome, seconds = _measured(name, options)
            failed |= outcome is None
            if outcome is not None:
                print(f"{page.section(outcome)}\n", flush=True)
                report["stories"][name] = {"seconds": seconds, **outcome.packed()}
                write_json(options.json, report)
    else:
        report = json.loads(options.rendered.read_text(encoding="utf-8"))
        print("\n\n".join(page.section(outcome) for outcome in page.outcomes_of(report).values()))
    if options.write:
        page.write(report)
        print(f"written: {page.GUIDE.relative_to(ROOT)} and {page.CHART.relative_to(ROOT)}", file=sys.stderr)
    return int(failed)


def _measured(name: str, options: argparse.Namespace) -> tuple[Outcome | None, float]:
    """A story, and how long it took; nothing where it cannot be told here."""
    from benches.python.compare.stories import run
    from benches.python.door.servers import Absent

    began = time.monotonic()
    print(name, file=sys.stderr, flush=True)
    try:
        outcome = run(name, options)
    except (Absent, NotServing) as reason:
        print(f"### {name}\n\nLeft out: {reason}.\n", flush=True)
        return None, 0.0
    return outcome, time.monotonic() - began


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benches.python.compare", description=__doc__)
    out = ROOT / "target/bench"
    add = parser.add_argument
    add("--only", action="append", choices=(*STORIES, *ON_REQUEST), help="one story; may be repeated")
    add("--peer", action="append", dest="peers", help="servers with this in their names; may be repeated")
    add("--rounds", type=int, default=ROUNDS, help="rounds of every table (default: %(default)s)")
    add("--quick", action="store_true", help="once and short: does it still run?")
    add("--json", type=Path, help="where the figures go")
    add("--out", type=Path, default=out, help="folder of logs and of the peers' environments")
    add("--programs", type=Path, default=out / "build/release/examples", help="hyper_stream and grpc_echo, built")
    add("--write", action="store_true", help="write docs/comparison.md and its chart")
    add("--from", type=Path, dest="rendered", help="measure nothing: take this file that --json wrote")
    options = parser.parse_args()
    options.out, options.programs = options.out.resolve(), options.programs.resolve()
    return options


if __name__ == "__main__":
    try:
        status = main()
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)
