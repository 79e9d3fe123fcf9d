"""Streams that come late, break off, or are left: what is said of them, and what becomes of their connections."""

from __future__ import annotations

import asyncio
import gc
import gzip
import pickle
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from penstock import AsyncClient, Client, Pool, Retry, Timeout
from penstock.errors import (
    ConfigError,
    DeadlineExceeded,
    FirstChunkTimeout,
    IdleTimeout,
    ProtocolError,
    ReadFailed,
    StreamClosed,
    StreamError,
    StreamInterrupted,
    TransportError,
)
from tests.python.support.http_server import HttpServer
from tests.python.support.waiting import PATIENCE, soon, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.python.support.http_server import Peer

CHUNKED = {"Transfer-Encoding": "chunked"}
EVENTS = {**CHUNKED, "Content-Type": "text/event-stream"}
ONE = Pool(min_size=0, max_size=1)
LONG = Timeout(first=None, idle=None, total=None)


class Script:
    """Sends what it is told to, when it is told to: bytes, or `None` for the end of the body.

    `/` is streamed, anything else answered at once.
    """

    def __init__(self, headers: dict[str, str] = EVENTS) -> None:
        self.headers = headers
        self.told: list[bytes | None] = []
        self.more = threading.Semaphore(0)
        self.left = threading.Event()

    def send(self, *pieces: bytes | None) -> None:
        self.told.extend(pieces)
        for _ in pieces:
            self.more.release()

    def __call__(self, peer: Peer) -> None:
        for request in peer:
            if request.target != "/":
                peer.echo(request)
                continue
            peer.answer(headers=self.headers, length=False)
            while True:
                while not self.more.acquire(timeout=0.02):
                    if peer.sees_end(0):
                        self.left.set()
                        return
                piece = self.told.pop(0)
                peer.chunk(piece or b"")
                if piece is None:
                    break


def event(data: str) -> bytes:
    return f"data: {data}\n\n".encode()


async def test_the_first_event_is_waited_for_and_comments_are_none() -> None:
    script = Script()
    with HttpServer(script) as server:
        limits = Timeout(first=0.4, idle=30)
        async with AsyncClient(server.url, timeout=limits) as client, client.stream("GET", "/") as s:
            stop = threading.Event()

            def ping() -> None:
                while not stop.wait(0.05):
                    script.send(b": ping\n\n")

            pinging = threading.Thread(target=ping)
            pinging.start()
            try:
                start = time.monotonic()
                with pytest.raises(FirstChunkTimeout, match=r"first-byte time-out of 400ms") as caught:
                    await asyncio.wait_for(anext(s.sse()), PATIENCE)
                assert time.monotonic() - start < PATIENCE / 2
            finally:
                stop.set()
                pinging.join()
            assert caught.value.partial is not None
            assert caught.value.partial.startswith(b": ping\n\n")
            assert caught.value.partial_start == 0
            assert s.stats().comments > 0
            assert s.stats().time_to_first is None
        assert await asyncio.to_thread(script.left.wait, PATIENCE)


async def test_comments_do_not_stop_the_time_between_events_and_an_event_does() -> None:
    script = Script()
    with HttpServer(script) as server:
        limits = Timeout(first=30, idle=0.4)
        async with AsyncClient(server.url, timeout=limits) as client, client.stream("GET", "/") as s:
            events = s.sse()
            for number in range(6):
                script.send(event(str(number)))
                assert (await asyncio.wait_for(anext(events), PATIENCE)).data == str(number)
                await asyncio.sleep(0.1)
            stop = threading.Event()

            def ping() -> None:
                while not stop.wait(0.05):
                    script.send(b": ping\n\n")

            pinging = threading.Thread(target=ping)
            pinging.start()
            try:
                with pytest.raises(IdleTimeout, match="idle time-out of 400ms") as caught:
                    await asyncio.wait_for(anext(events), PATIENCE)
            finally:
                stop.set()
                pinging.join()
            assert caught.value.partial is not None
            assert b"data: 5\n\n" in caught.value.partial
            # It stays what it is.
            with pytest.raises(IdleTimeout):
                await anext(events)


