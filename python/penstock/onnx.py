"""ONNX graphs: in a notebook as functions of arrays, in a server as models that never take the interpreter lock.

The library that runs them is the one inside PyPI's `onnxruntime`, which `pip install "penstock[onnx]"` brings; it is
loaded when the first graph is opened, and `onnxruntime` itself is never imported. What it would send to its makers of
the graphs that it runs, it does not: `ORT_DISABLE_TELEMETRY` is set to 1 then, unless it is set already.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock import _native
from penstock._computed import Computed, Loaded
from penstock._load_terms import load_terms
from penstock._onnx_terms import CPU, OnnxTerms, library, send_nothing, terms_of
from penstock._processes import Processes
from penstock.errors import Closed, ConfigError, LoadFailed
from penstock.models import ModelSpec, check_identity, served_policy

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from penstock._cache_context import LoadContext
    from penstock._onnx_terms import Optimization, Provider, Tensors
    from penstock._policy import BatchPolicy
    from penstock.models import TensorDeclaration

__all__ = ["OnnxModel", "OnnxSession", "library", "load_onnx", "onnx_model"]

_MOST_WARM_ROWS = 1 << 20


def load_onnx(
    path: str | os.PathLike[str],
    *,
    inputs: Tensors | None = None,
    outputs: Tensors | None = None,
    row_by_row: bool = False,
    sessions: int = 1,
    threads: int = 1,
    inter_threads: int = 1,
    providers: Iterable[Provider] = CPU,
    optimization: Optimization = "all",
    spin: bool = False,
    arena: bool = True,
    sha256: str | None = None,
) -> OnnxSession:
    """Opens an ONNX graph, as a function of a dict of arrays. It blocks until the graph is ready to run.

    Args:
        path: the file. Weights that it keeps in files of their own must lie in its folder, or below.
        inputs: all its inputs, declared, where the graph does not say enough of them; in their order.
        outputs: the outputs that are wanted, by name; the others are not computed. With a declaration where the graph
            does not say what they are: `{"scores": ("float32", [10])}`.
        row_by_row: for a graph whose first axis is fixed to 1: a batch is run once for each of its rows.
        sessions: calls that may compute at a time; each takes the memory of the graph again.
        threads: threads that compute one call, the caller's own among them.
        inter_threads: nodes of the graph that may be computed at a time.
        providers: what computes, the best first, by the library's names; with options as
            `("CUDAExecutionProvider", {"device_id": 1})`.
        optimization: how far the library may change the graph: `"all"`, `"extended"`, `"basic"` or `"none"`.
        spin: whether threads that wait for work spin for a while: faster where calls follow at once, and a core's heat.
        arena: whether the memory of a call is kept for the next.
        sha256: the digest that the file must have, as 64 hexadecimal digits.

    Raises:
        UnsafeFormat: where the file is no ONNX graph.
        ChecksumMismatch: where it has another digest.
        PathEscape: where its weights lie outside its folder.
        LoadFailed: where it cannot be read or run: an operator or a version of ONNX that the library does not know.
        ConfigError: where the library is missing or too old, or the graph cannot be run over batches: it has no batch
            axis, or a fixed one.

    Example:
        >>> session = load_onnx("model.onnx")
        >>> session.inputs
        {'x': ('float32', (64,))}
        >>> session({"x": np.zeros((3, 64), np.float32)})["y"].shape
        (3, 8)
    """
    terms = terms_of(
        inputs=inputs,
        outputs=outputs,
        row_by_row=row_by_row,
        sessions=sessions,
        threads=threads,
        inter_threads=inter_threads,
        providers=providers,
        optimization=optimization,
        spin=spin,
        arena=arena,
        sha256=sha256,
    )
    return OnnxSession._opened(Path(path), terms)  # noqa: SLF001  one module


class OnnxSession:
    """An ONNX graph that is ready to run: a function of a dict of arrays. Made by `load_onnx`.

    Calls from several threads share its sessions, and wait where all of them compute; meanwhile the interpreter lock is
    free.

    Attributes:
        path: the file.
        inputs: element type and axes of one row by name; the batch axis is left out, -1 is an axis of any length.
        outputs: likewise.
    """

    path: Path
    inputs: dict[str, TensorDeclaration]
    outputs: dict[str, TensorDeclaration]
    _native: _native.NativeOnnx
    _closed: bool

    def __init__(self) -> None:
        raise ConfigError("a session is opened by penstock.load_onnx(path)")

    @classmethod
    def _opened(cls, path: Path, terms: OnnxTerms, check: Callable[[], object] | None = None) -> OnnxSession:
        """Opens a graph; `check` is called meanwhile, and what it raises ends the load."""
        session = object.__new__(cls)
        session.path = path
        send_nothing()
        session._native = native = _native.NativeOnnx(library(), str(path), terms, check)
        session.inputs, session.outputs = _declarations(native.inputs), _declarations(native.outputs)
        session._closed = False
        return session

    @property
    def nbytes(self) -> int:
        """Bytes that it is taken to hold: those of the graph's files, for each session."""
        return 0 if self._closed else self._native.nbytes

    def run(self, inputs: Mapping[str, ArrayLike]) -> dict[str, NDArray[Any]]:
        """The outputs by name, arrays of their own, for a batch of rows.

        Args:
            inputs: an array `[n, *axes]` for each input. Arrays must have the declared type; lists become it.

        Raises:
            ItemError: for an input that is missing, unknown, or not as declared.
            ModelError: where the graph fails, with the library's words.
            OutputError: where an output is not as declared, or has another number of rows than the inputs.
            Closed: after `close`.
        """
        if self._closed:
            raise Closed(f"the session of {self.path.name} was closed")
        return self._native.run({name: self._array(name, value) for name, value in inputs.items()})

    __call__ = run

    def _array(self, name: str, value: ArrayLike) -> NDArray[Any]:
        declared = self.inputs.get(name)
        if isinstance(value, np.ndarray) or declared is None:
            return np.asarray(value)
        return np.asarray(value, object if declared[0] in {"string", "bytes"} else declared[0])

    def close(self) -> None:
        """Gives the memory back, once what runs has ended. Safe to call twice."""
        self._closed = True
        self._native.close()

    def __repr__(self) -> str:
        taken, given = (", ".join(tensors) for tensors in (self.inputs, self.outputs))
        return f"<penstock.OnnxSession {self.path.name}: {taken} -> {given}{', closed' if self._closed else ''}>"


