"""Clients with pools of connections, for HTTP and gRPC: `AsyncClient`, and `Client`, its blocking twin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock._async_inference import AsyncInference
from penstock._blocking_inference import BlockingInference
from penstock._display import progress_bar
from penstock._event_source import AsyncEventSource, EventSource, check_attempts, headers_of
from penstock._infer_stream import AsyncInferStream, InferStream
from penstock._inference import InferResult
from penstock._many import POLL_SECONDS, Many, collected_one, watch
from penstock._native import Event
from penstock._request import BY_BYTES, RequestOptions, with_bits
from penstock._response import Response
from penstock._stream import AsyncStream, Stream, StreamStats, caller
from penstock._uploads import made

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Mapping
    from typing import Unpack

    from penstock import _native
    from penstock._many import OneOfMany
    from penstock._request import Prepared
    from penstock._stream import Opened

__all__ = [
    "AsyncClient",
    "AsyncEventSource",
    "AsyncInferStream",
    "AsyncStream",
    "Client",
    "Event",
    "EventSource",
    "InferResult",
    "InferStream",
    "RequestOptions",
    "Response",
    "Stream",
    "StreamStats",
]


class AsyncClient(AsyncInference):
    """A client of HTTP and gRPC for asyncio, shaped as that of httpx, with a pool of connections to each endpoint.

    One client serves several event loops and threads. Without the context manager, `aclose` or `close` ends it. Where a
    process forks, the child's requests go over connections of its own. Cancelling whoever waits for an answer takes the
    request out of the queue, or tells the server: its connection is closed, or its HTTP/2 stream reset.

    Args:
        base_url: where relative URLs lead: one URL or several, over which the requests are spread. `http`, `https`,
            `unix:///path/to.sock`; and `grpc`, `grpcs` (over TLS), `grpc+unix:///path/to.sock`, which `infer` and what
            belongs to it can use as well, also mixed with those of HTTP. A path in it begins the path of every relative
            URL.
        params: added to the query of every request.
        headers: sent with every request that does not name them.
        auth: user and password, for every request.
        api_key: a key, sent as `Authorization: Bearer KEY` with every request, as metadata over gRPC.
        timeout: a `penstock.Timeout`; a number of seconds for a whole call; or `None` for no limit.
        pool: how many connections, and for how long; `False` for none that is kept: every request opens a connection,
            has it for itself, and closes it.
        balance: which endpoint gets a request: `"round_robin"`; `"least_outstanding"`; `"p2c"`, the one with less to do
            of two at random; `"p2c_first_byte"`, the one that will answer earlier of two at random.
        retry: when a request is sent again.
        eject: when an endpoint is left out for a while.
        follow_redirects: go where a redirect leads. To another origin, no `Authorization` and no `Cookie` is sent.
        max_redirects: redirects of one call at most.
        verify: check certificates: with the system's authorities, with those in a PEM file (its path or its bytes), or
            not at all (`False`).
        cert: a client certificate: the path of a PEM file, or of two: certificate and key.
        proxy: the URL of an HTTP proxy.
        trust_env: without `proxy`, use that of `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`.
        http2: use HTTP/2 where a server offers it over TLS; `"always"` speaks it without TLS, too.
        max_response: bytes of an answer at most that is read whole, packed and unpacked.
        stream_window: bytes of one stream at most that have come and that nobody has taken; then its server has to
            wait.
        stream_memory: bytes of all streams of the client at most that nobody has taken; each may have something.

    Raises:
        ConfigError: for a setting that cannot be.

    Requests raise `ConfigError` for what cannot be sent, `Closed` after closing, `DeadlineExceeded` (`AcquireTimeout`,
    `ConnectTimeout`, `FirstChunkTimeout`, `IdleTimeout`) where the time is up, `TransportError` (`ConnectFailed`,
    `ReadFailed`, `WriteFailed`, `ProtocolError`) where a connection fails. A status of 400 and more is an answer, too:
    `Response.raise_for_status` makes it a `RemoteError`.

    Example:
        >>> import asyncio, numpy as np, penstock
        >>> @penstock.model("double", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
        ... def double(x):
        ...     return x * 2
        >>> async def main(url):
        ...     async with penstock.AsyncClient(url) as client:
        ...         ready = await client.get("/v2/health/ready")
        ...         result = await client.infer("double", {"x": np.ones((1, 2), np.float32)})
        ...         return ready, result["y"]
        >>> with penstock.Server(double, port=0) as server:
        ...     asyncio.run(main(server.url))
        (<Response [200 OK]>, array([[2., 2.]], dtype=float32))
    """

    async def get(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """Sends a GET request; options as of `request`."""
        return await self._call("GET", url, options)

    async def head(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """Sends a HEAD request; options as of `request`."""
        return await self._call("HEAD", url, options)

    async def options(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """Sends an OPTIONS request; options as of `request`."""
        return await self._call("OPTIONS", url, options)

    async def post(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """Sends a POST request; options as of `request`."""
        return await self._call("POST", url, options)

    async def put(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """Sends a PUT request; options as of `request`."""
        return await self._call("PUT", url, options)

    async def patch(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """Sends a PATCH request; options as of `request`."""
        return await self._call("PATCH", url, options)

    async def delete(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """Sends a DELETE request; options as of `request`."""
        return await self._call("DELETE", url, options)

    async def request(self, method: str, url: str, **options: Unpack[RequestOptions]) -> Response:
        """Sends a request and waits for its whole answer.

        Args:
            method: GET, POST, ...
            url: a whole URL, or what follows the base URL.
            **options: `params`, `headers`, `content`, `json`, `data`, `files`, `cookies`, `auth`, `timeout`,
                `follow_redirects`, `retry`, as `RequestOptions` says.
        """
        return await self._call(method, url, options)

    async def request_many(
        self, requests: Iterable[OneOfMany], *, progress: bool = False, return_exceptions: bool = False
    ) -> list[Any]:
        """Sends many requests at once and waits for all answers, in the order of the requests.

        All of them are handed over together, which costs less than one by one. Whoever cancels this cancels all.

        Args:
            requests: each a URL (GET), a pair of method and URL, or a dictionary of the arguments of `request`.
            progress: show a bar (needs `pip install penstock[notebook]`).
            return_exceptions: put exceptions in the places of answers. Without it, the first is raised, and what is not
                answered is cancelled.

        Raises:
            ConfigError: for a request that cannot be sent; then none is.
        """
        several = list(requests)
        several = [await collected_one(request) for request in several]
        prepared, options = self._several(several)
        sending = Many(self, prepared, options)
        with progress_bar((prepared,), shown=progress) as bar:
            while sending.has_more:
                many = sending.submit(stop_on_error=not return_exceptions)
                try:
                    future = many.future()
                    if progress:
                        await watch(many, future, bar if sending.is_first else None)
                    answers = await future
                except BaseException:
                    many.cancel()
                    raise
                sending.take(answers, many.failed, raising=not return_exceptions)
        return sending.results

    def stream(self, method: str, url: str, **options: Unpack[RequestOptions]) -> AsyncStream:
        """A request whose answer is read while it arrives, to be used as `async with`; options as of `request`.

        The block is entered when the head of the answer is there. A `timeout` in seconds is for all of the stream.

        Example:
            ```
            async with client.stream("POST", "/v1/chat/completions", json={..., "stream": True}) as answer:
                async for event in answer.raise_for_status().sse():
                    if event.data == "[DONE]":
                        break
                    print(event.json()["choices"][0]["delta"].get("content", ""), end="")
            ```
        """
        place = caller()
        return AsyncStream(lambda: self._open_stream(method, url, options, place))

    def events(
        self,
        url: str,
        *,
        last_event_id: str = "",
        reconnect_after: float = 3.0,
        attempts: int | None = 10,
        method: str = "GET",
        **options: Unpack[RequestOptions],
    ) -> AsyncEventSource:
        """Server-sent events that go on over lost connections, to be used as `async for` or `async with`.

        Args:
            url: as of `request`.
            last_event_id: what to begin after, from an earlier source.
            reconnect_after: seconds between a lost connection and the next, until the server says another time by
                `retry:`. Longer, up to a minute, where connections bring nothing.
            attempts: connections in a row that bring no event, after which the last failure is raised; `None` for no
                end.
            method: of the requests.
            **options: as of `request`. Redirects are followed. By default a connection may last, and be silent, for
                as long as it likes; a `timeout` is for each, and there any byte is a sign of life, comments too.

        Example:
            ```
            async for event in client.events("/events"):
                print(event.event, event.data)
            ```
        """
        check_attempts(reconnect_after, attempts)
        place = caller()
        asked = self._asked_for_events(options)

        def open_stream(last: str) -> AsyncStream:
            again = {**asked, "headers": headers_of(options.get("headers"), last)}
            return AsyncStream(lambda: self._open_stream(method, url, again, place, BY_BYTES))

        return AsyncEventSource(open_stream, last_event_id, reconnect_after, attempts)

    async def _open_stream(
        self, method: str, url: str, options: Mapping[str, Any], place: str, bits: int = 0
    ) -> Opened:
        prepared = with_bits(self._builder.prepare(method, url, options), bits)
        stream, making = await self._open_one(prepared, place)
        if not self._is_to_follow(stream.response.status, options):
            return stream, (), making
        journey = self._journey(prepared)
        while (following := journey.after(Response(stream.response))) is not None:
            stream.close()
            if making is not None:
                making.cancel()
            stream, making = await self._open_one(following, place)
        return stream, journey.history, making

    async def _open_one(self, prepared: Prepared, place: str) -> tuple[_native.NativeStream, asyncio.Task[None] | None]:
        """A stream, and who makes the body of its request, where that goes on while the answer is read."""
        future = self._native.stream(*prepared, place)
        if prepared[3] is not None and not isinstance(prepared[3], bytes):
            stream, making = await self._while_making(prepared[3], future)
            making.add_done_callback(lambda making: made(making, stream))
            return stream, making
        try:
            return await future, None
        except BaseException:
            self._native.cancel(future)
            raise


class Client(BlockingInference):
    """As `AsyncClient`, blocking. Waiting gives the interpreter's lock back, and Ctrl-C ends it.

    Any number of threads may use one client at once.
    """

    def get(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """Sends a GET request; options as of `request`."""
        return self._call("GET", url, options)

    def head(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """Sends a HEAD request; options as of `request`."""
        return self._call("HEAD", url, options)

    def options(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """Sends an OPTIONS request; options as of `request`."""
        return self._call("OPTIONS", url, options)

    def post(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """Sends a POST request; options as of `request`."""
        return self._call("POST", url, options)

    def put(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """Sends a PUT request; options as of `request`."""
        return self._call("PUT", url, options)

    def patch(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """Sends a PATCH request; options as of `request`."""
        return self._call("PATCH", url, options)

    def delete(self, url: str, **options: Unpack[RequestOptions]) -> Response:
        """Sends a DELETE request; options as of `request`."""
        return self._call("DELETE", url, options)

    def request(self, method: str, url: str, **options: Unpack[RequestOptions]) -> Response:
        """As `AsyncClient.request`, blocking."""
        return self._call(method, url, options)

    def request_many(
        self, requests: Iterable[OneOfMany], *, progress: bool = False, return_exceptions: bool = False
    ) -> list[Any]:
        """As `AsyncClient.request_many`, blocking."""
        prepared, options = self._several(requests)
        sending = Many(self, prepared, options)
        with progress_bar((prepared,), shown=progress) as bar:
            while sending.has_more:
                many = sending.submit(stop_on_error=not return_exceptions)
                shown = 0
                try:
                    while (answers := many.wait(POLL_SECONDS)) is None:
                        if sending.is_first:
                            bar.update(many.done - shown)
                            shown = many.done
                except BaseException:
                    many.cancel()
                    raise
                if sending.is_first:
                    bar.update(many.done - shown)
                sending.take(answers, many.failed, raising=not return_exceptions)
        return sending.results

    def stream(self, method: str, url: str, **options: Unpack[RequestOptions]) -> Stream:
        """As `AsyncClient.stream`, blocking, to be used as `with`."""
        place = caller()
        return Stream(lambda: self._open_stream(method, url, options, place))

    def events(
        self,
        url: str,
        *,
        last_event_id: str = "",
        reconnect_after: float = 3.0,
        attempts: int | None = 10,
        method: str = "GET",
        **options: Unpack[RequestOptions],
    ) -> EventSource:
        """As `AsyncClient.events`, blocking, to be used as `for` or `with`."""
        check_attempts(reconnect_after, attempts)
        place = caller()
        asked = self._asked_for_events(options)

        def open_stream(last: str) -> Stream:
            again = {**asked, "headers": headers_of(options.get("headers"), last)}
            return Stream(lambda: self._open_stream(method, url, again, place, BY_BYTES))

        return EventSource(open_stream, last_event_id, reconnect_after, attempts)

    def _open_stream(self, method: str, url: str, options: Mapping[str, Any], place: str, bits: int = 0) -> Opened:
        prepared = with_bits(self._builder.prepare(method, url, options), bits)
        stream = self._open_one(prepared, place)
        if not self._is_to_follow(stream.response.status, options):
            return stream, (), None
        journey = self._journey(prepared)
        while (following := journey.after(Response(stream.response))) is not None:
            stream.close()
            stream = self._open_one(following, place)
        return stream, journey.history, None

    def _open_one(self, prepared: Prepared, place: str) -> _native.NativeStream:
        if prepared[3] is not None and not isinstance(prepared[3], bytes):
            stream: _native.NativeStream = self._with_pieces(prepared[3], self._native.begin(*prepared, place))
            return stream
        return self._native.stream_blocking(*prepared, place)