async def test_no_idle_time_passes_while_something_lies_ready() -> None:
    script = Script()
    with HttpServer(script) as server:
        async with AsyncClient(server.url, timeout=Timeout(idle=0.3)) as client, client.stream("GET", "/") as s:
            events = s.sse()
            script.send(event("a"), event("b"))
            await asyncio.sleep(1.0)
            assert (await anext(events)).data == "a"
            await soon(lambda: s.stats().events == 2)
            batch = await asyncio.wait_for(anext(events), PATIENCE)
            assert batch.data == "b"
            script.send(event("c"))
            assert (await asyncio.wait_for(anext(events), PATIENCE)).data == "c"
            with pytest.raises(IdleTimeout):
                await asyncio.wait_for(anext(events), PATIENCE)


def test_the_total_ends_a_stream_that_goes_on() -> None:
    script = Script()
    with HttpServer(script) as server, Client(server.url) as client:
        stop = threading.Event()

        def talk() -> None:
            while not stop.wait(0.05):
                script.send(event("x"))

        talking = threading.Thread(target=talk)
        talking.start()
        try:
            with client.stream("GET", "/", timeout=0.6) as s, pytest.raises(DeadlineExceeded) as caught:
                assert all(each.data == "x" for each in s.sse())
        finally:
            stop.set()
            talking.join()
        assert type(caught.value) is DeadlineExceeded
        assert caught.value.partial
        assert set(caught.value.partial.replace(event("x"), b"")) <= set(event("x"))


def test_the_total_holds_for_one_who_takes_nothing() -> None:
    def behave(peer: Peer) -> None:
        for _ in peer:
            peer.answer(headers=CHUNKED, length=False)
            while True:
                peer.chunk(bytes(65_536))

    limits = Timeout(total=0.5)
    with HttpServer(behave) as server, Client(server.url) as client, client.stream("GET", "/", timeout=limits) as s:
        until(lambda: client.stats().streams_failed == 1)
        with pytest.raises(DeadlineExceeded) as caught:
            s.read()
        assert caught.value.partial is not None
        assert len(caught.value.partial) <= 1 << 20
        assert caught.value.partial_start + len(caught.value.partial) == s.stats().bytes


BODY = b"".join(event(f"token {number}") for number in range(4)) + event("[DONE]")
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


def in_chunks(body: bytes, *headers: str) -> bytes:
    head = "\r\n".join(["HTTP/1.1 200 OK", "Content-Type: text/event-stream", "Transfer-Encoding: chunked", *headers])
    pieces = [body[start : start + 17] for start in range(0, len(body), 17)]
    return head.encode() + b"\r\n\r\n" + b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


def came(wire: bytes, decode: bool) -> bytes:
    """What of the body a prefix of the wire holds, by a reading of its own."""
    _, _, rest = wire.partition(b"\r\n\r\n")
    if not decode:
        return rest
    body = b""
    while rest:
        size, found, rest = rest.partition(b"\r\n")
        if not found or not (length := int(size, 16)):
            break
        body += rest[:length]
        rest = rest[length + 2 :]
    return body


WIRES: dict[str, tuple[bytes, bool]] = {"length": (PLAIN, False), "chunked": (in_chunks(BODY), True)}
READINGS: dict[str, Callable[[Any], Any]] = {
    "sse": lambda s: [each.data for each in s.sse()],
    "lines": lambda s: list(s.lines()),
    "chunks": lambda s: list(s.chunks()),
    "read": lambda s: s.read(),
}


@pytest.mark.parametrize("framing", WIRES)
def test_cut_at_every_byte(framing: str) -> None:
    """Whatever had arrived is told, whole; and a connection that was cut carries nothing else."""
    wire, decode = WIRES[framing]
    head = wire.index(b"\r\n\r\n") + 4
    cuts = iter([*range(head, len(wire)), len(wire)])
    cut = head

    def behave(peer: Peer) -> None:
        for _ in peer:
            peer.send(wire[:cut])
            if cut < len(wire):
                return

    with HttpServer(behave) as server, Client(server.url, retry=Retry(attempts=1)) as client:
        for number, cut in enumerate(cuts):
            name, reading = list(READINGS.items())[number % len(READINGS)]
            if cut == len(wire):
                with client.stream("GET", "/") as s:
                    assert s.read() == BODY
                assert client.get("/").reused
                break
            with client.stream("GET", "/") as s:
                assert not s.reused, cut
                with pytest.raises(StreamInterrupted) as caught:
                    reading(s)
            assert caught.value.partial == came(wire[:cut], decode), (cut, name)
            assert caught.value.partial_start == 0
            assert isinstance(caught.value.__cause__, ReadFailed)
        stats = client.stats()
        assert stats.streams_failed == len(wire) - head
        assert stats.streams_open == 0
        assert stats.streams_cancelled == 0


