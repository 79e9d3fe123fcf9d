"""A run: a client, a gateway and upstreams, requests by the thousand, and faults meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock import AsyncClient, Pool, Timeout
from penstock.errors import ConnectFailed
from tests.faults import schedule
from tests.faults.injector import Injector
from tests.faults.ledger import ANSWERED, CANCELLED, HUNG, WRONG, Balance, Books, SaidInStream, balance
from tests.faults.relay import Relay
from tests.faults.servers import gateway, upstream

if TYPE_CHECKING:
    from collections import Counter
    from pathlib import Path

    from tests.faults.schedule import Ask

LIMITS = Timeout(connect=2, acquire=2, first=8, idle=5, total=10)
HUNG_AFTER = 40.0
"""Seconds for which nobody may wait, whatever happens: four times what the client allows."""
AT_REST_WITHIN = 30.0
PAUSE_AFTER_ERROR = 0.1


@dataclass(frozen=True)
class Plan:
    """What a run is made of.

    Attributes:
        seed: gives requests and faults.
        requests: how many.
        faults: how many.
        upstreams: servers that compute.
        rate: requests a second, at most.
        at_once: requests under way at a time.
    """

    seed: int = 1
    requests: int = 100_000
    faults: int = 100
    upstreams: int = 3
    rate: float = 1500.0
    at_once: int = 64


@dataclass
class Report:
    """What came of a run.

    Attributes:
        balance: of its books.
        happened: faults, by their kind.
        seconds: from the first request to the last.
        leaks: what stayed behind.
    """

    balance: Balance
    happened: Counter[str]
    seconds: float
    leaks: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return self.balance.holds and not self.leaks


def run(plan: Plan, folder: Path) -> Report:
    """Runs it, with all that it writes in `folder`.

    Raises:
        AssertionError: where a server does not start, or does not end as it should.
    """
    computed = folder / "computed"
    computed.mkdir()
    before = _descriptors()
    report = _run(plan, folder, computed)
    if (after := _descriptors()) > before:
        report.leaks.append(f"{after - before} descriptors of the client")
    return report


def _run(plan: Plan, folder: Path, computed: Path) -> Report:
    with contextlib.ExitStack() as stack:
        upstreams = []
        for index in range(plan.upstreams):
            served = upstream(index, folder, computed)
            served.start()
            stack.callback(served.kill)
            upstreams.append((served, stack.enter_context(Relay(served.port))))
        for served, _ in upstreams:
            served.wait_ready()
        gate = gateway(folder, [relay for _, relay in upstreams])
        gate.start()
        stack.callback(gate.kill)
        gate.wait_ready()
        front = stack.enter_context(Relay(gate.port))
        servers = [gate, *(served for served, _ in upstreams)]
        books, leaks = Books(), list[str]()
        injector_chance = random.Random(plan.seed + 1)

        async def drive() -> tuple[Counter[str], float]:
            injector = Injector(upstreams, (gate, front), injector_chance)
            http = AsyncClient(f"http://127.0.0.1:{front.port}", timeout=LIMITS, pool=Pool(min_size=0, max_size=64))
            grpc = AsyncClient(f"grpc://127.0.0.1:{front.port}", timeout=LIMITS)
            async with http, grpc:
                seconds = await _send(plan, {"http": http, "grpc": grpc}, injector, books)
                await injector.finish()
                await _well_again(http)
                leaks.extend(await _not_at_rest({"http": http, "grpc": grpc}))
                leaks.extend(await _still_counted(http))
            return injector.happened, seconds

        happened, seconds = asyncio.run(drive())
        for served in servers:
            served.terminate()
            if left := served.left_behind():
                leaks.append(f"processes of {served.name}: {sorted(left)}")
            leaks.extend(_panics(served.name, served.log))
    return Report(balance(books, computed), happened, seconds, leaks)


async def _send(plan: Plan, clients: dict[str, AsyncClient], injector: Injector, books: Books) -> float:
    """Sends all requests, and has the faults happen between them."""
    due = schedule.faults(plan.seed, plan.requests, plan.faults, plan.upstreams)
    places = asyncio.Semaphore(plan.at_once)
    asking: set[asyncio.Task[None]] = set()
    began = time.monotonic()
    for number in range(plan.requests):
        while due and due[0].at <= number:
            injector.begin(due.pop(0))
        await places.acquire()
        if (ahead := number / plan.rate - (time.monotonic() - began)) > 0:
            await asyncio.sleep(ahead)
        ask = schedule.ask(plan.seed, number)
        books.sent(number, ask)
        task = asyncio.create_task(_settle(clients, number, ask, books, places))
        asking.add(task)
        task.add_done_callback(asking.discard)
    if asking:
        await asyncio.wait(asking, timeout=HUNG_AFTER * 2)
    return time.monotonic() - began


async def _settle(
    clients: dict[str, AsyncClient], number: int, ask: Ask, books: Books, places: asyncio.Semaphore
) -> None:
    """One request, from its sending to its line in the books."""
    outcome: str | BaseException
    asked = asyncio.create_task(_ask(clients, number, ask))
    leaves = None if ask.patience is None else asyncio.get_running_loop().call_later(ask.patience, asked.cancel)
    done, _ = await asyncio.wait([asked], timeout=HUNG_AFTER)
    if leaves is not None:
        leaves.cancel()
    if not done:
        asked.cancel()
        outcome = HUNG
    elif asked.cancelled():
        # Where no caller leaves, it is an error without a type of ours.
        outcome = asyncio.CancelledError() if leaves is None else CANCELLED
    elif (error := asked.exception()) is not None:
        outcome = error
    else:
        outcome = ANSWERED if asked.result() == _proof(number) else WRONG
    books.ended(number, outcome)
    if isinstance(outcome, BaseException) and ask.timeout is None:
        # Who is refused at once would use up all requests while a server is down.
        await asyncio.sleep(PAUSE_AFTER_ERROR)
    places.release()


async def _ask(clients: dict[str, AsyncClient], number: int, ask: Ask) -> int:
    options: dict[str, Any] = {} if ask.timeout is None else {"timeout": ask.timeout}
    if ask.form == "stream":
        return await _streamed(clients["http"], number, options)
    numbers = np.array([number], np.int64)
    if ask.form == "json" and ask.model == "again":
        return await _post(clients["http"], number, options)
    client = clients["grpc" if ask.form == "grpc" else "http"]
    binary = None if ask.form == "grpc" else ask.form == "binary"
    if ask.model == "once":
        options["retry"] = False
    result = await client.infer(ask.model, {"number": numbers}, request_id=str(number), binary=binary, **options)
    assert result.id == str(number), f"the answer to {result.id}"
    return int(result["proof"][0])


async def _post(client: AsyncClient, number: int, options: dict[str, Any]) -> int:
    """As a plain request, which may be sent again."""
    tensor = {"name": "number", "datatype": "INT64", "shape": [1], "data": [number]}
    answer = await client.post("/v2/models/again/infer", json={"inputs": [tensor]}, retry=True, **options)
    answer.raise_for_status()
    return int(answer.json()["outputs"][0]["data"][0])


async def _streamed(client: AsyncClient, number: int, options: dict[str, Any]) -> int:
    """Digit by digit: what had come before an error must have been right, too."""
    said = ""
    lines = {"accept": "application/x-ndjson"}
    question = {"text_input": str(number)}
    path = "/v2/models/told/generate_stream"
    async with client.stream("POST", path, json=question, headers=lines, **options) as stream:
        stream.raise_for_status()
        async for document in stream.ndjson():
            if (error := document.get("error")) is not None:
                raise SaidInStream(str(error))
            said += document["text_output"]
            if not str(_proof(number)).startswith(said):
                return -1
    return int(said)


def _proof(number: int) -> int:
    """As the upstreams compute it."""
    return number * 2_654_435_761 % 1_000_003


async def _well_again(client: AsyncClient) -> None:
    """Once every fault is over, `once` and `again` answer."""
    end = time.monotonic() + AT_REST_WITHIN
    for model in ("once", "again"):
        while True:
            try:
                await client.infer(model, {"number": np.array([-1], np.int64)})
                break
            except Exception:
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.1)


async def _not_at_rest(clients: dict[str, AsyncClient]) -> list[str]:
    """What the clients still count once all is over."""
    end = time.monotonic() + AT_REST_WITHIN
    while True:
        found = []
        for name, client in clients.items():
            total = client.stats().total
            counted = {"outstanding": total.outstanding, "waiting": total.waiting}
            found += [f"{count} {what} requests of the client over {name}" for what, count in counted.items() if count]
        if not found or time.monotonic() > end:
            return found
        await asyncio.sleep(0.05)


async def _still_counted(client: AsyncClient) -> list[str]:
    """What the gateway still counts: the request for its metrics is none that is inferred."""
    end = time.monotonic() + AT_REST_WITHIN
    while True:
        text = (await client.get("/metrics")).text
        gauges = ("penstock_http_requests_in_flight", "penstock_queue_depth")
        found = [line for line in text.splitlines() if line.startswith(gauges) and float(line.split()[1]) != 0]
        if not found or time.monotonic() > end:
            return [f"of the gateway: {line}" for line in found]
        await asyncio.sleep(0.05)


def _panics(name: str, log: Path) -> list[str]:
    said = log.read_text(errors="replace")
    return [f"{name} said: {line}" for line in said.splitlines() if "panicked" in line or "InternalError" in line]


def _descriptors() -> int:
    """Of this process, once what stays for its life is there: the runtime of Penstock."""

    async def warm_up() -> None:
        async with AsyncClient("http://127.0.0.1:1") as client:
            with contextlib.suppress(ConnectFailed):
                await client.get("/")

    asyncio.run(warm_up())
    gc.collect()
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208
