"""Which stories there are, and what each of them is given."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from benches.python.door.servers import Absent
from benches.python.door.story import Bench

if TYPE_CHECKING:
    import argparse

    from benches.python.compare.outcome import Outcome

PLACES = {
    "servers": ("http_servers", "run"),
    "binary": ("http_servers", "run_binary"),
    "minilm": ("minilm", "run"),
    "clients": ("clients", "run_http"),
    "openai": ("clients", "run_openai"),
    "grpc": ("clients", "run_grpc"),
    "weights": ("weights", "run"),
    "tuning": ("tuning", "run"),
}
PROGRAMS = {"openai": "hyper_stream", "grpc": "grpc_echo"}
"""Examples of the crate that a story wants beside it."""


def run(name: str, options: argparse.Namespace) -> Outcome:
    """Tells a story.

    Raises:
        Absent: where something is missing that it cannot do without.
        NotServing: where our own server, or the one that clients ask, does not answer right.
    """
    program = options.programs / PROGRAMS.get(name, "")
    if not program.exists() and name in PROGRAMS:
        raise Absent(f"there is no {program}: cargo build --release --no-default-features --example {program.name}")
    bench = Bench(program, options.out / "compare-logs", options.out / "peers", options.rounds, options.quick)
    module, function = PLACES[name]
    told = getattr(importlib.import_module(f"benches.python.compare.{module}"), function)
    outcome: Outcome = told(bench, tuple(options.peers or ())) if name in TAKE_PEERS else told(bench)
    return outcome


TAKE_PEERS = ("servers", "binary", "minilm", "tuning")
