"""Requests to a server object within the process: over the whole path of a request, except for the socket."""

from __future__ import annotations

import json as json_format
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from penstock import _oip, errors
from penstock._headers import Headers
from penstock._inference import model_path
from penstock.errors import ConfigError, Overloaded, PenstockError, RemoteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from concurrent.futures import ThreadPoolExecutor
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray

    from penstock.models import ModelSpec
    from penstock.server import Server

T = TypeVar("T")

_MOST_THREADS = 1000
"""Requests of `arequest` and `ainfer` at most that are on their way at a time; more of them wait."""

_FIRST_ERROR = 400


@dataclass(frozen=True)
class TestResponse:
    """An answer of the server.

    Attributes:
        status_code: its HTTP status.
        headers: its headers, by names in any case.
        content: its body.
    """

    __test__: ClassVar[bool] = False  # pytest looks for tests in whatever is called so

    status_code: int
    headers: Headers
    content: bytes = field(repr=False)
    _error: str | None = field(default=None, repr=False)

    @property
    def text(self) -> str:
        """The body as text; what is no UTF-8 is replaced."""
        return self.content.decode(errors="replace")

    def json(self) -> Any:
        """The body, parsed as JSON.

        Raises:
            json.JSONDecodeError: where it is none.
        """
        return json_format.loads(self.content)

    def raise_for_status(self) -> TestResponse:
        """Itself, where the status is below 400.

        Raises:
            PenstockError: otherwise: the class of `penstock.errors` that the server has answered for (`ItemError`,
                `ModelNotFound`, `OutputError`, `Overloaded`, ...) with the server's own words, or `RemoteError` for
                answers of HTTP alone, such as 405 and 413.
        """
        if self.status_code >= _FIRST_ERROR:
            raise self._as_error()
        return self

    def _as_error(self) -> PenstockError:
        kind: type[PenstockError] = RemoteError if self._error is None else getattr(errors, self._error)
        try:
            said = self.json()["error"]
            # OpenAI's API has the words among others.
            message = str(said["message"] if isinstance(said, dict) else said)
        except (ValueError, LookupError, TypeError):
            message = f"status {self.status_code}"
        error = kind(message)
        if isinstance(error, RemoteError):
            error.status, error.body = self.status_code, self.content
        elif isinstance(error, Overloaded) and "retry-after-ms" in self.headers:
            error.retry_after = float(self.headers["retry-after-ms"]) / 1e3
        elif isinstance(error, Overloaded) and "retry-after" in self.headers:
            error.retry_after = float(self.headers["retry-after"])
        return error


