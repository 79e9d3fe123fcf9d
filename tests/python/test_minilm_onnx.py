"""The graphs that the examples write, run by onnxruntime itself: no code of Penstock's is in between."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from examples import minilm_onnx, mlp_onnx, onnx_graph
from examples.demo_subjects import sentences
from examples.minilm import MiniLM, MiniLMMissing
from examples.mlp import mlp
from penstock import Client, Server

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TOLERANCE = 1e-4

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def session_of(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def model() -> MiniLM:
    try:
        return MiniLM.load()
    except MiniLMMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def path(model: MiniLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return minilm_onnx.written(tmp_path_factory.mktemp("minilm"))


@pytest.fixture(scope="module")
def session(path: Path) -> Any:
    return session_of(path)


def embedded(session: Any, texts: Sequence[str]) -> np.ndarray:
    ids, mask = minilm_onnx.tokens(texts)
    found: np.ndarray = session.run(None, {minilm_onnx.IDS: ids, minilm_onnx.MASK: mask})[0]
    return found


@pytest.mark.parametrize("count", [1, 2, 7, 32, 64])
def test_embeddings_are_those_of_numpy(model: MiniLM, session: Any, count: int) -> None:
    texts = [*sentences(count - 1), "word " * 40]
    found = embedded(session, texts)
    assert found.shape == (count, 384)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, model.encode(texts), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("text", ["", "word " * 400, "[PAD] [PAD] hello", "naïvely, the 2nd one doesn't."])
def test_texts_of_every_length_are_embedded(model: MiniLM, session: Any, text: str) -> None:
    np.testing.assert_allclose(embedded(session, [text]), model.encode([text]), rtol=0, atol=TOLERANCE)


def test_padding_changes_nothing(session: Any) -> None:
    ids, mask = minilm_onnx.tokens(["stock prices fell"])
    filled = {
        minilm_onnx.IDS: np.pad(ids, ((0, 0), (0, 9)), constant_values=7),
        minilm_onnx.MASK: np.pad(mask, ((0, 0), (0, 9))),
    }
    alone = session.run(None, {minilm_onnx.IDS: ids, minilm_onnx.MASK: mask})[0]
    np.testing.assert_allclose(session.run(None, filled)[0], alone, rtol=0, atol=1e-5)


def test_it_is_served_as_tokens_and_as_texts(model: MiniLM, path: Path) -> None:
    texts = sentences(24)
    expected = model.encode(texts)
    served = [minilm_onnx.served(path.parent), minilm_onnx.TextEmbeddings]
    # What comes while it loads waits together.
    server = Server(served, port=0, preload=[])
    with server, Client(server.url) as client, ThreadPoolExecutor(len(texts)) as threads:

        def ask(text: str) -> np.ndarray:
            ids, mask = minilm_onnx.tokens([text])
            row: np.ndarray = client.infer("minilm-onnx", {"input_ids": ids, "attention_mask": mask})["embedding"][0]
            return row

        np.testing.assert_allclose(list(threads.map(ask, texts)), expected, rtol=0, atol=TOLERANCE)
        stats = server.stats().models["minilm-onnx"]
        assert stats.requests == len(texts)
        assert stats.batches < len(texts), "texts of different lengths share batches"
        assert stats.lock_acquisitions == 0
        found = client.infer("minilm-onnx-text", {"text": np.array(texts, object)})["embedding"]
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
        answer = client.post("/v1/embeddings", json={"model": "minilm-onnx-text", "input": texts[:2]}).json()
        np.testing.assert_allclose([one["embedding"] for one in answer["data"]], expected[:2], rtol=0, atol=TOLERANCE)


def test_a_graph_that_is_there_is_not_written_again(path: Path) -> None:
    before = path.stat()
    assert minilm_onnx.written(path.parent) == path
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_the_graph_uses_standard_operators_only(path: Path) -> None:
    model = onnx.load(path)
    assert [one.domain for one in model.opset_import] == [""]
    assert {node.domain for node in model.graph.node} == {""}
    onnx.checker.check_model(model, full_check=True)


def test_without_the_writer_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: MiniLM) -> None:
    monkeypatch.setattr(minilm_onnx, "find_spec", lambda _name: None)
    with pytest.raises(MiniLMMissing, match="onnx is not installed: pip install"):
        minilm_onnx.written(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    made = mlp_onnx.graph()
    made.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(onnx.checker.ValidationError, match="NoSuchOperator"):
        onnx_graph.save(made, tmp_path / "mlp.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_network_of_the_benchmarks_is_that_of_numpy(tmp_path: Path) -> None:
    x = np.random.default_rng(3).standard_normal((50, 64), np.float32)
    (found,) = session_of(mlp_onnx.written(tmp_path)).run(["y"], {"x": x})
    np.testing.assert_allclose(found, mlp(x), rtol=1e-4, atol=1e-4)