def test_cut_at_every_byte_of_the_head_is_no_stream() -> None:
    head = PLAIN.index(b"\r\n\r\n") + 4
    cut = 0

    def behave(peer: Peer) -> None:
        for _ in peer:
            peer.send(PLAIN[:cut])
            return

    with HttpServer(behave) as server, Client(server.url, retry=Retry(attempts=1)) as client:
        for cut in range(head):  # noqa: B007  the server reads it
            with pytest.raises(TransportError), client.stream("GET", "/"):
                pass
        assert client.stats().streams_failed == head


def test_cut_at_every_byte_of_a_packed_body_tells_what_could_be_unpacked() -> None:
    packer = gzip.zlib.compressobj(wbits=31)  # type: ignore[attr-defined]  # it imports it
    packed, ends = b"", [(0, b"")]
    for number in range(4):
        packed += packer.compress(event(str(number))) + packer.flush(gzip.zlib.Z_SYNC_FLUSH)  # type: ignore[attr-defined]
        ends.append((len(packed), ends[-1][1] + event(str(number))))
    plain = ends[-1][1]
    packed += packer.flush()
    cut = 0

    def behave(peer: Peer) -> None:
        for _ in peer:
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed))
            peer.send(packed[:cut])
            if cut < len(packed):
                return

    with HttpServer(behave) as server, Client(server.url) as client:
        for cut in range(len(packed)):
            with client.stream("GET", "/") as s, pytest.raises(StreamInterrupted) as caught:
                list(s.sse())
            flushed = max((text for end, text in ends if end <= cut), key=len)
            assert caught.value.partial is not None
            assert caught.value.partial.startswith(flushed), cut
            assert plain.startswith(caught.value.partial), cut


def test_what_is_told_is_the_last_mebibyte() -> None:
    body = bytes(range(256)) * 12_000

    def behave(peer: Peer) -> None:
        for _ in peer:
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(body) + 1))
            peer.send(body)
            return

    with HttpServer(behave) as server, Client(server.url) as client, client.stream("GET", "/") as s:
        with pytest.raises(StreamInterrupted) as caught:
            s.read()
        error = pickle.loads(pickle.dumps(caught.value))  # noqa: S301  our own
        assert isinstance(error.partial, bytes)
        assert len(error.partial) == 1 << 20
        assert error.partial == body[error.partial_start :]


def test_what_is_no_framing_is_a_broken_protocol() -> None:
    taken = threading.Event()

    def behave(peer: Peer) -> None:
        for _ in peer:
            peer.answer(headers=CHUNKED, length=False)
            peer.chunk(b"some")
            assert taken.wait(PATIENCE)
            peer.send(b"4\r\nmore\r\nzz\r\n")
            peer.sees_end()

    with HttpServer(behave) as server, Client(server.url) as client, client.stream("GET", "/") as s:
        assert s.read(4) == b"some"
        taken.set()
        with pytest.raises(StreamInterrupted) as caught:
            s.read()
        assert (caught.value.partial, type(caught.value.__cause__)) == (b"somemore", ProtocolError)


def test_what_came_with_broken_framing_is_taken_first() -> None:
    def behave(peer: Peer) -> None:
        for _ in peer:
            head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
            peer.send(head + b"4\r\nsome\r\nzz\r\n")
            peer.sees_end()

    with HttpServer(behave) as server, Client(server.url) as client, client.stream("GET", "/") as s:
        assert s.read(4) == b"some"
        with pytest.raises(StreamInterrupted) as caught:
            s.read()
        assert (caught.value.partial, type(caught.value.__cause__)) == (b"some", ProtocolError)


