"""The clients of the tables behind one face, each with its best settings.

Imported by the process that is measured, in the environment of the client: nothing but the standard library and that
client may be imported here, and the client only when it is made.
"""

from __future__ import annotations

import asyncio
import ssl
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Callable

BODY = (
    b'{"id":"7f1c9a52-5b7e-4f0c-9a55-0f3a2c1d9e4b","inputs":[{"name":"x","datatype":"FP32","shape":[1,24],"data":['
    b"0.4127,0.0931,0.7755,0.2018,0.6342,0.9180,0.1176,0.5521,0.3395,0.8804,0.0467,0.7113,"
    b"0.2689,0.4950,0.6038,0.1542,0.3306,0.9027,0.5813,0.2294,0.7460,0.0185,0.6671,0.4439]}]}"
)
JSON_TYPE = {"content-type": "application/json"}
LONG = 120.0
"""Seconds: in a long queue a request may wait for its turn for a while, and that is no error."""


class WrongAnswer(RuntimeError):
    """An answer that is not what the server sends."""


@dataclass(frozen=True)
class Setup:
    """How a client is made.

    Attributes:
        base: `http://127.0.0.1:1234`.
        path: what is asked.
        connections: the most that it may open.
        keeps: whether a connection is used again.
        authority: the certificate to trust, for https.
        answer_bytes: the length of every answer.
    """

    base: str
    path: str
    connections: int
    keeps: bool
    authority: str | None
    answer_bytes: int


