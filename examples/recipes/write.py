"""Writes the model directory: what is trained, converted and copied, and the `model.py` beside it."""

from __future__ import annotations

import shutil
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from examples import minilm, minilm_onnx
from examples.digits import held_out, seen

if TYPE_CHECKING:
    from collections.abc import Callable

HERE: Final = Path(__file__).parent
HIDDEN: Final = 64
PICKLE_TOML: Final = """\
method = "predict_proba"
inputs.x = {type = "float32", shape = [64]}
outputs.probabilities = {type = "float32", shape = [10]}
batching.max_batch_size = 100
"""
TOKENIZER_FILES: Final = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def pipeline() -> Any:
    """Train scikit-learn's pipeline for digits: a scaler, and a network with one hidden layer."""
    scaler = import_module("sklearn.preprocessing").StandardScaler()
    network = import_module("sklearn.neural_network").MLPClassifier(
        (HIDDEN,), alpha=1e-2, learning_rate_init=5e-3, tol=1e-3, random_state=0
    )
    fitted = import_module("sklearn.pipeline").make_pipeline(scaler, network)
    return fitted.fit(*seen())


def digits_joblib(folder: Path) -> None:
    """The pipeline as joblib saves it."""
    import_module("joblib").dump(pipeline(), folder / "pipeline.joblib")
    shutil.copyfile(HERE / "joblib_digits.py", folder / "model.py")


def digits_pickle(folder: Path) -> None:
    """The pipeline once more, without a line of Python: `model.toml` says what it takes and which method answers."""
    import_module("joblib").dump(pipeline(), folder / "model.joblib")
    (folder / "model.toml").write_text(PICKLE_TOML, encoding="utf-8")


def digits_onnx(folder: Path) -> None:
    """The same pipeline as an ONNX graph: no pickle, no Python, and no scikit-learn where it is served."""
    images, _ = held_out()
    # Without zipmap=False the odds come as a list of dictionaries, which no server can carry.
    convert = import_module("skl2onnx").to_onnx
    graph = convert(pipeline(), images[:1], options={"zipmap": False}, target_opset=17, name="digits")
    (folder / "model.onnx").write_bytes(graph.SerializeToString())


def sentences(folder: Path) -> None:
    """MiniLM as an ONNX graph, and the files of its tokenizer as Transformers reads them."""
    shutil.copyfile(minilm_onnx.written(), folder / "model.onnx")
    for name in TOKENIZER_FILES:
        shutil.copyfile(minilm.locate() / name, folder / name)
    shutil.copyfile(HERE / "transformers_sentences.py", folder / "model.py")


def mlp_torch(folder: Path) -> None:
    """Weights by the names that PyTorch gives them, written without PyTorch."""
    random = np.random.default_rng(0)
    shapes = {"hidden.weight": (128, 64), "hidden.bias": (128,), "out.weight": (8, 128), "out.bias": (8,)}
    tensors = {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    import_module("safetensors.numpy").save_file(tensors, folder / "model.safetensors")
    shutil.copyfile(HERE / "torch_mlp.py", folder / "model.py")


# Each with the packages that it needs to be written, and to be served.
RECIPES: Final[dict[str, tuple[Callable[[Path], None], tuple[str, ...]]]] = {
    "digits-joblib": (digits_joblib, ("sklearn", "joblib")),
    "digits-pickle": (digits_pickle, ("sklearn", "joblib")),
    "digits-onnx": (digits_onnx, ("sklearn", "skl2onnx", "onnxruntime")),
    "sentences": (sentences, ("tokenizers", "onnx", "onnxruntime", "transformers")),
    "mlp-torch": (mlp_torch, ("safetensors", "torch")),
}


def write(directory: Path, name: str) -> Path:
    """Write version 1 of a recipe below `directory`, and return its folder. What was there is written anew."""
    folder = directory / name / "1"
    # Under a name that no server takes for a version, until it is whole.
    made = folder.with_name(".1.tmp")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    RECIPES[name][0](made)
    shutil.rmtree(folder, ignore_errors=True)
    made.rename(folder)
    return folder


def missing(name: str) -> list[str]:
    """The packages that a recipe needs and that are not installed."""
    return [package for package in RECIPES[name][1] if find_spec(package) is None]
