"""Fixtures for pytest: servers, clients, pipelines, an upstream that can be told to fail, a clock that a test moves.

Pytest finds them by itself where Penstock is installed; `-p no:penstock` leaves them out. Nothing is imported before a
test asks for a fixture. What a fixture made is closed when its test is over, the last first.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from penstock._clock import VirtualClock
    from penstock.client import Client
    from penstock.pipeline import Pipeline
    from penstock.server import Server
    from penstock.testing import FakeUpstream

__all__ = [
    "MakeClient",
    "MakePipeline",
    "MakeServer",
    "fake_upstream",
    "penstock_client",
    "penstock_pipeline",
    "penstock_server",
    "virtual_clock",
]

_CLOSE_SECONDS = 5.0


class MakeServer(Protocol):
    """Starts a `penstock.Server` on any free port; arguments as of its class."""

    def __call__(self, models: Iterable[Any] | Callable[..., Any], **settings: Any) -> Server:
        """Starts it."""
        ...


class MakePipeline(Protocol):
    """Starts a `penstock.Pipeline`; arguments as of its class."""

    def __call__(self, models: Iterable[Any] | Callable[..., Any], **settings: Any) -> Pipeline:
        """Starts it."""
        ...


class MakeClient(Protocol):
    """Makes a `penstock.Client` of a server, a fake upstream or a URL; options as of its class."""

    def __call__(self, server: Server | FakeUpstream | str, **options: Any) -> Client:
        """Makes it."""
        ...


@pytest.fixture
def penstock_server() -> Iterator[MakeServer]:
    """A function that starts a server on any free port of loopback.

    `server = penstock_server([Digits])`

    Arguments are those of `penstock.Server`. Each server is closed when the test is over; what is not answered within
    five seconds is given up.
    """
    from penstock.server import Server  # noqa: PLC0415  who does not test a server does not wait for it

    with ExitStack() as opened:

        def make(models: Iterable[Any] | Callable[..., Any], **settings: Any) -> Server:
            server = Server(models, **{"port": 0, **settings})
            opened.callback(server.close, timeout=_CLOSE_SECONDS)
            return server.start()

        yield make


@pytest.fixture
def penstock_pipeline() -> Iterator[MakePipeline]:
    """A function that starts a pipeline.

    `pipeline = penstock_pipeline([Digits], batch=False)`

    Arguments are those of `penstock.Pipeline`. Each is closed when the test is over.
    """
    from penstock.pipeline import Pipeline  # noqa: PLC0415  as above

    with ExitStack() as opened:

        def make(models: Iterable[Any] | Callable[..., Any], **settings: Any) -> Pipeline:
            pipeline = Pipeline(models, **settings)
            opened.callback(pipeline.close, timeout=_CLOSE_SECONDS)
            return pipeline.start()

        yield make


@pytest.fixture
def penstock_client() -> Iterator[MakeClient]:
    """A function that makes a blocking client of a server, or of a URL.

    `client = penstock_client(server)`

    Options are those of `penstock.Client`. Each is closed when the test is over.
    """
    from penstock.client import Client  # noqa: PLC0415  as above

    with ExitStack() as opened:

        def make(server: Server | FakeUpstream | str, **options: Any) -> Client:
            client = Client(server if isinstance(server, str) else server.url, **options)
            opened.callback(client.close, drain=False, timeout=_CLOSE_SECONDS)
            return client

        yield make


@pytest.fixture
def fake_upstream() -> Iterator[FakeUpstream]:
    """A real server on loopback that can be told to fail, to be late, to stall and to break off.

    It serves `"echo"`, rows of `x` as `y`, and the text model `"say"`; `fake_upstream.add(model)` serves another. See
    `penstock.testing.FakeUpstream`.
    """
    from penstock.testing import FakeUpstream  # noqa: PLC0415  as above

    with FakeUpstream() as upstream:
        yield upstream


@pytest.fixture
def virtual_clock() -> VirtualClock:
    """A clock that stands still until the test moves it: `batched(clock=virtual_clock)`, `ModelCache(clock=...)`."""
    from penstock._clock import VirtualClock  # noqa: PLC0415  as above

    return VirtualClock()
