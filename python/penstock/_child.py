"""What a worker process does: it loads what its parent names, and runs batches until its parent lets it go.

Its standard input was the socket to the parent; user code finds an empty one in its place.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import pickle
import sys
import traceback
from contextlib import suppress
from dataclasses import replace
from multiprocessing import process, spawn
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock import _lifecycle, _native
from penstock._deadline import DEADLINE, Countdown
from penstock._processes import look_up, pack, unpack
from penstock.errors import ConfigError, OutputError, PenstockError

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    """Runs in a fresh interpreter that `_processes.launch_of` has started."""
    child = _native.NativeChild()
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    # What is imported from here on must start no processes: `multiprocessing` has the same rule, and asks this.
    current: Any = process.current_process()
    current._inheriting = True  # noqa: SLF001  its own way to say so
    try:
        hello = pickle.loads(child.hello())  # noqa: S301  our own parent
        run = _load(child, hello)
    except BaseException as error:  # noqa: BLE001  whatever it is, the parent must be told
        with suppress(BrokenPipeError):
            child.refuse(*_explained(error))
        return
    del current._inheriting  # noqa: SLF001  as above
    try:
        child.ready()
    except BrokenPipeError:
        return  # the parent has gone meanwhile: there is nobody to work for
    run()


def _load(child: _native.NativeChild, hello: dict[str, Any]) -> Callable[[], None]:
    spawn.prepare(hello["preparation"])
    if hello["logs"] is not None:
        from penstock import logs  # noqa: PLC0415  only where the parent has it

        as_json, level = hello["logs"]
        logs.configure(json=as_json, level=level)
    if hello["keeps_memory"]:
        from penstock import _allocator  # noqa: PLC0415  as above

        _allocator.keep_freed_memory()
    target = _resolve(hello["reference"])
    if hello["kind"] == "model":
        return _model(child, target, hello["declared"])
    function = getattr(target, "fn", target)
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        function = _lifecycle.on_own_loop(function)
    return lambda: _run_function(child, function)


def _resolve(reference: tuple[Any, ...]) -> Any:
    if reference[0] != "name":
        return pickle.loads(reference[1])  # noqa: S301  our own parent
    _, module, qualname, file = reference
    return look_up(_imported(module, file), qualname)


def _imported(name: str, file: str | None) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if file is None or error.name != name:
            raise
    if name.startswith("penstock_model_"):
        from penstock._repository_python import load_module  # noqa: PLC0415  only models of a directory need it

        return load_module(name, Path(file))
    specification = importlib.util.spec_from_file_location(name, file)
    if specification is None or specification.loader is None:
        raise ConfigError(f"a worker process cannot import {name!r}")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module


def _model(child: _native.NativeChild, target: Any, declared: dict[str, Any]) -> Callable[[], None]:
    from penstock._served_models import declaration_of  # noqa: PLC0415
    from penstock._worker import work  # noqa: PLC0415  a batched function's child needs none of these
    from penstock.models import LoadContext, LoadedModel, spec_of  # noqa: PLC0415

    spec = spec_of(target)
    if spec is None:
        raise ConfigError(f"{target!r} is no model in a worker process: it is declared in the parent only")
    spec = replace(spec, **declared)
    loaded = LoadedModel(spec)
    function = loaded.load(LoadContext(spec.name, spec.version, directory=spec.directory))
    if loaded.is_async:
        function = _lifecycle.on_own_loop(function)
    child.serve(declaration_of(spec), function, loaded.fillers)

    def run() -> None:
        try:
            work(child)
        finally:
            loaded.close()

    return run


def _run_function(child: _native.NativeChild, function: Callable[..., Any]) -> None:
    descriptor = child.memory()
    while (message := child.receive()) is not None:
        outcome = _outcome(function, descriptor, message)
        try:
            answer = pack(descriptor, outcome)
        except Exception as error:  # noqa: BLE001  whatever it is, somebody waits for it
            refusal = OutputError(
                f"the function returned what cannot be sent from a process: {type(error).__name__}: {error}"
            )
            answer = pack(descriptor, (False, refusal))
        child.send(answer)
        # While it waits, the process must hold on to nothing.
        del outcome, message


def _outcome(function: Callable[..., Any], descriptor: int, message: bytes) -> tuple[bool, Any]:
    try:
        args, kwargs, left = unpack(descriptor, message)
        DEADLINE.set(None if left is None else Countdown(left))
        return True, function(*args, **(kwargs or {}))
    except BaseException as error:  # noqa: BLE001  whatever it is, somebody waits for it
        return False, _portable(error)


def _portable(error: BaseException) -> BaseException:
    """An exception that the parent can read, with the traceback that stays behind as a note."""
    shown = "".join(traceback.format_exception(error)).rstrip()
    note = f"in worker process {os.getpid()}:\n{shown}"
    try:
        error.add_note(note)
        pickle.loads(pickle.dumps(error))  # noqa: S301  what was pickled in this very line
    except Exception:  # noqa: BLE001  it holds what cannot be pickled, or is not made as it says
        plain = RuntimeError(f"{type(error).__name__}: {error}")
        plain.add_note(note)
        return plain
    return error


def _explained(error: BaseException) -> tuple[str, str, str]:
    """The class, the words and the traceback that the parent raises an error with."""
    shown = "".join(traceback.format_exception(error)).rstrip()
    if isinstance(error, PenstockError):
        return type(error).__name__, str(error), shown
    return "LoadFailed", f"a worker process could not start: {type(error).__name__}: {error}", shown
