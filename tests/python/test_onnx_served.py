"""ONNX graphs as models of a server: declared, loaded, run without the interpreter, and what goes wrong."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import penstock
from penstock import Client, ModelCache, Server, load_onnx, model, onnx_model
from penstock import _onnx_terms as onnx_terms
from penstock.errors import Closed, ConfigError, ItemError, LoadFailed, PenstockError, UnsafeFormat
from penstock.models import spec_of
from penstock.testing import TestClient
from tests.python.support import graphs
from tests.python.support.waiting import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.python.support.scripts import Script

MIB = 1 << 20


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


@pytest.fixture
def doubling(tmp_path: Path) -> Path:
    return graphs.scaled(tmp_path / "double.onnx")


def ones(rows: int = 1, width: int = 4) -> dict[str, np.ndarray]:
    return {"x": np.ones((rows, width), np.float32)}


def locks(server: Server, name: str) -> int:
    """Times that workers of a model took the interpreter lock, as `/metrics` says."""
    wanted = f'penstock_lock_acquisitions_total{{model="{name}"}}'
    found = [line for line in server.metrics().splitlines() if line.startswith(wanted)]
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in found)


def passes(script: Script, text: str) -> None:
    done = script.run(text)
    assert done.code == 0, done.err


def test_a_graph_is_served_without_the_interpreter(doubling: Path, threads: ThreadPoolExecutor) -> None:
    @model("python", inputs={"x": ("float32", [4])}, outputs={"y": ("float32", [4])})
    def python(x: Any) -> Any:
        return x * 2

    rows = np.random.default_rng(0).standard_normal((300, 4), np.float32)
    with Server([onnx_model("double", doubling), python], port=0) as server, Client(server.url) as client:
        answers = list(threads.map(lambda row: client.infer("double", {"x": row[np.newaxis]})["y"][0], rows))
        np.testing.assert_array_equal(answers, rows * 2)
        np.testing.assert_array_equal(client.infer("double", {"x": rows})["y"], rows * 2)
        assert client.infer("python", ones())["y"].shape == (1, 4)
        stats = server.stats().models["double"]
        assert stats.requests == 600
        assert locks(server, "python") >= 1, "the counter counts"
        assert locks(server, "double") == 0
        assert server.explain("double", last=1).batches


def test_it_answers_while_python_holds_the_interpreter_lock(doubling: Path) -> None:
    """The lock is held until the client has its answers: who needs it would never give them."""
    ask = """
import json, os, sys, urllib.request
body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}).encode()
for _ in range(5):
    with urllib.request.urlopen(sys.argv[1], body, timeout=20) as answer:
        assert json.load(answer)["outputs"][0]["data"] == [2, 4, 6, 8]
