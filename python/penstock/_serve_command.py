"""`penstock serve`: its flags, and the servers that it runs."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from penstock import __version__, logs
from penstock._allocator import keep_freed_memory
from penstock._batch_settings import ModelTerms
from penstock._explained import explained
from penstock._find_models import find_models
from penstock._settings_model import flag_of, metavar_for, settings_of
from penstock._settings_notes import notes_of, unknown_variables
from penstock._settings_values import shown
from penstock._supervised import Post, Supervised
from penstock._supervisor import Supervisor, listeners
from penstock._upstream_settings import UpstreamSettings
from penstock.errors import ConfigError
from penstock.models import spec_of
from penstock.repository import ModelDirectory
from penstock.server import Server
from penstock.settings import (
    SECTIONS,
    DoorSettings,
    ListenSettings,
    LoggingSettings,
    RepositorySettings,
    SecuritySettings,
    Settings,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from dataclasses import Field

LOG = logging.getLogger("penstock.settings")

_PYTHONS_INTERVAL = 0.005
_SERVING_INTERVAL = 0.0001

_STOP, _RELOAD = "stop", "reload"


def add_parser(commands: Any) -> None:
    """Adds `serve` to the commands."""
    serve = commands.add_parser("serve", help="serve the models of a file, a module or a directory")
    add_target(serve)
    serve.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="write when requests came and how long batches took, for `penstock tune`; several models, and several "
        "processes, have a file each: FILE-model-process",
    )
    serve.add_argument("--as-worker", type=Post.parse, help=argparse.SUPPRESS)
    add_settings(serve)


def add_target(parser: argparse.ArgumentParser) -> None:
    """Adds what is served, and the file of settings."""
    parser.add_argument(
        "target",
        nargs="?",
        help="a file (app.py) or module:object; a list called `models` in it says what is served, else every model; "
        "not needed where --models names a directory, or --upstream a server",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="the file of settings (default: PENSTOCK_CONFIG, else penstock.toml in the working directory)",
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Adds a flag for every setting, under the titles of their sections."""
    groups: dict[str, argparse._ArgumentGroup] = {}
    for kind in SECTIONS:
        if not kind.flags:
            continue
        if kind.title not in groups:
            told = f"[{kind.section}] of penstock.toml; each also by its variable, such as {_example(kind)}"
            groups[kind.title] = parser.add_argument_group(kind.title, told)
        for setting in settings_of(kind):
            _add_setting(groups[kind.title], setting)


def _example(kind: Any) -> str:
    return f"PENSTOCK_{settings_of(kind)[0].name.upper()}"


def _add_setting(group: argparse._ArgumentGroup, setting: Field[Any]) -> None:
    kind, default = setting.metadata["kind"], shown(setting.metadata["kind"], setting.default, setting.metadata["none"])
    text = f"{setting.metadata['help']} (default: {default})".replace("%", "%%")
    if kind == "switch":
        group.add_argument(flag_of(setting), action=argparse.BooleanOptionalAction, default=None, help=text)
    elif kind in {"names", "texts"}:
        group.add_argument(flag_of(setting), action="append", metavar=metavar_for(setting), help=text)
    else:
        # What it may be is checked where all sources are.
        group.add_argument(flag_of(setting), metavar=metavar_for(setting), help=text)


def settings_from(options: argparse.Namespace) -> Settings:
    """The settings that are in force for a command.

    Raises:
        ConfigError: for a value that cannot be, wherever it came from.
    """
    return Settings.resolve(SECTIONS, {}, vars(options))


def models_of(target: str | None, settings: RepositorySettings, upstreams: UpstreamSettings | None = None) -> list[Any]:
    """What is served: the models of the target, those of other servers (which are asked), and those of the directory.

    Raises:
        ConfigError: where there is nothing, or something cannot be found.
        ModelNotFound: where no other server has a model that is wanted.
        TransportError, DeadlineExceeded, ModelNotReady: where another server does not come up in time.
    """
    if target is None and settings.models is None and (upstreams is None or not upstreams.upstream):
        raise ConfigError(
            "there is nothing to serve: give a file (app.py), module:object, --models DIR, or --upstream URL"
        )
    models = [] if target is None else find_models(target)
    if upstreams is not None and (upstreams.upstream or upstreams.upstream_model):
        from penstock._upstreams import models_of_upstreams  # noqa: PLC0415  only a gateway needs it

        models = [*models, *models_of_upstreams(upstreams)]
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


