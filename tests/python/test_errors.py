"""The tree of errors and its one table."""

from __future__ import annotations

import copy
import http
import inspect
import pickle

import pytest

import penstock
from penstock import _native, errors

TABLE = {name: row for name, *row in _native.error_table()}
NAMES = sorted(TABLE)
BUILTINS = {
    "ConfigError": ValueError,
    "Closed": RuntimeError,
    "DeadlineExceeded": TimeoutError,
    "TransportError": ConnectionError,
    "ModelNotFound": LookupError,
}
GRPC = {
    "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_row_of_the_table_is_a_documented_class_below_its_parent(name: str) -> None:
    parent, http_status, grpc_code, retryable = TABLE[name]
    kind = getattr(errors, name)
    assert kind.__bases__[0] is getattr(errors, parent)
    assert (kind.http_status, kind.grpc_code, kind.retryable) == (http_status, grpc_code, retryable)
    assert issubclass(kind, penstock.PenstockError)
    assert kind.__module__ == "penstock.errors"
    assert inspect.getdoc(kind)
    assert kind.__doc__ != errors.PenstockError.__doc__
    assert name in errors.__all__
    assert name in (errors.__doc__ or ""), "the tree in the module's documentation leaves it out"


def test_every_class_of_the_module_has_a_row() -> None:
    classes = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, BaseException) and value.__module__ == errors.__name__
    }
    assert classes == set(TABLE) | {"PenstockError"}
    assert set(errors.__all__) == classes


@pytest.mark.parametrize("name", NAMES)
def test_statuses_and_codes_exist(name: str) -> None:
    _, http_status, grpc_code, retryable = TABLE[name]
    assert http_status in {*map(int, http.HTTPStatus), 499}
    assert http_status >= 400
    assert grpc_code in GRPC
    assert isinstance(retryable, bool)


@pytest.mark.parametrize(("name", "builtin"), BUILTINS.items())
def test_an_error_is_also_the_builtin_that_people_catch(name: str, builtin: type[Exception]) -> None:
    assert issubclass(getattr(errors, name), builtin)
    with pytest.raises(builtin):
        raise getattr(errors, name)("text")


TREE = {
    "DeadlineExceeded": {"AcquireTimeout", "ConnectTimeout", "FirstChunkTimeout", "IdleTimeout"},
    "TransportError": {"ConnectFailed", "ReadFailed", "WriteFailed", "ProtocolError"},
    "ModelError": {
        "ModelNotFound", "ModelNotReady", "LoadFailed", "LoadTimeout", "DependencyCycle", "CapacityError",
        "UnsafeFormat", "ChecksumMismatch", "PathEscape",
    },
    "StreamError": {"StreamInterrupted", "StreamClosed"},
    "PenstockError": {
        "ConfigError", "Closed", "Overloaded", "DeadlineExceeded", "TransportError", "RemoteError", "ItemError",
        "OutputError", "ModelError", "StreamError", "InternalError",
    },
}  # fmt: skip


def test_the_tree_is_that_of_the_design() -> None:
    below: dict[str, set[str]] = {}
    for name, (parent, *_) in TABLE.items():
        below.setdefault(parent, set()).add(name)
    assert below == TREE


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_can_be_pickled(name: str, protocol: int) -> None:
    error = getattr(errors, name)("what happened", 7)
    error.note = "kept"
    again = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301  our own
    assert type(again) is type(error)
    assert again.args == ("what happened", 7)
    assert again.note == "kept"


@pytest.mark.parametrize(
    ("name", "attribute", "value"),
    [
        ("Overloaded", "retry_after", 1.5),
        ("RemoteError", "status", 503),
        ("RemoteError", "code", "UNAVAILABLE"),
        ("RemoteError", "body", b"no"),
        ("StreamInterrupted", "partial", ["a"]),
    ],
)
def test_attributes_have_a_default_and_survive_pickling_and_copying(name: str, attribute: str, value: object) -> None:
    error = getattr(errors, name)("text")
    assert getattr(error, attribute) in (None, b"")
    setattr(error, attribute, value)
    for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301  our own
        assert getattr(again, attribute) == value
        assert str(again) == "text"
    assert getattr(getattr(errors, name)("other"), attribute) != value


def test_a_users_own_subclass_keeps_the_meaning_of_its_parent() -> None:
    class TooLong(penstock.ItemError):
        pass

    class Closed(penstock.ItemError):
        """The same name as a class of the table, and another meaning."""

    for kind in (TooLong, Closed):
        assert (kind.http_status, kind.grpc_code) == (400, "INVALID_ARGUMENT")


def test_the_base_class_has_a_meaning_of_its_own() -> None:
    assert (errors.PenstockError.http_status, errors.PenstockError.grpc_code) == (500, "INTERNAL")
    assert errors.PenstockError.retryable is False
    assert not issubclass(errors.PenstockError, (ValueError, RuntimeError, OSError, LookupError))


def test_timeouts_are_the_builtin_timeout_and_nothing_wraps_cancellation() -> None:
    import asyncio

    assert issubclass(errors.DeadlineExceeded, asyncio.TimeoutError)
    assert not any(issubclass(getattr(errors, name), asyncio.CancelledError) for name in errors.__all__)
