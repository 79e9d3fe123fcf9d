"""`python -m benches.python.ladder`: the ladder, as Markdown and as a chart.

The server runs on CPU 0, the client on CPU 1, BLAS on one thread. Every visit starts a server of its own; rounds are
interleaved; figures are medians of the rounds, with the least and the greatest in brackets. Every answer is checked.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benches.python.door.machine import ONE_THREAD, ROOT, NotServing, carry_out, take_the_load_cpu

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benches.python.ladder.pairs import Pair
    from benches.python.ladder.questions import Workload
    from benches.python.ladder.rungs import Rung
    from benches.python.ladder.visits import Results

OUT = ROOT / "target/ladder"


def main() -> int:
    options = _options()
    if options.redraw is not None:
        from benches.python.ladder import page

        page.write(options.write, page.read(options.redraw))
        return 0
    os.environ.update(ONE_THREAD, TOKENIZERS_PARALLELISM="false")
    take_the_load_cpu()
    # Imported only now: NumPy and the client read the settings above when they start.
    from benches.python.ladder import page
    from benches.python.ladder.pairs import pairs
    from benches.python.ladder.questions import WORKLOADS, workload
    from benches.python.ladder.rungs import ADDED, RUNGS
    from benches.python.ladder.visits import Effort, interleaved
    from benches.python.measure import facts, write_json

    began = time.monotonic()
    effort = Effort(1, 0.1, 0.2, 200) if options.quick else Effort(options.rounds, 0.25, 0.6, 1200)
    names = options.only or (page.QUICK if options.quick else WORKLOADS)
    workloads = [workload(name, effort.trace) for name in names]
    wanted = options.rungs or [rung.name for rung in (ADDED if options.quick else RUNGS)]
    rungs = [rung for rung in RUNGS if rung.name in wanted]
    found = {**facts(), "cores": os.cpu_count()}
    results: Results = {}
    combined: list[Pair] = []
    failed: Exception | None = None
    try:
        interleaved(workloads, rungs, effort, options.out / "logs", results)
        combined = [] if options.without_pairs else pairs(options.out / "logs", effort)
    except (NotServing, OSError) as reason:
        failed = reason
    report = {
        "facts": found,
        "effort": asdict(effort),
        "seconds": time.monotonic() - began,
        "configuration": configuration(workloads, rungs),
        "results": {
            name: {rung: [asdict(visit) for visit in visits] for rung, visits in seen.items()}
            for name, seen in results.items()
        },
        "pairs": combined,
    }
    write_json(options.json or options.out / "ladder.json", report)
    if failed is not None:
        print(f"FAILED: {failed or type(failed).__name__}", file=sys.stderr)
        return 1
    print(page.text(report))
    page.draw(options.out / "ladder.svg", report)
    if options.write is not None:
        page.write(options.write, report)
    return 0


def configuration(workloads: Sequence[Workload], rungs: Sequence[Rung]) -> dict[str, Any]:
    """What differs between rungs, and the commands, which do not."""
    from benches.python.ladder.visits import launch

    commands = {}
    for each in workloads:
        start = launch(each, rungs[0])
        words = ["penstock", *start.command[3:]]
        shown = shlex.join(word.replace(f"{ROOT}/", "") for word in words).replace("'{port}'", "0")
        commands[each.name] = f"PENSTOCK_LADDER_MODELS={start.environment['PENSTOCK_LADDER_MODELS']} {shown}"
    return {"rungs": [rung.shown() for rung in rungs], "commands": commands}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benches.python.ladder", description=__doc__)
    add = parser.add_argument
    add("--only", action="append", help="one workload, by its name; may be repeated")
    add("--rung", action="append", dest="rungs", help="one rung, by its name; may be repeated")
    add("--rounds", type=int, default=3, help="visits of every rung (default: %(default)s)")
    add("--quick", action="store_true", help="once and short, three workloads, one by one: does it still run?")
    add("--without-pairs", action="store_true", help="leave out the pairs of parts")
    add("--json", type=Path, help="where the figures go (default: ladder.json of --out)")
    add("--out", type=Path, default=OUT, help="folder of figures, chart and logs (default: %(default)s)")
    add("--write", type=Path, metavar="PAGE", help="a guide: its marked block is written anew, its chart beside it")
    add("--redraw", type=Path, metavar="JSON", help="measure nothing: write the page from these figures")
    options = parser.parse_args()
    options.out = options.out.resolve()
    if options.redraw is not None and options.write is None:
        parser.error("--redraw wants --write")
    return options


if __name__ == "__main__":
    carry_out(main)
