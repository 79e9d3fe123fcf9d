"""A server on this machine that does what a test tells it to: it answers, and fails, stalls, delays and breaks off."""

from __future__ import annotations

import asyncio
import json as json_format
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakSet

from penstock._headers import Headers
from penstock._policy import check_count, check_seconds
from penstock._test_client import TestClient
from penstock.errors import Closed, ConfigError
from penstock.models import model
from penstock.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray

    from penstock._generate import GenerateRequest
    from penstock._test_client import TestResponse

Fault = Literal["fail", "delay", "drop", "stall"]

_HEAD_BYTES = 64 << 10
_BODY_BYTES = 64 << 20
_LEAST_STATUS, _MOST_STATUS = 100, 599
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 429: "Too Many Requests", 500: "Internal Server Error"}
_CLOSE_SECONDS = 10.0
_ROUNDS = 3


@dataclass(frozen=True)
class FakeRequest:
    """A request that a `FakeUpstream` got.

    Attributes:
        method: GET, POST, ...
        path: with its query.
        headers: by names in any case.
        content: the body.
        connection: the number of the connection that it came by, from 1.
    """

    method: str
    path: str
    headers: Headers
    content: bytes = field(repr=False)
    connection: int

    def json(self) -> Any:
        """The body, parsed as JSON.

        Raises:
            json.JSONDecodeError: where it is none.
        """
        return json_format.loads(self.content)


@dataclass
class _Rule:
    """What is to become of requests."""

    kind: Fault
    left: float
    path: str | None = None
    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    seconds: float = 0.0
    after: int = 0

    def fits(self, request: FakeRequest) -> bool:
        return request.method == "POST" if self.path is None else self.path in request.path


