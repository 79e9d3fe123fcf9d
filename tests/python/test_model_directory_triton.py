"""Triton's `config.pbtxt`: the text format, against protobuf's own reader, and what is understood of it."""

from __future__ import annotations

import re
import warnings
from contextlib import suppress
from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock._repository_pbtxt import read_message
from penstock._repository_triton import read_pbtxt
from penstock.errors import ConfigError

with warnings.catch_warnings():
    # What these packages import is not ours to answer for.
    warnings.simplefilter("ignore")
    from tritonclient.grpc import model_config_pb2

DENSENET = """
# As in Triton's own examples.
name: "densenet_onnx"
platform: "onnxruntime_onnx"
max_batch_size : 32
input [
  {
    name: "data_0"
    data_type: TYPE_FP32
    format: FORMAT_NCHW
    dims: [ 3, 224, 224 ]
    reshape { shape: [ 3, 224, 224 ] }
  },
  { name: "length" data_type: TYPE_INT64 dims: [ -1 ] }
]
output [
  {
    name: "fc6_1"
    data_type: TYPE_FP32
    dims: [ 1000 ]
    label_filename: "densenet_labels.txt"
  }
]
version_policy { latest { num_versions: 2 } }
instance_group [ { count: 2 kind: KIND_CPU }, { kind: KIND_GPU gpus: [0, 1] } ]
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 100
  preserve_ordering: true
  default_queue_policy { max_queue_size: 64 timeout_action: REJECT }
}
parameters { key: "intra_op_thread_count" value: { string_value: "4" } }
parameters: { key: 'inter_op_thread_count', value: < string_value: '2' > };
parameters { key: "execution_mode" value { string_value: "1" } }
optimization { graph { level: 1 } }
model_warmup [ {
  name: "w", batch_size: 8, inputs { key: "data_0" value { data_type: TYPE_FP32 dims: 3 zero_data: true } }
} ]
"""


PROVIDERS = "the providers of model.toml say where it runs"


def test_a_configuration_of_an_onnx_model() -> None:
    text_format.Parse(DENSENET, model_config_pb2.ModelConfig())  # it is one
    said, ignored = read_pbtxt(DENSENET.encode(), "densenet_onnx")
    assert said == {
        "batching": {
            "max_batch_size": 32,
            "preferred_batch_sizes": (4, 8),
            "dispatch": "window",
            "max_wait": 0.0001,
            "max_queue": 64,
        },
        "inputs": {"data_0": ("float32", (3, 224, 224)), "length": ("int64", (-1,))},
        "outputs": {"fc6_1": ("float32", (1000,))},
        "versions": {"latest": 2},
        "workers": 3,
        "threads": 4,
        "inter_threads": 2,
        "warmup": 8,
    }
    assert ignored == [
        "densenet_onnx/config.pbtxt: input 'data_0': format is ignored",
        "densenet_onnx/config.pbtxt: output 'fc6_1': label_filename is ignored",
        f"densenet_onnx/config.pbtxt: instance_group: KIND_GPU is ignored: {PROVIDERS}",
        "densenet_onnx/config.pbtxt: instance_group: gpus is ignored",
        "densenet_onnx/config.pbtxt: dynamic_batching.preserve_ordering is ignored",
        "densenet_onnx/config.pbtxt: dynamic_batching.default_queue_policy.timeout_action is ignored",
        "densenet_onnx/config.pbtxt: parameters: execution_mode is ignored",
        "densenet_onnx/config.pbtxt: optimization.graph is ignored",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ('backend: "onnxruntime"', {}),
        ('name: "m" max_batch_size: 8 dynamic_batching { }', {"batching": {"max_batch_size": 8}}),
        ("version_policy: { all { }}", {"versions": "all"}),
        ("version_policy { specific { versions: 3 versions: [1] } }", {"versions": [3, 1]}),
        ("version_policy { latest { } }", {"versions": {"latest": 1}}),
        ('default_model_filename: "net.onnx"', {"file": "net.onnx"}),
        ("instance_group { }", {"workers": 1}),
        ("model_warmup { name: 'x' }", {"warmup": True}),
        ("model_transaction_policy { decoupled: false }", {}),
    ],
)
def test_parts_of_one(text: str, expected: dict[str, Any]) -> None:
    text_format.Parse(text, model_config_pb2.ModelConfig())
    assert read_pbtxt(text.encode(), "m") == (expected, [])


