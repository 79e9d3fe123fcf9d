"""Worker processes: how they are asked for and started, and the parent's side of a batched function.

Each is a fresh interpreter (never a fork, which is not safe beside threads) that imports what it is to run. The Rust
core carries the messages, starts a process again that died, and ends it; of a served model it carries the batches, too,
without this process's interpreter lock. A batched function's batches are pickled by protocol 5: arrays lie in the
shared memory as they are, and the rest of the pickle before them.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
from array import array
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock import _native
from penstock.errors import Closed, ConfigError, ItemError, ModelError, PenstockError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType

    from penstock._deadline import Deadline
    from penstock._policy import BatchPolicy

    Launch = tuple[str, list[str], bytes, str, bool]
    """The program, its arguments, the first message, whose process it is, and whether a batch may be run once more."""

END_SECONDS = 10.0
"""Time that a process has to end by itself once nothing more will come."""

_PARTS_AT_ONCE = 512
_MOST_ATTEMPTS = 2


@dataclass(frozen=True)
class Processes:
    """Runs a function, or a model, in so many processes instead of threads: `workers=penstock.Processes(2)`.

    For functions that hold the interpreter lock, such as those of pure Python: each process has a lock of its own.
    Batches go through shared memory, with one message each way per batch. A process that dies is started again, with a
    pause that grows while it goes on dying; its batch is run once more, and fails with `ModelError` if that one dies,
    too. Under `on_error="fail"` it is not run again, and fails at once.

    Each process is a fresh interpreter that imports the function's module. So the function must be importable by its
    name: at the top level of a module, or of a script whose own work stands under `if __name__ == "__main__":`.
    Functions that cannot be imported (of a notebook, lambdas, closures) need the package cloudpickle. Arguments and
    results that are no arrays are pickled.

    Attributes:
        count: how many.
    """

    count: int

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 1:
            raise ConfigError(f"Processes needs a whole number of at least 1, not {self.count!r}")


def launch_of(
    kind: str,
    target: Callable[..., Any],
    name: str,
    policy: BatchPolicy,
    declared: Mapping[str, Any] | None = None,
) -> Launch:
    """How a process is started that runs `target`.

    Args:
        kind: `"function"` for a batched function, `"model"` for what `@penstock.model` decorated.
        target: what it runs.
        name: what errors call it.
        policy: says whether a batch may be run once more.
        declared: fields of a model's declaration that differ from what its code says.

    Raises:
        ConfigError: where a fresh interpreter could not get at the target; or where a script is being imported by such
            an interpreter, and starts processes itself.
    """
    from multiprocessing import spawn, util  # noqa: PLC0415  who has no processes does not wait for it

    try:
        preparation = spawn.get_preparation_data(f"penstock {name}")
    except RuntimeError as error:
        raise ConfigError(
            f"{name}: a worker process that imports this module would start worker processes of its own; put what the "
            'script does under `if __name__ == "__main__":`'
        ) from error
    reference, needs_main = _reference(target, name)
    for key in list(preparation):
        if key in ("authkey", "start_method") or (key.startswith("init_main") and not needs_main):
            del preparation[key]
    hello = pickle.dumps(
        {
            "kind": kind,
            "preparation": preparation,
            "reference": reference,
            "declared": dict(declared or {}),
            "logs": _logging(),
            "keeps_memory": getattr(sys.modules.get("penstock._allocator"), "keeps_freed_memory", False),
        }
    )
    path = [place for place in sys.path if isinstance(place, str)]
    code = f"import sys; sys.path[:] = {path!r}; from penstock._child import main; main()"
    flags = util._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001  spawn passes them, too
    program = os.fsdecode(spawn.get_executable())
    return program, [*flags, "-c", code], hello, name, policy.on_error == "isolate"


def _reference(target: Callable[..., Any], name: str) -> tuple[tuple[Any, ...], bool]:
    """What a fresh interpreter finds the target by, and whether it must import the main module for it."""
    module, qualname = getattr(target, "__module__", None), getattr(target, "__qualname__", None)
    main = sys.modules["__main__"]
    if isinstance(module, str) and isinstance(qualname, str) and _is_found(target, module, qualname):
        if module != "__main__":
            return ("name", module, qualname, getattr(sys.modules[module], "__file__", None)), False
        if _is_importable(main):
            return ("name", module, qualname, None), True
    elif not qualname:
        # An object, a partial function: pickled, where what it is made of can be imported.
        pickled = b""
        with suppress(Exception):  # whatever it is: there is another way to try
            pickled = pickle.dumps(target)
        if pickled:
            needs_main = b"__main__" in pickled
            if not needs_main or _is_importable(main):
                return ("pickle", pickled), needs_main
    try:
        import cloudpickle  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: PLC0415  an optional package
    except ImportError as error:
        raise ConfigError(
            f"{name} cannot be imported by a worker process: "
            "move it to the top level of a module, or install cloudpickle"
        ) from error
    try:
        return ("cloudpickle", cloudpickle.dumps(target)), False
    except Exception as error:
        raise ConfigError(f"{name} cannot be sent to a worker process: {error}") from error


def _is_importable(main: ModuleType) -> bool:
    """False where it came from standard input, `-c`, or a notebook's cells."""
    file = getattr(main, "__file__", None)
    return getattr(main, "__spec__", None) is not None or (isinstance(file, str) and os.path.isfile(file))  # noqa: PTH113  no import for one look


