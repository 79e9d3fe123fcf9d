"""Streams as events, lines, JSON documents, chunks and files: each as soon as it is there."""

from __future__ import annotations

import asyncio
import io
import json
import pickle
import queue
import tarfile
import threading
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from penstock import AsyncClient, Client, Pool
from penstock.client import Event, StreamStats
from tests.python.support.http_server import HttpServer
from tests.python.support.waiting import PATIENCE, soon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.python.support.http_server import Peer

CHUNKED = {"Transfer-Encoding": "chunked"}
ONE = Pool(min_size=0, max_size=1)


class Told:
    """Sends a piece, packed or not, only when it is told to: who holds a piece back waits for ever."""

    def __init__(self, pack: Callable[[], Any] | None, coding: str) -> None:
        self._pack = pack
        self._coding = coding
        self.pieces: queue.Queue[bytes | None] = queue.Queue()

    def __call__(self, peer: Peer) -> None:
        for _ in peer:
            headers = {**CHUNKED, "Content-Encoding": self._coding} if self._pack else CHUNKED
            packer = self._pack() if self._pack else None
            peer.answer(headers=headers, length=False)
            while (piece := self.pieces.get(timeout=PATIENCE)) is not None:
                peer.chunk(packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH) if packer else piece)
            if packer:
                peer.chunk(packer.flush())
            peer.chunk(b"")


PACKERS: dict[str, Callable[[], Any] | None] = {
    "plain": None,
    "gzip": lambda: zlib.compressobj(wbits=31),
    "deflate": zlib.compressobj,
}
# What is sent, and what must come of it before more is.
DRIPS: dict[str, list[tuple[bytes, list[Any]]]] = {
    "sse": [
        (b"data: a\n\n", ["a"]),
        (b": only a comment\n\n", []),
        (b"data: b\r\n\r\ndata: c\r\r", ["b", "c"]),
        (b"data: d\ndata: e\n", []),
        (b"\n", ["d\ne"]),
        (b"data: {}\n\n", ["{}"]),
    ],
    "lines": [(b"a\n", ["a"]), (b"b", []), (b"c\r\n\r", ["bc", ""]), (b"d\n", ["d"])],
    "ndjson": [(b'{"a": 1}\n', [{"a": 1}]), (b"[1,", []), (b"2]\n\n", [[1, 2]]), (b"null\n", [None])],
    "chunks": [(b"a", [b"a"]), (b"bc", [b"bc"]), (b"d", [b"d"])],
}


def taken(form: str, item: Any) -> Any:
    return item.data if form == "sse" else item


@pytest.mark.parametrize("coding", PACKERS)
@pytest.mark.parametrize("form", DRIPS)
async def test_a_piece_comes_before_the_next_is_sent(form: str, coding: str) -> None:
    told = Told(PACKERS[coding], coding)
    with HttpServer(told) as server:
        async with AsyncClient(server.url) as client, client.stream("GET", "/") as s:
            items = getattr(s, form)()
            for piece, expected in DRIPS[form]:
                told.pieces.put(piece)
                for each in expected:
                    assert taken(form, await asyncio.wait_for(anext(items), PATIENCE)) == each
            told.pieces.put(None)
            assert [each async for each in items] == []


@pytest.mark.parametrize("coding", PACKERS)
@pytest.mark.parametrize("form", DRIPS)
def test_a_piece_comes_before_the_next_is_sent_when_blocking(form: str, coding: str) -> None:
    told = Told(PACKERS[coding], coding)
    with HttpServer(told) as server, Client(server.url, timeout=PATIENCE) as client, client.stream("GET", "/") as s:
        items = getattr(s, form)()
        for piece, expected in DRIPS[form]:
            told.pieces.put(piece)
            for each in expected:
                assert taken(form, next(items)) == each
        told.pieces.put(None)
        assert list(items) == []


async def test_every_byte_comes_before_the_next_is_sent() -> None:
    told = Told(None, "plain")
    with HttpServer(told) as server:
        async with AsyncClient(server.url) as client, client.stream("GET", "/") as s:
            for byte in b"slowly but surely":
                told.pieces.put(bytes([byte]))
                assert await asyncio.wait_for(s.read(100), PATIENCE) == bytes([byte])
            told.pieces.put(None)
            assert await s.read(100) == b""


def test_a_file_gives_lines_as_they_come() -> None:
    told = Told(None, "plain")
    with HttpServer(told) as server, Client(server.url, timeout=PATIENCE) as client, client.stream("GET", "/") as s:
        file = s.file()
        assert isinstance(file, io.BufferedReader)
        assert file.readable()
        told.pieces.put(b"one\ntw")
        assert file.readline() == b"one\n"
        told.pieces.put(b"o\n")
        assert file.readline() == b"two\n"
        told.pieces.put(b"rest")
        assert file.read1() == b"rest"
        told.pieces.put(None)
        assert file.read() == b""
        file.close()
        assert s.closed


