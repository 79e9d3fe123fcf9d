"""The event loops that every async test runs on."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable

COMPLAINTS: list[dict[str, Any]] = []
"""What reached the exception handler of a loop: nothing should."""


class DebugLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop, in debug mode whatever the plugin asks for."""

    def set_debug(self, enabled: bool) -> None:
        super().set_debug(True)


def _watched(loop: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
    loop.set_exception_handler(lambda _, context: COMPLAINTS.append(context))
    return loop


def asyncio_debug() -> asyncio.AbstractEventLoop:
    loop = DebugLoop()
    loop.set_debug(True)
    return _watched(loop)


def uvloop_loop() -> asyncio.AbstractEventLoop:
    return _watched(uvloop.new_event_loop())


def asyncio_eager() -> asyncio.AbstractEventLoop:
    loop = asyncio.SelectorEventLoop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]  # Python 3.12
    return _watched(loop)


FACTORIES: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio-debug": asyncio_debug,
    "uvloop": uvloop_loop,
}
if sys.version_info >= (3, 12):
    FACTORIES["asyncio-eager"] = asyncio_eager
