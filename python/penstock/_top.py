"""`penstock top URL`: what a server does now, in a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from penstock._metrics_text import Between, parse
from penstock._top_figures import figures
from penstock._top_screen import SORTS, Screen
from penstock.client import Client
from penstock.errors import ConfigError, PenstockError

try:
    import termios
    import tty
except ImportError:  # pragma: no cover - Windows has neither, and `q` needs them
    termios = tty = None  # type: ignore[assignment,unused-ignore]

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from penstock._metrics_text import Samples

_TIMEOUT: Final = 5.0
_INTERRUPTED: Final = 130
_OK: Final = 200
_UNAUTHORIZED: Final = (401, 403)
_LEAST_INTERVAL: Final = 0.1
_MOST_INTERVAL: Final = 3600.0
_READY_EVERY: Final = 5.0
_ENTER: Final = "\x1b[?1049h\x1b[?25l"
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"
_HOME: Final = "\x1b[H"
_TO_END_OF_LINE: Final = "\x1b[K"
_TO_END: Final = "\x1b[J"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "top",
        help="show what a server does now, in a terminal",
        description="Reads the metrics of a server again and again, and shows what they say of the time between. "
        "Exit status: 0, 2 where the server cannot be asked, 130 after Ctrl-C.",
    )
    parser.set_defaults(carry_out=top)
    add = parser.add_argument
    add("url", nargs="?", default="http://127.0.0.1:8000", help="where the server is (default: %(default)s)")
    add("-i", "--interval", type=float, default=1.0, help="seconds between two looks (default: %(default)s)")
    add("-s", "--sort", choices=tuple(SORTS), default="requests", help="by what models are sorted (default: requests)")
    add("--once", action="store_true", help="look twice, say what was between, and end")
    add("--json", action="store_true", help="a line of JSON for each look, instead of a screen")
    add(
        "--api-key",
        metavar="KEY",
        help="a key, or @FILE that holds one (also: PENSTOCK_API_KEY, which `ps` does not show)",
    )
    add("--ca", metavar="FILE", help="certificates to trust instead of the system's")


def top(options: argparse.Namespace) -> int:
    """Carries out the command and gives its exit status.

    Raises:
        ConfigError: for an interval or a key that cannot be, or a server that says nothing that can be read.
        PenstockError: where the server cannot be asked, and nothing has been shown yet.
    """
    if not _LEAST_INTERVAL <= options.interval <= _MOST_INTERVAL:
        raise ConfigError(f"--interval must be {_LEAST_INTERVAL} to {_MOST_INTERVAL:g} seconds, not {options.interval}")
    if not options.url.startswith(("http://", "https://")):
        raise ConfigError(f"the URL must begin with http:// or https://, not {options.url!r}")
    key = _key(options.api_key)
    verify: Any = options.ca or True
    with Client(options.url.rstrip("/"), api_key=key, timeout=_TIMEOUT, verify=verify) as client:
        watch = _Watch(client, options.url.rstrip("/"))
        try:
            watch.look()
            if options.once or options.json:
                return _say(watch, options)
            return _show(watch, options)
        except KeyboardInterrupt:
            return _INTERRUPTED
        except BrokenPipeError:
            # Whoever reads has enough: `penstock top --json | head -1`. What is left to be written goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0


def _key(given: str | None) -> str | None:
    if given is None:
        return os.environ.get("PENSTOCK_API_KEY") or None
    if given.startswith("@"):
        try:
            return Path(given[1:]).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigError(f"--api-key: {error}") from error
    return given


class _Watch:
    """Looks at a server again and again."""

    def __init__(self, client: Client, url: str) -> None:
        self._client = client
        self._url = url
        self._before: tuple[Samples, float] | None = None
        self._asked = -_READY_EVERY
        self._ready: bool | None = None
        self._version: str | None = None

    def look(self) -> dict[str, Any] | None:
        """The figures of the time since the last look; `None` for the first.

        Raises:
            ConfigError: where what answers is no server of metrics, or wants another key.
            PenstockError: where nobody answers.
        """
        answer = self._client.get("/metrics")
        now = time.monotonic()
        if answer.status_code in _UNAUTHORIZED:
            raise ConfigError("the server wants an API key: give --api-key, or set PENSTOCK_API_KEY")
        if answer.status_code != _OK:
            raise ConfigError(f"{self._url}/metrics answers with status {answer.status_code}")
        try:
            samples = parse(answer.text)
        except ValueError as error:
            raise ConfigError(f"{self._url}/metrics is no OpenMetrics: {error}") from error
        before, self._before = self._before, (samples, now)
        self._ask(now)
        if before is None:
            return None
        seen = Between(before[0], samples, now - before[1])
        return figures(seen, url=self._url, ready=self._ready, version=self._version)

    def _ask(self, now: float) -> None:
        """Asks for what changes seldom, now and then."""
        if now < self._asked + _READY_EVERY:
            return
        self._asked = now
        self._ready = self._client.get("/v2/health/ready").status_code == _OK
        server = self._client.get("/v2")
        if server.status_code == _OK:
            with contextlib.suppress(ValueError):
                self._version = str(server.json().get("version", ""))


def _say(watch: _Watch, options: argparse.Namespace) -> int:
    """Prints figures, once or until it is interrupted."""
    while True:
        time.sleep(options.interval)
        found = watch.look()
        if found is None:
            continue
        if options.json:
            print(json.dumps(found), flush=True)  # noqa: T201  a command line answers so
        else:
            columns = shutil.get_terminal_size().columns
            screen = Screen(columns, 0, colours=_colours())
            print("\n".join(screen.lines(found, options.sort, foot=False)))  # noqa: T201
        if options.once:
            return 0


def _show(watch: _Watch, options: argparse.Namespace) -> int:
    """Shows figures on the whole terminal until `q` is pressed."""
    sort, found, trouble = options.sort, None, None
    with _terminal():
        due = time.monotonic() + options.interval
        while True:
            pressed = _pressed(max(0.0, due - time.monotonic()))
            if pressed in {"q", "Q", "\x1b"}:
                return 0
            if pressed in {"s", "S"}:
                order = list(SORTS)
                sort = order[(order.index(sort) + 1) % len(order)]
            elif time.monotonic() >= due:
                due = time.monotonic() + options.interval
                try:
                    found, trouble = watch.look() or found, None
                except PenstockError:
                    trouble = "does not answer"
            if found is not None:
                columns, rows = shutil.get_terminal_size()
                lines = Screen(columns, rows, colours=_colours()).lines(found, sort, foot=True, trouble=trouble)
                text = "".join(f"{line}{_TO_END_OF_LINE}\r\n" for line in lines[: rows - 1])
                sys.stdout.write(f"{_HOME}{text}{_TO_END}")
                sys.stdout.flush()


def _colours() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


@contextlib.contextmanager
def _terminal() -> Iterator[None]:
    """A screen of its own, whose keys come one by one; the terminal is as it was afterwards."""
    sys.stdout.write(_ENTER)
    before = None
    if termios is not None and sys.stdin.isatty():
        before = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        if before is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()


def _pressed(seconds: float) -> str | None:
    """The key that is pressed within so many seconds, if one is."""
    if termios is None or not sys.stdin.isatty():
        time.sleep(seconds)
        return None
    readable, _, _ = select.select([sys.stdin], [], [], seconds)
    return os.read(sys.stdin.fileno(), 1).decode(errors="replace") if readable else None
