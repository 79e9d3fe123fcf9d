"""What a user sees of the pool: reuse, the limit, the order, numbers, and words."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from penstock import AsyncClient, Client, Pool
from tests.python.support.http_server import HttpServer, echo
from tests.python.support.waiting import PATIENCE, outcomes, soon, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.python.support.http_server import Peer

BALANCES = ["round_robin", "least_outstanding", "p2c", "p2c_first_byte"]


async def test_a_hundred_clients_reuse_connections() -> None:
    with HttpServer() as server:
        async with AsyncClient(server.url, pool=Pool(max_size=100)) as client:

            async def one() -> None:
                for _ in range(50):
                    assert (await client.get("/x")).status_code == 200

            await asyncio.gather(*(one() for _ in range(100)))
            stats = client.stats().total
        assert stats.acquired == 5000
        assert stats.reuse_rate >= 0.98
        assert server.connections <= 100
        assert stats.created == server.connections


async def test_a_thousand_wait_in_their_order_for_four_connections() -> None:
    gate = threading.Event()

    def behave(peer: Peer) -> None:
        for request in peer:
            if request.target == "/hold":
                assert gate.wait(PATIENCE)
            peer.answer(request.target)

    with HttpServer(behave) as server:
        async with AsyncClient(server.url, pool=Pool(min_size=0, max_size=4)) as client:
            held = [asyncio.create_task(client.get("/hold")) for _ in range(4)]
            await soon(lambda: len(server.requests) == 4)
            waiting = [asyncio.create_task(client.get(f"/{number}")) for number in range(1000)]
            await soon(lambda: client.stats().total.waiting == 1000)
            gate.set()
            answers = await outcomes(waiting)
            await outcomes(held)
        assert [answer.text for answer in answers] == [f"/{number}" for number in range(1000)]
        came = [int(request.target[1:]) for request in server.requests[4:]]
        # A thread of the server may come late to say what it has got; none got anything before its turn.
        assert max(number - index for index, number in enumerate(came)) <= 4
        for connection in range(4):
            own = [request.target for request in server.requests[4:] if request.connection == connection]
            assert own == sorted(own, key=lambda target: int(target[1:]))
        assert server.most == server.connections == 4


async def test_a_burst_opens_no_more_than_the_limit() -> None:
    with HttpServer() as server:
        async with AsyncClient(server.url, pool=Pool(min_size=0, max_size=7)) as client:
            await asyncio.gather(*(client.get("/") for _ in range(500)))
        assert server.most <= 7
        assert server.connections <= 7


def test_one_request_opens_one_connection() -> None:
    with HttpServer() as server, Client(server.url, pool=Pool(min_size=0)) as client:
        for number in range(20):
            assert client.get("/").reused == (number > 0)
        assert server.connections == 1


def test_a_pool_shrinks() -> None:
    with HttpServer() as server:
        pool = Pool(min_size=1, max_size=10, idle_timeout=0.3)
        with Client(server.url, pool=pool) as client, ThreadPoolExecutor(10) as threads:
            barrier = threading.Barrier(10)

            def one() -> None:
                barrier.wait(PATIENCE)
                client.get("/")

            for each in [threads.submit(one) for _ in range(10)]:
                each.result(PATIENCE)
            until(lambda: server.open <= 1)
            assert client.get("/").status_code == 200


def test_connections_grow_old() -> None:
    with HttpServer() as server, Client(server.url, pool=Pool(min_size=0, max_size=1, max_age=0.2)) as client:

        def several() -> bool:
            assert client.get("/").status_code == 200
            return server.connections >= 3

        until(several)
        assert server.most <= 2


@pytest.mark.parametrize("balance", BALANCES)
def test_requests_are_spread(balance: Any) -> None:
    with HttpServer() as one, HttpServer() as two, HttpServer() as three:
        with Client([one.url, two.url, three.url], balance=balance) as client, ThreadPoolExecutor(8) as threads:
            for each in [threads.submit(client.get, f"/{number}") for number in range(300)]:
                assert each.result(PATIENCE).status_code == 200
            assert sum(stats.acquired for stats in client.stats().endpoints.values()) == 300
        counts = [len(server.requests) for server in (one, two, three)]
        assert sum(counts) == 300
        assert min(counts) > 10
        if balance == "round_robin":
            assert counts == [100, 100, 100]


async def test_a_slow_endpoint_gets_less() -> None:
    import time

    def slow(peer: Peer) -> None:
        for request in peer:
            time.sleep(0.05)
            peer.echo(request)

    for balance in ("least_outstanding", "p2c", "p2c_first_byte"):
        with HttpServer(slow) as one, HttpServer() as two:
            async with AsyncClient([one.url, two.url], balance=balance) as client:  # type: ignore[arg-type]

                async def several() -> None:
                    for _ in range(25):
                        await client.get("/")

                await asyncio.gather(*(several() for _ in range(8)))
            assert len(one.requests) < len(two.requests) / 2


async def test_explaining_why_requests_wait() -> None:
    gate = threading.Event()

    def behave(peer: Peer) -> None:
        for request in peer:
            assert gate.wait(PATIENCE)
            peer.echo(request)

    with HttpServer(behave) as server:
        async with AsyncClient(server.url, pool=Pool(min_size=0, max_size=2)) as client:
            tasks = [asyncio.create_task(client.get("/")) for _ in range(5)]
            await soon(lambda: client.stats().total.waiting == 3)
            explanation = client.explain()
            text = repr(explanation)
            assert server.url in text
            assert "3" in text
            assert "2" in text
            assert explanation._repr_html_().startswith("<pre>")
            gate.set()
            await outcomes(tasks)


def test_numbers() -> None:
    with HttpServer() as server, Client(server.url, pool=Pool(min_size=0)) as client:
        for _ in range(3):
            client.get("/")
        stats = client.stats()
        assert list(stats.endpoints) == [server.url]
        total = stats.total
        assert (total.acquired, total.reused, total.created, total.size) == (3, 2, 1, 1)
        assert (total.waiting, total.outstanding, total.failed, total.timed_out) == (0, 0, 0, 0)
        assert total.reuse_rate == pytest.approx(2 / 3)
        page = stats._repr_html_()
        assert page.startswith("<table>")
        assert server.url in page
        metrics = client.metrics()
        assert "penstock_pool_connections" in metrics
        assert metrics.endswith("# EOF\n")
    with Client() as client:
        assert client.stats().total.acquired == 0
        assert client.stats()._repr_html_().startswith("<table>")
        assert repr(client.explain())


def test_repr() -> None:
    with Client("http://127.0.0.1:1/x") as client:
        assert repr(client) == "<penstock.Client http://127.0.0.1:1 open>"
    assert repr(client) == "<penstock.Client http://127.0.0.1:1 closed>"


FACTORIES: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop, uvloop.new_event_loop]


def test_one_client_serves_several_loops_and_threads_at_once() -> None:
    with HttpServer() as server, AsyncClient(server.url, pool=Pool(max_size=8)) as client:
        failures: list[BaseException] = []

        async def several() -> None:
            answers = await asyncio.gather(*(client.get(f"/{number}") for number in range(100)))
            assert [answer.json()["target"] for answer in answers] == [f"/{number}" for number in range(100)]

        def loop(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
            try:
                with asyncio.Runner(loop_factory=factory) as runner:
                    for _ in range(3):
                        runner.run(several())
            except BaseException as error:  # noqa: BLE001  told to the test
                failures.append(error)

        threads = [threading.Thread(target=loop, args=(FACTORIES[number % 2],)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert not failures
        assert len(server.requests) == 1800
        assert server.most <= 8


def test_a_client_outlives_loops() -> None:
    with HttpServer() as server:
        client = AsyncClient(server.url, pool=Pool(min_size=0))

        async def one() -> int:
            return (await client.get("/")).status_code

        assert [asyncio.run(one()) for _ in range(5)] == [200] * 5
        assert server.connections == 1

        async def abandoned() -> None:
            # The loop ends before the answer comes.
            asyncio.get_running_loop().create_task(client.get("/"))
            await asyncio.sleep(0)

        for _ in range(5):
            asyncio.run(abandoned())
        assert asyncio.run(one()) == 200
        client.close()


def test_threads_share_a_blocking_client() -> None:
    with HttpServer(echo) as server, Client(server.url, pool=Pool(max_size=5)) as client:
        with ThreadPoolExecutor(32) as threads:
            answers = list(threads.map(lambda number: client.get(f"/{number}"), range(600), timeout=PATIENCE * 2))
        assert [answer.json()["target"] for answer in answers] == [f"/{number}" for number in range(600)]
        assert server.most <= 5