os.write(int(sys.argv[2]), b"!")
"""
    with Server([onnx_model("double", doubling, warmup=True)], port=0) as server:
        heard, tell = os.pipe()
        command = [sys.executable, "-c", ask, f"{server.url}/v2/models/double/infer", str(tell)]
        with subprocess.Popen(command, pass_fds=[tell]) as client:
            os.close(tell)
            byte = ctypes.create_string_buffer(1)
            # Unlike CDLL, PyDLL does not give the lock back while the function runs.
            count = ctypes.PyDLL(None).read(heard, byte, 1)
            assert client.wait(PATIENCE) == 0
        os.close(heard)
        assert (count, byte.raw) == (1, b"!")


def test_what_comes_while_it_loads_is_one_batch(doubling: Path, threads: ThreadPoolExecutor) -> None:
    served = onnx_model("double", doubling, max_batch_size=64)
    with Server([served], port=0, preload=[]) as server, Client(server.url) as client:
        answers = list(
            threads.map(
                lambda value: client.infer("double", {"x": np.full((1, 4), value, np.float32)})["y"][0, 0], range(20)
            )
        )
        assert answers == [2 * value for value in range(20)]
        assert server.cache.stats().loads == 1
        assert server.stats().models["double"].requests == 20


def test_several_inputs_and_outputs_and_strings(tmp_path: Path) -> None:
    path = graphs.several(tmp_path / "several.onnx")
    served = onnx_model("several", path)
    assert served.inputs == {"a": ("float64", (2,)), "b": ("float64", (2,)), "text": ("string", (1,))}
    assert served.outputs == {"sum": ("float64", (2,)), "less": ("bool", (2,)), "same": ("string", (1,))}
    a, b = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[4.0, 1.0], [9.0, 9.0]])
    text = np.array([["naïve"], [""]], object)
    with Server([served], port=0) as server, Client(server.url) as client:
        found = client.infer("several", {"text": text, "b": b, "a": a})
        np.testing.assert_array_equal(found["sum"], a + b)
        np.testing.assert_array_equal(found["less"], a < b)
        assert [one.decode() for one in found["same"].ravel()] == ["naïve", ""]


def test_outputs_that_are_not_wanted_are_left_out(tmp_path: Path) -> None:
    path = graphs.several(tmp_path / "several.onnx")
    served = onnx_model("several", path, outputs=["less"])
    given = {"a": np.zeros((1, 2)), "b": np.ones((1, 2)), "text": np.array([["x"]], object)}
    with Server([served], port=0) as server, Client(server.url) as client:
        assert list(client.infer("several", given)) == ["less"]
        assert [one["name"] for one in client.get("/v2/models/several").json()["outputs"]] == ["less"]


def test_rows_of_different_lengths_share_a_batch(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    served = onnx_model("sums", graphs.masked_sum(tmp_path / "sums.onnx"), pad=True, max_batch_size=32)

    def ask(length: int) -> float:
        values = np.arange(1, length + 1, dtype=np.float32)[np.newaxis]
        return float(client.infer("sums", {"x": values, "mask": np.ones_like(values)})["y"][0])

    with Server([served], port=0, preload=[]) as server, Client(server.url) as client:
        assert list(threads.map(ask, range(1, 21))) == [length * (length + 1) / 2 for length in range(1, 21)]
        assert server.stats().models["sums"].requests == 20


def test_a_row_that_fails_fails_alone(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    served = onnx_model("pick", graphs.picking(tmp_path / "pick.onnx"), max_batch_size=16)

    def ask(at: int) -> float | str:
        try:
            return float(client.infer("pick", {"at": np.array([at], np.int64)})["y"][0])
        except ItemError:
            return "refused"

    with Server([served], port=0, preload=[]) as server, Client(server.url) as client:
        asked = [0, 1, 2, 7, 1, -9, 0]
        assert list(threads.map(ask, asked)) == [10, 20, 30, "refused", 20, "refused", 10]
        assert ask(2) == 30
        assert locks(server, "pick") == 0


def test_it_leaves_and_comes_back(tmp_path: Path) -> None:
    served = [onnx_model(f"m{number}", graphs.weighty(tmp_path / f"{number}.onnx", number)) for number in range(3)]
    cache = ModelCache(memory=2 * MIB + MIB // 2)
    with cache, Server(served, port=0, preload=[], cache=cache) as server, Client(server.url) as client:
        for _ in range(3):
            for number in range(3):
                found = client.infer(f"m{number}", {"x": np.ones((1, 1), np.float32)})["y"]
                assert float(found[0, 0]) == 1 + number
        until(lambda: [cache.progress(f"m{number}").state for number in range(3)] == ["unloaded", "ready", "ready"])
        assert cache.stats().evictions == {"space": 7}
        assert 2 * MIB <= cache.stats().bytes.ready <= 2 * MIB + MIB // 4


def test_each_worker_has_a_session_and_counts(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    path = graphs.weighty(tmp_path / "m.onnx", 5)
    served = onnx_model("m", path, workers=3, threads=1, max_batch_size=2)
    with Server([served], port=0) as server, Client(server.url) as client:
        answers = threads.map(
            lambda value: client.infer("m", {"x": np.full((1, 1), value, np.float32)})["y"], range(50)
        )
        assert [float(answer[0, 0]) for answer in answers] == [5 + value for value in range(50)]
        assert 3 * MIB <= server.cache.stats().bytes.ready <= 3 * MIB + MIB // 4


def test_a_size_that_was_declared_counts(doubling: Path) -> None:
    with Server([onnx_model("double", doubling, size="5MiB")], port=0) as server:
        assert server.cache.stats().bytes.ready == 5 * MIB


def test_a_python_model_can_stand_before_it(doubling: Path) -> None:
    @model("words", inputs={"text": ("string", [])}, outputs={"y": ("float32", [4])}, requires="double")
    class Words:
        def load(self, ctx: penstock.LoadContext) -> None:
            self.graph = ctx["double"]

        def predict(self, text: list[str]) -> Any:
            x = np.array([[len(one)] * 4 for one in text], np.float32)
            return self.graph({"x": x})["y"]

    with Server([onnx_model("double", doubling), Words], port=0, preload=["words"]) as server:
        with Client(server.url) as client:
            found = client.infer("words", {"text": np.array(["abc", "d"], object)})["y"]
            np.testing.assert_array_equal(found, [[6] * 4, [2] * 4])
            np.testing.assert_array_equal(client.infer("double", ones())["y"], [[2] * 4])
        with server.cache.acquire("double") as lent:
            assert isinstance(lent, penstock.OnnxSession)


def test_a_session_that_was_lent_says_that_it_is_closed(doubling: Path) -> None:
    with Server([onnx_model("double", doubling)], port=0) as server:
        with server.cache.acquire("double") as lent:
            assert lent(ones())["y"][0, 0] == 2
        server.cache.unload("double").wait(PATIENCE)
        with pytest.raises(Closed, match=r"double\.onnx was closed"):
            lent(ones())


@pytest.mark.parametrize("warmup", [True, 7, "function"])
def test_it_is_warmed_up_before_it_is_ready(doubling: Path, warmup: Any) -> None:
    seen = []

    def warm(session: Any) -> None:
        seen.append(session(ones(3))["y"].shape)

    served = onnx_model("double", doubling, workers=2, warmup=warm if warmup == "function" else warmup)
    with Server([served], port=0) as server, Client(server.url) as client:
        np.testing.assert_array_equal(client.infer("double", ones())["y"], [[2] * 4])
    assert seen == ([(3, 4)] if warmup == "function" else [])


def test_a_warm_up_that_fails_fails_the_load(doubling: Path) -> None:
    def warm(_: Any) -> None:
        raise RuntimeError("too cold")

    with (
        pytest.raises(LoadFailed, match="too cold"),
        Server([onnx_model("d", doubling, warmup=warm, load_retries=0)], port=0),
    ):
        pass


def test_a_file_that_turns_bad_takes_no_other_model_down(doubling: Path, tmp_path: Path) -> None:
    other = graphs.scaled(tmp_path / "other.onnx", 3)
    served = [onnx_model("double", doubling, load_retries=0), onnx_model("other", other)]
    with Server(served, port=0, preload=["other"]) as server, Client(server.url) as client:
        doubling.write_bytes(b"\x08\x0aall that glitters")
        with pytest.raises(PenstockError, match=r"UnsafeFormat: .*double\.onnx"):
            client.infer("double", ones())
        assert client.infer("other", ones())["y"][0, 0] == 3
        rows = {row["name"]: row for row in client.post("/v2/repository/index").json()}
        assert rows["double"]["state"] == "UNAVAILABLE"
        assert "double.onnx" in rows["double"]["reason"]
        assert rows["other"]["state"] == "READY"


def test_a_file_that_has_other_inputs_than_it_had_is_refused(doubling: Path) -> None:
    served = onnx_model("double", doubling, load_retries=0)
    graphs.scaled(doubling, width=5)
    with pytest.raises(LoadFailed, match=r"has changed: .*\(4,\).* now"), Server([served], port=0):
        pass


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x00" * 100, b"PK\x03\x04"])
def test_garbage_is_refused_when_it_is_declared(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "garbage.onnx"
    path.write_bytes(content)
    for opening in (lambda: onnx_model("garbage", path), lambda: load_onnx(path)):
        with pytest.raises((UnsafeFormat, ConfigError), match=r"garbage\.onnx"):
            opening()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for opening in (lambda: onnx_model("gone", tmp_path / "gone.onnx"), lambda: load_onnx(tmp_path / "gone.onnx")):
        with pytest.raises(LoadFailed, match=r"gone\.onnx"):
            opening()


BAD: dict[str, dict[str, Any]] = {
    "must be a whole number": {"threads": 1.5},
    "threads must be at least 1": {"threads": 0},
    "workers must be a whole number": {"workers": 0},
    "takes no interpreter lock": {"workers": penstock.Processes(2)},
    "providers must be names": {"providers": "CPUExecutionProvider"},
    "providers must name one": {"providers": []},
    "a provider is a name": {"providers": [("CPUExecutionProvider", 3)]},
    "inputs must be names": {"inputs": "x"},
    "outputs are named by strings": {"outputs": [3]},
    "must be declared as": {"outputs": {"y": "float32"}},
    "axes of 'y' must be whole": {"outputs": {"y": ("float32", [1.5])}},
    "has no output 'z'": {"outputs": ["z"]},
    "row_by_row must be": {"row_by_row": "yes"},
    "warmup must be between": {"warmup": 0},
    "warmup must be true": {"warmup": "often"},
    "unknown setting": {"max_batch": 3},
    "exclude each other": {"policy": penstock.BatchPolicy(), "max_batch_size": 3},
    "key= and cost=": {"key": lambda x: 0},
    "a model's version": {"version": "a b"},
}


@pytest.mark.parametrize("said", BAD)
def test_what_cannot_be_is_refused_when_it_is_declared(doubling: Path, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        onnx_model("double", doubling, **BAD[said])


def test_an_unknown_provider_is_named(doubling: Path) -> None:
    with pytest.raises(PenstockError, match="NoSuchExecutionProvider"):
        load_onnx(doubling, providers=["NoSuchExecutionProvider"])


def test_a_session_in_a_cache_of_ones_own(doubling: Path) -> None:
    with ModelCache() as cache:

        @cache.loader("double")
        def load(ctx: penstock.LoadContext) -> penstock.OnnxSession:
            return ctx.onnx(doubling)

        with cache.acquire("double") as session:
            np.testing.assert_array_equal(session(ones(3))["y"], np.full((3, 4), 2, np.float32))
        assert cache.stats().bytes.ready >= doubling.stat().st_size


def test_in_process_without_a_socket(doubling: Path) -> None:
    with TestClient(Server([onnx_model("double", doubling)])) as client:
        np.testing.assert_array_equal(client.infer("double", ones(2))["y"], np.full((2, 4), 2, np.float32))


def test_what_it_is_called(doubling: Path) -> None:
    served = onnx_model("double", doubling, version=3)
    assert repr(served) == f"<penstock.OnnxModel double@3 {doubling}>"
    spec = spec_of(served)
    assert spec is not None
    assert (spec.reference, spec.is_stepwise, spec.requires) == ("double@3", False, ())
    session = load_onnx(doubling)
    assert repr(session) == "<penstock.OnnxSession double.onnx: x -> y>"
    session.close()
    session.close()
    assert repr(session) == "<penstock.OnnxSession double.onnx: x -> y, closed>"
    with pytest.raises(ConfigError, match=r"penstock\.load_onnx"):
        penstock.OnnxSession()


def test_lists_become_what_is_declared_and_arrays_do_not(doubling: Path) -> None:
    session = load_onnx(doubling)
    assert session({"x": [[1, 2, 3, 4]]})["y"].tolist() == [[2, 4, 6, 8]]
    with pytest.raises(PenstockError, match="float64"):
        session({"x": np.ones((1, 4))})


def test_the_library_is_found_without_importing_the_package(script: Script, doubling: Path) -> None:
    passes(
        script,
        f"""
