"""A suite that doubles as a smoke test: without `--benchmark-enable` everything runs once, untimed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_benchmark.fixture import BenchmarkFixture

LOOPS = {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("benchmark_enable"):
        config.option.benchmark_disable = True


@dataclass
class Waves:
    """Tasks that await at once, again and again, on one event loop."""

    loop: asyncio.AbstractEventLoop
    benchmark: BenchmarkFixture

    def run(self, call: Callable[[Any], Any], items: Sequence[Any], calls: int = 10) -> None:
        """Measures `calls` awaits of each item, by one task an item; says how many awaits that is."""

        async def caller(item: Any) -> None:
            for _ in range(calls):
                await call(item)

        async def wave() -> None:
            await asyncio.wait([asyncio.ensure_future(caller(item)) for item in items])

        self.measure(wave, len(items) * calls)

    def measure(self, wave: Callable[[], Any], awaits: int) -> None:
        """Measures a coroutine function that awaits so often."""
        self.benchmark.extra_info["awaits"] = awaits
        self.benchmark(lambda: self.loop.run_until_complete(wave()))

    def once(self, coroutine: Any) -> Any:
        """Runs a coroutine, untimed: to look at an answer."""
        return self.loop.run_until_complete(coroutine)


@pytest.fixture(params=LOOPS)
def both_loops(request: pytest.FixtureRequest) -> str:
    """Runs a benchmark on asyncio and on uvloop."""
    return str(request.param)


@pytest.fixture
def waves(request: pytest.FixtureRequest, benchmark: BenchmarkFixture) -> Iterator[Waves]:
    name = request.getfixturevalue("both_loops") if "both_loops" in request.fixturenames else "asyncio"
    loop = LOOPS[name]()
    yield Waves(loop, benchmark)
    loop.close()
