"""Many requests in one crossing to the extension."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from penstock._response import Response
from penstock.errors import ConfigError, ProtocolError, RemoteError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock import _native
    from penstock._redirects import Journey
    from penstock._request import Prepared
    from penstock.client import AsyncClient, Client

    OneOfMany = str | tuple[str, str] | Mapping[str, Any]

POLL_SECONDS = 0.1
"""Between two looks at how far many requests are."""


class Many:
    """Many requests, sent in rounds: first all of them, then those that redirects lead on.

    Attributes:
        results: what came, in the order of the requests.
    """

    def __init__(
        self, client: AsyncClient | Client, prepared: list[Prepared], options: Sequence[Mapping[str, Any]]
    ) -> None:
        self._client = client
        self._options = options
        self._round = list(enumerate(prepared))
        self._rounds = 0
        self._journeys: dict[int, Journey] = {}
        self.results: list[Any] = [None] * len(prepared)

    @property
    def has_more(self) -> bool:
        """True while there are requests to send."""
        return bool(self._round)

    @property
    def is_first(self) -> bool:
        """True in the round that sends all."""
        return self._rounds == 1

    def submit(self, *, stop_on_error: bool) -> _native.NativeMany:
        """Sends the requests of this round."""
        self._rounds += 1
        return self._client._native.submit_many([prepared for _, prepared in self._round], stop_on_error)  # noqa: SLF001

    def take(
        self, answers: Sequence[_native.NativeResponse | BaseException], failed: int | None, *, raising: bool
    ) -> None:
        """Takes the answers of this round; `failed` is the first that failed: others were given up for it."""
        if raising and failed is not None and isinstance(error := answers[failed], BaseException):
            raise error
        following: list[tuple[int, Prepared]] = []
        for (index, prepared), answer in zip(self._round, answers, strict=True):
            self.results[index] = answer if isinstance(answer, BaseException) else Response(answer)
            try:
                further = self._further(index, prepared)
            except (RemoteError, ProtocolError) as error:
                if raising:
                    raise
                self.results[index] = error
                continue
            if further is not None:
                following.append((index, further))
        for index, journey in self._journeys.items():
            if isinstance(self.results[index], Response):
                self.results[index].history = journey.history
        self._round = following

    def _further(self, index: int, prepared: Prepared) -> Prepared | None:
        response = self.results[index]
        if not isinstance(response, Response):
            return None
        if not self._client._is_to_follow(response.status_code, self._options[index]):  # noqa: SLF001
            return None
        journey = self._journeys.get(index)
        if journey is None:
            journey = self._journeys[index] = self._client._journey(prepared)  # noqa: SLF001
        return journey.after(response)


async def watch(many: _native.NativeMany, future: Any, bar: Any) -> None:
    """Shows how far many requests are, until all are done."""
    import asyncio  # noqa: PLC0415  importing it costs as much as a third of `import numpy`

    shown = 0
    while bar is not None and not future.done():
        await asyncio.wait([future], timeout=POLL_SECONDS)
        bar.update(many.done - shown)
        shown = many.done


async def collected(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options, with the pieces of an asynchronous body in one."""
    content = options["content"]
    if not hasattr(content, "__aiter__"):
        return options
    parts = [part async for part in content]
    return {**options, "content": parts}


async def collected_one(request: OneOfMany) -> OneOfMany:
    return await collected(request) if isinstance(request, Mapping) and "content" in request else request


def one_of_many(index: int, request: object) -> tuple[str, str, Mapping[str, Any]]:
    if isinstance(request, str):
        return "GET", request, {}
    if isinstance(request, tuple) and len(request) == 2:  # noqa: PLR2004
        return request[0], request[1], {}
    if isinstance(request, Mapping) and "url" in request:
        options = {name: value for name, value in request.items() if name not in ("method", "url")}
        return request.get("method", "GET"), request["url"], options
    raise ConfigError(
        f"request {index} must be a URL, a pair of method and URL, or a dictionary with 'url', not {request!r}"
    )
