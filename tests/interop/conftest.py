"""What the tests against other people's software share: servers that end with the test that started them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.support.nginx import Nginx
from tests.interop.support.processes import Process, answers, free_port
from tests.interop.support.skips import pytest_sessionfinish, pytest_terminal_summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
__all__ = ["pytest_sessionfinish", "pytest_terminal_summary"]


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Callable[..., Nginx]]:
    """Starts nginx with one server block: `nginx("location / { return 200; }", listen="http2")`."""
    started: list[Nginx] = []

    def start(server: str, **options: Any) -> Nginx:
        folder = options.pop("folder", tmp_path / f"nginx-{len(started)}")
        instance = Nginx(folder, server, **options)
        started.append(instance)
        instance.start()
        return instance

    yield start
    for instance in started:
        instance.stop()


class Application:
    """An ASGI application of `tests/interop/apps` under uvicorn, over a port of its own."""

    def __init__(self, name: str, folder: Path, **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._name = name
        self._folder = folder
        self._environment = environment
        self._process: Process | None = None

    def start(self) -> None:
        command = ["-m", "uvicorn", f"tests.interop.apps.{self._name}:app", "--port", str(self.port)]
        self._process = Process(
            [sys.executable, *command, "--log-level", "warning", "--timeout-graceful-shutdown", "1"],
            self._folder / f"{self._name}-{self.port}.log",
            folder=ROOT,
            environment=self._environment,
        )

    def wait(self) -> None:
        assert self._process is not None
        self._process.wait_until(lambda: answers(self.url + "/ready"))

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None


@pytest.fixture
def applications(tmp_path: Path) -> Iterator[Callable[..., list[Application]]]:
    """Starts as many instances of an application as are asked for, at the same time."""
    started: list[Application] = []

    def start(name: str, count: int = 1, **environment: str) -> list[Application]:
        instances = [Application(name, tmp_path, **environment) for _ in range(count)]
        started.extend(instances)
        for instance in instances:
            instance.start()
        for instance in instances:
            instance.wait()
        return instances

    yield start
    for instance in started:
        instance.stop()
