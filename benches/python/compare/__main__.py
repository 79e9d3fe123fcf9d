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
from typing import Any

from benches.python.door.machine import ONE_THREAD, ROOT, NotServing, carry_out, take_the_load_cpu

STORIES = ("servers", "binary", "minilm", "clients", "openai", "grpc", "weights")
ON_REQUEST = ("tuning",)
ROUNDS = 5


def main() -> int:
    options = _options()
    os.environ.update(ONE_THREAD)
    # Imported only now: NumPy and the load generator read the settings above when they start.
    from benches.python.compare import page
    from benches.python.measure import write_json

    report: dict[str, Any] = {"stories": {}, "left_out": {}}
    if options.rendered is not None:
        report = json.loads(options.rendered.read_text(encoding="utf-8"))
    wanted = options.only or (() if options.rendered else STORIES)
    if wanted:
        take_the_load_cpu()
    for name in wanted:
        _measure(name, options, report)
        write_json(options.json, report)
    print(page.printed(report, wanted), flush=True)
    if options.write:
        page.write(report)
        print(f"written: {page.GUIDE.relative_to(ROOT)} and {page.CHART.relative_to(ROOT)}", file=sys.stderr)
    return int(any(name in report["left_out"] for name in wanted))


def _circumstances(options: argparse.Namespace) -> dict[str, Any]:
    """Of one story: others in the same report may have been told on another day."""
    from benches.python.measure import facts

    return {
        "day": time.strftime("%Y-%m-%d"),
        "facts": {**facts(), "cores": os.cpu_count()},
        "rounds": 1 if options.quick else options.rounds,
    }


def _measure(name: str, options: argparse.Namespace, report: dict[str, Any]) -> None:
    """Tells a story anew, or says why it cannot be told here."""
    from benches.python.compare.stories import run
    from benches.python.door.servers import Absent

    began = time.monotonic()
    print(name, file=sys.stderr, flush=True)
    report["stories"].pop(name, None)
    report["left_out"].pop(name, None)
    try:
        outcome = run(name, options)
    except (Absent, NotServing) as reason:
        report["left_out"][name] = str(reason)
    else:
        seconds = time.monotonic() - began
        report["stories"][name] = {"seconds": seconds, **_circumstances(options), **outcome.packed()}


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
    add("--from", type=Path, dest="rendered", help="what --json wrote: measure nothing, or only what --only names")
    options = parser.parse_args()
    if options.write and (options.quick or (options.only and not options.rendered)):
        parser.error("--write wants every story, and --quick measures nothing")
    options.out, options.programs = options.out.resolve(), options.programs.resolve()
    return options


if __name__ == "__main__":
    carry_out(main)
