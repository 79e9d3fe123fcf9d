"""Weights in the safetensors format, as read-only NumPy arrays over the file's own bytes; PyTorch is not needed.

The format: https://github.com/huggingface/safetensors#format. What Penstock accepts, the format's own reader accepts;
it refuses more, as the guide says ("Model formats").
"""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import numpy as np

from penstock._native import NativeWeights, TensorMemory, load_weights
from penstock.errors import Closed, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = [
    "SafetensorsFile",
    "TensorInfo",
    "TensorMemory",
    "TensorSlice",
    "load_safetensors",
    "open_safetensors",
]

Mode: TypeAlias = Literal["auto", "mmap", "read"]
Digests: TypeAlias = "str | Mapping[str, str]"
Progress: TypeAlias = Callable[[int, int], object]

_MODES = ("auto", "mmap", "read")
_DIGEST = re.compile(r"(sha256:)?[0-9a-fA-F]{64}")
_MOST_THREADS = 256

_PLAIN = {
    "BOOL": "bool",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
}
"""The types of the format that NumPy has."""

_EXTENDED = {
    "BF16": ("bfloat16", "uint16"),
    "F8_E4M3": ("float8_e4m3fn", "uint8"),
    "F8_E5M2": ("float8_e5m2", "uint8"),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", "uint8"),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", "uint8"),
    "F8_E8M0": ("float8_e8m0fnu", "uint8"),
}
"""Those that the package `ml_dtypes` has, and what shows their bits where it is not installed."""

