"""The native side of ONNX graphs: batches from NumPy, loads that end early, forks, and another copy of the library."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penstock import _native
from penstock.errors import Closed, ConfigError, ItemError, LoadFailed, OutputError

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
ml_dtypes = pytest.importorskip("ml_dtypes")

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.python.support.scripts import Script

ROOT = Path(__file__).parents[2]
GRAPHS = ROOT / "tests" / "onnx" / "graphs"
LIBRARY = str(next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.*")))

PATIENCE = 30.0


@dataclass
class Settings:
    """How a graph is opened: the defaults, and what a test changes."""

    threads: int = 1
    inter_threads: int = 1
    providers: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)
    optimization: str = "all"
    spin: bool = False
    arena: bool = True
    row_by_row: bool = False
    inputs: list[tuple[str, str | None, list[int] | None]] | None = None
    outputs: list[tuple[str, str | None, list[int] | None]] | None = None
    sha256: str | None = None
    sessions: int = 1


HERE = f"""
sys.path.insert(0, {str(ROOT)!r})
import numpy
from penstock import _native, errors
from tests.python.test_onnx_native import GRAPHS, LIBRARY, Settings, opened
"""


def opened(name: str, check: Callable[[], object] | None = None, **settings: Any) -> _native.NativeOnnx:
    return _native.NativeOnnx(LIBRARY, str(GRAPHS / f"{name}.onnx"), Settings(**settings), check)


def identities(rows: int) -> dict[str, Any]:
    random = np.random.default_rng(5)
    inputs: dict[str, Any] = {}
    for name, elements, _ in opened("identities").inputs:
        if elements == "string":
            inputs[name] = [["a", "zwölf"]] * rows
        elif elements == "bfloat16":
            inputs[name] = random.normal(size=(rows, 2)).astype(ml_dtypes.bfloat16)
        else:
            inputs[name] = random.integers(0, 2, size=(rows, 2)).astype(elements)
    return inputs


def test_every_type_goes_in_and_comes_out() -> None:
    inputs = identities(4)
    outputs = opened("identities").run(inputs)
    assert len(outputs) == 14
    for name, value in inputs.items():
        output = outputs[f"{name}_out"]
        assert output.dtype == (np.dtype(object) if name == "string" else np.asarray(value).dtype)
        assert np.array_equal(output, np.asarray(value, dtype=output.dtype))


def test_outputs_are_like_those_of_the_package_onnxruntime_in_the_same_process() -> None:
    x = np.random.default_rng(1).normal(size=(7, 3)).astype(np.float32)
    ours = opened("doubles")
    theirs = onnxruntime.InferenceSession(str(GRAPHS / "doubles.onnx"))
    for _ in range(3):
        assert np.array_equal(ours.run({"x": x})["y"], theirs.run(None, {"x": x})[0])


def test_what_the_graph_gives_is_the_callers_own() -> None:
    graph = opened("doubles")
    first = graph.run({"x": np.ones((2, 3), np.float32)})["y"]
    first[:] = 7
    second = graph.run({"x": np.ones((2, 3), np.float32)})["y"]
    assert second.flags.writeable
    assert (second == 2).all()
    assert (first == 7).all()


@pytest.mark.parametrize(
    "x",
    [
        np.arange(12, dtype=np.float32).reshape(3, 4).T,
        np.arange(24, dtype=np.float32).reshape(8, 3)[::2],
        np.zeros((0, 3), np.float32),
        np.arange(12, dtype=np.float32).reshape(4, 3)[:, ::-1],
    ],
)
def test_arrays_of_any_layout_are_taken(x: np.ndarray[Any, Any]) -> None:
    assert np.array_equal(opened("doubles").run({"x": x})["y"], x * 2)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "input 'x' is missing"),
        ({"x": np.zeros((1, 3), np.float32), "z": 1}, "no input 'z'"),
        ({"x": np.zeros((1, 3))}, "float64"),
        ({"x": np.zeros((1, 4), np.float32)}, r"\[1, 4\]"),
        ({"x": np.zeros(3, np.float32)}, r"\[3\]"),
        ({"x": np.float32(3)}, "float32 of shape"),
        ({"x": np.zeros((1, 3), ">f4")}, ">f4"),
        ({"x": "a text"}, "the graph takes float32"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_by_name(inputs: dict[str, Any], words: str) -> None:
    with pytest.raises(ItemError, match=words):
        opened("doubles").run(inputs)


def test_inputs_have_as_many_rows() -> None:
    with pytest.raises(ItemError, match="input 'b' has 3 rows, where others have 2"):
        opened("pair").run({"a": np.zeros((2, 5), np.float32), "b": np.zeros((3, 5), np.float32)})


def test_what_a_graph_refuses_is_told_in_its_words() -> None:
    graph = opened("lookup")
    with pytest.raises(ItemError, match="out of data bounds"):
        graph.run({"id": np.array([1, 4])})
    assert graph.run({"id": np.array([1, -1])})["row"].tolist() == [[2, 3], [6, 7]]


def test_an_output_that_is_not_as_declared_is_the_models_fault() -> None:
    with pytest.raises(OutputError, match=r"output 'y' is .*4, 3.*declares float32 of shape \[2\]"):
        opened("stacked").run({"x": np.ones((2, 3), np.float32)})


def test_a_graph_with_a_batch_of_one_is_run_row_by_row() -> None:
    with pytest.raises(ConfigError, match="row_by_row=True"):
        opened("fixed_one")
    x = np.arange(15, dtype=np.float32).reshape(5, 3)
    assert np.array_equal(opened("fixed_one", row_by_row=True).run({"x": x})["y"], x * 2)


def test_the_signature_needs_no_library() -> None:
    inputs, outputs = _native.onnx_signature(str(GRAPHS / "pair.onnx"), Settings())
    assert inputs == [("a", "float32", [-1]), ("b", "float32", [-1])]
    assert outputs == [("sum", "float32", [-1]), ("length", "int64", [])]


@pytest.mark.parametrize("rows", [0, -1, 1 << 40])
def test_a_warm_up_runs_a_sensible_number_of_rows(rows: int) -> None:
    graph = opened("pair", sessions=3)
    graph.warm_up(8)
    with pytest.raises((ConfigError, OverflowError)):
        graph.warm_up(rows)


def test_a_warm_up_tells_what_the_graph_cannot_do() -> None:
    with pytest.raises(OutputError):
        opened("stacked").warm_up(2)


def test_threads_share_sessions_and_a_close_ends_it() -> None:
    graph = opened("doubles", sessions=2)
    failures: list[BaseException] = []
    x = np.ones((50, 3), np.float32)

    def call() -> None:
        try:
            while True:
                assert (graph.run({"x": x})["y"] == 2).all()
        except Closed:
            return
        except BaseException as error:  # noqa: BLE001  told below
            failures.append(error)

    threads = [threading.Thread(target=call) for _ in range(6)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    graph.close()
    graph.close()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert not failures
    with pytest.raises(Closed, match=r"doubles\.onnx"):
        graph.warm_up(1)


def large(path: Path, layers: int) -> None:
    """A graph that takes the library a while to open: it folds what is constant."""
    helper = onnx.helper
    weight = onnx.numpy_helper.from_array(np.random.default_rng(0).normal(size=(600, 600)).astype(np.float32), "w0")
    nodes = [helper.make_node("MatMul", [f"w{at}", "w0"], [f"w{at + 1}"]) for at in range(layers)]
    nodes.append(helper.make_node("MatMul", ["x", f"w{layers}"], ["y"]))
    axes = ["n", 600]
    float32 = onnx.TensorProto.FLOAT
    x, y = (helper.make_tensor_value_info(name, float32, axes) for name in ("x", "y"))
    graph = helper.make_graph(nodes, "g", [x], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    path.write_bytes(model.SerializeToString())


def test_a_load_that_is_not_wanted_any_more_ends(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    large(path, 400)
    asked = 0

    class Unwanted(Exception):
        pass

    def check() -> None:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise Unwanted

    with pytest.raises(Unwanted):
        _native.NativeOnnx(LIBRARY, str(path), Settings(sessions=50), check)
    assert asked == 2


def test_a_load_leaves_the_lock_to_others(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    large(path, 100)
    ticks = 0
    done = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not done.is_set():
            ticks += 1
            time.sleep(0.001)

    ticking = threading.Thread(target=tick)
    ticking.start()
    try:
        _native.NativeOnnx(LIBRARY, str(path), Settings()).run({"x": np.zeros((1, 600), np.float32)})
    finally:
        done.set()
        ticking.join(PATIENCE)
    assert ticks > 5


def test_what_the_library_does_not_know_is_a_load_that_fails() -> None:
    for name, words in (("unknown_operator", "Unheard"), ("unknown_opset", "99")):
        with pytest.raises(LoadFailed, match=words):
            opened(name)


def test_providers_and_words_that_are_unknown_are_refused() -> None:
    for settings, words in (
        ({"providers": [("CUDAExecutionProvider", [("device_id", "0")])]}, "only CPUExecutionProvider"),
        ({"providers": [("Unheard", [])]}, "no provider that is known"),
        ({"optimization": "best"}, "none, basic, extended or all"),
        ({"threads": 0}, "threads must be between 1"),
    ):
        with pytest.raises(ConfigError, match=words):
            opened("doubles", **settings)


def test_a_missing_library_says_how_to_get_it(script: Script) -> None:
    done = script.run(f"""{HERE}
