"""A Python client beside the load of the soak: streams, some of them left early, and models that take turns in memory.

It runs until its standard input ends, and writes a line of JSON every second: what it did, and how many asyncio tasks
it has. It is Penstock's own client, so it must stay as flat as the server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import threading
import time
from dataclasses import asdict, dataclass, field

import numpy as np

import penstock
from benches.python.door.workload import EXPECTED, features
from benches.python.scenarios import SWAPPED
from benches.python.streaming.ask import PATH, Flow

STREAMS = 20
FLOW = Flow(burst=1, pause_ms=20, tokens=50)
LEFT_EARLY = 5
"""Every fifth stream is left in its middle."""

SWAP_SECONDS = 0.5
PROBE_SECONDS = 0.02
SAYS_EVERY = 1.0
TIMEOUT = 20.0
KEPT_WRONG = 5


@dataclass
class Done:
    """What was done so far, and the latencies since the last line."""

    streams: int = 0
    left: int = 0
    tokens: int = 0
    swaps: int = 0
    probes: int = 0
    wrong: list[str] = field(default_factory=list)
    probe_ms: list[float] = field(default_factory=list)

    def mistake(self, what: str) -> None:
        """Keeps the first few."""
        if len(self.wrong) < KEPT_WRONG:
            self.wrong.append(what)


async def stream(client: penstock.AsyncClient, done: Done) -> None:
    """One stream after another; counts its tokens."""
    number = 0
    while True:
        number += 1
        leaves = number % LEFT_EARLY == 0
        tokens = 0
        async with client.stream("POST", PATH, json=FLOW.body, timeout=TIMEOUT) as answer:
            async for event in answer.raise_for_status().sse():
                if event.data == "[DONE]":
                    break
                tokens += bool(event.json()["choices"][0]["delta"].get("content"))
                if leaves and tokens == FLOW.tokens // 2:
                    break
        done.tokens += tokens
        done.left += leaves
        done.streams += not leaves
        if not leaves and tokens != FLOW.tokens:
            done.mistake(f"a stream had {tokens} tokens, not {FLOW.tokens}")


async def swap(client: penstock.AsyncClient, done: Done) -> None:
    """Asks for the models in turns: there is memory for two of them."""
    x = np.ones((1, 64), np.float32)
    while True:
        for name in SWAPPED:
            y = (await client.infer(name, {"x": x}, timeout=TIMEOUT))["y"]
            if not (y == 64).all():
                done.mistake(f"model {name} answered {y.ravel()[:4]}")
            done.swaps += 1
            await asyncio.sleep(SWAP_SECONDS)


async def probe(client: penstock.AsyncClient, done: Done) -> None:
    """A request now and then, as any user has it: its latency, and whether its numbers are right."""
    rows = features.astype(np.float32)
    while True:
        row = done.probes % len(rows)
        began = time.perf_counter()
        y = (await client.infer("mlp", {"x": rows[row : row + 1]}, timeout=TIMEOUT))["y"]
        done.probe_ms.append((time.perf_counter() - began) * 1e3)
        if not np.allclose(y[0], EXPECTED[row], rtol=1e-4, atol=1e-4):
            done.mistake(f"row {row} was answered with {y[0][:4]}")
        done.probes += 1
        await asyncio.sleep(PROBE_SECONDS)


async def say(done: Done) -> None:
    """Writes the lines."""
    while True:
        await asyncio.sleep(SAYS_EVERY)
        report(done)


def report(done: Done) -> None:
    """One line."""
    latencies, done.probe_ms = done.probe_ms, []
    line = asdict(done) | {"tasks": len(asyncio.all_tasks())}
    del line["probe_ms"]
    if latencies:
        line["p50_ms"], line["p99_ms"] = np.percentile(latencies, (50, 99)).tolist()
    print(json.dumps(line), flush=True)


async def _told_to_end() -> None:
    """Returns when the standard input ends, which nobody waits for where a task failed.

    A thread of an executor would be waited for, and `sys.stdin` has a lock that the interpreter wants when it ends.
    """
    loop, told = asyncio.get_running_loop(), asyncio.Event()

    def read() -> None:
        while os.read(0, 1024):
            pass
        loop.call_soon_threadsafe(told.set)

    threading.Thread(target=read, daemon=True).start()
    await told.wait()


async def main(url: str) -> None:
    """Works until nobody wants it to; any failure ends it."""
    done = Done()
    async with (
        penstock.AsyncClient(url, pool=penstock.Pool(max_size=2 * STREAMS)) as client,
        asyncio.TaskGroup() as all_of,
    ):
        work = [all_of.create_task(stream(client, done)) for _ in range(STREAMS)]
        work += [all_of.create_task(one(client, done)) for one in (swap, probe)]
        work.append(all_of.create_task(say(done)))
        await _told_to_end()
        for task in work:
            task.cancel()
    report(done)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    asyncio.run(main(parser.parse_args().url))
