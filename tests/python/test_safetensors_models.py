"""Weights in a model cache and in a server: counted once a file, told how far they are, stopped when nobody waits."""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import penstock
from penstock._cache_sizes import measure
from penstock.errors import ConfigError, LoadFailed, UnsafeFormat
from penstock.models import LoadContext
from penstock.safetensors import load_safetensors, open_safetensors
from tests.python.support.waiting import soon
from tests.python.support.weights import of_arrays, sharded

MIB = 1 << 20
PAGES = 64 << 10
"""What headers and whole pages may add to a file's bytes."""


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    arrays = {name: ("U8", np.full(MIB, at, np.uint8)) for at, name in enumerate("abcd")}
    path.write_bytes(of_arrays(arrays))
    return path


@pytest.mark.parametrize("mode", ["mmap", "read"])
def test_a_file_counts_once_however_many_arrays_look_at_it(weights: Path, mode: Any) -> None:
    loaded = load_safetensors(weights, mode=mode)
    model = {**loaded, "views": [loaded["a"][5:], loaded["b"].reshape(2, -1), memoryview(loaded["c"])]}
    found = measure(model)
    assert found.complete
    assert 4 * MIB <= found.size < 4 * MIB + PAGES
    (counted,) = found.buffers
    assert counted[0] is loaded["a"].base


@pytest.mark.parametrize("mode", ["mmap", "read"])
def test_an_open_file_counts_as_what_it_holds(weights: Path, mode: Any) -> None:
    with open_safetensors(weights, mode=mode) as file:
        found = measure({"file": file})
        assert found.complete
        if mode == "read":
            assert found.size < PAGES
        else:
            assert 4 * MIB <= found.size < 4 * MIB + PAGES
        assert found.size <= measure({"file": file, "a": file["a"]}).size < found.size + PAGES + (mode == "read") * MIB


