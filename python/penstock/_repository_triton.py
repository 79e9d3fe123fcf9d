"""Triton's `config.pbtxt` of an ONNX model, in the words of `model.toml`.

What would change answers and is not understood is refused, naming the field. What would not is named in a warning. The
fields are those of Triton's model_config.proto: https://github.com/triton-inference-server/common/tree/main/protobuf
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock._repository_pbtxt import Message, Word, read_message
from penstock.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock._repository_settings import Settings

_TYPES = {
    "TYPE_BOOL": "bool",
    "TYPE_UINT8": "uint8",
    "TYPE_UINT16": "uint16",
    "TYPE_UINT32": "uint32",
    "TYPE_UINT64": "uint64",
    "TYPE_INT8": "int8",
    "TYPE_INT16": "int16",
    "TYPE_INT32": "int32",
    "TYPE_INT64": "int64",
    "TYPE_FP16": "float16",
    "TYPE_FP32": "float32",
    "TYPE_FP64": "float64",
    "TYPE_STRING": "string",
    "TYPE_BF16": "bfloat16",
}

_REFUSED = {
    "ensemble_scheduling": "an ensemble of models: write it as a model.py that requires them",
    "sequence_batching": "requests that belong together in a sequence",
    "model_operations": "operators of a library of its own",
    "model_repository_agents": "an agent that changes the model before it is loaded",
    "batch_input": "inputs that tell of the batch",
    "batch_output": "outputs that are cut by what the batch was",
}
_NAMED = (
    "cc_model_filenames",
    "metric_tags",
    "model_metrics",
    "response_cache",
    "runtime",
)
_WHOLE = (
    "{}: max_batch_size is 0, so Triton would not batch: where the first axis is one row after another, say under "
    "[batching] in model.toml how many rows a batch may have; other models cannot be served"
)
_THREADS = {"intra_op_thread_count": "threads", "inter_op_thread_count": "inter_threads"}


def read_pbtxt(text: bytes, name: str) -> tuple[Settings, list[str]]:
    """The settings in a `config.pbtxt`, and what of it is not done.

    Args:
        text: what is in it.
        name: what the folder of the model is called.

    Raises:
        ConfigError: for what is not in the text format, for a field that there is not, and for one that cannot be
            left out without changing answers.
    """
    file = f"{name}/config.pbtxt"
    return _Config(read_message(text, file), file).settings(name)


class _Config:
    def __init__(self, message: Message, file: str) -> None:
        self._message = message
        self._file = file
        self._settings: Settings = {}
        self._warnings: list[str] = []
        # With 0, which is what it is where nothing is said, Triton hands every request over as it came.
        self._is_batched = False

    def settings(self, name: str) -> tuple[Settings, list[str]]:
        fields: dict[str, Callable[[_Field], None]] = {
            "name": lambda field: self._name(field, name),
            "platform": self._platform,
            "backend": self._backend,
            "version_policy": self._versions,
            "max_batch_size": self._whole_batch,
            "input": lambda field: self._tensors(field, "inputs"),
            "output": lambda field: self._tensors(field, "outputs"),
            "dynamic_batching": self._batching,
            "instance_group": self._instances,
            "default_model_filename": self._default_file,
            "model_warmup": self._warmup,
            "parameters": self._parameters,
            "optimization": self._optimization,
            "model_transaction_policy": self._transactions,
        }
        for key, values in self._message.items():
            field = _Field(self._file, key, values)
            if key in _REFUSED:
                raise ConfigError(f"{self._file}: {key} is not understood: {_REFUSED[key]}")
            if key in _NAMED:
                self._ignores(key)
            elif key in fields:
                fields[key](field)
            else:
                raise ConfigError(f"{self._file}: Triton has no field {key!r}, or only since lately")
        if not self._is_batched and {"inputs", "outputs"} & set(self._settings):
            self._settings["whole"] = _WHOLE.format(self._file)
            # With their first axis, whatever it is: the graph says the same.
            self._settings.pop("inputs", None)
            self._settings.pop("outputs", None)
        return self._settings, self._warnings

    def _ignores(self, what: str, why: str = "") -> None:
        self._warnings.append(f"{self._file}: {what} is ignored{why and ': '}{why}")

    def _set_batching(self, key: str, value: object) -> None:
        self._settings.setdefault("batching", {})[key] = value

    def _name(self, field: _Field, name: str) -> None:
        if (said := field.text()) not in {"", name}:
            raise ConfigError(f"{self._file}: the name is {said!r}, and the folder is called {name!r}")

    def _platform(self, field: _Field) -> None:
        if (said := field.text()) not in {"", "onnxruntime_onnx"}:
            raise ConfigError(f"{self._file}: platform {said!r} is not understood, only 'onnxruntime_onnx' is")

    def _backend(self, field: _Field) -> None:
        if (said := field.text()) not in {"", "onnxruntime"}:
            raise ConfigError(f"{self._file}: backend {said!r} is not understood, only 'onnxruntime' is")

    def _versions(self, field: _Field) -> None:
        said = field.message()
        if len(said) != 1:
            raise ConfigError(f"{self._file}: version_policy must be one of latest, all and specific")
        kind, values = next(iter(said.items()))
        inner = _Field(self._file, f"version_policy.{kind}", values).message()
        if kind == "all":
            self._settings["versions"] = "all"
        elif kind == "latest":
            count = _field_of(self._file, inner, "num_versions", 1)
            self._settings["versions"] = {"latest": max(1, count)}
        elif kind == "specific":
            numbers = _Field(self._file, "version_policy.specific.versions", inner.get("versions", [])).numbers()
            if not numbers or min(numbers) < 1:
                raise ConfigError(f"{self._file}: version_policy.specific names no versions above 0")
            self._settings["versions"] = numbers
        else:
            raise ConfigError(f"{self._file}: version_policy has no {kind!r}")

    def _whole_batch(self, field: _Field) -> None:
        if (size := field.number()) > 0:
            self._is_batched = True
            self._set_batching("max_batch_size", size)
        else:
            self._settings["whole"] = _WHOLE.format(self._file)

    def _tensors(self, field: _Field, which: str) -> None:
        declared = {}
        for number, said in enumerate(field.messages()):
            tensor = _Tensor(self._file, f"{field.key}[{number}]", said)
            declared[tensor.name] = (tensor.elements(), tensor.axes())
            for key in tensor.ignored():
                self._ignores(f"{field.key} {tensor.name!r}: {key}")
        if declared:
            self._settings[which] = declared

    def _batching(self, field: _Field) -> None:
        said = field.message()
        for key, values in said.items():
            inner = _Field(self._file, f"dynamic_batching.{key}", values)
            if key == "preferred_batch_size":
                self._set_batching("preferred_batch_sizes", tuple(inner.numbers()))
            elif key == "max_queue_delay_microseconds":
                if delay := inner.number():
                    # Triton holds a batch back for that time even where an instance is idle.
                    self._set_batching("dispatch", "window")
                    self._set_batching("max_wait", delay / 1e6)
            elif key == "default_queue_policy":
                self._queue(inner)
            elif key in {"preserve_ordering", "priority_levels", "default_priority_level", "priority_queue_policy"}:
                self._ignores(f"dynamic_batching.{key}")
            else:
                raise ConfigError(f"{self._file}: Triton's dynamic_batching has no field {key!r}")

    def _queue(self, field: _Field) -> None:
        for key, values in field.message().items():
            if key == "max_queue_size":
                if size := _Field(self._file, f"{field.key}.{key}", values).number():
                    self._set_batching("max_queue", size)
            else:
                self._ignores(f"{field.key}.{key}")

    def _instances(self, field: _Field) -> None:
        count = 0
        for said in field.messages():
            count += max(1, _field_of(self._file, said, "count", 1))
            kind = str(said.get("kind", ["KIND_AUTO"])[-1])
            if kind not in {"KIND_AUTO", "KIND_CPU"}:
                self._ignores(f"instance_group: {kind}", "the providers of model.toml say where it runs")
            for key in sorted(set(said) - {"count", "kind", "name"}):
                self._ignores(f"instance_group: {key}")
        if count:
            self._settings["workers"] = count

    def _default_file(self, field: _Field) -> None:
        name = field.text()
        if not name:
            return
        if "/" in name or "\\" in name or "\0" in name or name.startswith("."):
            raise ConfigError(f"{self._file}: default_model_filename must be the name of a file, not {name!r}")
        self._settings["file"] = name

    def _warmup(self, field: _Field) -> None:
        rows = 0
        for said in field.messages():
            rows = max(rows, _field_of(self._file, said, "batch_size", 0))
            inputs = _Field(self._file, "model_warmup.inputs", said.get("inputs", [])).messages()
            if any("input_data_file" in values for values in map(_value_of, inputs)):
                self._ignores("model_warmup: input_data_file", "it is warmed up with zeros")
            if _field_of(self._file, said, "count", 1) > 1:
                self._ignores("model_warmup: count")
        self._settings["warmup"] = rows or True

    def _parameters(self, field: _Field) -> None:
        for said in field.messages():
            key = str(said.get("key", [""])[-1])
            text = str(_value_of(said).get("string_value", [""])[-1])
            if key in _THREADS and text.isascii() and text.isdigit():
                # As in ONNX Runtime, 0 leaves it to the library, whose answer is a thread for each core.
                if int(text):
                    self._settings[_THREADS[key]] = int(text)
            else:
                self._ignores(f"parameters: {key}")

    def _optimization(self, field: _Field) -> None:
        for key in sorted(field.message()):
            self._ignores(f"optimization.{key}")

    def _transactions(self, field: _Field) -> None:
        if str(field.message().get("decoupled", ["false"])[-1]).lower() not in {"false", "f", "0"}:
            raise ConfigError(f"{self._file}: model_transaction_policy.decoupled is not understood: answers in pieces")


class _Tensor:
    """An input or an output."""

    def __init__(self, file: str, place: str, said: Message) -> None:
        self._file, self._place, self._said = file, place, said
        self.name = _Field(file, f"{place}.name", said.get("name", [])).text()
        if not self.name:
            raise ConfigError(f"{file}: {place} has no name")
        known = {"name", "data_type", "dims", "format", "reshape", "label_filename", "optional"}
        flags = {"is_shape_tensor", "allow_ragged_batch", "is_non_linear_format_io"}
        if unknown := sorted(set(said) - known - flags):
            raise ConfigError(f"{file}: {place} has no field {unknown[0]!r}")
        for flag in ("optional", *sorted(flags)):
            if str(said.get(flag, ["false"])[-1]).lower() not in {"false", "f", "0"}:
                raise ConfigError(f"{file}: {place}.{flag} is not understood")

    def elements(self) -> str:
        said = str(self._said.get("data_type", [""])[-1])
        if said not in _TYPES:
            raise ConfigError(f"{self._file}: {self._place}.data_type {said!r} is not understood")
        return _TYPES[said]

    def axes(self) -> tuple[int, ...]:
        axes = _Field(self._file, f"{self._place}.dims", self._said.get("dims", [])).numbers()
        if "reshape" in self._said:
            inner = _Field(self._file, f"{self._place}.reshape", self._said["reshape"]).message()
            if _Field(self._file, f"{self._place}.reshape.shape", inner.get("shape", [])).numbers() != axes:
                raise ConfigError(f"{self._file}: {self._place}.reshape is not understood: put it into the model")
        return tuple(axes)

    def ignored(self) -> list[str]:
        said = []
        if str(self._said.get("format", ["FORMAT_NONE"])[-1]) != "FORMAT_NONE":
            said.append("format")
        if "label_filename" in self._said:
            said.append("label_filename")
        return said


class _Field:
    """The values of one field, and what it must be."""

    def __init__(self, file: str, key: str, values: list[Any]) -> None:
        self._file = file
        self.key = key
        self._values = values

    def text(self) -> str:
        if not self._values:
            return ""
        value = self._only()
        if not isinstance(value, str) or isinstance(value, Word):
            raise ConfigError(f"{self._file}: {self.key} must be a text in quotes, not {value!r}")
        return value

    def number(self) -> int:
        value = self._only()
        if not isinstance(value, int):
            raise ConfigError(f"{self._file}: {self.key} must be a whole number, not {value!r}")
        return value

    def numbers(self) -> list[int]:
        for value in self._values:
            if not isinstance(value, int):
                raise ConfigError(f"{self._file}: {self.key} must be whole numbers, not {value!r}")
        return list(self._values)

    def message(self) -> Message:
        value = self._only()
        if not isinstance(value, dict):
            raise ConfigError(f"{self._file}: {self.key} must be {{ ... }}, not {value!r}")
        return value

    def messages(self) -> list[Message]:
        for value in self._values:
            if not isinstance(value, dict):
                raise ConfigError(f"{self._file}: {self.key} must be {{ ... }}, not {value!r}")
        return list(self._values)

    def _only(self) -> Any:
        if len(self._values) != 1:
            raise ConfigError(f"{self._file}: {self.key} must be there once, not {len(self._values)} times")
        return self._values[0]


def _field_of(file: str, message: Message, key: str, otherwise: int) -> int:
    return _Field(file, key, message[key]).number() if key in message else otherwise


def _value_of(entry: Message) -> Message:
    """What a map's entry holds."""
    value = entry.get("value", [{}])[-1]
    return value if isinstance(value, dict) else {}
