"""The command line: `penstock serve app.py`, `config`, `bench URL`, `tune FILE`, `top URL` and `key`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from penstock import __version__, _bench, _config_command, _key_command, _serve_command, _top, _tune
from penstock._explained import explained
from penstock._find_models import find_models
from penstock.errors import PenstockError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["find_models", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and gives its exit status: 0, 2 for a mistake in what was asked for, or that of `bench`."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(arguments)
    try:
        if options.command == "serve":
            return _serve_command.serve(options, arguments[1:])
        return int(options.carry_out(options))
    except PenstockError as error:
        text, status = explained(error)
        print(text, file=sys.stderr)  # noqa: T201  a command line answers so
        return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="penstock", description="The data plane between requests and a model.")
    parser.add_argument("--version", action="version", version=f"penstock {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    _serve_command.add_parser(commands)
    _config_command.add_parser(commands)
    _bench.add_parser(commands)
    _tune.add_parser(commands)
    _top.add_parser(commands)
    _key_command.add_parser(commands)
    return parser