session = penstock.load_onnx({str(doubling)!r})
assert session({{"x": np.ones((2, 4), np.float32)}})["y"].tolist() == [[2] * 4] * 2
assert "onnxruntime" not in sys.modules
""",
    )


@pytest.mark.parametrize("first", ["penstock", "onnxruntime"])
def test_it_works_beside_the_package_itself(script: Script, doubling: Path, first: str) -> None:
    passes(
        script,
        f"""
x = np.random.default_rng(0).standard_normal((5, 4), np.float32)
def ours():
    return penstock.load_onnx({str(doubling)!r})
def theirs():
    import onnxruntime
    return onnxruntime.InferenceSession({str(doubling)!r}, providers=["CPUExecutionProvider"])
if {first!r} == "penstock":
    own, other = ours(), theirs()
else:
    other, own = theirs(), ours()
for _ in range(3):
    np.testing.assert_array_equal(own({{"x": x}})["y"], other.run(["y"], {{"x": x}})[0])
""",
    )


def test_without_the_package_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENSTOCK_ONNXRUNTIME", raising=False)
    assert "libonnxruntime" in onnx_terms.library()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(onnx_terms, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r'pip install "penstock\[onnx\]"'):
        onnx_terms.library()


def test_a_library_that_is_not_there_is_named(script: Script, doubling: Path, tmp_path: Path) -> None:
    passes(
        script,
        f"""
