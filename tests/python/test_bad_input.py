"""Models that misbehave and settings that cannot be: who is told, and that everybody else is served."""

from __future__ import annotations

import json
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penstock
from penstock import Server, model, testing
from penstock.errors import ConfigError
from penstock.settings import DoorSettings
from tests.python.support.waiting import PATIENCE, Gate, soon, until

if TYPE_CHECKING:
    from collections.abc import Callable

X = {"x": ("float32", [2])}
Y = {"y": ("float32", [2])}
BAD = 13.0
"""The number at which a model misbehaves."""


@model("double", inputs=X, outputs=Y)
def double(x: Any) -> Any:
    return x * np.float32(2)


def ask(server: Server, name: str, first: float) -> tuple[int, Any]:
    """The status, and the first output's data or the error."""
    body = json.dumps(testing.infer_body({"x": ("FP32", [1, 2], [first, 1])})).encode()
    try:
        with urllib.request.urlopen(f"{server.url}/v2/models/{name}/infer", body, timeout=PATIENCE) as answer:
            return answer.status, json.load(answer)["outputs"][0]["data"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)["error"]


def get(server: Server, path: str) -> int:
    with urllib.request.urlopen(server.url + path, timeout=PATIENCE) as answer:
        return int(answer.status)


def together(server: Server, name: str, firsts: list[float]) -> list[tuple[int, Any]]:
    with ThreadPoolExecutor(len(firsts)) as pool:
        return list(pool.map(lambda first: ask(server, name, first), firsts))


def served(misbehaves: Callable[[Any], Any], **settings: Any) -> tuple[Server, list[int]]:
    """A server whose model misbehaves where `BAD` is in the batch, and the lengths of the batches that it saw."""
    seen: list[int] = []

    @model("moody", inputs=X, outputs=Y, min_batch_size=4, max_wait=PATIENCE, **settings)
    def moody(x: Any) -> Any:
        seen.append(len(x))
        return misbehaves(x) if (x[:, 0] == BAD).any() else x * np.float32(2)

    return Server([moody, double], port=0), seen


FIRSTS = [1.0, BAD, 2.0, 3.0]
GOOD = [(200, [first * 2, 2.0]) for first in FIRSTS if first != BAD]


def raises(error: BaseException) -> Callable[[Any], Any]:
    def function(_: Any) -> Any:
        raise error

    return function


class Odd(Exception):
    """An exception that cannot even be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Rude:
    """An object that answers every question with an exception."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


@pytest.mark.parametrize(
    ("misbehaves", "words"),
    [
        (raises(ValueError("the valve is stuck")), "ValueError: the valve is stuck"),
        (raises(KeyError("x")), "KeyError"),
        (raises(AssertionError()), "AssertionError"),
        (raises(RecursionError("too deep")), "RecursionError"),
        (raises(MemoryError()), "MemoryError"),
        (raises(StopIteration()), "StopIteration"),
        (raises(ExceptionGroup("several", [ValueError("a")])), "several"),
        (raises(ValueError('naïve \U0001f600 "quoted" \0 \x1b')), "naïve"),
        (raises(ValueError("\ud800")), "ValueError"),
        (raises(Odd()), "Odd"),
        (lambda x: np.linalg.inv(x[:, :, None] * 0), "LinAlgError"),
        (lambda _: int("x"), "ValueError"),
        (lambda x: [Rude()] * len(x), "RuntimeError"),
    ],
)
def test_one_request_that_makes_the_model_raise_fails_alone(misbehaves: Callable[[Any], Any], words: str) -> None:
    server, seen = served(misbehaves)
    with server:
        answers = together(server, "moody", FIRSTS)
        assert seen[0] == 4, "they were in one batch"
        (status, error), rest = answers[1], [answers[0], *answers[2:]]
        assert (status, words in error) == (500, True), error
        assert rest == GOOD
        assert [status for status, _ in together(server, "moody", [1, 2, 3, 4])] == [200] * 4


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), BaseException("odd")])
def test_a_model_that_wants_to_end_the_process_ends_its_batch_alone(error: BaseException) -> None:
    server, seen = served(raises(error) if not isinstance(error, SystemExit) else lambda _: sys.exit(3))
    with server:
        answers = together(server, "moody", FIRSTS)
        assert seen == [4], "a wish to stop is not tried again"
        assert {status for status, _ in answers} == {500}
        assert all(type(error).__name__ in words for _, words in answers)
        assert [status for status, _ in together(server, "moody", [1, 2, 3, 4])] == [200] * 4
        assert ask(server, "double", 4) == (200, [8.0, 2.0])


