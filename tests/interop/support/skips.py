"""A pytest plugin: no variant is left out silently, and under CI none is left out at all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter


def _skipped(config: pytest.Config) -> list[str]:
    """Each skipped test or file, with the reason that it gave."""
    reporter: TerminalReporter | None = config.pluginmanager.get_plugin("terminalreporter")
    lines = []
    for report in reporter.stats.get("skipped", []) if reporter else []:
        where = report.longrepr
        reason = where[2].removeprefix("Skipped: ") if isinstance(where, tuple) else str(where)
        lines.append(f"{report.nodeid}: {reason}")
    return lines


def _required() -> bool:
    return bool(os.environ.get("CI"))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if _required() and exitstatus == pytest.ExitCode.OK and _skipped(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    lines = _skipped(config)
    if not lines:
        return
    terminalreporter.section("left out")
    for line in lines:
        terminalreporter.line(line)
    if _required():
        terminalreporter.line(f"FAILED: {len(lines)} left out, and CI is set: under CI every variant has to run")