class TestClient:
    """Asks a `penstock.Server` without a socket, for unit tests of models and of what is built around them.

    Entering the context loads the models, leaving it closes them: no port is opened.
    Requests go the whole way of a request from the network (paths, limits, parsing, queues, batches, worker threads,
    encoding), so requests of several threads share batches. On a server that was started already it sends requests,
    too, with or without a context, and leaves starting and closing to whoever did the first.

    All methods may be used by many threads at once. The awaitable ones do their waiting in threads of the client's own
    (1,000 at most): they never block the loop. Who cancels them no longer waits; the request goes on.

    Args:
        server: the server to ask.

    Raises:
        LoadFailed: on entering, where a model's `load` raised.
        Closed: on entering, where the server was closed; on asking, where it is neither started nor entered.

    Example:
        >>> import numpy as np, penstock
        >>> @penstock.model("double", inputs={"x": ("float32", [3])}, outputs={"y": ("float32", [3])})
        ... def double(x):
        ...     return x * 2
        >>> with TestClient(penstock.Server(double)) as client:
        ...     y = client.infer("double", {"x": np.ones((2, 3), np.float32)})["y"]
        ...     ready = client.get("/v2/health/ready")
        >>> y
        array([[2., 2., 2.],
               [2., 2., 2.]], dtype=float32)
        >>> ready
        TestResponse(status_code=200, headers=Headers({'content-type': 'application/json'}))
    """

    __test__: ClassVar[bool] = False  # as above

    def __init__(self, server: Server) -> None:
        self._server = server
        self._opened = False
        self._threads: ThreadPoolExecutor | None = None

    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> TestResponse:
        """Sends a request and waits for its answer; an error of the server is an answer, too. Ctrl-C ends the waiting.

        A streamed answer comes as a whole, once its stream has ended.

        Args:
            method: GET, POST, ...
            path: from the first slash on, with its query if it has one.
            json: what to send as JSON, or
            content: what to send as it is.
            headers: headers to send.

        Raises:
            ConfigError: for what is no HTTP request, or `json` and `content` together.
            Closed: where the server does not run.
        """
        if not path.startswith("/"):
            raise ConfigError(f"a path begins with a slash, not {path!r}")
        if json is not None and content is not None:
            raise ConfigError("json and content exclude each other")
        sent = {name.lower(): value for name, value in (headers or {}).items()}
        if json is not None:
            sent.setdefault("content-type", "application/json")
            content = json_format.dumps(json)
        body = content.encode() if isinstance(content, str) else bytes(content or b"")
        pairs = [(name, value.encode("latin-1")) for name, value in sent.items()]
        status, answered, answer, error = self._server._running().request(method, path, pairs, body)  # noqa: SLF001
        received = Headers(answered)
        return TestResponse(status, received, answer, error)

    def get(self, path: str, *, headers: Mapping[str, str] | None = None) -> TestResponse:
        """As `request`, with GET."""
        return self.request("GET", path, headers=headers)

    def post(
        self,
        path: str,
        *,
        json: Any = None,
        content: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> TestResponse:
        """As `request`, with POST."""
        return self.request("POST", path, json=json, content=content, headers=headers)

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        outputs: Iterable[str] | None = None,
        request_id: str | None = None,
        version: str | None = None,
        binary: bool = True,
    ) -> dict[str, NDArray[Any]]:
        """Asks a model, by the Open Inference Protocol, and waits for its outputs.

        Args:
            model: its name.
            inputs: arrays by name, batch axis first. Arrays are sent as they are; lists become arrays of the declared
                type. Texts are lists or arrays of `str` or `bytes`.
            outputs: the outputs that are wanted; all by default.
            request_id: an id to send along.
            version: the model's version; the one that is served by default.
            binary: send and ask for binary tensors. `False` sends JSON, in which NaN and infinities cannot be sent, and
                come back as NaN.

        Returns:
            Arrays by name, batch axis first. Texts are arrays of objects: `str` where the model declares `"string"`,
            `bytes` where it declares `"bytes"`.

        Raises:
            PenstockError: what `TestResponse.raise_for_status` raises for the answer.
            ConfigError: for an array that the protocol has no datatype for.
        """
        spec = self._spec(model)
        declared = {} if spec is None else {name: elements for name, (elements, _) in spec.inputs.items()}
        arrays = {name: _as_array(value, declared.get(name)) for name, value in inputs.items()}
        headers, body = _oip.encode(arrays, outputs, request_id, binary=binary)
        answer = self.post(f"{model_path(model, version)}/infer", content=body, headers=headers).raise_for_status()
        returned = {} if spec is None else spec.outputs
        strings = {name for name, (elements, _) in returned.items() if elements == "string"}
        return _oip.decode(answer.headers, answer.content, strings=strings)

    async def arequest(self, method: str, path: str, **options: Any) -> TestResponse:
        """As `request`, awaitable."""
        return await self._in_thread(partial(self.request, method, path, **options))

    async def ainfer(self, model: str, inputs: Mapping[str, Any], **options: Any) -> dict[str, NDArray[Any]]:
        """As `infer`, awaitable."""
        return await self._in_thread(partial(self.infer, model, inputs, **options))

    def __enter__(self) -> Self:
        self._opened = self._server._start_without_door()  # noqa: SLF001  one package
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._opened:
            self._server.close(drain=kind is None)
        threads, self._threads = self._threads, None
        if threads is not None:
            # Who was cancelled while he waited has left a thread behind.
            threads.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        return await self._in_thread(self.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._in_thread(partial(self.__exit__, kind, error, at))

    def __repr__(self) -> str:
        return f"<penstock.testing.TestClient of {self._server!r}>"

    async def _in_thread(self, call: Callable[[], T]) -> T:
        import asyncio  # noqa: PLC0415  importing it costs as much as a third of `import numpy`
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  as above

        if self._threads is None:
            # The loop's own threads are few: a batch would never hold more requests than there are.
            self._threads = ThreadPoolExecutor(_MOST_THREADS, "penstock-test-client")
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(copy_context().run, call))

    def _spec(self, model: str) -> ModelSpec | None:
        return next((spec for spec in self._server._specs if spec.name == model), None)  # noqa: SLF001  one package


def _as_array(value: Any, elements: str | None) -> NDArray[Any]:
    if elements is None or hasattr(value, "__array__"):
        return np.asarray(value)
    return np.asarray(value, _oip.dtype(elements))