def test_arrays_that_were_copied_to_be_aligned_count_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    path.write_bytes(of_arrays({name: ("F32", np.ones(MIB // 4, np.float32)) for name in "ab"}, shift=1))
    found = measure(load_safetensors(path, mode="mmap"))
    assert 2 * MIB <= found.size < 2 * MIB + PAGES
    assert len(found.buffers) == 2


@pytest.mark.parametrize("mode", ["mmap", "read"])
async def test_what_is_still_looked_at_after_an_unload_stays_counted(weights: Path, mode: Any) -> None:
    with penstock.ModelCache() as cache:
        cache.loader("a")(lambda ctx: ctx.safetensors(weights, mode=mode))
        async with cache.acquire("a") as model:
            view = model["a"][5:10]
        del model
        assert 4 * MIB <= cache.stats().bytes.used < 4 * MIB + PAGES
        await cache.unload("a")
        bytes_ = cache.stats().bytes
        assert bytes_.viewed == bytes_.used
        assert 4 * MIB <= bytes_.viewed < 4 * MIB + PAGES
        del view
        gc.collect()
        await soon(lambda: cache.stats().bytes.used == 0)


async def test_a_load_waits_for_a_file_that_is_still_looked_at(weights: Path) -> None:
    with penstock.ModelCache(memory=6 * MIB) as cache:
        for name in "ab":
            cache.loader(name, size=4 * MIB)(lambda ctx: ctx.safetensors(weights))
        async with cache.acquire("a") as model:
            view = model["c"]
        del model
        loading = cache.preload("b")
        await soon(lambda: cache.stats().bytes.viewed >= 4 * MIB)
        await asyncio.sleep(0.05)
        assert cache.progress("b").state == "waiting for space"
        del view
        gc.collect()
        await loading


async def test_models_that_share_a_file_by_require_count_it_once(weights: Path) -> None:
    with penstock.ModelCache() as cache:
        cache.loader("encoder")(lambda ctx: ctx.safetensors(weights))
        cache.loader("head", requires="encoder")(lambda ctx: {"tied": ctx["encoder"]["a"]})
        await cache.preload("head")
        assert 4 * MIB <= cache.stats().bytes.used < 4 * MIB + 2 * PAGES


async def test_a_load_says_how_far_it_is(weights: Path) -> None:
    with penstock.ModelCache() as cache:
        cache.loader("a")(lambda ctx: ctx.safetensors(weights, mode="read"))
        handle = cache.preload("a")
        phases = [step.phase async for step in handle.progress()]
        await handle
        assert set(phases) <= {"", "weights"}


def test_a_context_says_shares_of_the_whole(weights: Path) -> None:
    told: list[tuple[str, float | None]] = []

    def report(phase: str, fraction: float | None) -> bool:
        told.append((phase, fraction))
        return True

    LoadContext("a", "1", report=report).safetensors(weights, mode="read")
    assert told[0] == ("weights", 0.0)
    assert told[-1][1] == 1.0
    fractions = [fraction for _, fraction in told if fraction is not None]
    assert fractions == sorted(fractions)


def test_a_load_that_nobody_wants_any_more_stops(weights: Path) -> None:
    with pytest.raises(LoadFailed, match="no longer wanted"):
        LoadContext("a", "1", report=lambda *_: False).safetensors(weights)
    answers = iter([True, False])
    with pytest.raises(LoadFailed, match="no longer wanted"):
        LoadContext("a", "1", report=lambda *_: next(answers, False)).safetensors(weights, mode="read")


def test_paths_lie_in_the_folder_of_the_model(weights: Path) -> None:
    context = LoadContext("a", "1", directory=weights.parent)
    assert context.directory == weights.parent
    assert set(context.safetensors(weights.name)) == set("abcd")
    assert set(context.safetensors(Path("weights.safetensors"), names=["a"])) == {"a"}
    assert set(context.safetensors(weights)) == set("abcd"), "a whole path is taken as it is"
    assert LoadContext("a", "1").directory is None
    with pytest.raises(ConfigError, match="path must be a string"):
        context.safetensors(None)  # type: ignore[arg-type]


async def test_several_files_count_each_once(tmp_path: Path) -> None:
    files = {f"{name}.safetensors": {name: ("U8", np.zeros(MIB, np.uint8))} for name in "ab"}
    index = sharded(tmp_path, files)
    with penstock.ModelCache() as cache:
        cache.loader("a")(lambda ctx: ctx.safetensors(index))
        await cache.preload("a")
        assert 2 * MIB <= cache.stats().bytes.used < 2 * MIB + 2 * PAGES


async def test_a_bad_file_is_not_tried_again(weights: Path) -> None:
    os.truncate(weights, 4 * MIB)
    with penstock.ModelCache() as cache:
        attempts: list[int] = []

        @cache.loader("a", retries=3, backoff=0.001)
        def load(ctx: LoadContext) -> Any:
            attempts.append(ctx.attempt)
            return ctx.safetensors(weights)

        with pytest.raises(LoadFailed, match=r"weights\.safetensors") as told:
            await cache.preload("a")
        assert isinstance(told.value.__cause__, UnsafeFormat)
        assert attempts == [1]


def test_a_served_model_reads_its_weights(tmp_path: Path) -> None:
    path = tmp_path / "matrix.safetensors"
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    path.write_bytes(of_arrays({"matrix": ("F32", matrix)}))

    @penstock.model("matrix", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [3])})
    class Matrix:
        def load(self, ctx: LoadContext) -> None:
            self.weights = ctx.safetensors(path)

        def predict(self, x: np.ndarray) -> np.ndarray:
            return x @ self.weights["matrix"]

    x = np.ones((4, 2), np.float32)
    with penstock.Server([Matrix], port=0) as server, penstock.Client(server.url) as client:
        assert np.array_equal(client.infer("matrix", {"x": x})["y"], x @ matrix)
