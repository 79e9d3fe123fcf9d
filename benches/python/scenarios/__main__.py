"""`python -m benches.python.scenarios`: loads a server as its users might, within its capacity and beyond it.

Server on CPU 0, load on CPU 1, each a process of its own. Prints Markdown; exit status 1 says that a request got lost,
was answered wrongly, or hung. Aims of speed that were missed are told, and cost nothing.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from statistics import median

from benches.python.door.machine import ONE_THREAD, ROOT, NotServing, carry_out, take_the_load_cpu

GROWTH = "growth"
MOST_GROWTH = 1.05


def main() -> int:
    options = _options()
    os.environ.update(ONE_THREAD)
    take_the_load_cpu()
    # Imported only now: NumPy and the load generator read the settings above when they start.
    from benches.python.measure import described, facts, write_json
    from benches.python.scenarios import chart, page

    report = {"facts": {**facts(), "cores": os.cpu_count()}, "quick": options.quick}
    print(f"{described(report['facts'])}\n\nServer on CPU 0, load on CPU 1.", flush=True)
    try:
        text, problems = _measured(options, report)
    except NotServing as reason:
        print(f"\nNot measured: {reason}", flush=True)
        return 1
    print(f"\n{text}", flush=True)
    write_json(options.json, report)
    if options.write is not None:
        parts = [f"{described(report['facts'])}.", text]
        if any(row["share"] for row in report["scenarios"]):
            image = chart.by_load(report["scenarios"])
            parts.insert(1, page.draw(options.write, "scenarios-load.svg", image, "Latency by load"))
        page.put(options.write, "scenarios", "\n\n".join(parts))
    return int(problems)


def _measured(options: argparse.Namespace, report: dict[str, object]) -> tuple[str, bool]:
    """The text, and whether something did not add up."""
    from benches.python.door.machine import serving
    from benches.python.door.rounds import progress
    from benches.python.door.workload import OIP_JSON, check
    from benches.python.scenarios import carry, tell
    from benches.python.scenarios.plan import scenarios

    logs, rows = options.out / "scenarios-logs", []
    with serving(*carry.launches(), logs=logs) as (plain, bounded):
        servers = {"plain": plain, "bounded": bounded}
        for server in servers.values():
            check(server, OIP_JSON)
        capacities = carry.capacities(plain, quick=options.quick)
        for scenario in scenarios(capacities, quick=options.quick):
            if not options.only or any(word in scenario.name for word in options.only):
                progress(scenario.name)
                rows.append(carry.carried_out(scenario, servers[scenario.server]))
        for server in servers.values():
            check(server, OIP_JSON)
    by_connections = {str(count): rate for count, rate in capacities.by_connections.items()}
    report["capacities"] = by_connections | {"device": capacities.device}
    report["scenarios"] = [carry.packed(row) for row in rows]
    parts = [tell.told(rows, capacities), f"**The ledger**\n\n{tell.ledger(rows)}"] if rows else []
    if not options.only or GROWTH in options.only:
        parts.append(f"**Cost of a request at 1,000 connections**\n\n{_growth(options, report)}")
    return "\n\n".join(parts), any(row.problems for row in rows)


def _growth(options: argparse.Namespace, report: dict[str, object]) -> str:
    """Beside bare hyper's own growth, in rounds that alternate."""
    from benches.python.door import growth
    from benches.python.door.story import Bench

    if not options.hyper.is_file():
        return f"Left out: there is no {options.hyper}."
    bench = Bench(options.hyper, options.out / "scenarios-logs", options.out / "peers", options.rounds, options.quick)
    text, data, beside = growth.of_the_cost(bench)
    report[GROWTH] = data
    met = "met" if median(beside) <= MOST_GROWTH else "missed"
    return f"{text}\n\nThe aim, at most {MOST_GROWTH:.2f} of hyper's own growth, is {met}: {median(beside):.3f}."


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benches.python.scenarios", description=__doc__)
    out = ROOT / "target/bench"
    hyper = out / "build/release/examples/hyper_hello"
    parser.add_argument(
        "--only", action="append", help=f"scenarios with this in their name, or {GROWTH}; may be repeated"
    )
    parser.add_argument("--quick", action="store_true", help="all in a minute: does it still run?")
    parser.add_argument("--rounds", type=int, default=7, help="rounds beside bare hyper (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--out", type=Path, default=out, help="folder of logs (default: %(default)s)")
    parser.add_argument("--write", type=Path, help="the page whose block of figures is replaced, docs/scenarios.md")
    parser.add_argument("--hyper", type=Path, default=hyper, help="the program built from benches/hyper_hello.rs")
    options = parser.parse_args()
    options.out, options.hyper = options.out.resolve(), options.hyper.resolve()
    return options


if __name__ == "__main__":
    carry_out(main)
