"""What settings say of models: `[batch]` where a model is silent, `[model.NAME]` whatever it says."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penstock import Adaptive, BatchPolicy, Pad, Processes, Server, batched, model, onnx_model
from penstock._batch_settings import ModelTerms
from penstock.errors import ConfigError
from penstock.models import spec_of
from penstock.repository import ModelDirectory
from penstock.settings import SECTIONS, Settings
from penstock.testing import TestClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from penstock.models import ModelSpec

DEFAULTS = BatchPolicy()


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PENSTOCK_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def write(tmp_path: Path) -> Any:
    return lambda text: (tmp_path / "penstock.toml").write_text(text, encoding="utf-8")


def declared(name: str = "m", version: str = "1", **settings: Any) -> Any:
    @model(name, version=version, inputs={"x": ("float32", [])}, outputs={"y": ("float32", [])}, **settings)
    def sizes(x: Any) -> Any:
        return np.full_like(x, len(x))

    return sizes


def applied(target: Any, command_line: Any = None) -> ModelSpec:
    spec = spec_of(target)
    assert spec is not None
    return ModelTerms(Settings.resolve(SECTIONS, {}, command_line)).applied(spec)


async def test_batched_functions_are_no_models_and_no_file_reaches_them(write: Any) -> None:
    write("[batch]\nmax_batch_size = 2\n")
    sizes: list[int] = []

    @batched(max_batch_size=8)
    def count(x: Any) -> Any:
        sizes.append(len(x))
        return x

    await asyncio.gather(*(count(number) for number in range(6)))
    await count.aclose()
    assert sizes == [6]


def test_batch_holds_for_models_that_do_not_say_it(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write("[batch]\nmax_batch_size = 8\nmax_wait = 0.5\ndispatch = 'window'\n")
    assert applied(declared()).policy == BatchPolicy(max_batch_size=8, max_wait=0.5, dispatch="window")
    assert applied(declared(max_batch_size=3)).policy == BatchPolicy(max_batch_size=3, max_wait=0.5, dispatch="window")
    monkeypatch.setenv("PENSTOCK_MAX_WAIT", "0.25")
    assert applied(declared()).policy.max_wait == 0.25
    assert applied(declared(), {"max_wait": "0.125"}).policy.max_wait == 0.125


def test_what_is_said_of_a_model_is_the_last_word_on_it(write: Any) -> None:
    write(
        "[batch]\nmax_batch_size = 8\n[model.m]\nmax_batch_size = 16\nmax_queue = 5\nworkers = 2\n"
        "[model.'m@2']\nmax_batch_size = 32\nload_timeout = 7\n"
    )
    first, second = applied(declared(max_batch_size=3)), applied(declared(version="2"))
    assert (first.policy.max_batch_size, first.policy.max_queue, first.workers, first.load_timeout) == (16, 5, 2, 30.0)
    assert (second.policy.max_batch_size, second.policy.max_queue, second.workers, second.load_timeout) == (32, 5, 2, 7)
    assert applied(declared("other")).policy == BatchPolicy(max_batch_size=8)
    assert applied(declared("other")).workers == 1


def test_the_forms_are_those_of_model_toml(write: Any) -> None:
    write(
        "[model.m]\nmax_batch_size = { smallest = 2, largest = 9 }\npad = { multiple = 8 }\n"
        "preferred_batch_sizes = [4, 8]\nworkers = { processes = 2 }\nweights = { a = 2.0 }\n"
    )
    spec = applied(declared())
    assert spec.policy.max_batch_size == Adaptive(smallest=2, largest=9)
    assert (spec.policy.pad, spec.policy.preferred_batch_sizes) == (Pad(multiple=8), (4, 8))
    assert (spec.workers, spec.policy.weights) == (Processes(2), {"a": 2.0})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_batch_size = 0", "penstock.toml:2 [model.m] max_batch_size: "),
        ("max_wait = '1 s'", "penstock.toml:2 [model.m] max_wait: max_wait must be a number of seconds"),
        (
            "max_bach_size = 1",
            "penstock.toml:2 [model.m] max_bach_size: there is no such setting; did you mean max_batch_size?",
        ),
        ("key = 'x'", "penstock.toml:2 [model.m] key: there is no such setting"),
        ("cost = 'rows'", "penstock.toml:2 [model.m] cost must be 'length', not 'rows'"),
        ("workers = 0", "penstock.toml:2 [model.m] workers must be at least 1"),
        ("load_timeout = -1", "penstock.toml:2 [model.m] load_timeout"),
        ("pad = 3", "penstock.toml:2 [model.m] pad must be true or false, not 3"),
        ("dispatch = 'now'", "penstock.toml:2 [model.m] dispatch: dispatch must be one of 'tick', 'window'"),
        ("min_batch_size = 9\nmax_batch_size = 3", "model 'm' with "),
    ],
)
def test_what_cannot_be_is_refused_with_its_line(write: Any, text: str, words: str) -> None:
    write(f"[model.m]\n{text}\n")
    with pytest.raises(ConfigError, match=re.escape(words)):
        Server(declared(), port=0)


def test_a_section_of_models_holds_models_only(write: Any) -> None:
    write("[model]\nmax_wait = 1\n")
    with pytest.raises(
        ConfigError, match=re.escape("penstock.toml:2 [model] max_wait: what is said of a model stands")
    ):
        Server(declared(), port=0)


def test_a_name_with_dots_stands_in_quotes(write: Any) -> None:
    write('[model."llama3.1"]\nmax_queue = 7\n')
    assert applied(declared("llama3.1")).policy.max_queue == 7
    write("[model.llama3.1]\nmax_queue = 7\n")
    with pytest.raises(ConfigError, match=re.escape('in quotes: [model."llama3.1"]')):
        applied(declared("llama3.1"))


def test_a_model_of_one_request_at_a_time_stays_so(write: Any) -> None:
    write("[batch]\nmax_batch_size = 8\n")

    @model("words", task="generate")
    def words(request: Any) -> Iterator[str]:
        yield request.prompt

    assert applied(words).policy.max_batch_size == 1
    write("[model.words]\nmax_batch_size = 8\n")
    with pytest.raises(ConfigError, match=r"model 'words' with penstock.*answers one request at a time"):
        applied(words)


def test_workers_of_a_graph_are_said_where_it_is_declared(write: Any, tmp_path: Path) -> None:
    graphs = pytest.importorskip("tests.python.support.graphs")
    graph = onnx_model("graph", graphs.scaled(tmp_path / "graph.onnx"))
    write("[model.graph]\nmax_batch_size = 3\n")
    assert applied(graph).policy.max_batch_size == 3
    write("[model.graph]\nworkers = 2\n")
    with pytest.raises(
        ConfigError, match=r"model 'graph' with penstock.toml:2 .* workers are said where it is declared"
    ):
        applied(graph)


def test_sections_for_no_model_are_told_of(write: Any) -> None:
    write("[model.digit]\nmax_wait = 1\n[model.qqq]\n[model.'digits@1']\nmax_wait = 1\n")
    spec = spec_of(declared("digits"))
    assert spec is not None
    assert ModelTerms(Settings.resolve(SECTIONS, {})).idle([spec]) == [
        "penstock.toml:2 [model.digit]: there is no model 'digit'; did you mean [model.digits]?",
        "[model.qqq]: there is no model 'qqq'",
    ]


def test_a_server_serves_its_models_so_also_those_that_come_later(write: Any) -> None:
    write("[model.m]\nmax_batch_size = 2\n[model.late]\nmax_batch_size = 3\n")
    with TestClient(server := Server(declared(), port=0, max_batch_size=4)) as client:
        server.add(declared("late"))
        server.add(declared("other"))
        rows = np.zeros(8, np.float32)
        for name, most in (("m", 2), ("late", 3), ("other", 4)):
            assert client.infer(name, {"x": rows})["y"].max() <= most


def test_models_of_a_directory_are_served_so(write: Any, tmp_path: Path) -> None:
    for name in ("good", "bad"):
        folder = tmp_path / "zoo" / name / "1"
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(
            "import numpy as np, penstock\n"
            f"@penstock.model({name!r}, inputs={{'x': ('float32', [])}}, outputs={{'y': ('float32', [])}})\n"
            "def sizes(x):\n    return np.full_like(x, len(x))\n"
        )
    write("[model.good]\nmax_batch_size = 2\n[model.bad]\nmax_batch_size = 2\nmin_batch_size = 3\n")
    places = ModelDirectory(tmp_path / "zoo", allow_python=True, settle=0)
    with TestClient(server := Server(places, port=0)) as client:
        assert client.infer("good", {"x": np.zeros(8, np.float32)})["y"].max() <= 2
        assert server.names == ["good"], "what is wrong with one keeps no other away"


def test_models_of_processes_are_served_so(write: Any) -> None:
    write("[model.sizes_in_processes]\nmax_batch_size = 2\nworkers = { processes = 1 }\n")
    from tests.python.support import sized

    with TestClient(Server(sized.sizes, port=0)) as client:
        answer = client.infer("sizes_in_processes", {"x": np.zeros(8, np.float32)})
    assert answer["y"].max() <= 2
    assert sized.own_process() not in answer["process"].tolist()
