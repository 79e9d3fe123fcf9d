"""Redirects that are followed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.errors import RemoteError

if TYPE_CHECKING:
    from penstock._request import Prepared, RequestBuilder
    from penstock._response import Response


class Journey:
    """The redirects of one call.

    Attributes:
        history: the answers that led on, in their order.
    """

    def __init__(self, builder: RequestBuilder, prepared: Prepared, most: int) -> None:
        self._builder = builder
        self._prepared = prepared
        self._most = most
        self._spent = 0.0
        self.history: tuple[Response, ...] = ()

    def after(self, response: Response) -> Prepared | None:
        """The next request, or `None` where the answer leads no further."""
        if not response.has_redirect_location:
            return None
        if len(self.history) >= self._most:
            error = RemoteError(f"more redirects than max_redirects={self._most}, the last by {response.url}")
            error.status, error.body = response.status_code, response.content
            raise error
        self._spent += response.elapsed
        self._prepared = self._builder.redirected(self._prepared, response, self._spent)
        self.history += (response,)
        return self._prepared