def serve(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Serves until a signal ends it, and gives the exit status.

    Args:
        options: what was parsed.
        arguments: what it was parsed from, for worker processes.

    Raises:
        PenstockError: where it cannot begin to serve.
    """
    keep_freed_memory()
    _hand_the_lock_over_sooner()
    if options.as_worker is not None:
        return Supervised(options.as_worker).serve(lambda: _made(options, _configured(options)), explained)
    settings = _configured(options)
    listen = settings.of(ListenSettings)
    if listen.workers > 1:
        door = settings.of(DoorSettings)
        limit = door.drain_delay + door.drain_timeout
        encrypted = settings.of(SecuritySettings).encrypted
        places = listeners(*_place(listen))
        return Supervisor(places, arguments, listen.workers, limit, encrypted=encrypted).run()
    return _serve_alone(_made(options, settings), _Renewal(options, settings))


def _configured(options: argparse.Namespace) -> Settings:
    """The settings that are in force; what is logged from here on looks as they say."""
    settings = settings_from(options)
    _configure_logs(settings)
    return settings


def _configure_logs(settings: Settings) -> None:
    wanted = settings.of(LoggingSettings)
    logs.configure(json=wanted.log_format == "json", level=wanted.log_level)


def _made(options: argparse.Namespace, settings: Settings) -> Server:
    """The server that a command runs."""
    record = _record_path(options.record, as_worker=options.as_worker is not None)
    models = models_of(options.target, settings.of(RepositorySettings), settings.of(UpstreamSettings))
    server = Server._of_command(models, _place(settings.of(ListenSettings)), settings, record)  # noqa: SLF001  one package
    _warn(models, settings)
    return server


def _warn(models: Sequence[Any], settings: Settings) -> None:
    """Says what is probably not meant as it is."""
    specs = [spec for model in models if (spec := spec_of(model)) is not None]
    # What a directory holds is not known yet, and may come later.
    has_directory = any(isinstance(model, ModelDirectory) for model in models)
    notes = unknown_variables(os.environ) if has_directory else notes_of(os.environ, ModelTerms(settings), specs)
    for note in notes:
        LOG.warning("%s", note)


def _place(listen: ListenSettings) -> tuple[str, int, int | None]:
    return (listen.host, listen.port, listen.grpc_port)


def _record_path(record: Path | None, *, as_worker: bool) -> Path | None:
    """Where this process writes what comes: processes that share a port have a file each."""
    if record is None or not as_worker:
        return record
    return record.with_name(f"{record.stem}-{os.getpid()}{record.suffix}")


def _serve_alone(server: Server, renewal: _Renewal) -> int:
    # A signal's handler may interrupt whoever waits: an event would let both wait for each other.
    stop: SimpleQueue[str] = SimpleQueue()
    begun = False

    def end(number: int, _frame: object) -> None:
        # A second signal ends the process at once, as it would without us.
        signal.signal(number, signal.SIG_DFL)
        stop.put(_STOP)
        if not begun:
            # Whoever waits for a model to be loaded waits no longer.
            raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    if not os.isatty(0):
        # A terminal that goes away sends this signal, too, and means the end by it.
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda *_: stop.put(_RELOAD))
    try:
        with server:
            begun = True
            urls = f"{server.url} and {server.grpc_url}"
            print(f"penstock {__version__} serves {', '.join(server.names)} on {urls}", flush=True)  # noqa: T201
            while stop.get() is _RELOAD:
                _reload(server, renewal)
            print("penstock stops: answering what was accepted", flush=True)  # noqa: T201
    except KeyboardInterrupt:
        if begun:
            raise
        print("penstock stops: it had not begun to serve", flush=True)  # noqa: T201
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _reload(server: Server, renewal: _Renewal) -> None:
    """Reads certificates, keys and settings again; what cannot be used is told, and what was before goes on."""
    try:
        changed = server.reload_certificates()
    except ConfigError as error:
        text = f"penstock: {error}; what was before stays in force"
    else:
        text = (
            f"penstock: certificates and keys {'have changed, and are' if changed else 'are as before, and'} in force"
        )
    print(text, file=sys.stderr, flush=True)  # noqa: T201  a command line answers so
    for line in renewal.renewed():
        print(f"penstock: {line}", file=sys.stderr, flush=True)  # noqa: T201  as above


class _Renewal:
    """The settings of a process that runs, which are read again by a signal."""

    def __init__(self, options: argparse.Namespace, settings: Settings) -> None:
        self._options = options
        self._known = _values(settings)

    def renewed(self) -> list[str]:
        """Puts into force what can be while requests are served: how the log looks. Says what became of all."""
        try:
            settings = settings_from(self._options)
        except ConfigError as error:
            return [f"{error}; what was before stays in force"]
        now = _values(settings)
        changed = [name for name, value in now.items() if value != self._known.get(name)]
        at_once = [name for name in changed if name in _AT_ONCE]
        if at_once:
            _configure_logs(settings)
            self._known |= {name: now[name] for name in at_once}
        told = [f"{name} is {settings[name].shown} now" for name in at_once]
        waiting = [name for name in changed if name not in _AT_ONCE]
        if waiting:
            told.append(f"{', '.join(waiting)} changed, and will be in force after a restart")
        return told


_AT_ONCE = frozenset(each.name for each in settings_of(LoggingSettings))
"""Settings that a process takes up while it serves."""


def _values(settings: Settings) -> dict[str, Any]:
    """Every setting, those of single models too, by its name."""
    return {each.name: each.value for each in settings.values()} | {"[model]": ModelTerms(settings).said}
