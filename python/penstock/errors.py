"""Every error that Penstock raises, as one tree, with one table that says what each means.

```
PenstockError
├── ConfigError(ValueError)             a setting or argument contradicts itself
├── Closed(RuntimeError)                closed, or made before a fork
├── Overloaded                          a bounded queue is full (.retry_after)
├── DeadlineExceeded(TimeoutError)      the time that the caller gave has passed
│   ├── AcquireTimeout  ConnectTimeout  FirstChunkTimeout  IdleTimeout
├── TransportError(ConnectionError)
│   ├── ConnectFailed  ReadFailed  WriteFailed  ProtocolError
├── RemoteError                         the other side answered with an error (.status .code .body)
├── ItemError                           one item was refused; a function may return or raise it
├── OutputError                         a model returned the wrong count, shape or type
├── ModelError                          a model raised; its exception is the __cause__
│   ├── ModelNotFound(LookupError)  ModelNotReady  LoadFailed  LoadTimeout  DependencyCycle
│   ├── CapacityError  UnsafeFormat  ChecksumMismatch  PathEscape
├── StreamError
│   ├── StreamInterrupted (.partial)  StreamClosed
└── InternalError                       a defect of Penstock itself
```

Every class carries `http_status`, `grpc_code` and `retryable`, from the table in the Rust core. All of them can be
pickled. `asyncio.CancelledError` is never wrapped.
"""

import sys
from typing import Any, ClassVar

from penstock import _native

_TABLE = {row[0]: row for row in _native.error_table()}


class PenstockError(Exception):
    """Base of every error that Penstock raises.

    Attributes:
        http_status: the status that the HTTP door answers with.
        grpc_code: the gRPC status code, by name.
        retryable: true where the very same call can succeed later.
    """

    http_status: ClassVar[int] = 500
    grpc_code: ClassVar[str] = "INTERNAL"
    retryable: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        row = _TABLE.get(cls.__name__)
        # A user's own subclass keeps the meaning of the class that it extends.
        if row is not None and cls.__module__ == __name__:
            _name, _parent, cls.http_status, cls.grpc_code, cls.retryable = row


class ConfigError(PenstockError, ValueError):
    """A setting or an argument contradicts itself or another one."""


class Closed(PenstockError, RuntimeError):
    """The object was closed, or belongs to the process before a fork."""


class Overloaded(PenstockError):
    """A bounded queue is full; nothing was lost, the request was never taken.

    Attributes:
        retry_after: seconds after which it may succeed, or `None` where that is not known.
    """

    retry_after: float | None = None


class DeadlineExceeded(PenstockError, TimeoutError):
    """The time that the caller gave has passed.

    Attributes:
        partial: of an answer that was read while it came, the last of its bytes that had arrived; else `None`.
        partial_start: which byte of the body is the first of them.
    """

    partial: bytes | None = None
    partial_start: int = 0


class AcquireTimeout(DeadlineExceeded):
    """No connection became free in time."""


class ConnectTimeout(DeadlineExceeded):
    """A connection could not be opened in time."""


class FirstChunkTimeout(DeadlineExceeded):
    """The first chunk of a response did not come in time."""


class IdleTimeout(DeadlineExceeded):
    """The next chunk of a response did not come in time."""


class TransportError(PenstockError, ConnectionError):
    """A connection failed."""


class ConnectFailed(TransportError):
    """A connection could not be opened."""


class ReadFailed(TransportError):
    """Reading from a connection failed."""


class WriteFailed(TransportError):
    """Writing to a connection failed."""


class ProtocolError(TransportError):
    """The other side broke the protocol."""


class RemoteError(PenstockError):
    """The other side answered with an error.

    Where `infer` knows from its status or its code what it means, it is also an `ItemError`, an `Overloaded`, a
    `DeadlineExceeded`, a `ModelNotFound` or a `ModelNotReady`.

    Attributes:
        status: its HTTP status, or `None` over gRPC.
        code: its gRPC status code by name, or `None` over HTTP.
        body: what it said.
    """

    status: int | None = None
    code: str | None = None
    body: bytes = b""


class ItemError(PenstockError):
    """One item was refused.

    A batched function returns it in the place of a result, or raises it: the request that it stands for fails with it
    and no other. Penstock raises it for an item that cannot be gathered.
    """


class OutputError(PenstockError):
    """A function or model returned the wrong thing: count, shape, data type or name."""


class ModelError(PenstockError):
    """A function or model raised; its exception is the `__cause__`, and every waiter has a `ModelError` of its own."""


class ModelNotFound(ModelError, LookupError):
    """No model of that name or version is served."""


class ModelNotReady(ModelError):
    """The model exists and is not ready yet, or is shutting down."""


class LoadFailed(ModelError):
    """Loading the model failed; the reason is the `__cause__`.

    Attributes:
        retry_after: seconds after which it is tried again, or `None` where that is not known.
    """

    retry_after: float | None = None


class LoadTimeout(ModelError):
    """Loading the model took longer than its time-out.

    Attributes:
        retry_after: seconds after which it is tried again, or `None` where that is not known.
    """

    retry_after: float | None = None


class DependencyCycle(ModelError):
    """Models require one another in a circle."""


class CapacityError(ModelError):
    """A model does not fit into the memory that is left."""


class UnsafeFormat(ModelError):
    """A file format that can run code was refused."""


class ChecksumMismatch(ModelError):
    """A file is not the one that was promised."""


class PathEscape(ModelError):
    """A path leads out of the directory that it must stay in."""


class StreamError(PenstockError):
    """A stream failed."""


class StreamInterrupted(StreamError):
    """A stream ended before its end; the `TransportError` is the `__cause__`.

    Attributes:
        partial: the bytes of the body that had arrived, unpacked, taken or not: the last of them, where there were
            many.
        partial_start: which byte of the body is the first of them.
    """

    partial: Any = None
    partial_start: int = 0


class StreamClosed(StreamError):
    """A stream was used after it was closed."""


class InternalError(PenstockError):
    """A defect of Penstock itself, a caught panic included: please report it."""


# After a reload, the classes of the first import: the core raises them, and `except` clauses hold them.
globals().update(_native.bind_errors(sys.modules[__name__]))

__all__ = [
    "AcquireTimeout",
    "CapacityError",
    "ChecksumMismatch",
    "Closed",
    "ConfigError",
    "ConnectFailed",
    "ConnectTimeout",
    "DeadlineExceeded",
    "DependencyCycle",
    "FirstChunkTimeout",
    "IdleTimeout",
    "InternalError",
    "ItemError",
    "LoadFailed",
    "LoadTimeout",
    "ModelError",
    "ModelNotFound",
    "ModelNotReady",
    "OutputError",
    "Overloaded",
    "PathEscape",
    "PenstockError",
    "ProtocolError",
    "ReadFailed",
    "RemoteError",
    "StreamClosed",
    "StreamError",
    "StreamInterrupted",
    "TransportError",
    "UnsafeFormat",
    "WriteFailed",
]