@pytest.mark.parametrize(
    ("returns", "words"),
    [
        (lambda x: x[:-1], "shape"),
        (lambda x: np.concatenate([x, x]), "shape"),
        (lambda x: x[:, :1], "shape"),
        (lambda x: x[..., None], "shape"),
        (lambda x: x.sum(), ""),
        (lambda x: x.astype(np.float64), "float64"),
        (lambda x: x.astype(np.int32), "int32"),
        (lambda x: x.astype(complex), "complex128"),
        (lambda x: x.astype(object), ""),
        (lambda x: x.astype(str), ""),
        (lambda _: None, ""),
        (lambda _: 7, ""),
        (lambda _: "text", ""),
        (lambda _: b"bytes", ""),
        (lambda _: object(), ""),
        (lambda _: Rude(), ""),
        (lambda _: [], ""),
        (lambda _: {}, "'y'"),
        (lambda x: {"z": x}, "'y'"),
        (lambda x: (x, x), ""),
        (lambda x: [[1, 2], [3]] * (len(x) // 2), ""),
        (lambda x: [["a", "b"]] * len(x), ""),
        (lambda x: [None] * len(x), ""),
        (lambda x: (row for row in x), ""),
        (lambda x: iter(x.tolist()), ""),
        (lambda x: map(sum, x), ""),
        (lambda _: print, ""),
        (lambda _: model, ""),
        (lambda x: np.broadcast_to(np.float32(1), (len(x), 3)), "shape"),
    ],
)
def test_a_model_that_returns_garbage_is_told_apart_from_its_requests(
    returns: Callable[[Any], Any], words: str
) -> None:
    server, seen = served(returns)
    with server:
        answers = together(server, "moody", FIRSTS)
        assert seen == [4], "a wrong return value is the model's fault: it is not called again"
        assert {status for status, _ in answers} == {500}
        assert all(error and words in error for _, error in answers), answers
        assert [status for status, _ in together(server, "moody", [1, 2, 3, 4])] == [200] * 4


async def _never() -> None:
    raise AssertionError("nobody waits for this")


def test_a_coroutine_that_a_plain_function_returns_is_garbage_too() -> None:
    made: list[Any] = []

    def returns(_: Any) -> Any:
        made.append(_never())
        return made[-1]

    server, _ = served(returns)
    with server:
        assert {status for status, _ in together(server, "moody", FIRSTS)} == {500}
    for coroutine in made:
        coroutine.close()


def test_numbers_that_are_none_are_one_requests_matter() -> None:
    def returns(x: Any) -> Any:
        y = x * np.float32(2)
        y[x[:, 0] == BAD] = [np.nan, -np.inf]
        return y

    server, _ = served(returns)
    with server:
        answers = together(server, "moody", FIRSTS)
        assert answers[1] == (200, [None, None])
        assert [answers[0], *answers[2:]] == GOOD


def test_a_row_that_is_refused_is_told_why_and_the_others_are_answered() -> None:
    def returns(x: Any) -> Any:
        return [penstock.ItemError("unlucky") if row[0] == BAD else row * np.float32(2) for row in x]

    server, _ = served(returns)
    with server:
        answers = together(server, "moody", FIRSTS)
        assert answers[1] == (400, "unlucky")
        assert [answers[0], *answers[2:]] == GOOD


def test_without_isolation_a_batch_fails_as_a_whole() -> None:
    server, seen = served(raises(ValueError("no")), on_error="fail")
    with server:
        answers = together(server, "moody", FIRSTS)
        assert (seen, {status for status, _ in answers}) == ([4], {500})
        assert [status for status, _ in together(server, "moody", [1, 2, 3, 4])] == [200] * 4


def test_a_model_that_blocks_holds_nobody_else_up(gate: Gate) -> None:
    slow = model("slow", inputs=X, outputs=Y)(lambda x: gate.run(x).astype(np.float32))

    @model("slow_async", inputs=X, outputs=Y)
    async def slow_async(x: Any) -> Any:
        await soon(gate.opened.is_set)
        return x

    with Server([slow, slow_async, double], port=0) as server, ThreadPoolExecutor(2) as pool:
        blocked = [pool.submit(ask, server, name, 1.0) for name in ("slow", "slow_async")]
        until(gate.entered.is_set)
        until(lambda: server.stats().models["slow_async"].queued == 0)
        for number in range(20):
            assert ask(server, "double", number) == (200, [number * 2.0, 2.0])
            for path in ("/v2/health/live", "/v2/health/ready", "/v2", "/v2/models/slow", "/metrics"):
                assert get(server, path) == 200
        assert not any(answer.done() for answer in blocked)
        gate.open()
        assert [answer.result(PATIENCE)[0] for answer in blocked] == [200, 200]


def test_a_model_that_changes_its_input_harms_nobody() -> None:
    def returns(x: Any) -> Any:
        x[:] = -1
        raise ValueError("and now it is gone")

    server, _ = served(returns)
    with server:
        answers = together(server, "moody", FIRSTS)
        assert answers[1][0] == 500
        assert [answers[0], *answers[2:]] == GOOD


def test_a_model_that_keeps_its_input_keeps_it_unchanged() -> None:
    kept: list[Any] = []

    @model("keeper", inputs=X, outputs=Y)
    def keeper(x: Any) -> Any:
        kept.append(x)
        return x

    with Server(keeper, port=0) as server:
        for number in range(20):
            assert ask(server, "keeper", number) == (200, [number, 1.0])
        assert [x[0, 0] for x in kept] == list(range(20))


def test_a_model_that_starts_threads_and_leaves_them_is_no_matter() -> None:
    stop = threading.Event()

    @model("starts", inputs=X, outputs=Y)
    def starts(x: Any) -> Any:
        threading.Thread(target=stop.wait, args=(PATIENCE,), daemon=True).start()
        return x

    with Server(starts, port=0) as server:
        assert ask(server, "starts", 1) == (200, [1.0, 1.0])
    stop.set()


INPUT = b'{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}'


def test_what_is_wrong_with_one_request_is_no_matter_to_its_batch() -> None:
    server, seen = served(lambda x: x)
    bodies = [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"inputs": {}}',
        b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, NaN]}]}',
        b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, Infinity]}]}',
        b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 1e999]}]}',
        b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, "2"]}]}',
        b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2, 3]}]}',
        b'{"inputs": [{"name": "x", "shape": [1, -2], "datatype": "FP32", "data": [1, 2]}]}',
        b'{"inputs": [{"name": "x", "shape": [1, 2.0], "datatype": "FP32", "data": [1, 2]}]}',
        b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "fp32", "data": [1, 2]}]}',
        b'{"inputs": [{"name": "x", "name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}',
        b'{"inputs": ['
        + b",".join([b'{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}'] * 2)
        + b"]}",
        b'{"inputs": [{"name": "q", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}',
        b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}], "outputs": [{"name": "q"}]}',
        b'{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]} {}',
        b"\xff\xfe{}",
    ]
    with server, ThreadPoolExecutor(4) as pool:
        good = [pool.submit(ask, server, "moody", number) for number in (1.0, 2.0, 3.0)]
        until(lambda: server.stats().models["moody"].queued == 3)
        for body in bodies:
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(f"{server.url}/v2/models/moody/infer", body, timeout=PATIENCE)
            with refused.value as error:
                assert (error.code, bool(json.load(error)["error"])) == (400, True), body
        good.append(pool.submit(ask, server, "moody", 4.0))
        assert [answer.result(PATIENCE) for answer in good] == [(200, [n * 2.0, 2.0]) for n in (1, 2, 3, 4)]
    assert seen == [4]


