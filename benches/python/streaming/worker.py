"""The process that is measured: one client on one event loop, many streams at once.

`python -m benches.python.streaming.worker CPU CLIENT LOOP BASE STREAMS PAUSE_MS BODY`: prints figures as JSON. It runs
in the client's own environment, so that only the standard library is here.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from importlib import metadata
from typing import Any

from benches.python.streaming.clients import CLIENTS

LOOKS = 5


class Seen:
    """Tokens that came, and what they cost between two moments at which none was under way."""

    def __init__(self, streams: int) -> None:
        self.tokens = 0
        self.first: list[float] = []
        self.gaps: list[float] = []
        self.lasted: list[float] = []
        self.streams = streams
        self._quiet: list[tuple[int, float, float]] = []
        self._bounds: list[tuple[int, float, float]] = []

    async def watch(self, pause: float) -> None:
        """Look now and then whether nothing comes, once every stream has begun and until one ends."""
        before = -1
        while not self.lasted:
            await asyncio.sleep(pause / LOOKS)
            if self.tokens == before and len(self.first) == self.streams and not self.lasted:
                self._quiet.append((self.tokens, time.process_time(), time.perf_counter()))
            before = self.tokens

    def note(self) -> None:
        """Remember the moment: every stream has begun, or one has ended."""
        self._bounds.append((self.tokens, time.process_time(), time.perf_counter()))

    def figures(self) -> dict[str, Any]:
        """Of all that was seen."""
        # Who cannot keep up is never done with what came.
        marks = self._quiet if len(self._quiet) > 1 else self._bounds
        tokens, cpu, seconds = (late - early for early, late in zip(marks[0], marks[-1], strict=True))
        return {
            "cpu_us": cpu / max(1, tokens) * 1e6,
            "tokens_per_second": tokens / max(1e-9, seconds),
            "first_p50_ms": _middle(self.first) * 1e3,
        }


async def read(client: Any, body: dict[str, Any], seen: Seen) -> None:
    """One stream, to its end."""
    began = before = time.perf_counter()
    mine = 0
    async for came in client.tokens(body):
        if came:
            now = time.perf_counter()
            (seen.gaps if mine else seen.first).append(now - before)
            before = now
            mine += came
            seen.tokens += came
            if mine == came and len(seen.first) == seen.streams:
                seen.note()
    if not seen.lasted:
        seen.note()
    seen.lasted.append(time.perf_counter() - began)
    if mine < body["max_tokens"]:
        raise RuntimeError(f"{mine} tokens came, not {body['max_tokens']}")


async def together(name: str, base: str, streams: int, pause: float, body: dict[str, Any]) -> dict[str, Any]:
    """Many streams at once."""
    seen = Seen(streams)
    async with CLIENTS[name](base, streams) as client:
        watching = asyncio.ensure_future(seen.watch(pause))
        await asyncio.gather(*(read(client, body, seen) for _ in range(streams)))
        await watching
    return seen.figures()


async def one_by_one(name: str, base: str, times: int, body: dict[str, Any]) -> dict[str, Any]:
    """One stream after the other over the same connection: the middle of how long each took."""
    seen = Seen(1)
    async with CLIENTS[name](base, 1) as client:
        for _ in range(times):
            await read(client, body, seen)
    half = len(seen.lasted) // 2
    return {
        "first_p50_us": _middle(seen.first[half:]) * 1e6,
        "token_p50_us": _middle(seen.lasted[half:]) / body["max_tokens"] * 1e6,
    }


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def main() -> None:
    cpu, name, loop, base, streams, pause, body = sys.argv[1:]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(8192, hard)), hard))
    # Before the client is imported: what it sizes by the number of CPUs must see this one only.
    os.sched_setaffinity(0, {int(cpu)})
    factory = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    asked = json.loads(body)
    milliseconds = int(pause)
    work = (
        together(name, base, int(streams), milliseconds / 1000, asked)
        if milliseconds
        else one_by_one(name, base, int(streams), asked)
    )
    with asyncio.Runner(loop_factory=factory) as runner:
        try:
            figures = runner.run(work)
        except Exception as error:  # noqa: BLE001 - whatever it is, the table says so
            figures = {"failed": f"{type(error).__name__}: {error}"[:300]}
    version = metadata.version(CLIENTS[name].package)  # type: ignore[attr-defined]
    print(json.dumps({"version": version, **figures}), flush=True)
    # Not every client survives the end of the interpreter.
    os._exit(0)


if __name__ == "__main__":
    main()