_PACKED = frozenset(("F4", "F6_E2M3", "F6_E3M2"))
"""Those whose elements share bytes."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a file says of a tensor.

    Attributes:
        name: its name.
        dtype: the type of its elements, as the format calls it: "F32", "BF16", "F8_E4M3".
        shape: its axes, as the file has them.
        nbytes: bytes that it takes in the file.
        file: name of the file that it lies in, without its folder.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    file: str


def load_safetensors(
    path: str | os.PathLike[str],
    *,
    mode: Mode = "auto",
    names: Iterable[str] | None = None,
    sha256: Digests | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, NDArray[Any]]:
    """Loads the tensors of a file, or of a model in several files, as arrays by their names.

    The arrays are read-only and share one block of memory for each file, which lives as long as the last of them (their
    `.base` is its `TensorMemory`). `array.copy()` is one to write to. Tensors that do not lie where NumPy wants its
    elements are copied, each by itself.

    Types that NumPy does not have come as those of the package `ml_dtypes` (bfloat16, the float8 types); where it is
    not installed, as uint16 or uint8 with the same bits. F4 and F6, which share bytes, come as those bytes,
    uint8: their last axis then counts bytes, or all axes become one where it does not fill them.

    It blocks, without the interpreter lock; Ctrl-C ends it. From `async def`, use `asyncio.to_thread`, or let a
    `ModelCache` load: its loaders run in threads.

    Args:
        path: a `.safetensors` file, a `.safetensors.index.json` beside its files, or a folder with one of the two.
        mode: `"mmap"` maps the file: nothing is read before it is looked at, and processes share its pages. Whoever
            truncates a mapped file ends every process that looks at it (SIGBUS). `"read"` copies it into memory.
            `"auto"` maps what nobody can shorten, a file without any write permission (`chmod 0444`) on a disk of this
            machine, and reads everything else.
        names: only these tensors; nothing else is read.
        sha256: the digest in hexadecimal of the whole file, or of each by its name where there are several.
        threads: that read; by default as many as help.
        progress: called with the bytes that are done and those there are, some twenty times and once a second; what it
            raises ends the load.

    Raises:
        UnsafeFormat: for a file that is not what it says, or not safetensors.
        ChecksumMismatch: where it is another file than `sha256` says.
        PathEscape: where an index names files outside its folder.
        LoadFailed: where it cannot be read.
        ConfigError: for arguments that cannot be, or a name that the file does not have.

    Example:
        >>> weights = load_safetensors("examples/byte_lm/weights.safetensors", names=["last_bias"])
        >>> {name: (array.shape, array.dtype.name) for name, array in weights.items()}
        {'last_bias': ((256,), 'float16')}
    """
    settings = _settings(mode, sha256, threads)
    wanted = None if names is None else _names(names)
    if progress is not None and not callable(progress):
        raise ConfigError(f"progress must be a function of bytes done and bytes in all, not {progress!r}")
    return load_weights(_path(path), settings, wanted, progress, _numpy_type)


def open_safetensors(
    path: str | os.PathLike[str], *, mode: Mode = "auto", sha256: Digests | None = None, threads: int | None = None
) -> SafetensorsFile:
    """Opens a file, or a model in several files, and reads only what it holds; tensors come when they are asked for.

    Args:
        path: as `load_safetensors` takes it.
        mode: likewise; `"read"` reads a tensor, or the rows of it that are wanted, each time that it is asked for.
        sha256: likewise; the files are read through once to check it.
        threads: likewise.

    Raises:
        UnsafeFormat, ChecksumMismatch, PathEscape, LoadFailed, ConfigError: as `load_safetensors`.

    Example:
        >>> with open_safetensors("examples/byte_lm/weights.safetensors") as file:
        ...     print(file.info("vectors").shape, file.slice("vectors")[97:99, :2].shape)
        (256, 24) (2, 2)
    """
    return SafetensorsFile(path, mode=mode, sha256=sha256, threads=threads)


class SafetensorsFile(Mapping[str, "NDArray[Any]"]):
    """The tensors of a file, or of a model in several, by name: a mapping that reads when it is asked.

    Arrays that it gave stay valid after `close()`. Safe to use from several threads.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        mode: Mode = "auto",
        sha256: Digests | None = None,
        threads: int | None = None,
    ) -> None:
        self._path = _path(path)
        native = NativeWeights(self._path, _settings(mode, sha256, threads))
        infos = native.infos()
        self._infos = {each[0]: TensorInfo(*each[:5]) for each in infos}
        self._shapes = {each[0]: each[5] for each in infos}
        self._metadata = native.metadata()
        # Whoever measures a model finds here what is mapped, each file once.
        self._memories = native.memories()
        self._native: NativeWeights | None = native

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The whole tensor, read-only.

        Raises:
            KeyError: where there is no such tensor.
            LoadFailed, UnsafeFormat: where it cannot be read any more.
        """
        self.info(name)
        return self._opened().array(name, _numpy_type)

    def __iter__(self) -> Iterator[str]:
        """The names, in the order in which they lie in the file."""
        return iter(self._infos)

    def __len__(self) -> int:
        """How many tensors there are."""
        return len(self._infos)

    def __contains__(self, name: object) -> bool:
        """Whether there is a tensor of that name; nothing is read."""
        return name in self._infos

    def info(self, name: str) -> TensorInfo:
        """What the file says of a tensor; nothing is read.

        Raises:
            KeyError: where there is no such tensor.
        """
        try:
            return self._infos[name]
        except KeyError:
            raise KeyError(f"{self._path} has no tensor {name!r}") from None

    def slice(self, name: str) -> TensorSlice:
        """A tensor to take parts of: `file.slice("w")[2:10, :, 0]` reads the rows that it needs and no others.

        Raises:
            KeyError: where there is no such tensor.
        """
        return TensorSlice(self, self.info(name), self._shapes[name])

    @property
    def metadata(self) -> dict[str, str]:
        """The `__metadata__` of the file; of several files, what the first by name says under each key."""
        return dict(self._metadata)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._native is None

    def close(self) -> None:
        """Lets go of the file. What was read, or is looked at, stays valid."""
        self._native = None
        self._memories = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self)} tensors"
        return f"<penstock.SafetensorsFile {self._path!r} {state}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("a SafetensorsFile cannot be pickled: open the file again where it is needed")

    def _opened(self) -> NativeWeights:
        if self._native is None:
            raise Closed(f"{self._path} was closed")
        return self._native

    def _rows(self, info: TensorInfo, begin: int, end: int) -> NDArray[Any]:
        if info.dtype in _PACKED or not info.shape:
            return self[info.name]
        return self._opened().rows(info.name, begin, end, _numpy_type)


class TensorSlice:
    """A tensor of a `SafetensorsFile`, of which parts are read.

    Attributes:
        info: what the file says of it.
        shape: the shape of the array: that of the file, but for F4 and F6, which come as bytes.
    """

    __slots__ = ("_file", "info", "shape")

    def __init__(self, file: SafetensorsFile, info: TensorInfo, shape: tuple[int, ...]) -> None:
        self._file = file
        self.info: TensorInfo = info
        self.shape: tuple[int, ...] = shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the array's elements."""
        return _numpy_type(self.info.dtype)

    def __len__(self) -> int:
        """The length of the first axis."""
        if not self.shape:
            raise TypeError("len() of a tensor without axes")
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        """The part that a basic index names, as NumPy gives it: integers, slices, `...` and `None`.

        Read are the rows from the first to the last that is named, along the first axis.

        Raises:
            IndexError: for an index beyond the tensor, or one of arrays and lists.
            LoadFailed, UnsafeFormat: where the file cannot be read any more.
        """
        shape = self.shape
        items = _basic(index)
        # NumPy itself says what is wrong with an index: over one element that stands for all of them.
        np.broadcast_to(np.empty((), np.bool_), shape)[items]
        begin, end, inner = _rows_of(shape, items)
        rows = self._file._rows(self.info, begin, end)  # noqa: SLF001  one module
        if len(self.shape) and len(rows) != end - begin:
            rows = rows[begin:end]
        part = rows[inner]
        if isinstance(part, np.ndarray) and 2 * part.nbytes < rows.nbytes and _owns_its_rows(rows):
            part = part.copy()
            part.flags.writeable = False
        return part

    def __repr__(self) -> str:
        return f"<penstock.TensorSlice {self.info.name!r} {self.info.dtype} {list(self.shape)}>"


