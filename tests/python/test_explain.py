"""Batches say why they were as they were, and where their time went."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import Any

import numpy as np
import pytest

from penstock import BatchRecord, Server, batched, model
from penstock.errors import ConfigError, ModelError, ModelNotFound
from penstock.testing import TestClient

PARTS = ("queue", "slot", "gather", "model", "scatter")


async def test_each_batch_has_a_record_that_says_why_it_was_cut() -> None:
    @batched(max_batch_size=4)
    def naps(x: np.ndarray) -> np.ndarray:
        time.sleep(0.02)
        return x

    await asyncio.gather(*(naps(i) for i in range(10)))
    batches = naps.explain().batches
    assert [(batch.number, batch.size, batch.reason) for batch in batches] == [
        (1, 4, "full"),
        (2, 4, "full"),
        (3, 2, "tick"),
    ]
    for batch in batches:
        assert batch.cap == 4
        assert 0.02 <= batch.model <= batch.seconds < 30
        assert all(getattr(batch, part) >= 0 for part in PARTS)
        assert batch.age > 0
        assert (batch.reruns, batch.failed, batch.request_ids) == (0, 0, ())
    waited = batches[2].queue + batches[2].slot
    assert waited >= 0.03, "it waited for the worker, which had two batches before"
    assert [batch.number for batch in naps.explain(last=2)] == [2, 3]
    waits = naps.stats().waits
    assert set(waits) == set(PARTS)
    mean = sum(batch.model * batch.size for batch in batches) / 10
    assert waits["model"] == pytest.approx(mean)
    naps.close()


async def test_a_wait_for_company_is_no_wait_for_a_worker() -> None:
    @batched(dispatch="window", max_wait=0.05)
    def f(x: np.ndarray) -> np.ndarray:
        return x

    await f(1)
    (batch,) = f.explain().batches
    assert batch.reason == "window"
    assert batch.queue >= 0.045
    assert batch.slot < batch.queue
    assert "a wait for company" in batch.why()
    f.close()


async def test_what_a_failure_cost_is_said() -> None:
    @batched(max_batch_size=8)
    def picky(x: np.ndarray) -> np.ndarray:
        if (x == 3).any():
            raise ValueError("not three")
        return x

    results = await asyncio.gather(*(picky(i) for i in range(8)), return_exceptions=True)
    assert [i for i, result in enumerate(results) if isinstance(result, ModelError)] == [3]
    (batch,) = picky.explain().batches
    assert (batch.failed, batch.reruns) == (1, picky.stats().reruns)
    assert batch.reruns >= 3
    assert "1 failed" in batch.why()
    picky.close()


def test_the_last_256_are_kept() -> None:
    @batched(workers="inline")
    def f(x: np.ndarray) -> np.ndarray:
        return x

    assert str(f.explain()) == "no such batch is kept: the last 256 are"
    for i in range(300):
        f.call(i)
    batches = f.explain(last=1000).batches
    assert [batch.number for batch in batches] == list(range(45, 301))
    assert len(f.explain(0)) == 0
    with pytest.raises(ConfigError, match="last"):
        f.explain(-1)


def test_it_shows_as_a_table_and_in_words() -> None:
    @batched(workers="inline")
    def f(x: list[str]) -> list[str]:
        return x

    f.call("<a>")
    explanation = f.explain()
    head, row, _, words = str(explanation).splitlines()
    assert repr(explanation) == str(explanation)
    assert head.split()[:4] == ["batch", "size", "cap", "reason"]
    assert row.split()[:4] == ["1", "1", "100", "tick"]
    assert words == explanation.batches[0].why()
    assert "batch 1 left with 1 of 100 because its tick had ended" in words
    page = explanation._repr_html_()
    assert page.count("<tr>") == 2
    assert "scatter" in page
    assert "<table>" in explanation.batches[0]._repr_html_()


def test_a_record_says_what_padding_and_a_prediction_were() -> None:
    record = BatchRecord(
        number=7, age=1.0, reason="budget", size=3, cap=8, cost=30, padded_cost=40, queue=0.0, slot=0.0, gather=0.0,
        model=0.01, scatter=0.0, predicted=0.012, reruns=0, failed=0,
    )  # fmt: skip
    assert record.padding == pytest.approx(0.25)
    assert "25% of its cost was padding" in record.why()
    assert "exceeded its budget" in record.why()
    assert dataclasses.replace(record, cost=0, padded_cost=0).padding == 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.size = 4  # type: ignore[misc]


@model("double", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
def double(x: Any) -> Any:
    if (x < 0).any():
        raise ValueError("negative")
    return x * 2


@model("other", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
def other(x: Any) -> Any:
    return x


def test_a_server_explains_the_batch_that_a_request_rode_in() -> None:
    x = {"x": np.ones((3, 2), np.float32)}
    server = Server([double, other])
    with TestClient(server) as client:
        client.infer("double", x, request_id="a7")
        client.infer("double", x)
        with pytest.raises(ModelError):
            client.infer("double", {"x": -x["x"]}, request_id="bad")
        (batch,) = server.explain("double", request_id="a7").batches
        assert (batch.number, batch.size, batch.request_ids) == (1, 3, ("a7",))
        (failed,) = server.explain("double", request_id="bad").batches
        assert (failed.failed, failed.reruns > 0) == (3, True)
        assert len(server.explain("double")) == 3
        assert len(server.explain("double", request_id="unheard")) == 0
        assert len(server.explain("other")) == 0
        with pytest.raises(ConfigError, match="double, other"):
            server.explain()
        with pytest.raises(ModelNotFound, match="'third'"):
            server.explain("third")
        waits = server.stats().models["double"].waits
        assert set(waits) == set(PARTS)
        assert waits["model"] > 0


def test_metrics_say_where_the_time_of_batches_went() -> None:
    server = Server(other)
    with TestClient(server) as client:
        client.infer("other", {"x": np.ones((3, 2), np.float32)})
        text = server.metrics()
    for part in PARTS:
        assert f'penstock_batch_wait_seconds_count{{model="other",part="{part}"}} 1' in text
    assert 'penstock_batch_cost_total{model="other",kind="useful"} 3' in text
    assert 'penstock_batch_cost_total{model="other",kind="padding"} 0' in text
    assert 'penstock_batch_prediction_error_seconds_count{model="other"}' in text
    assert 'penstock_batch_cap{model="other"} 100' in text
