"""Has the faults of a schedule happen, several at a time."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from tests.faults.relay import Relay
    from tests.faults.schedule import Fault
    from tests.faults.servers import Served

GATEWAY = -1
LONGEST = 90.0


class Injector:
    """Does to servers and wires what it is told.

    Attributes:
        happened: how often each kind did.
    """

    def __init__(self, upstreams: Sequence[tuple[Served, Relay]], gate: tuple[Served, Relay], chance: random.Random):
        self.happened: Counter[str] = Counter()
        self._pairs = {**dict(enumerate(upstreams)), GATEWAY: gate}
        self._busy = {place: asyncio.Lock() for place in self._pairs}
        self._all_up = asyncio.Lock()
        self._chance = chance
        self._under_way: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []

    def begin(self, fault: Fault) -> None:
        task = asyncio.create_task(self._run(fault))
        self._under_way.add(task)
        task.add_done_callback(self._over)

    async def finish(self) -> None:
        """Waits until every fault is over.

        Raises:
            ExceptionGroup: where a server did not do what it had to.
        """
        if self._under_way:
            await asyncio.wait_for(asyncio.gather(*self._under_way, return_exceptions=True), LONGEST)
        for served, _ in self._pairs.values():
            await self._revive(served)
        if self._failures:
            raise BaseExceptionGroup("faults did not go as they should", self._failures)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failures.append(error)

    async def _run(self, fault: Fault) -> None:
        what, _, whom = fault.kind.partition(" ")
        if fault.kind == "block loop":
            time.sleep(fault.seconds / 3)  # noqa: ASYNC251  that is the fault
            self.happened[fault.kind] += 1
            return
        place = GATEWAY if whom.startswith("gateway") else fault.target
        served, relay = self._pairs[place]
        if what in ("cut", "hold"):
            relay.cut() if what == "cut" else relay.hold(fault.seconds)
            self.happened[fault.kind] += 1
            return
        async with self._busy[place]:
            await self._revive(served)
            if whom.endswith("worker"):
                await asyncio.to_thread(served.kill_one, self._chance)
            elif what == "stall":
                served.send(signal.SIGSTOP)
                await asyncio.sleep(fault.seconds)
                served.send(signal.SIGCONT)
            elif what == "reload":
                served.process.send(signal.SIGHUP)
                await asyncio.sleep(fault.seconds)
            else:
                await self._down(served.kill if what == "kill" else served.terminate, served, fault.seconds)
        self.happened[fault.kind] += 1

    async def _revive(self, served: Served) -> None:
        """Starts a server again that has ended by itself, as it does at the fifth death of a worker within a minute."""
        if served.process.has_ended:
            if served.has_given_up():
                self.happened["ended after five deaths"] += 1
            else:
                self._failures.append(AssertionError(f"{served.name} ended by itself: {served.log}"))
            async with self._all_up:
                served.start()
                await asyncio.to_thread(served.wait_ready)

    async def _down(self, end: Callable[[], None], served: Served, seconds: float) -> None:
        # One at a time: a gateway that starts asks every upstream what it has.
        async with self._all_up:
            await asyncio.to_thread(end)
            await asyncio.sleep(seconds)
            served.start()
            await asyncio.to_thread(served.wait_ready)
