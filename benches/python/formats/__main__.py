"""`python -m benches.python.formats`: measures formats of models and prints what it saw as Markdown.

`python -m benches.python.formats safetensors` or `onnx` for one of them. Each figure is the median of the rounds, with
the least and the greatest in brackets.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from pathlib import Path

from benches.python.door.machine import ONE_THREAD, ROOT, NotServing, carry_out

FORMATS = {"safetensors": ("safetensors",), "onnx": ("onnx_cost", "onnx_spinner", "onnx_minilm", "onnx_minilm_served")}
"""The stories of each format: modules beside this one, whose `run` is given a `Bench` and gives a `Story`."""


def main() -> int:
    options = _options()
    os.environ.update(ONE_THREAD)
    # Imported only now: NumPy reads the settings above when it starts.
    from benches.python.door.servers import Absent
    from benches.python.door.story import Bench
    from benches.python.measure import described, facts, write_json

    bench = Bench(options.hyper, options.out / "formats-logs", options.out / "peers", options.rounds, options.quick)
    found = {**facts(), "cores": os.cpu_count()}
    report = {"facts": found, "rounds": 1 if options.quick else options.rounds, "stories": {}}
    print(described(found), flush=True)
    failed = False
    stories = [story for chosen in options.format or FORMATS for story in FORMATS[chosen]]
    for name in options.only or stories:
        began = time.monotonic()
        print(name, file=sys.stderr, flush=True)
        try:
            story = importlib.import_module(f"benches.python.formats.{name}").run(bench)
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
    parser = argparse.ArgumentParser(prog="python -m benches.python.formats", description=__doc__)
    out = ROOT / "target/bench"
    every = [story for stories in FORMATS.values() for story in stories]
    parser.add_argument("format", nargs="*", help=f"{' or '.join(FORMATS)}; all where none is named")
    parser.add_argument("--only", action="append", choices=every, help="one story; may be repeated")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of every table (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="once and short: does it still run?")
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--out", type=Path, default=out, help="folder of logs")
    parser.add_argument(
        "--hyper",
        type=Path,
        default=out / "build/release/examples/hyper_hello",
        help="the program built from benches/hyper_hello.rs",
    )
    options = parser.parse_args()
    if unknown := set(options.format) - set(FORMATS):
        parser.error(f"there is no format {unknown.pop()}, only {', '.join(FORMATS)}")
    options.out, options.hyper = options.out.resolve(), options.hyper.resolve()
    return options


if __name__ == "__main__":
    carry_out(main)