def test_a_file_is_what_tarfile_takes() -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name in ("a", "b"):
            content = name.encode() * 200_000
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))

    def behave(peer: Peer) -> None:
        for _ in peer:
            peer.answer(packed.getvalue())

    with (
        HttpServer(behave) as server,
        Client(server.url) as client,
        client.stream("GET", "/") as s,
        s.file() as file,
        tarfile.open(fileobj=file, mode="r|gz") as archive,
    ):
        names = [(entry.name, len((archive.extractfile(entry) or io.BytesIO()).read())) for entry in archive]
    assert names == [("a", 200_000), ("b", 200_000)]


def answering(body: bytes, **headers: str) -> Callable[[Peer], None]:
    def behave(peer: Peer) -> None:
        for _ in peer:
            peer.answer(body, headers={name.replace("_", "-"): value for name, value in headers.items()})

    return behave


async def test_events_are_those_of_the_rules() -> None:
    body = (
        "\ufeffid: 1\nevent: add\ndata: first\ndata: second\n\n"
        "data\n\n"  # a line of nothing is data, too
        "id: 2\n\n"  # nothing to hand out
        ": ping\n\n"
        "data: third\n\n"
        "data: \ud800\n\n".encode("utf-8", "surrogatepass")
        + b"data: never ended\n"
    )
    with HttpServer(answering(body, content_type="text/event-stream")) as server:
        async with AsyncClient(server.url) as client, client.stream("GET", "/") as s:
            events = [each async for each in s.sse()]
            assert events[0] == Event("add", "first\nsecond", "1")
            assert [(each.event, each.data, each.id) for each in events[1:3]] == [
                ("message", "", "1"),
                ("message", "third", "2"),
            ]
            assert set(events[3].data) == {"\ufffd"}
            assert len(events) == 4
            stats = s.stats()
            assert (stats.events, stats.comments, stats.bytes) == (4, 1, len(body))


def test_an_event_is_a_value() -> None:
    event = Event("message", '{"a": [1]}')
    assert (event.event, event.data, event.id) == ("message", '{"a": [1]}', "")
    assert event.json() == {"a": [1]}
    assert event == Event("message", '{"a": [1]}', "")
    assert event != Event("message", '{"a": [1]}', "7")
    assert event != "message"
    assert len({event, Event("message", '{"a": [1]}')}) == 1
    assert pickle.loads(pickle.dumps(event)) == event  # noqa: S301  our own
    assert repr(Event("add", "x", "7")) == "Event(event='add', data='x', id='7')"
    with pytest.raises(AttributeError):
        event.data = "else"  # type: ignore[misc]
    with pytest.raises(json.JSONDecodeError):
        Event("message", "[DONE]").json()


async def test_documents_and_what_is_none() -> None:
    body = b'{"a": 1}\n\n  \n[2]\nno json\n"last"'
    with HttpServer(answering(body)) as server:
        async with AsyncClient(server.url) as client, client.stream("GET", "/") as s:
            documents = s.ndjson()
            assert [await anext(documents), await anext(documents)] == [{"a": 1}, [2]]
            with pytest.raises(json.JSONDecodeError):
                await anext(documents)
            assert [each async for each in documents] == ["last"]
        with Client(server.url) as blocking, blocking.stream("GET", "/") as t:
            batches = t.ndjson().batches()
            assert next(batches) == [{"a": 1}, [2]]
            with pytest.raises(json.JSONDecodeError):
                next(batches)
            assert list(batches) == [["last"]]


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        ("text/event-stream; charset=utf-8", b"data: 1\n\ndata: 2\n\n", ["1", "2"]),
        ("application/x-ndjson", b"1\n\n2\n", [1, 2]),
        ("text/plain", b"1\n2\n", [b"1\n2\n"]),
    ],
)
async def test_batches_are_of_what_the_content_type_says(kind: str, body: bytes, expected: list[Any]) -> None:
    with HttpServer(answering(body, content_type=kind)) as server:
        async with AsyncClient(server.url) as client, client.stream("GET", "/") as s:
            got = [item async for batch in s.batches() for item in batch]
            assert [taken("sse" if "event" in kind else "", each) for each in got] == expected
        with Client(server.url) as blocking, blocking.stream("GET", "/") as t:
            again = [item for batch in t.batches() for item in batch]
            assert [taken("sse" if "event" in kind else "", each) for each in again] == expected