WRONG: dict[str, list[Any]] = {
    "size": [0, -1, 1.5, True, [], "", "much", "64XiB", "-1KiB", "0", "1e3", "MiB", "1 2", 2**64, "99999999999GiB"],
    "count": [0, -1, 1.5, True, [], "", "many", "0", "-3", "1.5", "0x10", 2**64, "18446744073709551616"],
    "seconds": [0, -1, float("nan"), float("inf"), True, [], "", "long", "0", "-1", "nan", "inf", "10s", 1e300, "1e20"],
    "pause": [-1, float("nan"), float("inf"), True, [], "", "long", "-1", "nan", "inf", "10s", 1e300, "1e20"],
    "switch": [1, 0, "", "maybe", [], 1.0, "2"],
    "choice": [1, True, "", "maybe", [], "OFF", "pause "],
}
CASES = [(each.name, value) for each in fields(DoorSettings) for value in WRONG[each.metadata["kind"]]]


@pytest.mark.parametrize(("name", "value"), CASES)
def test_a_setting_that_cannot_be_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{name} must be "):
        Server(double, **{name: value})
    with pytest.raises(ConfigError, match=rf"^--{name.replace('_', '-')} must be "):
        DoorSettings.resolve({}, {name: value})


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, value in CASES if isinstance(value, str)])
def test_a_variable_that_cannot_be_is_refused_by_name(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variable = f"PENSTOCK_{name.upper()}"
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=rf"^{variable} must be "):
        Server(double)


def test_a_setting_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ConfigError, match=r"max_boddy.*max_body"):
        Server(double, max_boddy=1)


def test_the_stronger_source_is_the_one_that_counts_and_that_is_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_MAX_BODY", "2KiB")
    assert DoorSettings.resolve({"max_body": 1}).max_body == 2048
    assert DoorSettings.resolve({"max_body": 1}, {"max_body": "3KiB"}).max_body == 3072
    with Server(double, port=0, max_body=1) as server:
        assert ask(server, "double", 1)[0] == 200
    with pytest.raises(ConfigError, match=r"^max_body must be"):
        DoorSettings.resolve({"max_body": 0}, {"max_body": "3KiB"})


def test_a_head_too_small_for_any_request_is_refused_before_anything_starts() -> None:
    for settings in ({"max_head": 100}, {"max_head": "8191"}):
        with pytest.raises(ConfigError, match="max_head"):
            Server(double, port=0, **settings).start()


@pytest.mark.parametrize(
    ("text", "count"),
    [("1024", 1024), ("64KiB", 65536), ("1.5 MiB", 3 << 19), ("2kb", 2000), ("1 GiB", 1 << 30), (" 7B ", 7)],
)
def test_sizes_are_read_as_people_write_them(text: str, count: int) -> None:
    assert DoorSettings.resolve({"max_body": text}, environment={}).max_body == count