for path in ("/none/libonnxruntime.so", __file__, "libonnxruntime.so", sys.executable):
    try:
        _native.NativeOnnx(path, str(GRAPHS / "doubles.onnx"), Settings())
    except errors.ConfigError as error:
        print('pip install "penstock[onnx]"' in str(error), path in str(error))
print(_native.onnx_build_info())
graph = _native.NativeOnnx(LIBRARY, str(GRAPHS / "doubles.onnx"), Settings())
print(graph.run({{"x": numpy.ones((1, 3), "float32")}})["y"].tolist())
""")
    assert (done.code, done.err) == (0, ""), done
    assert done.out == [*["True True"] * 4, "None", "[[2.0, 2.0, 2.0]]"]


def test_a_forked_child_loads_its_own(script: Script) -> None:
    done = script.run(f"""{HERE}
import warnings
warnings.filterwarnings("ignore", category=DeprecationWarning)  # Python 3.12 warns of every fork with threads
x = dict(x=numpy.ones((1, 3), "float32"))
graph = opened("doubles", threads=2)
print(graph.run(x)["y"].sum(), flush=True)
pid = os.fork()
if pid == 0:
    signal.alarm(20)
    try:
        graph.run(x)
    except errors.Closed as error:
        print("child:", "before a fork" in str(error))
    graph.close()
    print("child:", opened("doubles", threads=2).run(x)["y"].sum())
    sys.stdout.flush()
    os._exit(5)
print("exit", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
print(graph.run(x)["y"].sum())
""")
    assert (done.code, done.err) == (0, ""), done
    assert done.out == ["6.0", "child: True", "child: 6.0", "exit 5", "6.0"]


def test_an_exit_with_sessions_open_is_quiet(script: Script) -> None:
    done = script.run(f"""{HERE}
graphs = [opened("doubles", threads=2, sessions=2) for _ in range(3)]
def run():
    while True:
        graphs[0].run(dict(x=numpy.ones((100, 3), "float32")))
threading.Thread(target=run, daemon=True).start()
time.sleep(0.2)
print("done")
""")
    assert (done.code, done.err, done.out) == (0, "", ["done"]), done
