"""How many bytes a model takes, and which of them live on after it was unloaded."""

from __future__ import annotations

import array
import collections
import datetime as dt
import decimal
import enum
import fractions
import functools
import logging
import mmap
import pathlib
import re
import sys
import threading
import types
import uuid
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock._native import TensorMemory
from penstock.safetensors import TensorInfo

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_OBJECTS = 1_000_000
"""Objects that are looked at; a model with more counts as not fully seen."""

WATCHED_BYTES = 4096
"""Buffers of fewer bytes are not watched one by one."""

_SMALL: tuple[type, ...] = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    np.generic,
    np.dtype,
    enum.Enum,
    dt.date,
    dt.time,
    dt.timedelta,
    dt.tzinfo,
    decimal.Decimal,
    fractions.Fraction,
    pathlib.PurePath,
    re.Pattern,
    uuid.UUID,
    range,
    slice,
    type(threading.Lock()),
    type(threading.RLock()),
    type(...),
    type(NotImplemented),
    property,
    TensorInfo,  # it says how large a tensor is that may not be here
)
_SHARED: tuple[type, ...] = (
    type,
    types.ModuleType,
    types.BuiltinFunctionType,
    types.CodeType,
    weakref.ref,
    logging.Logger,
)
"""What belongs to the program, not to a model."""
_CONTAINERS: tuple[type, ...] = (list, tuple, set, frozenset, collections.deque)
_BUFFERS: tuple[type, ...] = (bytearray, array.array, mmap.mmap)
_PLAIN_BASES = frozenset(
    (
        object,
        Exception,
        BaseException,
        dict,
        collections.OrderedDict,
        collections.defaultdict,
        *_CONTAINERS,
        *_SMALL,
    )
)
_HEAP_TYPE = 1 << 9
"""`Py_TPFLAGS_HEAPTYPE`: classes that Python made have it."""


@dataclass
class Found:
    """What was found in a model.

    Attributes:
        size: bytes of everything that was seen, each thing once.
        complete: false where there were things that cannot be looked into.
        buffers: those that can be watched, with their bytes.
    """

    size: int = 0
    complete: bool = True
    buffers: list[tuple[Any, int]] = field(default_factory=list)


def measure(value: object, shared: Iterable[object] = ()) -> Found:
    """Counts the bytes of a model: containers, objects and arrays, arrays by the memory that they look at, each once.

    Args:
        value: the model.
        shared: what belongs to others, such as the models that it requires: it is not counted, nor looked into.
    """
    found = Found()
    walk = _Walk(found, {id(each) for each in shared})
    walk.run(value)
    return found


class _Walk:
    def __init__(self, found: Found, seen: set[int]) -> None:
        self._found = found
        self._seen = seen
        # What was seen must live until the end, or its address could be another's.
        self._kept: list[object] = []
        self._next: list[object] = []

    def run(self, value: object) -> None:
        self._next.append(value)
        while self._next:
            one = self._next.pop()
            if id(one) in self._seen:
                continue
            if len(self._kept) >= MOST_OBJECTS:
                self._found.complete = False
                return
            self._seen.add(id(one))
            self._kept.append(one)
            self._count(one)

    def _count(self, one: object) -> None:
        if isinstance(one, _SHARED):
            return
        if isinstance(one, np.ndarray):
            self._count_array(one)
        elif isinstance(one, memoryview):
            self._count_view(one)
        elif isinstance(one, _BUFFERS):
            self._add(one, len(memoryview(one)) if isinstance(one, mmap.mmap) else sys.getsizeof(one))
        elif isinstance(one, _SMALL):
            self._found.size += sys.getsizeof(one)
        elif isinstance(one, types.FunctionType | types.MethodType | functools.partial):
            self._count_function(one)
        else:
            self._count_object(one)

    def _count_array(self, one: np.ndarray[Any, Any]) -> None:
        owner = one
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        if owner is not one and id(owner) in self._seen:
            return
        self._seen.add(id(owner))
        self._kept.append(owner)
        if owner.dtype.hasobject:
            self._next.extend(owner.ravel().tolist())
        base = owner.base
        if isinstance(base, memoryview | bytes | bytearray | mmap.mmap | TensorMemory):
            self._next.append(base)
        else:
            self._add(owner, owner.nbytes)

    def _count_view(self, one: memoryview) -> None:
        try:
            under = one.obj
        except ValueError:  # it was released
            return
        if isinstance(under, (bytes, np.ndarray, memoryview, *_BUFFERS)):
            self._next.append(under)
        else:
            self._add(one, one.nbytes)

    def _count_function(self, one: Any) -> None:
        self._found.size += sys.getsizeof(one)
        if isinstance(one, types.MethodType):
            self._next += [one.__self__, one.__func__]
        elif isinstance(one, functools.partial):
            self._next += [one.func, one.args, one.keywords]
        else:
            for cell in one.__closure__ or ():
                try:
                    self._next.append(cell.cell_contents)
                except ValueError:  # it is empty
                    continue
            self._next += [one.__defaults__, one.__kwdefaults__, one.__dict__]

    def _count_object(self, one: Any) -> None:
        nbytes = _bytes_of(one)
        if nbytes is not None:
            self._add(one, nbytes)
            return
        self._found.size += _own_size(one)
        inside = self._count_slots(one) | self._count_attributes(one)
        if isinstance(one, dict):
            self._next += [*one.keys(), *one.values()]
            inside = True
        elif isinstance(one, (list, tuple, set, frozenset, collections.deque)):
            self._next.extend(one)
            inside = True
        if not inside or not _is_plain(type(one)):
            self._found.complete = False

    def _count_attributes(self, one: Any) -> bool:
        try:
            attributes = one.__dict__
        except Exception:  # noqa: BLE001  it has none, or its class has its own mind
            return False
        if isinstance(attributes, dict):
            self._next.append(attributes)
            return True
        return False

    def _count_slots(self, one: Any) -> bool:
        found = False
        for cls in type(one).__mro__:
            slots = vars(cls).get("__slots__")
            if slots is None:
                continue
            found = True
            for name in (slots,) if isinstance(slots, str) else slots:
                # Private names are kept under others: what cannot be read is left out.
                try:
                    self._next.append(getattr(one, name))
                except Exception:  # noqa: BLE001, S112  it was never set, or a class has its own mind
                    continue
        return found

    def _add(self, one: object, size: int) -> None:
        self._found.size += size
        if size >= WATCHED_BYTES:
            self._found.buffers.append((one, size))


def _bytes_of(one: Any) -> int | None:
    """What a tensor of another library says of itself."""
    if isinstance(one, (dict, *_CONTAINERS)):
        return None
    try:
        size = getattr(one, "nbytes", None)
    except Exception:  # noqa: BLE001  whatever an attribute of somebody's class may do
        return None
    return size if isinstance(size, int) and not isinstance(size, bool) and size >= 0 else None


def _own_size(one: object) -> int:
    try:
        return sys.getsizeof(one)
    except Exception:  # noqa: BLE001  a __sizeof__ of somebody's class
        return 0


def _is_plain(cls: type) -> bool:
    """Whether Python knows all that an object of this class holds: no base of it is written in C, but known ones."""
    return all(base in _PLAIN_BASES or base.__flags__ & _HEAP_TYPE for base in cls.__mro__)