class Client(Protocol):
    """What is measured."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def get(self) -> None:
        """One request whose answer is read whole and looked at."""

    async def post(self) -> None:
        """The same with a body of some 300 bytes of JSON."""

    async def many(self, count: int) -> None:
        """So many at once: in one call where the client has one, gathered where not."""


class _Gathering(ABC):
    @abstractmethod
    async def get(self) -> None: ...

    async def many(self, count: int) -> None:
        await asyncio.gather(*(self.get() for _ in range(count)))


class Penstock:
    """Time-outs, retries and the balancer at their defaults."""

    package = "penstock"
    modules = ("penstock.client",)

    def __init__(self, setup: Setup) -> None:
        import penstock

        self._setup = setup
        headers = {} if setup.keeps else {"connection": "close"}
        smallest = min(10, setup.connections)
        self._client = penstock.AsyncClient(
            setup.base,
            pool=penstock.Pool(min_size=smallest, max_size=setup.connections, acquire_timeout=LONG),
            headers=headers,
            verify=setup.authority or True,
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.__aexit__(*error)

    async def get(self) -> None:
        answer = await self._client.get(self._setup.path)
        _look(self._setup, answer.status_code, answer.content)

    async def post(self) -> None:
        answer = await self._client.post(self._setup.path, content=BODY, headers=JSON_TYPE)
        _look(self._setup, answer.status_code, answer.content)

    async def many(self, count: int) -> None:
        for answer in await self._client.request_many([("GET", self._setup.path)] * count):
            _look(self._setup, answer.status_code, answer.content)

    def stats(self) -> str:
        """What it says of itself."""
        pool = self._client.stats().total
        return f"{pool.reused:,} of {pool.acquired:,}, {pool.created:,} opened"


class Aiohttp(_Gathering):
    """No cookies, no time-outs, the URL parsed once."""

    package = "aiohttp"
    modules = ("aiohttp", "yarl")

    def __init__(self, setup: Setup) -> None:
        import aiohttp
        from yarl import URL

        self._setup = setup
        self._url = URL(setup.base + setup.path, encoded=True)
        context = ssl.create_default_context(cafile=setup.authority) if setup.authority else True
        connector = aiohttp.TCPConnector(
            limit=setup.connections, limit_per_host=setup.connections, force_close=not setup.keeps, ssl=context
        )
        self._session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=None)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def get(self) -> None:
        async with self._session.get(self._url) as answer:
            _look(self._setup, answer.status, await answer.read())

    async def post(self) -> None:
        async with self._session.post(self._url, data=BODY, headers=JSON_TYPE) as answer:
            _look(self._setup, answer.status, await answer.read())


class Httpx(_Gathering):
    """Nothing from the environment, no time-outs, the URL parsed once.

    It keeps 20 idle connections, its default: with as many kept as it may open, a request costs three times as much at
    64 at once, and thirteen times at 256.
    """

    package = "httpx"
    modules = ("httpx",)

    def __init__(self, setup: Setup) -> None:
        library = self._library()
        self._setup = setup
        self._url = library.URL(setup.base + setup.path)
        limits = library.Limits(
            max_connections=setup.connections,
            max_keepalive_connections=min(20, setup.connections) if setup.keeps else 0,
        )
        context = ssl.create_default_context(cafile=setup.authority) if setup.authority else True
        self._client = library.AsyncClient(limits=limits, timeout=None, trust_env=False, verify=context)

    @staticmethod
    def _library() -> Any:
        import httpx

        return httpx

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def get(self) -> None:
        answer = await self._client.get(self._url)
        _look(self._setup, answer.status_code, answer.content)

    async def post(self) -> None:
        answer = await self._client.post(self._url, content=BODY, headers=JSON_TYPE)
        _look(self._setup, answer.status_code, answer.content)


class Httpx2(Httpx):
    """As httpx."""

    package = "httpx2"
    modules = ("httpx2",)

    @staticmethod
    def _library() -> Any:
        import httpx2

        return httpx2


class Pyreqwest(_Gathering):
    """HTTP/1.1 only, the URL parsed once."""

    package = "pyreqwest"
    modules = ("pyreqwest.client", "pyreqwest.http")

    def __init__(self, setup: Setup) -> None:
        from datetime import timedelta
        from pathlib import Path

        from pyreqwest.client import ClientBuilder
        from pyreqwest.http import Url

        self._setup = setup
        self._url = Url(setup.base + setup.path)
        builder = ClientBuilder().http1_only().no_proxy().max_connections(setup.connections)
        builder = builder.pool_timeout(timedelta(seconds=LONG)).timeout(timedelta(seconds=LONG))
        builder = builder.pool_max_idle_per_host(setup.connections if setup.keeps else 0)
        if setup.authority:
            builder = builder.add_root_certificate_pem(Path(setup.authority).read_bytes())
        self._client = builder.build()

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.__aexit__(*error)

    async def get(self) -> None:
        answer = await self._client.get(self._url).build().send()
        _look(self._setup, answer.status, await answer.bytes())

    async def post(self) -> None:
        request = self._client.post(self._url).header("content-type", "application/json").body_bytes(BODY).build()
        answer = await request.send()
        _look(self._setup, answer.status, await answer.bytes())


class Niquests(_Gathering):
    """HTTP/1.1 only, nothing from the environment."""

    package = "niquests"
    modules = ("niquests",)

    def __init__(self, setup: Setup) -> None:
        import niquests

        self._setup = setup
        self._url = setup.base + setup.path
        self._session = niquests.AsyncSession(
            pool_connections=1, pool_maxsize=setup.connections, disable_http2=True, disable_http3=True
        )
        self._session.trust_env = False
        if setup.authority:
            self._session.verify = setup.authority

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def get(self) -> None:
        answer = await self._session.get(self._url)
        _look(self._setup, answer.status_code, answer.content)

    async def post(self) -> None:
        answer = await self._session.post(self._url, data=BODY, headers=JSON_TYPE)
        _look(self._setup, answer.status_code, answer.content)


class LoopAlone(_Gathering):
    """No client: a future for each request, resolved in order, as many a turn as there are connections.

    What the loop itself costs with so many tasks waiting.
    """

    package = None
    modules = ()

    def __init__(self, setup: Setup) -> None:
        self._connections = setup.connections
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._loop = asyncio.get_running_loop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def get(self) -> None:
        if not self._waiting:
            self._loop.call_soon(self._serve)
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(future)
        await future

    post = get

    def _serve(self) -> None:
        for _ in range(min(self._connections, len(self._waiting))):
            self._waiting.popleft().set_result(None)
        if self._waiting:
            self._loop.call_soon(self._serve)


def _look(setup: Setup, status: int, content: Any) -> None:
    if status != 200 or len(content) != setup.answer_bytes:
        raise WrongAnswer(f"status {status} and {len(content)} bytes")


CLIENTS: dict[str, Callable[[Setup], Any]] = {
    "penstock": Penstock,
    "pyreqwest": Pyreqwest,
    "aiohttp": Aiohttp,
    "httpx": Httpx,
    "httpx2": Httpx2,
    "niquests": Niquests,
    "the loop alone": LoopAlone,
}
