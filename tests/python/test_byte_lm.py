"""The language model of the examples: its weights, its training, and how it chooses."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("safetensors")

from examples.byte_lm import train as training
from examples.byte_lm.generation import Writing, choose, step
from examples.byte_lm.network import NOTHING, WEIGHTS, WINDOW, ByteLM, chances, window_after, windows_of
from examples.byte_lm.text import BLOCK, split
from examples.byte_lm.trigrams import Trigrams

if TYPE_CHECKING:
    from numpy.typing import NDArray


@pytest.fixture(scope="module")
def network() -> ByteLM:
    return ByteLM.load()


def test_the_weights_are_better_than_trigrams_on_text_that_neither_has_seen(capsys: pytest.CaptureFixture[str]) -> None:
    assert training.main(["--check"]) == 0
    told = capsys.readouterr().out
    model, trigrams = map(float, re.findall(r"\d\.\d{3}", told))
    assert 1 < model < 0.75 * trigrams < 3, told


def test_the_weights_are_small() -> None:
    assert WEIGHTS.stat().st_size < 5_000_000


def test_held_out_text_is_apart_from_what_is_trained_on() -> None:
    text, held_out = (part.tobytes() for part in split())
    assert len(held_out) > 64_000
    assert len(text) > 15 * len(held_out)
    stretches = [held_out[begin : begin + 200] for begin in range(0, len(held_out) - 200, BLOCK // 16)]
    assert not any(stretch in text for stretch in stretches)


def test_trigrams_are_chances() -> None:
    counted = Trigrams.count(np.frombuffer(b"abracadabra, said the cat; abracadabra" * 3, np.uint8))
    assert np.allclose(counted.chances.sum(axis=-1), 1)
    assert counted.chances.min() > 0
    assert counted.chances[ord("b"), ord("r")].argmax() == ord("a")


def test_the_gradients_are_those_of_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    # With units left out at random, the loss of a step would not be that of the whole network.
    monkeypatch.setattr(training, "LEFT_OUT", 0.0)
    monkeypatch.setattr(training, "KEPT", np.float32(1))
    source = np.random.default_rng(5)
    windows, following = windows_of(split()[0][: WINDOW + 64])
    trainer = training.Trainer(source)
    trainer._parts["last"][:] = source.standard_normal(trainer._parts["last"].shape) * 0.02
    before = trainer._weights.copy()
    trainer.step(windows, following, 0.0)
    for name, slopes in trainer._slopes.items():
        direction = (slopes / np.linalg.norm(slopes)).astype(np.float32)
        losses = []
        for side in (-1, 1):
            trainer._weights[:] = before
            trainer._parts[name] += side * np.float32(0.01) * direction
            shares = chances(trainer.network.scores(windows).astype(np.float64))
            losses.append(-np.log(shares[np.arange(len(following)), following]).mean())
        trainer._weights[:] = before
        assert (losses[1] - losses[0]) / 0.02 == pytest.approx(np.linalg.norm(slopes), rel=0.03), name


def test_training_learns_and_can_be_repeated() -> None:
    text = np.frombuffer(b"the pipe carries water to the turbine. " * 200, np.uint8)
    one, other = (training.train(text, steps=12, seed=3) for _ in range(2))
    assert one.bits_per_byte(text) == other.bits_per_byte(text) < 7.5
    assert training.train(text, steps=12, seed=4).bits_per_byte(text) != one.bits_per_byte(text)


def test_weights_survive_their_file(tmp_path, network: ByteLM) -> None:
    training.save(network, tmp_path / "again.safetensors")
    windows = np.stack([window_after(b"The borrow checker"), window_after(b"")])
    assert np.array_equal(ByteLM.load(tmp_path / "again.safetensors").scores(windows), network.scores(windows))


def test_windows_end_with_the_newest_byte_and_begin_with_nothing() -> None:
    assert window_after(b"ab").tolist() == [NOTHING] * (WINDOW - 2) + [97, 98]
    assert window_after(b"").tolist() == [NOTHING] * WINDOW
    assert window_after(bytes(range(1, 100))).tobytes() == bytes(range(100 - WINDOW, 100))
    windows, following = windows_of(np.arange(WINDOW + 3, dtype=np.uint8))
    assert following.tolist() == [WINDOW, WINDOW + 1, WINDOW + 2]
    assert windows[1].tolist() == list(range(1, WINDOW + 1))


def _chosen(scores: list[float], temperature: float, top_p: float, times: int = 20_000) -> NDArray[np.float64]:
    """How often each byte is chosen, over draws that are spread evenly."""
    rows = np.full((times, 256), -np.inf, np.float32)
    rows[:, : len(scores)] = scores
    draws = (np.arange(times) + 0.5) / times
    chosen = choose(rows, np.full(times, temperature), np.full(times, top_p), draws)
    return np.bincount(chosen, minlength=len(scores)) / times


def test_bytes_are_chosen_as_often_as_their_chances_say() -> None:
    scores = np.log([0.1, 0.2, 0.4, 0.3]).tolist()
    assert _chosen(scores, 1.0, 1.0) == pytest.approx([0.1, 0.2, 0.4, 0.3], abs=1e-3)


@pytest.mark.parametrize(("temperature", "power"), [(0.5, 2.0), (2.0, 0.5)])
def test_temperature_sharpens_and_flattens(temperature: float, power: float) -> None:
    shares = np.array([0.1, 0.2, 0.4, 0.3])
    wanted = shares**power / (shares**power).sum()
    assert _chosen(np.log(shares).tolist(), temperature, 1.0) == pytest.approx(wanted, abs=1e-3)


def test_no_temperature_takes_the_likeliest() -> None:
    for temperature in (0.0, 1e-9):
        assert _chosen([1.0, 1.1, 1.0], temperature, 1.0).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("top_p", "wanted"),
    [
        (0.0, [0, 0, 1, 0]),
        (0.39, [0, 0, 1, 0]),
        (0.5, [0, 0, 4 / 7, 3 / 7]),
        (0.8, [0, 2 / 9, 4 / 9, 3 / 9]),
        (1.0, [0.1, 0.2, 0.4, 0.3]),
    ],
)
def test_top_p_leaves_out_the_unlikely(top_p: float, wanted: list[float]) -> None:
    assert _chosen(np.log([0.1, 0.2, 0.4, 0.3]).tolist(), 1.0, top_p) == pytest.approx(wanted, abs=1e-3)


def test_every_draw_chooses_something() -> None:
    scores = np.random.default_rng(1).standard_normal((4, 256)).astype(np.float32)
    draws = np.array([0.0, np.nextafter(1.0, 0.0), 0.0, np.nextafter(1.0, 0.0)])
    chosen = choose(scores, np.full(4, 1.0), np.array([1.0, 1.0, 0.9, 0.9]), draws)
    assert chosen[0] == scores[0].argmax()
    assert chosen[1] == scores[1].argmin()
    assert chosen[2] == scores[2].argmax()


def _written(network: ByteLM, writings: list[Writing], count: int) -> list[bytes]:
    steps = [step(network, writings) for _ in range(count)]
    return [b"".join(one) for one in zip(*steps, strict=True)]


def test_a_text_is_the_same_alone_and_in_company(network: ByteLM) -> None:
    def writings() -> list[Writing]:
        return [Writing.after(b"The compiler ", t, p, seed) for t, p, seed in ((0, 1, 1), (0.8, 0.9, 2), (1.2, 1, 3))]

    together = _written(network, writings(), 40)
    assert together == [_written(network, [one], 40)[0] for one in writings()]
    assert len(set(together)) == 3


def test_a_seed_says_what_is_written_and_none_says_nothing(network: ByteLM) -> None:
    def text(seed: int | None) -> bytes:
        return _written(network, [Writing.after(b"A trait ", 1.0, 1.0, seed)], 40)[0]

    assert text(7) == text(7) != text(8)
    assert text(None) != text(None)


def test_what_it_writes_looks_like_english(network: ByteLM) -> None:
    text = _written(network, [Writing.after(b"In Rust, the ", 0.5, 0.9, 1)], 400)[0].decode(errors="replace")
    words = re.findall(r"[a-z]+", text)
    known = set(re.findall(r"[a-z]+", split()[0].tobytes().decode(errors="replace")))
    assert len(words) > 40
    assert sum(word in known for word in words) > 0.8 * len(words), text
