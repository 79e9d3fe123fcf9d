"""What `model.toml` says of a model, and what is wrong with it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pytest

from penstock import Adaptive, ModelDirectory, Pad, Processes
from penstock._repository_settings import merged, read_toml
from penstock.errors import ConfigError
from penstock.models import LoadContext, LoadedModel, ModelSpec, spec_of
from tests.python.support.directories import write, write_model

if TYPE_CHECKING:
    from pathlib import Path


def declared(tmp_path: Path, **permissions: bool) -> ModelSpec:
    scan = ModelDirectory(tmp_path, settle=0, **{"allow_python": True, **permissions}).scan()
    assert not scan.skipped
    (found,) = scan.found.values()
    spec = spec_of(found.model)
    assert spec is not None
    return spec


def refused(tmp_path: Path, **permissions: bool) -> str:
    scan = ModelDirectory(tmp_path, settle=0, **{"allow_python": True, **permissions}).scan()
    assert not scan.found
    (why,) = scan.skipped.values()
    return why


def read(text: str | bytes) -> dict[str, Any]:
    return read_toml(text if isinstance(text, bytes) else text.encode(), "m/model.toml", of_version=False)


def test_every_key() -> None:
    text = """
    versions = { latest = 2 }
    workers = 3
    threads = 2
    inter_threads = 4
    providers = [["CUDAExecutionProvider", { device_id = 1 }], "CPUExecutionProvider"]
    optimization = "basic"
    row_by_row = false
    spin = true
    arena = false
    sha256 = "abababababababababababababababababababababababababababababababab"
    warmup = 8
    pinned = true
    preload = false
    requires = "scaler"
    size = "1MiB"
    load_timeout = 60
    load_retries = 0
    method = "predict_proba"
    [batching]
    max_batch_size = 32
    preferred_batch_sizes = [8, 16]
    max_wait = 0.01
    pad = { value = 1, multiple = 8 }
    weights = { a = 2 }
    single_flight = true
    [inputs]
    x = { type = "float32", shape = [-1, 64] }
    [outputs.y]
    type = "float32"
    shape = []
    """
    assert read(text) == {
        "versions": {"latest": 2},
        "workers": 3,
        "threads": 2,
        "inter_threads": 4,
        "providers": (("CUDAExecutionProvider", {"device_id": 1}), "CPUExecutionProvider"),
        "optimization": "basic",
        "row_by_row": False,
        "spin": True,
        "arena": False,
        "sha256": "ab" * 32,
        "warmup": 8,
        "pinned": True,
        "preload": False,
        "requires": ("scaler",),
        "size": 1 << 20,
        "load_timeout": 60.0,
        "load_retries": 0,
        "method": "predict_proba",
        "batching": {
            "max_batch_size": 32,
            "preferred_batch_sizes": (8, 16),
            "max_wait": 0.01,
            "pad": Pad(value=1, multiple=8),
            "weights": {"a": 2},
            "single_flight": True,
        },
        "inputs": {"x": ("float32", (-1, 64))},
        "outputs": {"y": ("float32", ())},
    }
    assert read("workers = { processes = 2 }") == {"workers": Processes(2)}
    assert read("versions = 'all'\nwarmup = true\noutputs = ['y']") == {
        "versions": "all",
        "warmup": True,
        "outputs": ["y"],
    }
    adaptive = "[batching.max_batch_size]\nsmallest = 2\nlargest = 8"
    assert read(adaptive) == {"batching": {"max_batch_size": Adaptive(smallest=2, largest=8)}}
    assert read("") == {}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x = ", "m/model.toml is not TOML"),
        (b"\xff", "m/model.toml is not TOML"),
        ("x = " + "[" * 100_000, "m/model.toml is not TOML"),
        ("instances = 2", "m/model.toml: there is no setting 'instances'; there are arena, batching, "),
        ("workers = 0", "m/model.toml: workers must be at least 1"),
        ("workers = true", "m/model.toml: workers must be a whole number"),
        ("workers = 1.5", "m/model.toml: workers must be a whole number"),
        ("workers = { threads = 1 }", "m/model.toml: workers must be a number of threads"),
        ("workers = { processes = 0 }", "m/model.toml: workers.processes must be at least 1"),
        ("threads = '2'", "m/model.toml: threads must be a whole number"),
        ("providers = 'CPUExecutionProvider'", "m/model.toml: providers must be names"),
        ("providers = [1]", "m/model.toml: providers must be names"),
        ("providers = [['A', 'B']]", "m/model.toml: providers must be names"),
        ("optimization = 'some'", "m/model.toml: optimization must be one of"),
        ("sha256 = 'abc'", "m/model.toml: sha256 must be 64 hexadecimal digits"),
        ("spin = 1", "m/model.toml: spin must be true or false"),
        ("warmup = 0", "m/model.toml: warmup must be at least 1"),
        ("pinned = 1", "m/model.toml: pinned must be true or false"),
        ("preload = 'yes'", "m/model.toml: preload must be true or false"),
        ("requires = 'a@'", "m/model.toml: requires must be a name"),
        ("requires = [1]", "m/model.toml: requires must be the name"),
        ("size = 'large'", "m/model.toml: size must be a size"),
        ("size = 0", "m/model.toml: size must be a whole number of at least 1"),
        ("load_timeout = 0", "m/model.toml: load_timeout must be above 0"),
        ("load_timeout = inf", "m/model.toml: load_timeout must be finite"),
        ("load_retries = -1", "m/model.toml: load_retries must be"),
        ("method = '__reduce__'", "m/model.toml: method must be the name of a method"),
        ("versions = 'newest'", "m/model.toml: versions must be 'all'"),
        ("versions = { latest = 0 }", "m/model.toml: versions must be 'all'"),
        ("versions = []", "m/model.toml: versions must be 'all'"),
        ("inputs = 3", "m/model.toml: inputs must be names, or tables"),
        ("inputs = { x = 'float32' }", "m/model.toml: inputs.x must be a table"),
        ("inputs = { x = { type = 'float32' } }", "m/model.toml: inputs.x must be a table"),
        ("inputs = { x = { type = 'float32', shape = [-2] } }", "m/model.toml: inputs.x.shape must be the axes"),
        ("inputs = { x = { type = 'float32', shape = [true] } }", "m/model.toml: inputs.x.shape must be the axes"),
        ("batching = 3", "m/model.toml: batching must be a table"),
        ("[batching]\nsize = 3", "m/model.toml: batching: there is no setting 'size'"),
        ("[batching]\nkey = 'f'", "m/model.toml: batching: there is no setting 'key'"),
        ("[batching]\ncost = 3", "m/model.toml: batching.cost must be 'length'"),
        ("[batching]\npad = 'yes'", "m/model.toml: batching.pad must be true or false"),
        ("[batching]\npad = { size = 3 }", "m/model.toml: batching.pad: there is no setting 'size'"),
        ("[batching]\nsingle_flight = 'no'", "m/model.toml: batching.single_flight must be true or false"),
        ("[batching.max_batch_size]\nsmallest = 0", "m/model.toml: batching.max_batch_size: smallest=0 must be"),
    ],
)
def test_what_cannot_be_is_named_by_its_file_and_its_key(text: str | bytes, why: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(why)}"):
        read(text)


def test_a_version_cannot_say_which_versions_there_are() -> None:
    with pytest.raises(ConfigError, match=r"m/1/model\.toml: versions are said in the model.toml of the model"):
        read_toml(b"versions = 'all'", "m/1/model.toml", of_version=True)


def test_the_stronger_file_wins_key_by_key() -> None:
    weaker = {"pinned": True, "batching": {"max_wait": 1.0, "max_queue": 5}}
    stronger = {"size": 3, "batching": {"max_wait": 2.0}}
    assert merged(weaker, stronger) == {"pinned": True, "size": 3, "batching": {"max_wait": 2.0, "max_queue": 5}}
    assert merged(weaker, {}) == weaker
    assert merged({}, stronger) == stronger


def test_settings_change_what_python_declares(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    write(
        tmp_path / "times" / "model.toml",
        "workers = 2\nsize = 100\nload_timeout = 5\nload_retries = 3\nrequires = ['a', 'b@2']\n"
        "[batching]\nmax_batch_size = 7\nmax_queue = 9",
    )
    write(folder / "model.toml", "[batching]\nmax_batch_size = 8")
    spec = declared(tmp_path)
    assert (spec.workers, spec.size, spec.load_timeout, spec.load_retries) == (2, 100, 5.0, 3)
    assert spec.requires == ("a", "b@2")
    assert (spec.policy.max_batch_size, spec.policy.max_queue, spec.policy.max_wait) == (8, 9, 0.05)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("threads = 2", "ConfigError: threads is no setting of a model in Python"),
        ("method = 'f'", "ConfigError: method is no setting of a model in Python"),
        ("inputs = ['x']", "ConfigError: inputs is no setting of a model in Python"),
        ("[batching]\nmin_batch_size = 9\nmax_batch_size = 8", "ConfigError: batching: "),
        ("[batching]\nmax_batch_size = 'many'", "ConfigError: batching: max_batch_size must be a whole number"),
        ("[batching]\ndispatch = 'now'", "ConfigError: batching: dispatch must be one of"),
        ("[batching]\nmax_batch_cost = 5", "ConfigError: batching: max_batch_cost and max_queue_cost need cost="),
        ("workers = { processes = 2 }\nrequires = 'a'", "ConfigError: model 'times' runs in processes"),
    ],
)
def test_settings_that_do_not_fit_the_model(tmp_path: Path, text: str, why: str) -> None:
    write_model(tmp_path)
    write(tmp_path / "times" / "model.toml", text)
    assert refused(tmp_path).startswith(why)


class Doubles:
    """As an estimator of scikit-learn: it computes in float64."""

    def predict(self, rows: Any) -> Any:
        return np.asarray(rows, np.float64) * 2

    def labels(self, rows: Any) -> Any:
        return np.array(["odd" if row[0] % 2 else "even" for row in rows])


DECLARED = """
[inputs]
x = {{ type = "float32", shape = [2] }}
[outputs]
y = {{ type = "{0}", shape = {1} }}
"""


def predicted(spec: ModelSpec) -> Any:
    loaded = LoadedModel(spec)
    function = loaded.load(LoadContext(spec.name, spec.version, directory=spec.directory))
    return function(np.array([[1, 2]], np.float32))


def test_an_object_from_joblib(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "doubles").parent / "2"
    folder.mkdir()
    joblib.dump(Doubles(), folder / "model.joblib")
    write(folder / "model.toml", DECLARED.format("float32", [2]))
    y = predicted(declared(tmp_path, allow_pickle=True))
    assert y.dtype == np.float32
    assert y.tolist() == [[2.0, 4.0]]
    write(folder / "model.toml", "method = 'labels'\nworkers = 2\n" + DECLARED.format("string", []))
    spec = declared(tmp_path, allow_pickle=True)
    assert spec.workers == 2
    assert predicted(spec) == ["odd"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "ConfigError: a pickle does not say what it takes"),
        ("inputs = ['x']\noutputs = ['y']", "ConfigError: a pickle does not say what it takes"),
        (DECLARED.format("float31", []), "ConfigError: doubles/1/model.toml: outputs.y.type must be one of bfloat16, "),
        ("threads = 2" + DECLARED.format("float32", []), "ConfigError: threads is no setting of a pickle"),
        (
            "workers = { processes = 2 }" + DECLARED.format("float32", []),
            "ConfigError: workers of a pickle are threads",
        ),
    ],
)
def test_a_pickle_that_is_not_declared(tmp_path: Path, text: str, why: str) -> None:
    folder = tmp_path / "doubles" / "1"
    folder.mkdir(parents=True)
    joblib.dump(Doubles(), folder / "model.joblib")
    write(folder / "model.toml", text)
    assert refused(tmp_path, allow_pickle=True).startswith(why)


def test_a_number_does_not_become_a_class(tmp_path: Path) -> None:
    folder = tmp_path / "doubles" / "1"
    folder.mkdir(parents=True)
    joblib.dump(Doubles(), folder / "model.joblib")
    write(folder / "model.toml", DECLARED.format("int64", [2]))
    spec = declared(tmp_path, allow_pickle=True)
    with pytest.raises(TypeError, match="same_kind"):
        predicted(spec)