def _basic(index: Any) -> tuple[Any, ...]:
    items = index if isinstance(index, tuple) else (index,)
    for item in items:
        if item is None or item is Ellipsis or isinstance(item, slice):
            continue
        if isinstance(item, bool | np.bool_) or not hasattr(item, "__index__") or np.ndim(item):
            raise IndexError(f"a part of a file is named by integers, slices, ... and None, not {item!r}")
    return tuple(operator.index(item) if hasattr(item, "__index__") else item for item in items)


def _rows_of(shape: tuple[int, ...], items: tuple[Any, ...]) -> tuple[int, int, tuple[Any, ...]]:
    """The run of rows along the first axis that an index needs, and that index within them."""
    at = _first_axis(shape, items)
    if at is None:
        return 0, shape[0] if shape else 1, items
    item, length = items[at], shape[0]
    inner: int | slice
    if isinstance(item, int):
        begin, end, inner = item % length, item % length + 1, 0
    else:
        named = range(*item.indices(length))
        if not named:
            begin, end, inner = 0, 0, slice(0, 0)
        else:
            begin, end = min(named[0], named[-1]), max(named[0], named[-1]) + 1
            inner = slice(None, None, named.step)
    return begin, end, (*items[:at], inner, *items[at + 1 :])


def _first_axis(shape: tuple[int, ...], items: tuple[Any, ...]) -> int | None:
    """Where the item of an index stands that is for the first axis; `None` where none is."""
    axes = sum(item is not None and item is not Ellipsis for item in items)
    for at, item in enumerate(items):
        if item is Ellipsis and len(shape) > axes:
            return None
        if item is not None and item is not Ellipsis:
            return at
    return None


def _owns_its_rows(rows: NDArray[Any]) -> bool:
    """Whether rows were read for whoever asked: a mapped file costs nothing to keep."""
    return not (isinstance(rows.base, TensorMemory) and rows.base.kind == "mapped")


@cache
def _numpy_type(stored: str) -> np.dtype[Any]:
    """The type of the array for a type of the format."""
    if (plain := _PLAIN.get(stored)) is not None:
        return np.dtype(plain)
    if stored in _PACKED:
        return np.dtype(np.uint8)
    name, bits = _EXTENDED[stored]
    try:
        extended: np.dtype[Any] = np.dtype(getattr(import_module("ml_dtypes"), name))
    except (ImportError, AttributeError):  # it is not installed, or from before that type
        return np.dtype(bits)
    return extended


def _path(path: object) -> str:
    found = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(found, str):
        raise ConfigError(f"path must be a string or a pathlib.Path, not {path!r}")
    return found


def _names(names: Iterable[str]) -> list[str]:
    several = None if isinstance(names, str) or not isinstance(names, Iterable) else list(names)
    if several is None or not all(isinstance(name, str) for name in several):
        raise ConfigError(f"names must be several names of tensors, not {names!r}")
    return list(dict.fromkeys(several))


def _settings(mode: object, sha256: object, threads: object) -> dict[str, Any]:
    if mode not in _MODES:
        raise ConfigError(f"mode must be 'auto', 'mmap' or 'read', not {mode!r}")
    if threads is not None and (
        isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= _MOST_THREADS
    ):
        raise ConfigError(f"threads must be a whole number from 1 to {_MOST_THREADS}, not {threads!r}")
    return {"mode": mode, "sha256": _digests(sha256), "threads": threads}


def _digests(sha256: object) -> str | dict[str, str] | None:
    if sha256 is None:
        return None
    if isinstance(sha256, str):
        return _digest("sha256", sha256)
    if not isinstance(sha256, Mapping) or not all(isinstance(name, str) for name in sha256):
        raise ConfigError(f"sha256 must be 64 hexadecimal digits, or those of each file by its name, not {sha256!r}")
    return {name: _digest(f"sha256 of {name!r}", digest) for name, digest in sha256.items()}


def _digest(what: str, digest: object) -> str:
    if not isinstance(digest, str) or _DIGEST.fullmatch(digest) is None:
        raise ConfigError(f"{what} must be 64 hexadecimal digits, not {digest!r}")
    return digest.lower()
