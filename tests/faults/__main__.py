"""`python -m tests.faults`: faults by a seed over many requests, and a ledger of what became of each."""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

from tests.faults.run import Plan, run


def main() -> int:
    usual = Plan()
    parser = argparse.ArgumentParser(prog="tools/faults", description=__doc__)
    parser.add_argument("--seed", type=int, help="replays requests and faults; drawn at random by default")
    parser.add_argument("--requests", type=int, default=usual.requests)
    parser.add_argument("--faults", type=int, default=usual.faults)
    parser.add_argument("--upstreams", type=int, default=usual.upstreams)
    parser.add_argument("--rate", type=float, default=usual.rate, help="requests a second, at most")
    parser.add_argument("--keep", type=Path, help="where logs and records stay; a temporary folder by default")
    told = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if told.seed is None else told.seed
    plan = Plan(seed, told.requests, told.faults, told.upstreams, told.rate)
    print(f"seed {seed}: {plan.requests:,} requests to {plan.upstreams} upstreams, {plan.faults} faults", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = told.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        report = run(plan, folder.resolve())
    print("\nfaults")
    print("\n".join(f"{count:>9,}  {kind}" for kind, count in sorted(report.happened.items())))
    print(f"\nledger, after {report.seconds:.0f} s")
    print(report.balance)
    for leak in report.leaks:
        print(f"left behind: {leak}")
    print(f"\n{'every request had exactly one end' if report.holds else 'FAILED'}; replay with --seed {seed}")
    return 0 if report.holds else 1


if __name__ == "__main__":
    sys.exit(main())
