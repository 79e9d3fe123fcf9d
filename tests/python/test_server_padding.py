"""Served models whose rows of different lengths share batches."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penstock import Pad, Processes, Server, model
from penstock.errors import ConfigError, ItemError
from penstock.testing import TestClient

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

DECLARED: dict[str, Any] = {
    "inputs": {"x": ("float32", [-1]), "scale": ("float32", [2])},
    "outputs": {"y": ("float32", [-1]), "sum": ("float32", []), "words": ("string", [-1])},
}


def twice(
    x: NDArray[np.float32], scale: NDArray[np.float32], mask: NDArray[np.bool_], lengths: NDArray[np.int64]
) -> dict[str, Any]:
    """Checks what it is told, and marks what is not the requests' own."""
    assert mask.shape == x.shape
    assert mask.sum(axis=1).tolist() == lengths.tolist()
    assert (x[~mask] == -1).all()
    if (x == 13).any():
        raise ValueError("thirteen")
    y = np.where(mask, x * scale[:, :1], np.float32(99)).astype(np.float32)
    words = [[str(len(x)) for _ in row] for row in x]
    return {"y": y, "sum": np.where(mask, x, 0).sum(axis=1).astype(np.float32), "words": words}


threads = model("padded", pad=Pad(value=-1, multiple=4), max_batch_size=8, min_batch_size=3, max_wait=5, **DECLARED)(
    twice
)


@model("padded", pad=Pad(value=-1), max_batch_size=8, workers=Processes(1), min_batch_size=3, max_wait=5, **DECLARED)
def processes(
    x: NDArray[np.float32], scale: NDArray[np.float32], mask: NDArray[np.bool_], lengths: NDArray[np.int64]
) -> dict[str, Any]:
    return twice(x, scale, mask, lengths)


@pytest.mark.parametrize("served", [threads, processes], ids=["threads", "processes"])
def test_outputs_are_as_long_as_the_request_that_they_answer(served: Callable[..., Any]) -> None:
    rows = [[1.0, 2.0, 3.0], [5.0], [7.0, 8.0, 9.0, 10.0, 11.0]]
    with TestClient(Server(served, port=0)) as client, ThreadPoolExecutor(len(rows)) as pool:

        def ask(row: list[float]) -> Any:
            return client.infer("padded", {"x": np.array([row], np.float32), "scale": np.full((1, 2), 2, np.float32)})

        answers = list(pool.map(ask, rows))
    for row, answer in zip(rows, answers, strict=True):
        assert answer["y"].tolist() == [[value * 2 for value in row]]
        assert answer["sum"].tolist() == [sum(row)]
        assert np.asarray(answer["words"]).shape == (1, len(row))
    assert {word for answer in answers for word in np.asarray(answer["words"]).ravel().tolist()} == {"3"}


@pytest.mark.parametrize("settings", [{"key": len}, {"cost": len, "max_batch_cost": 5}])
def test_a_model_asks_no_function_about_each_request(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="cost='length'"):
        model("asked", **settings, **DECLARED)


def test_a_budget_of_texts_counts_their_bytes() -> None:
    sizes: list[int] = []

    @model(
        "letters",
        inputs={"text": ("string", [])},
        outputs={"n": ("int64", [])},
        cost="length",
        max_batch_cost=10,
        min_batch_size=3,
        max_wait=0.5,
    )
    def letters(text: list[str]) -> NDArray[np.int64]:
        sizes.append(sum(map(len, text)))
        return np.array([len(one) for one in text], np.int64)

    texts = ["a" * 6, "b" * 7, "c" * 3]
    with TestClient(Server(letters, port=0)) as client, ThreadPoolExecutor(len(texts)) as pool:
        answers = list(pool.map(lambda text: client.infer("letters", {"text": np.array([text], object)}), texts))
        with pytest.raises(ItemError, match="max_batch_cost=10"):
            client.infer("letters", {"text": np.array(["d" * 11], object)})
    assert [answer["n"].tolist() for answer in answers] == [[6], [7], [3]]
    assert max(sizes) <= 10


def test_the_halves_of_a_padded_batch_keep_their_lengths() -> None:
    rows = [[1.0, 2.0], [13.0, 1.0, 1.0], [4.0]]
    with TestClient(Server(threads, port=0)) as client, ThreadPoolExecutor(len(rows)) as pool:

        def ask(row: list[float]) -> Any:
            inputs = {"x": np.array([row], np.float32), "scale": np.ones((1, 2), np.float32)}
            try:
                return client.infer("padded", inputs)["y"].tolist()
            except Exception as error:  # noqa: BLE001  which it is, the next line asks
                return type(error).__name__

        assert list(pool.map(ask, rows)) == [[[1.0, 2.0]], "ModelError", [[4.0]]]