def _is_found(target: object, module: str, qualname: str) -> bool:
    try:
        return unwrapped(look_up(sys.modules[module], qualname), target)
    except (KeyError, AttributeError):
        return False


def look_up(module: object, qualname: str) -> Any:
    """The object of that name.

    Raises:
        AttributeError: where there is none.
    """
    found = module
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


def unwrapped(found: object, target: object) -> bool:
    """True where the object of the target's name is the target, or a batcher around it."""
    return found is target or getattr(found, "fn", None) is target


def _logging() -> tuple[bool, int] | None:
    """How `penstock.logs.configure` was called, where it was."""
    logs = sys.modules.get("penstock.logs")
    handler = getattr(logs, "_handler", None)
    if logs is None or handler is None:
        return None
    return isinstance(handler.formatter, logs.JsonFormatter), logging.root.level


def pack(descriptor: int, value: object) -> bytes:
    """Writes a value into shared memory and gives the message that says where it lies: the length of each part."""
    buffers: list[pickle.PickleBuffer] = []
    parts: list[Any] = [pickle.dumps(value, protocol=5, buffer_callback=buffers.append)]
    parts += [buffer.raw() for buffer in buffers]
    _all_bytes(os.pwritev, descriptor, parts)
    return array("Q", [len(part) for part in parts]).tobytes()


def unpack(descriptor: int, message: bytes) -> Any:
    """The value that a message tells of, copied out of shared memory: its arrays are the caller's own."""
    import numpy as np  # noqa: PLC0415  the package imports without it

    lengths = array("Q")
    lengths.frombytes(message)
    # Unlike a bytearray, an array is not filled with zeros first.
    parts: list[Any] = [np.empty(length, np.uint8) for length in lengths]
    _all_bytes(os.preadv, descriptor, parts)
    return pickle.loads(parts[0], buffers=parts[1:])  # noqa: S301  our own child, or our own parent


def _all_bytes(transfer: Callable[[int, Sequence[Any], int], int], descriptor: int, parts: Sequence[Any]) -> None:
    """Transfers every byte of the parts, from the beginning of the shared memory on."""
    at = 0
    left = [memoryview(part) for part in parts if len(part)]
    while left:
        done = transfer(descriptor, left[:_PARTS_AT_ONCE], at)
        if done <= 0:
            raise OSError("the shared memory ends before its batch")
        at += done
        while left and done >= len(left[0]):
            done -= len(left.pop(0))
        if done:
            left[0] = left[0][done:]


class RemoteFunction:
    """A batched function in a process of its own: the parent's side, used by one thread."""

    def __init__(self, launch: Launch) -> None:
        self.keeper = _native.NativeKeeper(launch)
        _, _, _, self._name, _ = launch

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any] | None, deadline: Deadline | None) -> tuple[bool, Any]:
        """Whether the function returned, and what it returned or raised. It can ask how much time is left.

        Raises:
            ItemError: where an argument cannot be sent.
            PenstockError: where the process cannot be started, or has died of this batch as often as it may be run.
        """
        keeper = self.keeper
        for attempt in range(1, _MOST_ATTEMPTS + 1):
            try:
                left = None if deadline is None else deadline.remaining()
                message = pack(keeper.memory(), (args, kwargs, left))
            except OSError:
                raise
            except Exception as error:
                raise ItemError(f"this item cannot be sent to a process: {type(error).__name__}: {error}") from error
            answer = keeper.ask(message, attempt)
            if answer is not None:
                returned, value = unpack(keeper.memory(), answer)
                keeper.shrink()
                return returned, value
        raise ModelError(f"the process of {self._name} died")


def run(worker: _native.Worker, remote: RemoteFunction) -> None:
    """Runs batches in a process until none will come any more, and ends it."""
    alive = False
    try:
        while True:
            if not alive:
                # Where it cannot be started, each call tries again and says so.
                with suppress(PenstockError):
                    remote.keeper.start()
            if not worker.wait():
                return
            alive = True
            deadline = worker.deadline()
            while (call := worker.next()) is not None:
                _, args, kwargs = call
                del call
                alive = _run_one(worker, remote, (args, kwargs, deadline)) and alive
                del args, kwargs
    finally:
        remote.keeper.end(END_SECONDS)


def _run_one(
    worker: _native.Worker,
    remote: RemoteFunction,
    call: tuple[tuple[Any, ...], dict[str, Any] | None, Deadline | None],
) -> bool:
    """Answers whether the process is as well as it was."""
    alive = True
    try:
        returned, value = remote.call(*call)
    except ItemError as error:
        worker.raised(error)
    except PenstockError as error:
        # Not raised, it is Penstock's own word, and not what a function raised.
        own = Closed(str(error)) if isinstance(error, Closed) else ModelError(str(error))
        own.__cause__ = error.__cause__
        worker.failed(own)
        alive = False
    except BaseException as error:  # noqa: BLE001  whatever it is, somebody waits for it
        worker.raised(error)
    else:
        if returned:
            worker.returned(value)
        else:
            worker.raised(value)
    for _ in range(remote.keeper.take_restarts()):
        worker.count_restart()
    return alive
