"""`penstock tune FILE`: which batching policy a recorded load asks for."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from penstock import _native
from penstock._bench_chart import duration_text
from penstock._policy import check_seconds
from penstock.errors import ConfigError

if TYPE_CHECKING:
    import argparse

_MOST_WORKERS = 1024


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "tune",
        help="find the batching policy that a recorded load asks for",
        description="Replays a load that `Batcher.record` or `penstock serve --record` wrote against a grid of "
        "batching policies, on a clock of its own, and prints the one to use. Requests come when they came, whether "
        "earlier ones were answered or not; batches take as long as batches of their size took.",
    )
    parser.set_defaults(carry_out=tune)
    parser.add_argument("file", help="the trace")
    parser.add_argument("--target", type=float, metavar="SECONDS", help="time from a request to its answer to stay in")
    parser.add_argument("--workers", type=int, metavar="N", help="workers to plan for (default: those of the trace)")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")


def tune(options: argparse.Namespace) -> int:
    """Carries out the command and gives its exit status.

    Raises:
        ConfigError: for what is no trace, naming the line, and for options that cannot be.
    """
    if options.target is not None:
        check_seconds("--target", options.target)
        if not options.target:
            raise ConfigError("--target must be above 0 seconds, not 0")
    workers = options.workers
    if workers is not None and not 1 <= workers <= _MOST_WORKERS:
        raise ConfigError(f"--workers must be between 1 and {_MOST_WORKERS}, not {workers}")
    found = _native.tune_trace(options.file, options.target, workers or 0)
    for outcome in (found["recorded"], found["best"]):
        outcome["keywords"] = keywords(outcome["policy"])
    text = json.dumps(found, indent=1) if options.json else "\n".join(_lines(found, options.target))
    sys.stdout.write(text + "\n")
    return 0


def keywords(policy: dict[str, Any]) -> str:
    """A policy as the keywords of `@penstock.batched` and `@penstock.model`."""
    return ", ".join(f"{name}={_value(name, value)}" for name, value in policy.items())


def _value(name: str, value: Any) -> str:
    if name == "max_batch_size" and not isinstance(value, int):
        smallest, largest, target = value
        until = "" if target is None else f", target={target:g}"
        return f"penstock.Adaptive(smallest={smallest}, largest={largest}{until})"
    if isinstance(value, float):
        return f"{value:g}"
    return repr(tuple(value)) if isinstance(value, list) else json.dumps(value)


def _lines(found: dict[str, Any], target: float | None) -> list[str]:
    recorded, best = found["recorded"], found["best"]
    within = "by their deadlines" if target is None else f"within {duration_text(target)}"
    workers = f"{found['workers']} {'worker' if found['workers'] == 1 else 'workers'}"
    seen = f"{found['requests']:,} requests in {found['seconds']:.1f} s, {found['batches']:,} batches measured"
    lines = [
        f"{seen}, {workers}; {found['tried']} policies tried",
        "",
        f"{'':10}{'p50':>10}{'p99':>10}{'answers/s':>12}{'mean batch':>12}{'busy':>8}{'in time':>9}  policy",
        _row("recorded", recorded),
    ]
    if best["policy"] == recorded["policy"]:
        lines += ["", f"No policy that was tried is better: answers {within} first, then latency."]
    else:
        lines += [_row("best", best), "", f"Use (answers {within} first, then latency):", "", f"    {best['keywords']}"]
    if found["replayed"] < found["requests"]:
        lines += ["", f"note: the first {found['replayed']:,} requests were replayed"]
    if found["dropped"]:
        lines += ["", f"note: {found['dropped']:,} lines are missing in the trace: the file was too slow"]
    return lines


def _row(name: str, outcome: dict[str, Any]) -> str:
    return (
        f"{name:10}{duration_text(outcome['p50']):>10}{duration_text(outcome['p99']):>10}"
        f"{outcome['throughput']:>12,.0f}{outcome['mean_batch_size']:>12.1f}{outcome['busy']:>8.0%}"
        f"{outcome['in_time']:>9.1%}  {outcome['keywords']}"
    )