async def test_a_batch_is_all_that_has_come() -> None:
    told = Told(None, "plain")
    with HttpServer(told) as server:
        async with AsyncClient(server.url) as client, client.stream("GET", "/") as s:
            batches = s.sse().batches()
            told.pieces.put(b"data: 0\n\n")
            assert [each.data for each in await asyncio.wait_for(anext(batches), PATIENCE)] == ["0"]
            for number in range(1, 6):
                told.pieces.put(b"data: %d\n\n" % number)
            await soon(lambda: s.stats().events == 6)
            # One that was taken by itself is not given again.
            assert (await anext(s.sse())).data == "1"
            assert [each.data for each in await anext(batches)] == ["2", "3", "4", "5"]
            told.pieces.put(None)
            assert [each async for each in batches] == []


async def test_cancelling_whoever_waits_for_an_event_loses_none() -> None:
    told = Told(None, "plain")
    with HttpServer(told) as server:
        async with AsyncClient(server.url) as client, client.stream("GET", "/") as s:
            got = []
            for number in range(4):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(s.sse()), 0.05)
                told.pieces.put(b"data: %d\n\n" % number)
                got.append((await asyncio.wait_for(anext(s.sse()), PATIENCE)).data)
            assert got == ["0", "1", "2", "3"]


@pytest.mark.parametrize("form", ["sse", "lines", "ndjson"])
async def test_many_items_come_whole_and_in_order(form: str) -> None:
    count = 20_000
    line = {"sse": b"data: %d\n\n", "lines": b"%d\n", "ndjson": b"%d\n"}[form]
    body = b"".join(line % number for number in range(count))
    with HttpServer(answering(body)) as server:
        async with AsyncClient(server.url, stream_window=10_000) as client, client.stream("GET", "/") as s:
            await asyncio.sleep(0.2)
            got = [int(taken(form, each)) async for each in getattr(s, form)()]
            assert got == list(range(count))
            stats = s.stats()
            assert (stats.events, stats.bytes) == (count, len(body))
            assert stats.stalls > 0


async def test_chunks_are_as_long_as_is_said_at_most() -> None:
    body = bytes(range(256)) * 1000
    with HttpServer(answering(body)) as server:
        async with AsyncClient(server.url) as client, client.stream("GET", "/") as s:
            pieces = [piece async for piece in s.chunks(max=1000)]
    assert b"".join(pieces) == body
    assert max(map(len, pieces)) == 1000


async def test_figures_of_a_stream() -> None:
    told = Told(None, "plain")
    with HttpServer(told) as server:
        async with AsyncClient(server.url) as client, client.stream("GET", "/") as s:
            assert s.stats() == StreamStats()
            events = s.sse()
            await asyncio.sleep(0.2)
            for number in range(5):
                told.pieces.put(b": c\n\ndata: %d\n\n" % number)
                await asyncio.wait_for(anext(events), PATIENCE)
                await asyncio.sleep(0.05)
            stats = s.stats()
            assert (stats.events, stats.comments, stats.stalls) == (5, 5, 0)
            assert stats.time_to_first is not None
            assert stats.time_to_first >= 0.2
            assert stats.gap_p50 is not None
            assert stats.gap_p99 is not None
            assert 0.04 < stats.gap_p50 <= stats.gap_p99
            assert "time to first" in stats._repr_html_()


async def test_many_streams_of_events_at_once() -> None:
    def behave(peer: Peer) -> None:
        for request in peer:
            peer.answer(headers=CHUNKED, length=False)
            for number in range(20):
                peer.chunk(f"data: {request.target}:{number}\n\n".encode())
            peer.chunk(b"")

    with HttpServer(behave) as server:
        async with AsyncClient(server.url, pool=Pool(max_size=20)) as client:

            async def one(number: int) -> list[str]:
                async with client.stream("GET", f"/{number}") as s:
                    return [each.data async for each in s.sse()]

            got = await asyncio.wait_for(asyncio.gather(*map(one, range(100))), PATIENCE * 2)
            assert got == [[f"/{n}:{k}" for k in range(20)] for n in range(100)]
            assert client.stats().streams == 100


def test_threads_read_streams_of_one_client() -> None:
    def behave(peer: Peer) -> None:
        for request in peer:
            peer.answer(headers=CHUNKED, length=False)
            for number in range(50):
                peer.chunk(f"data: {request.target}:{number}\n\n".encode())
            peer.chunk(b"")

    def lines(client: Client, name: str) -> Iterator[str]:
        with client.stream("GET", name) as s:
            yield from (each.data for each in s.sse())

    with HttpServer(behave) as server, Client(server.url) as client:
        got: dict[str, list[str]] = {}
        threads = [
            threading.Thread(target=lambda name=f"/{n}": got.update({name: list(lines(client, name))}))
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert got == {f"/{n}": [f"/{n}:{k}" for k in range(50)] for n in range(8)}