os.environ["PENSTOCK_ONNXRUNTIME"] = "/no/such/library.so"
try:
    penstock.load_onnx({str(doubling)!r})
except penstock.errors.ConfigError as error:
    assert "/no/such/library.so" in str(error), error
else:
    raise AssertionError("it was opened")
""",
    )


def test_processes_that_share_a_port_have_sessions_of_their_own(script: Script, doubling: Path, tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(f"""
import os
import numpy as np
import penstock
double = penstock.onnx_model("double", {str(doubling)!r})
@penstock.model("pid", inputs={{"x": ("float32", [1])}}, outputs={{"y": ("int64", [1])}})
def pid(x):
    return np.full((len(x), 1), os.getpid(), np.int64)
models = [double, pid]
""")
    command = [sys.executable, "-m", "penstock", "serve", str(app), "--port", "0", "--workers", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = next(word for line in process.stdout for word in line.split() if word.startswith("http://"))
            seen = set()

            def ask() -> bool:
                with Client(url) as client:
                    np.testing.assert_array_equal(client.infer("double", ones())["y"], [[2] * 4])
                    seen.add(int(client.infer("pid", {"x": np.zeros((1, 1), np.float32)})["y"][0, 0]))
                return len(seen) == 2

            until(ask)
        finally:
            process.terminate()
            process.stdout.read()
        assert process.wait(PATIENCE) == 0


def test_a_module_of_graphs_is_found_by_the_command(doubling: Path, tmp_path: Path) -> None:
    from penstock.cli import find_models

    app = tmp_path / "some_graphs.py"
    app.write_text(f"import penstock\ndouble = penstock.onnx_model('double', {str(doubling)!r})\n")
    assert [spec_of(found).name for found in find_models(str(app))] == ["double"]  # type: ignore[union-attr]