@pytest.mark.parametrize("size", ["", "max_batch_size: 0", "max_batch_size: -1"])
def test_a_model_that_triton_does_not_batch_is_told(size: str) -> None:
    said, _ = read_pbtxt(f'{size} input {{ name: "x" data_type: TYPE_FP32 dims: [-1, 2] }}'.encode(), "m")
    assert list(said) == ["whole"]
    assert "max_batch_size is 0, so Triton would not batch" in said["whole"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('name: "other"', "m/config.pbtxt: the name is 'other', and the folder is called 'm'"),
        ("name: m", "m/config.pbtxt: name must be a text in quotes"),
        ('name: "m" name: "m"', "m/config.pbtxt: name must be there once, not 2 times"),
        ('platform: "tensorrt_plan"', "m/config.pbtxt: platform 'tensorrt_plan' is not understood"),
        ('platform: "ensemble"', "m/config.pbtxt: platform 'ensemble' is not understood"),
        ('backend: "python"', "m/config.pbtxt: backend 'python' is not understood"),
        ("ensemble_scheduling { }", "m/config.pbtxt: ensemble_scheduling is not understood"),
        ("sequence_batching { }", "m/config.pbtxt: sequence_batching is not understood"),
        ("model_operations { }", "m/config.pbtxt: model_operations is not understood"),
        ("model_repository_agents { }", "m/config.pbtxt: model_repository_agents is not understood"),
        ("batch_input { }", "m/config.pbtxt: batch_input is not understood"),
        ("model_transaction_policy { decoupled: true }", "m/config.pbtxt: model_transaction_policy.decoupled is not"),
        ("max_batchsize: 8", "m/config.pbtxt: Triton has no field 'max_batchsize'"),
        ("dynamic_batching { delay: 8 }", "m/config.pbtxt: Triton's dynamic_batching has no field 'delay'"),
        ("max_batch_size: '8'", "m/config.pbtxt: max_batch_size must be a whole number"),
        ("max_batch_size: 8.5", "m/config.pbtxt: max_batch_size must be a whole number"),
        ("max_batch_size: -inf", "m/config.pbtxt: max_batch_size must be a whole number"),
        ("dynamic_batching: 8", "m/config.pbtxt: dynamic_batching must be { ... }"),
        ("input: 3", "m/config.pbtxt: input must be { ... }"),
        ("input { data_type: TYPE_FP32 }", "m/config.pbtxt: input[0] has no name"),
        ("input { name: 'x' dims: 3 }", "m/config.pbtxt: input[0].data_type '' is not understood"),
        ("input { name: 'x' data_type: TYPE_FP8 }", "m/config.pbtxt: input[0].data_type 'TYPE_FP8' is not understood"),
        ("input { name: 'x' data_type: TYPE_BOOL dims: x }", "m/config.pbtxt: input[0].dims must be whole numbers"),
        (
            "input { name: 'x' data_type: TYPE_BOOL dims: 1 reshape { shape: [] } }",
            "m/config.pbtxt: input[0].reshape is not understood",
        ),
        ("input { name: 'x' optional: true }", "m/config.pbtxt: input[0].optional is not understood"),
        ("input { name: 'x' allow_ragged_batch: true }", "m/config.pbtxt: input[0].allow_ragged_batch is not"),
        ("input { name: 'x' size: 3 }", "m/config.pbtxt: input[0] has no field 'size'"),
        ("version_policy { }", "m/config.pbtxt: version_policy must be one of"),
        ("version_policy { newest { } }", "m/config.pbtxt: version_policy has no 'newest'"),
        ("version_policy { specific { } }", "m/config.pbtxt: version_policy.specific names no versions"),
        ("version_policy { specific { versions: 0 } }", "m/config.pbtxt: version_policy.specific names no versions"),
        ('default_model_filename: "../x"', "m/config.pbtxt: default_model_filename must be the name of a file"),
        ('default_model_filename: "a/x"', "m/config.pbtxt: default_model_filename must be the name of a file"),
    ],
)
def test_what_is_not_understood_is_named(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(why)}"):
        read_pbtxt(text.encode(), "m")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"\xff", "m is not UTF-8"),
        (b"name", "m, line 1: ':' or '{' was expected, not the end"),
        (b"\n\nname {", "m, line 3: the name of a field or '}' was expected, not the end"),
        (b"name: [1, ]", "m, line 1: a value was expected, not ']'"),
        (b"name: [1 2]", "m, line 1: ',' or ']' was expected, not '2'"),
        (b"name < a: 1 }", "m, line 1: the name of a field or '>' was expected, not '}'"),
        (b"}", "m, line 1: the name of a field was expected, not '}'"),
        (b'a: "x', "m, line 1: what is '\"x'?"),
        (b"a: 08", "m, line 1: a number that C can read was expected"),
        (b"a: 1x", "m, line 1: what is '1x'?"),
        (b"a: 1\n\nb: @", "m, line 3: what is '@'?"),
        (b'a: "\\377"', "m, line 1: a text is not UTF-8"),
        (b"a {" * 100 + b"}" * 100, "m, line 1: deeper than 32 messages"),
        (b"a {" * 100_000, "m, line 1: deeper than 32 messages"),
        (b"[a.b]: 1", "m, line 1: the name of a field was expected, not '['"),
    ],
)
def test_what_is_not_the_text_format(text: bytes, why: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(why)}"):
        read_message(text, "m")


