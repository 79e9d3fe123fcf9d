"""The clients of the tables behind one face: a stream is read to its end, and what came is counted.

Imported by the process that is measured, in the environment of the client: nothing but the standard library and that
client may be imported here, and the client only when it is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

MARK = b'"content":"'
LONG = 120.0
PATH = "/v1/chat/completions"


class Client(Protocol):
    """What is measured."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    def tokens(self, body: dict[str, Any]) -> AsyncIterator[int]:
        """One stream: how many tokens each piece is, as they come."""


class _Entered:
    _client: Any

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.__aexit__(*error)


class Penstock(_Entered):
    """Every event, one at a time. Everything but the number of connections at its default."""

    package = "penstock"

    def __init__(self, base: str, streams: int) -> None:
        import penstock

        pool = penstock.Pool(min_size=0, max_size=streams, acquire_timeout=LONG)
        self._client = penstock.AsyncClient(base, pool=pool)

    async def tokens(self, body: dict[str, Any]) -> AsyncIterator[int]:
        async with self._client.stream("POST", PATH, json=body) as stream:
            async for event in stream.sse():
                yield '"content":"' in event.data


class PenstockJson(Penstock):
    """The same, and every event parsed."""

    async def tokens(self, body: dict[str, Any]) -> AsyncIterator[int]:
        async with self._client.stream("POST", PATH, json=body) as stream:
            async for event in stream.sse():
                if event.data == "[DONE]":
                    break
                yield "content" in event.json()["choices"][0]["delta"]


class PenstockBatches(Penstock):
    """All events that are there."""

    async def tokens(self, body: dict[str, Any]) -> AsyncIterator[int]:
        async with self._client.stream("POST", PATH, json=body) as stream:
            async for events in stream.sse().batches():
                yield sum('"content":"' in event.data for event in events)


class PenstockChunks(Penstock):
    """Bytes as they come."""

    async def tokens(self, body: dict[str, Any]) -> AsyncIterator[int]:
        async with self._client.stream("POST", PATH, json=body) as stream:
            async for chunk in stream.chunks():
                yield chunk.count(MARK)


class OpenAI(_Entered):
    """The openai package, with room for all connections and no time-outs."""

    package = "openai"

    def __init__(self, base: str, streams: int) -> None:
        import httpx2
        import openai

        limits = httpx2.Limits(max_connections=streams, max_keepalive_connections=streams)
        http = httpx2.AsyncClient(limits=limits, timeout=None, trust_env=False)
        self._client = openai.AsyncOpenAI(base_url=f"{base}/v1", api_key="none", http_client=http, max_retries=0)

    async def tokens(self, body: dict[str, Any]) -> AsyncIterator[int]:
        async for chunk in await self._client.chat.completions.create(**body):
            yield chunk.choices[0].delta.content is not None


class Aiohttp(_Entered):
    """Raw chunks as they come, nothing decoded. No cookies, no time-outs."""

    package = "aiohttp"

    def __init__(self, base: str, streams: int) -> None:
        import aiohttp

        connector = aiohttp.TCPConnector(limit=streams, limit_per_host=streams)
        timeout = aiohttp.ClientTimeout(total=None)
        self._client = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=timeout)
        self._url = base + PATH

    async def tokens(self, body: dict[str, Any]) -> AsyncIterator[int]:
        async with self._client.post(self._url, json=body) as answer:
            async for chunk in answer.content.iter_any():
                yield chunk.count(MARK)


class Httpx(_Entered):
    """Raw chunks as they come, nothing decoded. No time-outs."""

    package = "httpx"

    def __init__(self, base: str, streams: int) -> None:
        library = self._library()
        limits = library.Limits(max_connections=streams, max_keepalive_connections=streams)
        self._client = library.AsyncClient(limits=limits, timeout=None, trust_env=False)
        self._url = base + PATH

    @staticmethod
    def _library() -> Any:
        import httpx

        return httpx

    async def tokens(self, body: dict[str, Any]) -> AsyncIterator[int]:
        async with self._client.stream("POST", self._url, json=body) as answer:
            async for chunk in answer.aiter_raw():
                yield chunk.count(MARK)


class Httpx2(Httpx):
    """As httpx."""

    package = "httpx2"

    @staticmethod
    def _library() -> Any:
        import httpx2

        return httpx2


CLIENTS: dict[str, Callable[[str, int], Any]] = {
    "penstock, events": Penstock,
    "penstock, events and JSON": PenstockJson,
    "penstock, batches of events": PenstockBatches,
    "penstock, chunks": PenstockChunks,
    "openai": OpenAI,
    "aiohttp, chunks": Aiohttp,
    "httpx, chunks": Httpx,
    "httpx2, chunks": Httpx2,
}
