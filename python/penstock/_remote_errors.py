"""Errors of other servers whose status or code says what they mean: each is a `RemoteError` and of that class, too."""

from penstock.errors import (
    DeadlineExceeded,
    ItemError,
    ModelNotFound,
    ModelNotReady,
    Overloaded,
    RemoteError,
)


class RemoteItemError(ItemError, RemoteError):
    """A server refused a request: status 400, INVALID_ARGUMENT."""


class RemoteOverloaded(Overloaded, RemoteError):
    """A server has too much to do: status 429 or 503, RESOURCE_EXHAUSTED."""


class RemoteDeadlineExceeded(DeadlineExceeded, RemoteError):
    """A server says that the time is up: status 504, DEADLINE_EXCEEDED."""


class RemoteModelNotFound(ModelNotFound, RemoteError):
    """A server has no such model: status 404, NOT_FOUND."""


class RemoteModelNotReady(ModelNotReady, RemoteError):
    """A server cannot answer now: UNAVAILABLE."""


class StreamedError(RemoteError):
    """The answer to one request of a stream says that something went wrong.

    Attributes:
        request_id: what the request was called, or `None`.
    """

    request_id: str | None = None


OF_CLASSES: dict[str, type[RemoteError]] = {
    "ItemError": RemoteItemError,
    "Overloaded": RemoteOverloaded,
    "DeadlineExceeded": RemoteDeadlineExceeded,
    "ModelNotFound": RemoteModelNotFound,
    "ModelNotReady": RemoteModelNotReady,
}
"""By the class that the one table has for a code of gRPC."""

OF_STATUSES: dict[int, type[RemoteError]] = {
    400: RemoteItemError,
    404: RemoteModelNotFound,
    429: RemoteOverloaded,
    503: RemoteOverloaded,
    504: RemoteDeadlineExceeded,
}
"""By the status of an answer of HTTP."""