def _declarations(tensors: Sequence[tuple[str, str, Sequence[int]]]) -> dict[str, TensorDeclaration]:
    return {name: (elements, tuple(axes)) for name, elements, axes in tensors}


def onnx_model(
    name: str,
    path: str | os.PathLike[str],
    *,
    inputs: Tensors | None = None,
    outputs: Tensors | None = None,
    row_by_row: bool = False,
    version: str | int = "1",
    workers: int = 1,
    threads: int = 1,
    inter_threads: int = 1,
    providers: Iterable[Provider] = CPU,
    optimization: Optimization = "all",
    spin: bool = False,
    arena: bool = True,
    sha256: str | None = None,
    size: int | str | None = None,
    load_timeout: float | None = None,
    load_retries: int | None = None,
    warmup: bool | int | Callable[[OnnxSession], Any] = False,
    policy: BatchPolicy | None = None,
    **settings: Any,
) -> OnnxModel:
    """Declares an ONNX graph as a model for `penstock.Server` and `penstock serve`.

    Threads of Rust run it: the interpreter lock is never taken, so it goes on answering while Python computes in the
    same process. Batches are handed over where they lie. It is loaded, evicted and loaded again as every model;
    `ctx[name]`, for a model that `requires` it, is an `OnnxSession`.

    Inputs and outputs are read from the file when it is declared, which needs no library yet. With `pad=`, rows of
    different lengths share batches, filled up with 0: let the graph have a mask among its inputs, which is filled so,
    too.

    Args:
        name: the name to serve it under.
        path: the file, as for `load_onnx`; so are `inputs`, `outputs`, `row_by_row`, `threads` and what follows it, up
            to `sha256`.
        inputs: its inputs, where the graph does not say enough of them.
        outputs: the outputs that are wanted.
        row_by_row: for a graph whose first axis is fixed to 1.
        version: its version. Numbers compare as numbers, and the highest is the default.
        workers: batches that run at a time, each in a thread with a session of its own: so many times the memory.
        threads: threads that compute one batch.
        inter_threads: nodes that may be computed at a time.
        providers: what computes.
        optimization: how far the library may change the graph.
        spin: whether threads that wait for work spin for a while.
        arena: whether the memory of a batch is kept for the next.
        sha256: the digest that the file must have.
        size: bytes that it takes, where that is not the size of its files for each worker.
        load_timeout: seconds that one try to load it may take, 30 by default.
        load_retries: tries after the first that failed, 1 by default.
        warmup: `True` runs each session once when it is loaded, over one row of zeros (and open axes of length 1), a
            number over so many rows; a function is called once with the `OnnxSession`.
        policy: a `BatchPolicy`, or its fields as keywords, never both.
        **settings: the fields of `BatchPolicy`.

    Raises:
        UnsafeFormat: where the file is no ONNX graph.
        ChecksumMismatch: where it has another digest.
        PathEscape: where its weights lie outside its folder.
        LoadFailed: where it cannot be read.
        ConfigError: for a name or settings that cannot be, or where an input or output cannot be served: it has no
            batch axis or a fixed one, a type that arrays do not have, or is a sequence or a map.

    Example:
        >>> digits = onnx_model("digits", "digits.onnx", max_batch_size=64, warmup=True)
        >>> server = penstock.Server([digits])
    """
    check_identity(name, version, workers)
    if isinstance(workers, Processes):
        raise ConfigError(f"model '{name}' takes no interpreter lock: threads serve it best, let workers be a number")
    terms = terms_of(
        inputs=inputs,
        outputs=outputs,
        row_by_row=row_by_row,
        sessions=workers,
        threads=threads,
        inter_threads=inter_threads,
        providers=providers,
        optimization=optimization,
        spin=spin,
        arena=arena,
        sha256=sha256,
    )
    model = OnnxModel(Path(path).absolute(), terms)
    said = {"size": size, "load_timeout": load_timeout, "load_retries": load_retries}
    loading = load_terms(name, model, {"requires": None, **said, "warmup": _warmup(warmup)})
    chosen = served_policy(name, policy, settings)
    taken, given = map(_declarations, _native.onnx_signature(str(model.path), terms))
    model.__penstock_model__ = ModelSpec(name, str(version), taken, given, chosen, workers, model, **loading)
    return model


