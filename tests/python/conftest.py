"""What every test of the Python side shares: the matrix of event loops, a gate, scripts in processes of their own."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.python.support.loops import COMPLAINTS, FACTORIES
from tests.python.support.scripts import Script
from tests.python.support.waiting import Gate

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable[[], Any]]:
    """Runs every async test once on each of these loops."""
    return FACTORIES


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """What a test logs may hold half a character, which cannot be sent to the process that gathers the reports."""
    return _sendable((yield))


def _sendable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _sendable(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_sendable(each) for each in value]
    if isinstance(value, tuple):
        return tuple(_sendable(each) for each in value)
    return value


@pytest.fixture(autouse=True)
def _no_complaints() -> Iterator[None]:
    COMPLAINTS.clear()
    yield
    assert not COMPLAINTS, "an event loop's exception handler was called"


@pytest.fixture(autouse=True)
def _no_handler_of_a_command_line() -> Iterator[None]:
    """A command that a test runs in this process configures logging; its stream is closed with the test."""
    yield
    logs = sys.modules.get("penstock.logs")
    if logs is not None and logs._handler is not None:
        logging.root.removeHandler(logs._handler)
        logs._handler = None


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path)