def test_every_form_of_the_text_format() -> None:
    text = rb"""
    # a comment
    a: 1, b: -2; c: 0x1F d: 017 e: 1.5 f: .5f g: 2e3 h: - inf i: true
    t: "one" 'two' "\x41\101\n\"\u00e9\U0001F600"
    m { n: 1 } m < n: 2 > m: { } l: [] l: [1, 2] k: [{n: 1}, <>]
    """
    assert read_message(text, "m") == {
        "a": [1],
        "b": [-2],
        "c": [31],
        "d": [15],
        "e": [1.5],
        "f": [0.5],
        "g": [2000.0],
        "h": ["-inf"],
        "i": ["true"],
        "t": ['onetwoAA\n"é😀'],
        "m": [{"n": [1]}, {"n": [2]}, {}],
        "l": [1, 2],
        "k": [{"n": [1]}, {}],
    }


names = st.text(max_size=20)
configurations = st.builds(
    model_config_pb2.ModelConfig,
    name=names,
    max_batch_size=st.integers(-5, 2**31 - 1),
    input=st.lists(
        st.builds(
            model_config_pb2.ModelInput, name=names, data_type=st.integers(0, 14), dims=st.lists(st.integers(-1, 9))
        ),
        max_size=3,
    ),
    metric_tags=st.dictionaries(names, names, max_size=3),
    default_model_filename=names,
)


@settings(max_examples=200, deadline=None)
@given(configurations, st.booleans(), st.booleans())
def test_what_protobuf_writes_is_read(config: Any, one_line: bool, pointy: bool) -> None:
    text = text_format.MessageToString(
        config, as_one_line=one_line, pointy_brackets=pointy, use_short_repeated_primitives=pointy
    )
    read = read_message(text.encode(), "m")
    assert read.get("name", [""]) == [config.name]
    assert read.get("max_batch_size", [0]) == [config.max_batch_size]
    assert read.get("default_model_filename", [""]) == [config.default_model_filename]
    inputs: list[Any] = read.get("input", [])
    assert [one.get("name", [""]) for one in inputs] == [[one.name] for one in config.input]
    assert [one.get("dims", []) for one in inputs] == [list(one.dims) for one in config.input]
    tags: list[Any] = read.get("metric_tags", [])
    assert {tag.get("key", [""])[0]: tag.get("value", [""])[0] for tag in tags} == dict(config.metric_tags)


@settings(max_examples=500, deadline=None)
@given(
    st.integers(0, len(DENSENET)),
    st.integers(0, 6),
    st.text(alphabet="ab0189.-eEfxX:{}<>[],;#\"'\\\n ", max_size=6),
)
def test_what_protobuf_takes_is_taken(at: int, gone: int, put: str) -> None:
    text = DENSENET[:at] + put + DENSENET[at + gone :]
    try:
        text_format.Parse(text, model_config_pb2.ModelConfig())
    except (text_format.ParseError, UnicodeDecodeError, DeprecationWarning):
        # Of escapes that there are not, protobuf for Python only warns. What it refuses may be a name or a type, of
        # which nothing is known here.
        with suppress(ConfigError):
            read_message(text.encode(), "m")
    else:
        read_message(text.encode(), "m")