def _warmup(warmup: object) -> Callable[[OnnxSession], Any] | None:
    if warmup is False:
        return None
    if warmup is not True and not isinstance(warmup, int):
        if not callable(warmup):
            raise ConfigError(f"warmup must be true, a number of rows, or a function of the session, not {warmup!r}")
        return warmup
    if not 1 <= warmup <= _MOST_WARM_ROWS:
        raise ConfigError(f"warmup must be between 1 and {_MOST_WARM_ROWS} rows, not {warmup}")
    return partial(_run_zeros, int(warmup))


def _run_zeros(rows: int, session: OnnxSession) -> None:
    session._native.warm_up(rows)  # noqa: SLF001  one module


class OnnxLoaded(Loaded):
    """One load of an `OnnxModel`."""

    def __init__(self, session: OnnxSession) -> None:
        self.value: OnnxSession = session
        self.size: int = session.nbytes

    def start(self, shift: _native.NativeShift) -> None:
        """Starts a thread for each session."""
        shift.start_onnx(self.value._native)  # noqa: SLF001  one module

    def end(self, shift: _native.NativeShift, limit: float) -> None:
        """Waits for the threads to end, for so many seconds; then whoever was lent the graph can use it no longer."""
        shift.end_onnx(limit)
        self.value.close()


class OnnxModel(Computed):
    """An ONNX graph that was declared as a model by `onnx_model`: for `penstock.Server([...])`.

    Attributes:
        path: the file.
    """

    __penstock_model__: ModelSpec

    def __init__(self, path: Path, terms: object) -> None:
        if not isinstance(terms, OnnxTerms):
            raise ConfigError("an ONNX model is declared by penstock.onnx_model(name, path)")
        self.path = path
        self._terms = terms

    @property
    def inputs(self) -> Mapping[str, TensorDeclaration]:
        """Element type and axes of one row by name; the batch axis is left out."""
        return self.__penstock_model__.inputs

    @property
    def outputs(self) -> Mapping[str, TensorDeclaration]:
        """Likewise."""
        return self.__penstock_model__.outputs

    def open(self, ctx: LoadContext | None = None) -> OnnxLoaded:
        """Opens the graph, with a session for each worker.

        Raises:
            LoadFailed: where the file has other inputs or outputs than when it was declared, or cannot be run.
            UnsafeFormat, PathEscape, ConfigError: as `load_onnx`.
        """
        spec = self.__penstock_model__
        check = None if ctx is None else partial(ctx.progress, None, "session")
        session = OnnxSession._opened(self.path, self._terms, check)  # noqa: SLF001  one module
        if (session.inputs, session.outputs) != (spec.inputs, spec.outputs):
            raise LoadFailed(
                f"{self.path} has changed: it was declared with {spec.inputs} -> {spec.outputs}, and has "
                f"{session.inputs} -> {session.outputs} now"
            )
        return OnnxLoaded(session)

    def __repr__(self) -> str:
        spec = self.__penstock_model__
        return f"<penstock.OnnxModel {spec.reference} {self.path}>"
