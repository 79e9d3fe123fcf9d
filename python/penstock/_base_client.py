"""What the two clients have in common: what they are made of, and what a request is to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

from penstock import _native
from penstock._body import content_body
from penstock._client_settings import client_options
from penstock._connecting import Connections, checked_urls, native_client
from penstock._many import one_of_many
from penstock._redirects import Journey
from penstock._request import REDIRECTS, RequestBuilder, timeout_of
from penstock.errors import ConfigError
from penstock.pooling import Timeout

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Mapping

    from penstock._connecting import Certificate, Verify
    from penstock._headers import HeadersGiven
    from penstock._inference import Inference, OverHttp
    from penstock._many import OneOfMany
    from penstock._request import Prepared
    from penstock._response import Response
    from penstock._url import Params
    from penstock.pooling import Balance, Eject, Pool, Retry

_JSON = {"content-type": "application/json"}


class BaseClient(Connections):
    """What both clients have in common."""

    def __init__(
        self,
        base_url: str | Iterable[str] | None = None,
        *,
        params: Params | None = None,
        headers: HeadersGiven | None = None,
        auth: tuple[str, str] | None = None,
        api_key: str | None = None,
        timeout: float | Timeout | None = Timeout(),  # noqa: B008  frozen
        pool: Pool | bool | None = None,
        balance: Balance = "p2c_first_byte",
        retry: Retry | None = None,
        eject: Eject | None = None,
        follow_redirects: bool = False,
        max_redirects: int = 20,
        verify: Verify = True,
        cert: Certificate | None = None,
        proxy: str | None = None,
        trust_env: bool = True,
        http2: bool | Literal["always"] = True,
        max_response: int | None = None,
        stream_window: int = 1 << 20,
        stream_memory: int = 10 << 20,
    ) -> None:
        options, told = client_options(
            {
                "timeout": timeout_of(timeout),
                "pool": pool,
                "balance": balance,
                "retry": retry,
                "eject": eject,
                "verify": verify,
                "cert": cert,
                "proxy": proxy,
                "trust_env": trust_env,
                "http2": http2,
                "follow_redirects": follow_redirects,
                "max_redirects": max_redirects,
                "max_response": max_response,
                "stream_window": stream_window,
                "stream_memory": stream_memory,
            }
        )
        self._follows = options.pop("follow_redirects")
        self._max_redirects = options.pop("max_redirects")
        self._builder = RequestBuilder(
            checked_urls(base_url), params, headers, auth, options["timeout"], api_key=api_key
        )
        native = native_client(self._builder.origins, self._builder.defaults, decompress=True, **options)
        super().__init__(self._builder.origins, native, pool)
        self._told = told
        self._calls = _native.NativeInference(native)
        self._binary: bool | None = None
        self._asking: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[Response]] = WeakKeyDictionary()

    def _inference_over_http(self, inference: Inference, *, binary: bool) -> OverHttp:
        """An inference as an endpoint of HTTP is asked for it."""
        url, options = inference.request(binary=binary)
        method, target, headers, body, _, _ = self._builder.prepare("POST", url, options)
        return (method, target, headers, body if isinstance(body, bytes) else b"")

    def _question_over_http(self, question: _native.NativeQuestion) -> OverHttp | None:
        """A question as an endpoint of HTTP is asked it; none where there is no such endpoint."""
        if not self._builder.speaks_http:
            return None
        method, path, body = question.http()
        options = {"content": body, "headers": _JSON} if body else {}
        method, target, headers, _, _, _ = self._builder.prepare(method, path, options)
        return (method, target, headers, body)

    def _asked_for_events(self, options: Mapping[str, Any]) -> dict[str, Any]:
        return {"follow_redirects": True, "timeout": self._builder.silent(), **options}

    def _is_to_follow(self, status: int, options: Mapping[str, Any]) -> bool:
        return status in REDIRECTS and bool(options.get("follow_redirects", self._follows))

    def _journey(self, prepared: Prepared) -> Journey:
        return Journey(self._builder, prepared, self._max_redirects)

    def _several(self, requests: Iterable[OneOfMany]) -> tuple[list[Prepared], list[Mapping[str, Any]]]:
        """What `request_many` was given, ready to be sent, and the options of each."""
        prepared, several = [], []
        for index, request in enumerate(requests):
            method, url, options = one_of_many(index, request)
            try:
                if options.get("content") is not None:
                    # Many at once are sent whole.
                    options = {**options, "content": content_body(options["content"])}
                prepared.append(self._builder.prepare(method, url, options))
            except ConfigError as error:
                raise ConfigError(f"request {index}: {error}") from error
            several.append(options)
        return prepared, several
