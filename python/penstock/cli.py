"""The command line: `penstock serve app.py`, `penstock bench URL`."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock import __version__, _bench, logs
from penstock.errors import ConfigError, PenstockError
from penstock.models import spec_of
from penstock.server import Server

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and gives its exit status: 0, 2 for a mistake in what was asked for, or that of `bench`."""
    parser = argparse.ArgumentParser(prog="penstock", description="The data plane between requests and a model.")
    parser.add_argument("--version", action="version", version=f"penstock {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="serve the models of a file or a module")
    serve.add_argument(
        "target",
        help="a file (app.py) or module:object; a list called `models` in it says what is served, else every model",
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    serve.add_argument("--port", type=int, default=8000, help="port; 0 takes any that is free (default: %(default)s)")
    serve.add_argument(
        "--drain-timeout", type=float, default=10.0, help="seconds that stopping waits for answers (default: 10)"
    )
    serve.add_argument("--access-log", action="store_true", help="log each request")
    serve.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="how log lines look (default: %(default)s)"
    )
    serve.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="warning",
        type=str.lower,
        help="the lowest level that is logged; --access-log is apart from it (default: %(default)s)",
    )
    _bench.add_parser(commands)
    options = parser.parse_args(arguments)
    logs.configure(json=options.log_format == "json", level=options.log_level)
    try:
        return int(getattr(options, "carry_out", _serve)(options))
    except PenstockError as error:
        print(f"penstock: {error}", file=sys.stderr)  # noqa: T201  a command line answers so
        if error.__cause__ is not None and not isinstance(error, ConfigError):
            traceback.print_exception(error.__cause__)
        return 2


def find_models(target: str) -> list[Any]:
    """The models that a file or `module:object` names.

    Raises:
        ConfigError: where there is no such thing, or no model in it.
    """
    if target.endswith(".py") and ":" not in target:
        module = _load_file(Path(target))
        found = getattr(module, "models", None)
        models = list(found) if found is not None else _declared_in(module)
    else:
        models = _named(target)
    if not models:
        raise ConfigError(f"there is no model in {target}: decorate a function or class with @penstock.model(...)")
    return models


def _serve(options: argparse.Namespace) -> int:
    models = find_models(options.target)
    stop = threading.Event()
    before = {number: signal.signal(number, _stopper(stop)) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with Server(
            models,
            host=options.host,
            port=options.port,
            drain_timeout=options.drain_timeout,
            access_log=options.access_log,
        ) as server:
            names = ", ".join(spec.name for spec in map(spec_of, models) if spec is not None)
            print(f"penstock {__version__} serves {names} on {server.url}", flush=True)  # noqa: T201
            stop.wait()
            print("penstock stops: answering what was accepted", flush=True)  # noqa: T201
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _stopper(stop: threading.Event) -> Any:
    def handle(number: int, _frame: object) -> None:
        # A second signal ends the process at once, as it would without us.
        signal.signal(number, signal.SIG_DFL)
        stop.set()

    return handle


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    sys.path.insert(0, str(path.resolve().parent))
    specification = importlib.util.spec_from_file_location(path.stem, path)
    if specification is None or specification.loader is None:
        raise ConfigError(f"{path} cannot be loaded as a module")
    module = importlib.util.module_from_spec(specification)
    sys.modules[path.stem] = module
    specification.loader.exec_module(module)
    return module


def _named(target: str) -> list[Any]:
    name, _, path = target.partition(":")
    sys.path.insert(0, "")
    try:
        found: Any = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise
        raise ConfigError(f"there is no module {name!r}; give a file (app.py) or module:object") from error
    if not path:
        models = getattr(found, "models", None)
        return list(models) if models is not None else _declared_in(found)
    for part in path.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"{name!r} has no object {path!r}")
        found = getattr(found, part)
    return [found] if spec_of(found) is not None or not isinstance(found, list | tuple) else list(found)


def _declared_in(module: ModuleType) -> list[Any]:
    return [value for value in vars(module).values() if callable(value) and spec_of(value) is not None]
