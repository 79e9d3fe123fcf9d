"""The command line: `penstock serve app.py`, `penstock bench URL`, `penstock tune FILE`."""

from __future__ import annotations

import argparse
import ctypes
import importlib
import importlib.util
import os
import signal
import sys
import threading
import traceback
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock import __version__, _bench, _tune, logs
from penstock._pipeline_settings import PipelineSettings
from penstock._supervised import Post, Supervised
from penstock._supervisor import Supervisor, listeners
from penstock.errors import ConfigError, PenstockError
from penstock.models import spec_of
from penstock.repository import ModelDirectory
from penstock.server import Server, check_port
from penstock.settings import CacheSettings, DoorSettings, RepositorySettings, grpc_port_of, worker_count

if TYPE_CHECKING:
    from collections.abc import Sequence
    from dataclasses import Field
    from types import ModuleType

_PYTHONS_INTERVAL = 0.005
_SERVING_INTERVAL = 0.0001

# By their numbers in glibc's malloc.h. An arena of a thread is 64 MiB at most.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT_BYTES = 64 << 20

keeps_freed_memory: bool = False
"""True once `keep_freed_memory` was called: worker processes do as their parent does."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and gives its exit status: 0, 2 for a mistake in what was asked for, or that of `bench`."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(arguments)
    try:
        if options.command in {"bench", "tune"}:
            return int(options.carry_out(options))
        logs.configure(json=options.log_format == "json", level=options.log_level)
        return _serve(options, arguments[1:])
    except PenstockError as error:
        text, status = _explained(error)
        print(text, file=sys.stderr)  # noqa: T201  a command line answers so
        return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="penstock", description="The data plane between requests and a model.")
    parser.add_argument("--version", action="version", version=f"penstock {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="serve the models of a file, a module or a directory")
    serve.add_argument(
        "target",
        nargs="?",
        help="a file (app.py) or module:object; a list called `models` in it says what is served, else every model; "
        "not needed where --models names a directory",
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    serve.add_argument("--port", type=int, default=8000, help="port; 0 takes any that is free (default: %(default)s)")
    serve.add_argument(
        "--grpc-port",
        metavar="PORT",
        help="a second port, for gRPC alone; 0 takes any that is free (default: gRPC is answered on --port only)",
    )
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
    serve.add_argument("--workers", metavar="N", help="processes that share the port (default: 1)")
    serve.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="write when requests came and how long batches took, for `penstock tune`; several models, and several "
        "processes, have a file each: FILE-model-process",
    )
    serve.add_argument("--as-worker", type=Post.parse, help=argparse.SUPPRESS)
    models = serve.add_argument_group("models", "each also by its variable, such as PENSTOCK_MEMORY")
    for setting in (*fields(RepositorySettings), *fields(CacheSettings)):
        _add_setting(models, setting)
    parts = serve.add_argument_group("parts", "each also by its variable, such as PENSTOCK_BATCH=off")
    for setting in fields(PipelineSettings):
        _add_setting(parts, setting)
    limits = serve.add_argument_group("limits", "each also by its variable, such as PENSTOCK_MAX_BODY")
    for setting in fields(DoorSettings):
        _add_setting(limits, setting)
    _bench.add_parser(commands)
    _tune.add_parser(commands)
    return parser


def _add_setting(group: argparse._ArgumentGroup, setting: Field[Any]) -> None:
    flag = "--" + setting.name.replace("_", "-")
    text = setting.metadata["help"].replace("%", "%%")
    kind = setting.metadata["kind"]
    if kind == "switch":
        said = "yes" if setting.default else "no"
        help_text = f"{text} (default: {said})"
        group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=help_text)
        return
    if kind == "choice":
        # Whatever is no choice is refused where all sources are checked.
        choices = "|".join(setting.metadata["choices"])
        group.add_argument(flag, metavar=choices, help=f"{text} (default: {setting.default})")
        return
    metavar = {
        "directory": "DIR",
        "names": "MODELS",
        "size": "SIZE",
        "count": "N",
        "seconds": "SECONDS",
        "pause": "SECONDS",
    }[kind]
    group.add_argument(flag, metavar=metavar, help=f"{text} (default: {_shown(kind, setting.default)})")


def _shown(kind: str, value: Any) -> str:
    if value is None:
        return {"names": "all", "directory": "none"}.get(kind, "no limit")
    if kind != "size":
        return f"{value:g}"
    return f"{value >> 20} MiB" if value % (1 << 20) == 0 else f"{value >> 10} KiB"


def _explained(error: BaseException) -> tuple[str, int]:
    """What to say of a failure, and the exit status for it."""
    if not isinstance(error, PenstockError):
        return "".join(traceback.format_exception(error)).rstrip(), 1
    text = f"penstock: {error}"
    if error.__cause__ is not None and not isinstance(error, ConfigError):
        text += "\n" + "".join(traceback.format_exception(error.__cause__)).rstrip()
    return text, 2


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


def _models_of(target: str | None, settings: RepositorySettings) -> list[Any]:
    """What is served: the models of the target, and those of the directory."""
    if target is None and settings.models is None:
        raise ConfigError("there is nothing to serve: give a file (app.py), module:object, or --models DIR")
    models = [] if target is None else find_models(target)
    if settings.models is None:
        return models
    python, pickles = settings.allow_python, settings.allow_pickle
    directory = ModelDirectory(settings.models, allow_python=python, allow_pickle=pickles, settle=settings.settle)
    return [*models, directory]


def _hand_the_lock_over_sooner() -> None:
    """Shortens the interpreter's switch interval, unless somebody has chosen one.

    A Python thread that computes keeps the lock for that long, and every batch waits for it: at 5 ms such a thread
    costs a server of a small model 94 % of its throughput, at 0.1 ms half. The app is loaded afterwards, and may choose
    another.
    """
    if sys.getswitchinterval() == _PYTHONS_INTERVAL:
        sys.setswitchinterval(_SERVING_INTERVAL)


def _serve(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    keep_freed_memory()
    _hand_the_lock_over_sooner()
    place = (options.host, check_port(options.port), grpc_port_of(options.grpc_port))
    settings = (
        *fields(DoorSettings),
        *fields(RepositorySettings),
        *fields(CacheSettings),
        *fields(PipelineSettings),
    )
    command_line = {setting.name: getattr(options, setting.name) for setting in settings}

    def make() -> Server:
        record = _record_path(options.record, as_worker=options.as_worker is not None)
        models = _models_of(options.target, RepositorySettings.resolve({}, command_line))
        return Server._of_command(models, place, command_line, record)  # noqa: SLF001  one package

    if options.as_worker is not None:
        return Supervised(options.as_worker).serve(make, _explained)
    count = worker_count(options.workers)
    if count > 1:
        drain_timeout = DoorSettings.resolve({}, command_line).drain_timeout
        return Supervisor(listeners(*place), arguments, count, drain_timeout).run()
    return _serve_alone(make())


def _record_path(record: Path | None, *, as_worker: bool) -> Path | None:
    """Where this process writes what comes: processes that share a port have a file each."""
    if record is None or not as_worker:
        return record
    return record.with_name(f"{record.stem}-{os.getpid()}{record.suffix}")


def keep_freed_memory() -> None:
    """Has glibc keep what a model frees, for its next batch.

    A worker thread's arena gives the memory of large temporaries back after each batch otherwise, and the next takes
    the faults of every page again: a sixth of the time of MiniLM. What `MALLOC_` variables say has precedence.
    """
    global keeps_freed_memory  # noqa: PLW0603  there is one allocator for the process
    keeps_freed_memory = True
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES // 2)


def _serve_alone(server: Server) -> int:
    stop = threading.Event()
    before = {number: signal.signal(number, _stopper(stop)) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with server:
            urls = f"{server.url} and {server.grpc_url}"
            print(f"penstock {__version__} serves {', '.join(server.names)} on {urls}", flush=True)  # noqa: T201
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
    return [value for value in vars(module).values() if spec_of(value) is not None]