async def test_an_event_that_is_too_long_ends_the_stream() -> None:
    script = Script()
    with HttpServer(script) as server:
        async with AsyncClient(server.url) as client, client.stream("GET", "/") as s:
            events = s.sse(max_event=100)
            script.send(event("short"), event("x" * 200))
            assert (await anext(events)).data == "short"
            with pytest.raises(StreamError, match="100"):
                await asyncio.wait_for(anext(events), PATIENCE)
            assert await asyncio.to_thread(script.left.wait, PATIENCE)
            assert client.stats().streams_failed == 1


async def leave_by_block(s: Any) -> None:
    async with s:
        await anext(s.sse())


async def leave_by_break(s: Any) -> None:
    async with s:
        async for _ in s.sse():
            break


async def leave_by_error(s: Any) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012  the block is what it is about
        async with s:
            await anext(s.sse())
            raise ZeroDivisionError


async def leave_by_cancel(s: Any) -> None:
    reading = asyncio.Event()

    async def read() -> None:
        async with s:
            async for _ in s.sse():
                reading.set()

    task = asyncio.create_task(read())
    await asyncio.wait_for(reading.wait(), PATIENCE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def leave_by_close(s: Any) -> None:
    await s.__aenter__()
    await anext(s.sse())
    await s.aclose()
    await s.aclose()


async def leave_by_forgetting(s: Any) -> None:
    await s.__aenter__()
    events = s.sse()
    await anext(events)
    del s, events
    gc.collect()


LEAVING = [leave_by_block, leave_by_break, leave_by_error, leave_by_cancel, leave_by_close, leave_by_forgetting]


@pytest.mark.parametrize("leave", LEAVING)
async def test_whoever_leaves_stops_the_server_and_is_counted(leave: Callable[[Any], Any]) -> None:
    script = Script()
    with HttpServer(script) as server:
        async with AsyncClient(server.url, pool=ONE) as client:
            script.send(event("one"))
            await leave(client.stream("GET", "/"))
            assert await asyncio.to_thread(script.left.wait, PATIENCE)
            await soon(lambda: client.stats().streams_cancelled == 1)
            stats = client.stats()
            assert (stats.streams, stats.streams_open, stats.streams_failed) == (1, 0, 0)
            assert (await client.get("/next")).status_code == 200


async def test_whoever_is_cancelled_before_the_head_stops_the_server_and_is_counted() -> None:
    seen = threading.Event()
    left = threading.Event()

    def behave(peer: Peer) -> None:
        for _ in peer:
            seen.set()
            if peer.sees_end():
                left.set()
            return

    with HttpServer(behave) as server:
        async with AsyncClient(server.url) as client:
            task = asyncio.create_task(client.stream("GET", "/").__aenter__())
            assert await asyncio.to_thread(seen.wait, PATIENCE)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(left.wait, PATIENCE)
            await soon(lambda: client.stats().streams_cancelled == 1)


async def test_a_stream_that_is_read_to_its_end_is_not_cancelled() -> None:
    script = Script()
    with HttpServer(script) as server:
        async with AsyncClient(server.url, pool=ONE) as client:
            script.send(event("one"), None)
            async with client.stream("GET", "/") as s:
                assert [each.data async for each in s.sse()] == ["one"]
            stats = client.stats()
            assert (stats.streams, stats.streams_open, stats.streams_cancelled, stats.streams_failed) == (1, 0, 0, 0)
            assert (await client.get("/next")).reused


@pytest.mark.parametrize("form", ["sse", "chunks"])
async def test_the_connection_survives_done(form: str) -> None:
    """The block is left at once, and the end of the body comes later: the same socket serves the next request."""
    script = Script()
    with HttpServer(script) as server:
        async with AsyncClient(server.url, pool=ONE) as client:
            async with client.stream("GET", "/") as s:
                script.send(event("one"), event("[DONE]"))
                async for each in getattr(s, form)():
                    if b"[DONE]" in (each if form == "chunks" else each.data.encode()):
                        break
            asking = asyncio.create_task(client.get("/next"))
            await asyncio.sleep(0.05)
            script.send(b": bye\n\n", None)
            answer = await asyncio.wait_for(asking, PATIENCE)
            assert answer.reused
            stats = client.stats()
            assert (stats.streams_drained, stats.streams_cancelled, server.connections) == (1, 0, 1)


async def test_a_server_that_does_not_end_after_done_holds_nobody_up_for_long() -> None:
    script = Script()
    with HttpServer(script) as server:
        async with AsyncClient(server.url, pool=ONE) as client:
            async with client.stream("GET", "/") as s:
                script.send(event("[DONE]"))
                async for _ in s.sse():
                    break
            assert (await asyncio.wait_for(client.get("/next"), PATIENCE)).status_code == 200
            stats = client.stats()
            assert (stats.streams_drained, stats.streams_cancelled, server.connections) == (0, 1, 2)


async def test_a_server_that_goes_on_after_done_is_stopped() -> None:
    left = threading.Event()

    def behave(peer: Peer) -> None:
        for request in peer:
            if request.target != "/":
                peer.echo(request)
                continue
            peer.answer(headers=EVENTS, length=False)
            peer.chunk(event("[DONE]"))
            try:
                while True:
                    peer.chunk(b": more\n" * 100)
            except OSError:
                left.set()
                raise

    with HttpServer(behave) as server:
        async with AsyncClient(server.url) as client:
            async with client.stream("GET", "/") as s:
                async for _ in s.sse():
                    break
            assert await asyncio.to_thread(left.wait, PATIENCE)
            await soon(lambda: client.stats().streams_cancelled == 1)


async def test_it_is_read_as_one_thing() -> None:
    script = Script()
    with HttpServer(script) as server:
        async with AsyncClient(server.url) as client, client.stream("GET", "/") as s:
            script.send(b"raw\n", event("a"), event("b"))
            assert await s.read(4) == b"raw\n"
            assert (await anext(s.sse())).data == "a"
            assert (await anext(s.sse())).data == "b"
            for other in (s.lines, s.chunks, s.ndjson):
                with pytest.raises(ConfigError, match="read as events"):
                    await anext(other())
            with pytest.raises(ConfigError):
                await s.read()


async def test_nothing_is_taken_outside_the_block() -> None:
    script = Script()
    with HttpServer(script) as server:
        async with AsyncClient(server.url) as client:
            async with client.stream("GET", "/") as s:
                script.send(event("a") + event("b"))
                events = s.sse()
                assert (await anext(events)).data == "a"
            with pytest.raises(StreamClosed):
                await anext(events)


def test_a_limit_of_nothing_is_refused() -> None:
    for name in ("stream_window", "stream_memory"):
        with pytest.raises(ConfigError, match=name):
            Client("http://127.0.0.1:1", **{name: 0})


async def test_many_slow_readers_hold_no_more_than_the_client_may() -> None:
    """One who takes is not held up by those who take nothing."""
    sent: dict[str, int] = {}

    def behave(peer: Peer) -> None:
        for request in peer:
            peer.answer(headers=CHUNKED, length=False)
            for _ in range(200):
                peer.chunk(bytes(16_384))
                sent[request.target] = sent.get(request.target, 0) + 16_384
            peer.chunk(b"")

    with HttpServer(behave) as server:
        async with AsyncClient(server.url, stream_memory=256 << 10, timeout=LONG) as client:
            slow = [client.stream("GET", f"/{number}") for number in range(8)]
            for each in slow:
                await each.__aenter__()
            async with client.stream("GET", "/fast") as s:
                assert len(await asyncio.wait_for(s.read(), PATIENCE)) == 200 * 16_384
            held = [each.stats().bytes for each in slow]
            # Each has one read beyond its share at most.
            assert sum(held) < (256 << 10) + 9 * (256 << 10)
            bodies = await asyncio.wait_for(asyncio.gather(*(each.read() for each in slow)), PATIENCE)
            assert all(len(body) == 200 * 16_384 for body in bodies)
            assert any(each.stats().stalls for each in slow)
            for each in slow:
                await each.aclose()
