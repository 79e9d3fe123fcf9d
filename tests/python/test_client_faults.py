"""What goes wrong between a client and a server: who is told what, and what is sent again."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penstock import AsyncClient, Client, Eject, Pool, Retry, Timeout
from penstock.errors import (
    AcquireTimeout,
    Closed,
    ConfigError,
    ConnectFailed,
    ConnectTimeout,
    DeadlineExceeded,
    FirstChunkTimeout,
    IdleTimeout,
    PenstockError,
    ReadFailed,
    TransportError,
)
from tests.python.support.http_server import HttpServer, echo, refusing_port
from tests.python.support.waiting import PATIENCE, outcomes, soon, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.python.support.http_server import Peer

ONE = Pool(min_size=0, max_size=1)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"


def never_answers(peer: Peer) -> None:
    for _ in peer:
        peer.server.failures += [] if peer.sees_end() else [AssertionError("the client did not close")]


def test_nobody_listens() -> None:
    port = refusing_port()
    with Client(f"http://127.0.0.1:{port}") as client, pytest.raises(ConnectFailed, match=str(port)) as caught:
        client.get("/")
    assert isinstance(caught.value, ConnectionError)
    assert "refused" in str(caught.value)


def test_a_name_that_nobody_has() -> None:
    with Client("http://nowhere.invalid") as client, pytest.raises(ConnectFailed, match=r"nowhere\.invalid"):
        client.get("/")


def test_a_socket_that_is_not_there(tmp_path: Any) -> None:
    with Client(f"unix://{tmp_path}/nothing") as client, pytest.raises(ConnectFailed, match="nothing"):
        client.get("/")


def cut(where: str) -> Callable[[Peer], None]:
    def behave(peer: Peer) -> None:
        for _ in peer:
            if where == "head":
                peer.send(b"HTTP/1.1 200")
            elif where == "body":
                peer.send(HEAD + b"half")
            elif where == "chunk":
                peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
            elif where == "reset in head":
                peer.send(b"HTTP/1.1 200")
                peer.reset()
            elif where == "reset in body":
                peer.send(HEAD + b"half")
                time.sleep(0.05)
                peer.reset()
            return

    return behave


@pytest.mark.parametrize("where", ["nothing", "head", "body", "chunk", "reset in head", "reset in body"])
def test_an_answer_that_is_cut_is_an_error_and_its_post_is_not_sent_again(where: str) -> None:
    with HttpServer(cut(where)) as server, Client(server.url) as client:
        with pytest.raises(TransportError) as caught:
            client.post("/", content=b"x")
        assert isinstance(caught.value, ReadFailed)
        assert len(server.requests) == 1


@pytest.mark.parametrize("where", ["nothing", "head", "reset in head"])
def test_what_does_no_harm_is_sent_again(where: str) -> None:
    def behave(peer: Peer) -> None:
        (echo if peer.index >= 2 else cut(where))(peer)

    for call in ({"method": "GET"}, {"method": "POST", "retry": True}, {"method": "PUT"}):
        with HttpServer(behave) as server, Client(server.url, retry=Retry(attempts=3)) as client:
            answer = client.request(url="/", **call)  # type: ignore[arg-type]
            assert (answer.status_code, answer.attempts) == (200, 3)
            assert len(server.requests) == 3
    keyed = {"headers": {"Idempotency-Key": "1"}}
    with HttpServer(behave) as server, Client(server.url, retry=Retry(attempts=3)) as client:
        assert client.post("/", **keyed).attempts == 3  # type: ignore[arg-type]


def test_retries_end() -> None:
    with HttpServer(cut("nothing")) as server:
        with Client(server.url, retry=Retry(attempts=2)) as client, pytest.raises(ReadFailed):
            client.get("/")
        assert len(server.requests) == 2
        with Client(server.url, retry=Retry(attempts=1)) as client, pytest.raises(ReadFailed):
            client.get("/")
        assert len(server.requests) == 3
        with Client(server.url) as client, pytest.raises(ReadFailed):
            client.get("/", retry=False)
        assert len(server.requests) == 4


def test_a_budget_bounds_retries() -> None:
    with HttpServer(cut("nothing")) as server:
        with Client(server.url, retry=Retry(attempts=5, budget=0.0, per_second=0.0)) as client:
            for _ in range(20):
                with pytest.raises(ReadFailed):
                    client.get("/")
        assert len(server.requests) == 20


def test_statuses_that_are_tried_again() -> None:
    def behave(peer: Peer) -> None:
        for _ in peer:
            peer.answer(status="503 Busy" if len(peer.server.requests) < 3 else "200 OK")

    with HttpServer(behave) as server, Client(server.url, retry=Retry(statuses=(503,))) as client:
        assert client.get("/").attempts == 3
    with HttpServer(behave) as server, Client(server.url) as client:
        assert client.get("/").status_code == 503


def test_a_connection_that_the_server_closes_between_two_requests() -> None:
    """The first request of each connection is answered, then it is closed: a POST that was not sent may go again."""

    def behave(peer: Peer) -> None:
        peer.request()
        peer.answer("hello")

    with HttpServer(behave) as server, Client(server.url, pool=ONE) as client:
        for number in range(20):
            assert client.post("/", content=b"x").text == "hello"
            until(lambda expected=number + 1: server.open == 0 and server.connections == expected)
        assert len(server.requests) == 20


def test_a_connection_that_is_closed_as_the_next_request_comes() -> None:
    """The server has the POST in hand when it closes: it may have acted on it, so it is not sent again."""

    def behave(peer: Peer) -> None:
        peer.request()
        peer.answer("hello")
        peer.request()

    with HttpServer(behave) as server, Client(server.url, pool=ONE) as client:
        for _ in range(5):
            assert client.post("/", content=b"x").text == "hello"
            with pytest.raises(ReadFailed):
                client.post("/", content=b"x")
        assert len(server.requests) == 10
        assert client.get("/").text == "hello"
        assert client.get("/").attempts == 2


ANSWER = '{"model_name": "m", "outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [2]}]}'


@pytest.mark.parametrize(("retry", "sent"), [(None, 2), (True, 2), (False, 1)])
def test_an_inference_that_a_kept_connection_swallowed_is_sent_again(*, retry: bool | None, sent: int) -> None:
    used: list[int] = []

    def behave(peer: Peer) -> None:
        if peer.request() is None:
            return  # it was held ready, and nobody came
        used.append(peer.index)
        peer.answer(ANSWER)
        # It reads the second, and closes without a word: as a server does that is being replaced.
        if used == [peer.index]:
            peer.request()
        else:
            for _ in peer:
                peer.answer(ANSWER)

    with HttpServer(behave) as server, Client(server.url) as client:
        ones = {"x": np.ones(1, np.float32)}
        assert client.infer("m", ones, binary=False)["y"] == 2
        if retry is False:
            with pytest.raises(ReadFailed):
                client.infer("m", ones, binary=False, retry=retry)
        else:
            assert client.infer("m", ones, binary=False, retry=retry)["y"] == 2
        first, second, *again = [request.connection for request in server.requests]
        assert first == second
        assert len(again) == sent - 1
        assert first not in again


@pytest.mark.parametrize(("retry", "fails"), [(None, True), (True, False)])
def test_an_inference_whose_answer_had_begun_is_sent_again_only_where_that_is_said(
    *, retry: bool | None, fails: bool
) -> None:
    def behave(peer: Peer) -> None:
        for at, _ in enumerate(peer):
            if (peer.index, at) == (0, 1):
                peer.send(b"HTTP/1.1 200 OK\r\n")
                return
            peer.answer(ANSWER)

    with HttpServer(behave) as server, Client(server.url) as client:
        ones = {"x": np.ones(1, np.float32)}
        assert client.infer("m", ones, binary=False)["y"] == 2
        if fails:
            with pytest.raises(ReadFailed):
                client.infer("m", ones, binary=False, retry=retry)
        else:
            assert client.infer("m", ones, binary=False, retry=retry)["y"] == 2


def test_an_inference_that_a_new_connection_swallowed_is_not_sent_again() -> None:
    def behave(peer: Peer) -> None:
        peer.request()

    with HttpServer(behave) as server, Client(server.url) as client:
        with pytest.raises(ReadFailed):
            client.infer("m", {"x": np.ones(1, np.float32)}, binary=False)
        assert len(server.requests) == 1
        with pytest.raises(ConfigError, match="retry must be True, False or None"):
            client.infer("m", {"x": np.ones(1, np.float32)}, binary=False, retry=2)  # type: ignore[arg-type]


def test_time_to_connect() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as full:
        # The queue of the listener is full: further connections get no answer at all.
        for _ in range(4):
            each = full.enter_context(socket.socket())
            each.setblocking(False)
            each.connect_ex(listener.getsockname())
        client = full.enter_context(
            Client(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=Timeout(connect=0.3))
        )
        with pytest.raises(ConnectTimeout, match=r"connect=0\.3 s"):
            client.get("/", retry=False)


@pytest.mark.parametrize(
    ("timeout", "kind"),
    [
        (Timeout(first=0.3), FirstChunkTimeout),
        (Timeout(total=0.3), DeadlineExceeded),
        (0.3, DeadlineExceeded),
    ],
)
def test_an_answer_that_does_not_come(timeout: Any, kind: type[Exception]) -> None:
    with HttpServer(never_answers) as server:
        with Client(server.url, timeout=timeout) as client, pytest.raises(kind, match="300ms") as caught:
            client.get("/")
        with Client(server.url) as client, pytest.raises(kind):
            client.get("/", timeout=timeout)
        assert isinstance(caught.value, TimeoutError)


def test_an_answer_that_stops() -> None:
    def behave(peer: Peer) -> None:
        for _ in peer:
            peer.send(HEAD + b"half")
            assert peer.sees_end()

    with (
        HttpServer(behave) as server,
        Client(server.url, timeout=Timeout(idle=0.3)) as client,
        pytest.raises(IdleTimeout),
    ):
        client.get("/", retry=False)


def test_an_answer_that_drips_is_no_idle_one() -> None:
    def behave(peer: Peer) -> None:
        for _ in peer:
            peer.send(HEAD)
            for _ in range(10):
                peer.send(b"x")
                time.sleep(0.1)

    with HttpServer(behave) as server, Client(server.url, timeout=Timeout(idle=0.8)) as client:
        assert client.get("/").content == b"x" * 10
        with pytest.raises(DeadlineExceeded):
            client.get("/", timeout=0.5)


async def test_time_to_wait_for_a_connection() -> None:
    with HttpServer(never_answers) as server:
        async with AsyncClient(server.url, pool=ONE, timeout=Timeout(acquire=0.2)) as client:
            first = asyncio.create_task(client.get("/"))
            await soon(lambda: server.requests)
            with pytest.raises(AcquireTimeout):
                await client.get("/")
            assert (await client_stats_settle(client)).total.timed_out == 1
            first.cancel()
            await outcomes([first])


async def client_stats_settle(client: AsyncClient) -> Any:
    await soon(lambda: client.stats().total.waiting == 0)
    return client.stats()


async def test_cancelling_tells_the_server_and_gives_the_place_back() -> None:
    ended = threading.Semaphore(0)

    def behave(peer: Peer) -> None:
        for request in peer:
            if request.target == "/never":
                assert peer.sees_end()
                ended.release()
                return
            peer.echo(request)

    with HttpServer(behave) as server:
        async with AsyncClient(server.url, pool=ONE) as client:
            for _ in range(5):
                task = asyncio.create_task(client.get("/never"))
                await soon(lambda: server.requests and server.requests[-1].target == "/never")
                # One more waits behind it, and leaves first.
                waiting = asyncio.create_task(client.get("/waits"))
                await soon(lambda: client.stats().total.waiting == 1)
                waiting.cancel()
                task.cancel()
                assert all(isinstance(each, asyncio.CancelledError) for each in await outcomes([task, waiting]))
                assert await asyncio.to_thread(ended.acquire, True, PATIENCE)
                assert (await client.get("/x")).status_code == 200
            assert "/waits" not in [request.target for request in server.requests]
            assert server.most <= 2


async def test_cancelling_at_any_moment_loses_no_place() -> None:
    def behave(peer: Peer) -> None:
        for request in peer:
            time.sleep(0.001)
            peer.echo(request)

    with HttpServer(behave) as server:
        async with AsyncClient(server.url, pool=Pool(min_size=0, max_size=2)) as client:
            for turn in range(60):
                tasks = [asyncio.create_task(client.get("/x")) for _ in range(6)]
                await asyncio.sleep(turn * 0.0002)
                for task in tasks[turn % 3 :: 2]:
                    task.cancel()
                for outcome in await outcomes(tasks):
                    assert isinstance(outcome, asyncio.CancelledError) or outcome.status_code == 200
            answers = await outcomes([client.get("/x") for _ in range(20)])
            assert [answer.status_code for answer in answers] == [200] * 20
            await soon(lambda: client.stats().total.outstanding == 0)
            assert client.stats().total.size <= 2


async def test_wait_for_and_timeout_blocks_cancel() -> None:
    with HttpServer(never_answers) as server:
        async with AsyncClient(server.url) as client:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.get("/"), 0.2)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await client.get("/")
            await soon(lambda: server.open == 0)


async def test_a_closed_client_sends_nothing() -> None:
    with HttpServer() as server:
        client = AsyncClient(server.url)
        assert (await client.get("/")).status_code == 200
        assert not client.closed
        await client.aclose()
        await client.aclose()
        client.close()
        assert client.closed
        assert "closed" in repr(client)
        await soon(lambda: server.open == 0)
        with pytest.raises(Closed):
            await client.get("/")
        with pytest.raises(Closed):
            await client.request_many(["/"])
        with pytest.raises(Closed):
            async with client.stream("GET", "/"):
                pass
        blocking = Client(server.url)
        blocking.close()
        with pytest.raises(Closed):
            blocking.get("/")
        with pytest.raises(Closed):
            blocking.request_many(["/"])
        assert len(server.requests) == 1


@pytest.mark.parametrize("how", [{"drain": False}, {"timeout": 0.2}])
async def test_closing_ends_requests_on_their_way(how: Any) -> None:
    with HttpServer(never_answers) as server:
        client = AsyncClient(server.url, pool=ONE)
        tasks = [asyncio.create_task(client.get("/")) for _ in range(3)]
        await soon(lambda: server.requests)
        await client.aclose(**how)
        assert [type(each) for each in await outcomes(tasks)] == [Closed] * 3
        await soon(lambda: server.open == 0)
        # An error that leaves the block waits for nothing.
        other = AsyncClient(server.url)
        task = asyncio.create_task(other.get("/"))
        await soon(lambda: len(server.requests) == 2)
        with pytest.raises(ZeroDivisionError):
            async with other:
                raise ZeroDivisionError
        assert [type(each) for each in await outcomes([task])] == [Closed]


async def test_closing_waits_for_requests_on_their_way() -> None:
    gate = threading.Event()

    def behave(peer: Peer) -> None:
        for request in peer:
            assert gate.wait(PATIENCE)
            peer.echo(request)

    with HttpServer(behave) as server:
        client = AsyncClient(server.url)
        tasks = [asyncio.create_task(client.get("/")) for _ in range(3)]
        await soon(lambda: len(server.requests) == 3)
        closing = asyncio.create_task(client.aclose())
        await soon(lambda: client.closed)
        with pytest.raises(Closed):
            await client.get("/")
        # Who waits may still leave.
        tasks[0].cancel()
        assert isinstance((await outcomes(tasks[:1]))[0], asyncio.CancelledError)
        assert not closing.done()
        gate.set()
        assert [answer.status_code for answer in await outcomes(tasks[1:])] == [200] * 2
        await closing
        await soon(lambda: server.open == 0)


async def test_closing_ends_streams() -> None:
    def behave(peer: Peer) -> None:
        for _ in peer:
            peer.answer(headers={"Transfer-Encoding": "chunked"}, length=False)
            assert peer.sees_end()
            return

    with HttpServer(behave) as server:
        client = AsyncClient(server.url)
        async with client.stream("GET", "/") as answer:
            waiting = asyncio.create_task(answer.read())
            await asyncio.sleep(0.1)
            await client.aclose(drain=False)
            assert [type(each) for each in await outcomes([waiting])] == [Closed]
        await soon(lambda: server.open == 0)


def test_closing_from_another_thread_ends_blocking_requests() -> None:
    with HttpServer(never_answers) as server, ThreadPoolExecutor() as threads:
        client = Client(server.url, pool=ONE)
        waiting = [threads.submit(client.get, "/") for _ in range(3)]
        until(lambda: server.requests)
        client.close(drain=False)
        assert [type(each.exception(PATIENCE)) for each in waiting] == [Closed] * 3


def test_a_client_that_is_forgotten_closes_its_connections() -> None:
    import gc

    with HttpServer() as server:
        client = Client(server.url)
        client.get("/")
        del client
        gc.collect()
        until(lambda: server.open == 0)


def test_one_of_several_endpoints_is_dead() -> None:
    with HttpServer() as one, HttpServer() as two:
        urls = [one.url, f"http://127.0.0.1:{refusing_port()}", two.url]
        settings: dict[str, Any] = {"balance": "round_robin", "eject": Eject(failures=2, time=30)}
        with Client(urls, **settings) as client:
            answers = [client.post("/", content=b"x") for _ in range(60)]
            assert {answer.status_code for answer in answers} == {200}
            assert {answer.endpoint for answer in answers} == {one.url, two.url}
            stats = client.stats()
            assert stats.endpoints[urls[1]].ejected
            assert stats.endpoints[urls[1]].failed < 10
            assert not stats.total.ejected


def test_an_endpoint_that_fails_is_tried_again() -> None:
    def behave(peer: Peer) -> None:
        if peer.server.failures_left > 0:  # type: ignore[attr-defined]
            peer.server.failures_left -= 1  # type: ignore[attr-defined]
            peer.request()
            return
        echo(peer)

    with HttpServer(behave) as bad, HttpServer() as good:
        bad.failures_left = 3  # type: ignore[attr-defined]
        settings: dict[str, Any] = {"eject": Eject(failures=3, time=0.2), "balance": "round_robin"}
        with Client([bad.url, good.url], **settings) as client:

            def both() -> bool:
                answers = [client.get("/") for _ in range(4)]
                assert {answer.status_code for answer in answers} == {200}
                return {answer.endpoint for answer in answers} == {bad.url, good.url}

            until(both)


def test_an_endpoint_that_says_when_to_come_back_is_left_alone() -> None:
    def busy(peer: Peer) -> None:
        for _ in peer:
            peer.answer(status="503 Busy", headers={"Retry-After": "20"})

    with HttpServer(busy) as bad, HttpServer() as good:
        settings: dict[str, Any] = {"balance": "round_robin", "retry": Retry(statuses=(503,))}
        with Client([bad.url, good.url], **settings) as client:
            assert {client.get("/").status_code for _ in range(20)} == {200}
        assert len(bad.requests) == 1


def test_errors_are_penstocks() -> None:
    with HttpServer(cut("nothing")) as server, Client(server.url) as client:
        with pytest.raises(PenstockError) as caught:
            client.post("/")
        assert server.url.removeprefix("http://") in str(caught.value)
