"""The recipes for other people's formats, each served from a model directory as their readers do it."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penstock
from examples.digits import ACCURACY_FLOOR, held_out
from examples.minilm import MiniLM
from examples.recipes.write import pipeline, write
from tests.interop.support.processes import Process, answers, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
PYTORCH = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "interop" / "pytorch" / "python"
TEXTS = ["a cat sits on the mat", "a kitten is sitting on a rug", "stock prices fell", "", "deep water " * 300]


@contextmanager
def served(
    directory: Path, name: str, python: str | Path = sys.executable, allow: str = "--allow-python"
) -> Iterator[penstock.Client]:
    """A client of `penstock serve --models`, once the model is ready."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    process = Process(
        [str(python), "-m", "penstock", "serve", "--models", str(directory), allow, "--port", str(port)],
        directory.with_suffix(".log"),
        folder=directory.parent,
        environment={"PYTHONPATH": str(ROOT / "python"), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    try:
        process.wait_until(lambda: answers(f"{url}/v2/models/{name}/ready"))
        with penstock.Client(url) as client:
            yield client
    finally:
        process.stop()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def pytorch() -> Path:
    if not PYTORCH.exists():
        pytest.skip(f"PyTorch is not installed in {PYTORCH.parent}; tools/test-interop installs it")
    return PYTORCH


def test_a_pipeline_of_scikit_learn_by_joblib(models: Path) -> None:
    write(models, "digits-joblib")
    images, labels = held_out()
    with served(models, "digits-joblib") as client:
        answer = client.infer("digits-joblib", {"x": images})
    expected = pipeline().predict_proba(images)
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-6)
    assert answer["digit"].dtype == np.int64
    assert np.mean(answer["digit"] == labels) > ACCURACY_FLOOR


def test_a_pipeline_that_another_scikit_learn_saved_is_refused(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sklearn.base

    with monkeypatch.context() as changed:
        changed.setattr(sklearn.base, "__version__", "1.0")
        write(models, "digits-joblib")
    write(models, "digits-onnx")
    with served(models, "digits-onnx") as client:
        with pytest.raises(penstock.errors.PenstockError, match=r"InconsistentVersionWarning.*1\.0"):
            client.infer("digits-joblib", {"x": held_out()[0][:1]})
        assert client.infer("digits-onnx", {"X": held_out()[0][:1]})["label"].shape == (1,)


def test_the_same_pipeline_as_a_pickle_without_any_code(models: Path) -> None:
    write(models, "digits-pickle")
    images, _ = held_out()
    with served(models, "digits-pickle", allow="--allow-pickle") as client:
        answer = client.infer("digits-pickle", {"x": images})
    np.testing.assert_allclose(answer["probabilities"], pipeline().predict_proba(images), atol=1e-6)


def test_the_same_pipeline_as_onnx(models: Path) -> None:
    write(models, "digits-onnx")
    images, _ = held_out()
    with served(models, "digits-onnx") as client:
        answer = client.infer("digits-onnx", {"X": images})
    trained = pipeline()
    np.testing.assert_allclose(answer["probabilities"], trained.predict_proba(images), atol=1e-5)
    np.testing.assert_array_equal(answer["label"], trained.predict(images))


def test_a_tokenizer_of_transformers_in_front_of_onnx(models: Path) -> None:
    write(models, "sentences")
    with served(models, "sentences") as client:
        vectors = client.infer("sentences", {"text": TEXTS})["embedding"]
        listed = client.post("/v1/embeddings", json={"model": "sentences", "input": TEXTS[:2]}).raise_for_status()
    expected = MiniLM.load().encode(TEXTS)
    np.testing.assert_allclose(vectors, expected, atol=1e-4)
    embeddings: list[Any] = [row["embedding"] for row in listed.json()["data"]]
    np.testing.assert_allclose(np.array(embeddings), expected[:2], atol=1e-4)


def test_a_module_of_pytorch(models: Path, pytorch: Path) -> None:
    folder = write(models, "mlp-torch")
    rows = np.random.default_rng(3).standard_normal((40, 64), np.float32)
    with served(models, "mlp-torch", pytorch) as client:
        answer = client.infer("mlp-torch", {"x": rows})["y"]
    weights = penstock.load_safetensors(folder / "model.safetensors")
    hidden = np.maximum(rows @ weights["hidden.weight"].T + weights["hidden.bias"], 0)
    np.testing.assert_allclose(answer, hidden @ weights["out.weight"].T + weights["out.bias"], rtol=1e-4, atol=1e-4)


NO_COPY = """
import ml_dtypes
import numpy as np
import penstock
import torch
from examples.recipes.torch_mlp import tensor_of

arrays = penstock.load_safetensors("weights.safetensors")
tensors = {name: tensor_of(array) for name, array in arrays.items()}
assert tensors["half"].dtype == torch.bfloat16, tensors["half"].dtype
for name, tensor in tensors.items():
    assert tensor.data_ptr() == arrays[name].ctypes.data, name
expected = {name: torch.tensor(array.astype(np.float32)) for name, array in arrays.items()}
arrays.clear()
for name, tensor in tensors.items():
    assert torch.equal(tensor.float(), expected[name]), name
"""


def test_tensors_of_pytorch_share_the_memory_of_the_arrays(tmp_path: Path, pytorch: Path) -> None:
    import ml_dtypes
    from safetensors.numpy import save_file

    numbers = np.random.default_rng(4).standard_normal((5, 7), np.float32)
    arrays = {"half": numbers.astype(ml_dtypes.bfloat16), "single": numbers, "whole": np.arange(9)}
    save_file(arrays, tmp_path / "weights.safetensors")
    done = subprocess.run(
        [pytorch, "-W", "error", "-c", NO_COPY],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'python'}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