class FakeUpstream:
    """A server on loopback that speaks the Open Inference Protocol and OpenAI's API over HTTP, and can be told to fail.

    What it answers is true: its models are served by Penstock itself, its own by default: `"echo"` gives the rows of
    `x` (float32, of any length) back as `y`, `"say"` is a text model that says its prompt again, word by word. What it
    is told to do wrong it does to the next requests that are posted, or to those whose path holds `path`; the rules
    are looked at in the order in which they were told.

    It listens from its making on. As a context manager it closes on leaving. All methods may be called by any thread.

    Args:
        models: the models that it serves, in place of its own.
        port: the port; 0 takes any that is free.

    Attributes:
        requests: the requests that have come, in their order, `FakeRequest`s; health checks are among them.

    Example:
        >>> import numpy as np, penstock
        >>> from penstock.testing import FakeUpstream
        >>> with FakeUpstream() as upstream, penstock.Client(upstream.url) as client:
        ...     upstream.fail(503, headers={"retry-after": "1"})
        ...     first = client.post("/v2/models/echo/infer", json={"inputs": []}).status_code
        ...     y = client.infer("echo", {"x": np.ones((1, 2), np.float32)})["y"]
        >>> first, y
        (503, array([[1., 1.]], dtype=float32))
        >>> [request.method for request in upstream.requests]
        ['POST', 'GET', 'POST']
    """

    def __init__(self, models: Iterable[Any] | Callable[..., Any] | None = None, *, port: int = 0) -> None:
        self.requests: list[FakeRequest] = []
        self._rules: deque[_Rule] = deque()
        self._lock = threading.Lock()
        self._ready = True
        self._healed = asyncio.Event()
        self._connections = 0
        self._open: WeakSet[asyncio.WriteTransport] = WeakSet()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = Server(_own_models() if models is None else models, batch=True, stream=True, load=True)
        self._models = TestClient(self._server)
        self._models.__enter__()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="penstock-fake-upstream", daemon=True)
        self._thread.start()
        try:
            self._listener = asyncio.run_coroutine_threadsafe(self._listen(port), self._loop).result(_CLOSE_SECONDS)
        except BaseException:
            self.close()
            raise
        self._address: tuple[str, int] = self._listener.sockets[0].getsockname()[:2]

    @property
    def url(self) -> str:
        """Where it listens, as `http://host:port`."""
        host, port = self._address
        return f"http://{host}:{port}"

    @property
    def connections(self) -> int:
        """Connections that were opened to it so far."""
        return self._connections

    @property
    def ready(self) -> bool:
        """Whether it says that it is ready, and its models; to be set."""
        return self._ready

    @ready.setter
    def ready(self, ready: bool) -> None:
        self._ready = bool(ready)

    def add(self, model: object) -> None:
        """Serves one more model.

        Raises:
            ConfigError: for what is no model, and for a name that is taken.
        """
        self._server.add(model)

    def fail(
        self,
        status: int = 503,
        times: int | None = 1,
        *,
        headers: dict[str, str] | None = None,
        body: bytes | str | None = None,
        path: str | None = None,
    ) -> None:
        """Answers with that status.

        Args:
            status: an HTTP status.
            times: requests that get it; `None` for all until `heal`.
            headers: headers of the answer, such as `{"retry-after": "1"}`.
            body: its body; an error in the words of the protocol by default.
            path: only requests whose path holds this, whatever their method.

        Raises:
            ConfigError: for what is no status, and no number of times.
        """
        if isinstance(status, bool) or not isinstance(status, int) or not _LEAST_STATUS < status <= _MOST_STATUS:
            raise ConfigError(f"status must be a status of HTTP, not {status!r}")
        said = json_format.dumps({"error": f"told to fail with {status}"}) if body is None else body
        content = said.encode() if isinstance(said, str) else said
        pairs = tuple((headers or {}).items())
        self._tell(_Rule("fail", _count(times), path, status=status, headers=pairs, body=content))

    def delay(self, seconds: float, times: int | None = None, *, path: str | None = None) -> None:
        """Answers later, by so many seconds.

        Raises:
            ConfigError: for what is no time, and no number of times.
        """
        check_seconds("seconds", seconds)
        self._tell(_Rule("delay", _count(times), path, seconds=seconds))

    def drop(self, times: int | None = 1, *, after: int = 0, path: str | None = None) -> None:
        """Closes the connection in place of an answer.

        Args:
            times: requests that it happens to; `None` for all until `heal`.
            after: events of a streamed answer that are sent first. Of any other answer the head and one byte less than
                all are, where this is not 0.
            path: as of `fail`.

        Raises:
            ConfigError: for what is no number.
        """
        check_count("after", after)
        self._tell(_Rule("drop", _count(times), path, after=after))

    def stall(self, times: int | None = 1, *, after: int = 0, path: str | None = None) -> None:
        """Takes the request and says nothing more, until `heal` or the end; arguments as of `drop`.

        Raises:
            ConfigError: for what is no number.
        """
        check_count("after", after)
        self._tell(_Rule("stall", _count(times), path, after=after))

    def heal(self) -> None:
        """Forgets what it was told; who is stalled gets the rest of his answer."""
        with self._lock:
            self._rules.clear()
            healed, self._healed = self._healed, asyncio.Event()
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(healed.set)

    def break_connections(self) -> None:
        """Closes every connection that is open, whatever goes on there."""
        self._loop.call_soon_threadsafe(self._abort)

    def close(self) -> None:
        """Stops listening and breaks every connection. Safe to call twice."""
        with self._lock:
            self._rules.clear()
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end)
            self._thread.join(_CLOSE_SECONDS)
            self._models.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._loop.is_closed() else self.url
        return f"<penstock.testing.FakeUpstream {', '.join(self._server.names)} {state}>"

    def _tell(self, rule: _Rule) -> None:
        if self._loop.is_closed():
            raise Closed("this upstream was closed: make another one")
        with self._lock:
            self._rules.append(rule)

    def _rule_for(self, request: FakeRequest) -> tuple[_Rule | None, asyncio.Event]:
        with self._lock:
            for rule in self._rules:
                if rule.fits(request):
                    rule.left -= 1
                    if rule.left <= 0:
                        self._rules.remove(rule)
                    return rule, self._healed
            return None, self._healed

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            # More than once: connections may still come up while it ends.
            for _ in range(_ROUNDS):
                self._loop.run_until_complete(_cancel_all(self._loop))
                self._abort()
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.close()

    async def _listen(self, port: int) -> asyncio.Server:
        return await asyncio.start_server(self._connected, "127.0.0.1", port, limit=_HEAD_BYTES)

    def _abort(self) -> None:
        for transport in list(self._open):
            transport.abort()

    def _end(self) -> None:
        if (listener := getattr(self, "_listener", None)) is not None:
            listener.close()
        self._abort()
        self._loop.stop()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Noted here, not in the task: one that is cancelled before it began would close nothing.
        self._connections += 1
        self._open.add(writer.transport)
        task = self._loop.create_task(self._converse(reader, writer, self._connections))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        try:
            while (request := await _read(reader, writer, number)) is not None:
                self.requests.append(request)
                if not await self._answer(request, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass
        except asyncio.CancelledError:
            # The end: nobody waits for this task, and asyncio would complain of it.
            pass
        finally:
            writer.close()

    async def _answer(self, request: FakeRequest, writer: asyncio.StreamWriter) -> bool:
        """Answers as it was told; false where the connection is to be closed."""
        rule, healed = self._rule_for(request)
        kind = None if rule is None else rule.kind
        if rule is not None and rule.kind == "delay":
            await asyncio.sleep(rule.seconds)
        if rule is not None and rule.kind == "fail":
            pairs = [("content-type", "application/json"), *rule.headers]
            await _send(writer, rule.status, pairs, [rule.body])
            return True
        if rule is not None and rule.after == 0 and kind in {"drop", "stall"}:
            if kind == "drop":
                return False
            await healed.wait()
        if not self._ready and request.path.split("?")[0].endswith("/ready"):
            await _send(writer, 503, [("content-type", "application/json")], [b"{}"])
            return True
        answer = await self._loop.run_in_executor(None, self._ask, request)
        pairs = [(name, value) for name, value in answer.headers.multi_items() if name != "content-length"]
        pieces = list(_pieces(answer))
        if rule is None or rule.after == 0 or kind not in {"drop", "stall"}:
            await _send(writer, answer.status_code, pairs, pieces)
            return True
        length = sum(map(len, pieces))
        await _head(writer, answer.status_code, [*pairs, ("content-length", str(length))])
        before = pieces[: rule.after] if len(pieces) > 1 else [pieces[0][:-1]]
        for piece in before:
            writer.write(piece)
            await writer.drain()
        if kind == "drop":
            writer.write_eof()
            return False
        await healed.wait()
        writer.write(b"".join(pieces)[sum(map(len, before)) :])
        await writer.drain()
        return True

    def _ask(self, request: FakeRequest) -> TestResponse:
        hop = {"host", "connection", "content-length", "transfer-encoding", "expect", "accept-encoding"}
        headers = {name: value for name, value in request.headers.multi_items() if name.lower() not in hop}
        return self._models.request(request.method, request.path, content=request.content, headers=headers)


def _own_models() -> list[Any]:
    @model("echo", inputs={"x": ("float32", [-1])}, outputs={"y": ("float32", [-1])})
    def echo(x: NDArray[Any]) -> NDArray[Any]:
        return x

    @model("say", task="generate")
    def say(request: GenerateRequest) -> Iterator[str]:
        words = request.text.split(" ")
        yield from (word + " " * (at + 1 < len(words)) for at, word in enumerate(words))

    return [echo, say]


def _count(times: int | None) -> float:
    if times is None:
        return float("inf")
    check_count("times", times)
    if times < 1:
        raise ConfigError(f"times must be at least 1, not {times}")
    return times


def _pieces(answer: TestResponse) -> list[bytes]:
    """The body as it is sent: event by event, where it is a stream of these."""
    if not answer.headers.get("content-type", "").startswith("text/event-stream"):
        return [answer.content]
    return [event + b"\n\n" for event in answer.content.split(b"\n\n") if event]


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> FakeRequest | None:
    """The next request of a connection; `None` where none comes any more."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ", 2)
    pairs = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    headers = Headers([(name, value.encode("latin-1")) for name, value in pairs])
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if headers.get("transfer-encoding", "").lower() == "chunked":
        content = await _chunked(reader)
    else:
        content = await reader.readexactly(min(int(headers.get("content-length", "0")), _BODY_BYTES))
    return FakeRequest(method, path, headers, content, number)


async def _chunked(reader: asyncio.StreamReader) -> bytes:
    content = bytearray()
    while True:
        size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
        if size == 0 or len(content) + size > _BODY_BYTES:
            await reader.readuntil(b"\r\n")
            return bytes(content)
        content += await reader.readexactly(size)
        await reader.readexactly(2)


async def _send(writer: asyncio.StreamWriter, status: int, headers: list[tuple[str, str]], pieces: list[bytes]) -> None:
    await _head(writer, status, [*headers, ("content-length", str(sum(map(len, pieces))))])
    for piece in pieces:
        writer.write(piece)
        await writer.drain()


async def _head(writer: asyncio.StreamWriter, status: int, headers: list[tuple[str, str]]) -> None:
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers)
    writer.write(f"HTTP/1.1 {status} {_REASONS.get(status, 'Told So')}\r\n{fields}\r\n".encode("latin-1"))
    await writer.drain()


async def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    tasks = [task for task in asyncio.all_tasks(loop) if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
