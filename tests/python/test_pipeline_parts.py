"""The four switches: where they come from, what may stand in their place, and what each does alone."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penstock
from penstock import AsyncClient, BatchPolicy, Client, ModelCache, Pipeline, Pool, Server
from penstock.errors import ConfigError
from tests.python.support.pipelines import Diary, doubling, telling
from tests.python.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.python.support.scripts import Script

X = {"x": np.ones((1, 2), np.float32)}
PARTS = ("pool", "batch", "stream", "load")


@pytest.fixture
def diary() -> Diary:
    return Diary()


def switched(made: Pipeline | Server) -> dict[str, bool]:
    return {name: getattr(made.parts, name) for name in PARTS}


def test_all_are_on_by_default(diary: Diary) -> None:
    assert switched(Pipeline(doubling(diary))) == dict.fromkeys(PARTS, True)
    assert switched(Server(doubling(diary))) == dict.fromkeys(PARTS, True)


@pytest.mark.parametrize("name", PARTS)
def test_whoever_runs_it_has_the_last_word(
    diary: Diary, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert not switched(Pipeline(doubling(diary), **{name: False}))[name]  # type: ignore[arg-type]
    (tmp_path / "penstock.toml").write_text(f"[pipeline]\n{name} = false\n")
    assert not switched(Server(doubling(diary), **{name: True}))[name]
    monkeypatch.setenv(f"PENSTOCK_{name.upper()}", "on")
    server = Server(doubling(diary), **{name: False})
    assert switched(server)[name]
    assert str(server.settings[name].source) == f"PENSTOCK_{name.upper()}"
    monkeypatch.setenv(f"PENSTOCK_{name.upper()}", "perhaps")
    with pytest.raises(ConfigError, match=f"PENSTOCK_{name.upper()} must be true or false"):
        Server(doubling(diary))


def test_what_stands_in_the_place_of_a_switch(diary: Diary) -> None:
    policy, pool = BatchPolicy(max_batch_size=3), Pool(max_size=2)
    with ModelCache() as cache, Pipeline(doubling(diary), pool=pool, batch=policy, load=cache) as pipeline:
        assert switched(pipeline) == dict.fromkeys(PARTS, True)
        assert pipeline.cache is cache
        assert pipeline.call("double", {"x": np.ones((5, 2), np.float32)})["y"].shape == (5, 2)
    assert sorted(diary.batches) == [2, 3]


def test_a_policy_of_all_gives_way_to_what_the_settings_say(
    diary: Diary, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "penstock.toml").write_text("[model.double]\nmax_batch_size = 2\n")
    with Pipeline(doubling(diary), batch=BatchPolicy(max_batch_size=3)) as pipeline:
        pipeline.call("double", {"x": np.ones((5, 2), np.float32)})
    assert sorted(diary.batches) == [1, 2, 2]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"batch": 5}, "batch must be True or False, or a penstock.BatchPolicy, not 5"),
        ({"pool": BatchPolicy()}, "pool must be True or False, or a penstock.Pool"),
        ({"stream": object()}, "stream must be True or False, not"),
        ({"load": "maybe"}, "load must be true or false"),
        ({"load": Pool()}, "or a penstock.ModelCache"),
        ({"port": 80}, "port is for serve"),
        ({"colour": 1}, "colour"),
        ({"batch": BatchPolicy(key=len)}, "key="),
    ],
)
def test_what_cannot_be_is_refused(diary: Diary, wrong: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Pipeline(doubling(diary), **wrong)


def test_two_caches_are_one_too_many(diary: Diary) -> None:
    with ModelCache() as one, ModelCache() as other, pytest.raises(ConfigError, match="exclude each other"):
        Pipeline(doubling(diary), cache=one, load=other)


def test_without_load_nothing_is_loaded_before_it_is_asked_for(diary: Diary) -> None:
    models = [doubling(diary, name) for name in ("one", "two")]
    with Server(models, load=False, preload=["one"], port=0) as server:
        assert diary.loads == []
        assert server.ready
        with Client(server.url) as client:
            client.infer("two", X)
            assert diary.loads == ["two"]
        server.add(doubling(diary, "three"))
        assert diary.loads == ["two"]


def test_without_load_models_are_loaded_one_after_another() -> None:
    loading, most = [], []
    gate = threading.Event()

    def of(name: str) -> type:
        @penstock.model(name, inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
        class Slow:
            def load(self, ctx: Any) -> None:
                loading.append(name)
                most.append(len(loading))
                gate.wait(30)
                loading.remove(name)

            def predict(self, x: Any) -> Any:
                return x

        return Slow

    with Pipeline([of("a"), of("b"), of("c")], load=False) as pipeline:
        threads = [threading.Thread(target=pipeline.call, args=(name, X)) for name in "abc"]
        for thread in threads:
            thread.start()
        until(lambda: loading)
        gate.set()
        for thread in threads:
            thread.join(30)
    assert most == [1, 1, 1]


def test_without_a_pool_each_request_has_a_connection_of_its_own(diary: Diary) -> None:
    with Server(doubling(diary), port=0) as server:
        for url in (server.url, server.grpc_url):
            with Client(url, pool=False) as client:
                for _ in range(5):
                    client.infer("double", X, binary=True)
                total = client.stats().total
                assert (total.created, total.acquired, total.reused) == (5, 5, 0)
                until(lambda client=client: client.stats().total.size == 0)


async def test_without_a_pool_many_requests_go_side_by_side(diary: Diary) -> None:
    async with Server(doubling(diary), port=0) as server, AsyncClient(server.url, pool=False) as client:
        answers = await asyncio.gather(*(client.infer("double", X, binary=True) for _ in range(50)))
        assert all(answer["y"].tolist() == [[2, 2]] for answer in answers)
        assert client.stats().total.created == 50


def test_a_pool_is_a_pool() -> None:
    assert Client("http://127.0.0.1:1", pool=True).stats().total.created == 0
    with pytest.raises(ConfigError, match="or False for none"):
        Client("http://127.0.0.1:1", pool=5)  # type: ignore[arg-type]


def test_without_batch_a_generator_has_one_request_at_a_time() -> None:
    seen: list[int] = []

    @penstock.model("steps", inputs={"n": ("int64", [])}, outputs={"at": ("int64", [])})
    def steps(batch: penstock.Batch) -> Any:
        seen.append(len(batch.live))
        yield {index: batch.inputs[index]["n"] for index in batch.live}
        seen.append(len(batch.live))

    with Pipeline(steps, batch=False) as pipeline:
        threads = [threading.Thread(target=lambda n=n: list(pipeline.stream("steps", {"n": [n]}))) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert set(seen) == {1}


def test_the_command_line_switches_parts_off(script: Script, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import penstock\n"
        "@penstock.model('double', inputs={'x': ('float32', [2])}, outputs={'y': ('float32', [2])})\n"
        "def double(x):\n    return x * 2\n"
    )
    import subprocess
    import sys

    command = [sys.executable, "-m", "penstock", "config", "app.py", "--no-batch", "--no-pool"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True).stdout
    lines = [line for line in told.splitlines() if line.split()[:1] in (["batch"], ["pool"], ["stream"])]
    assert any("--no-batch" in line or "--batch" in line for line in lines), told


def test_in_a_notebook_everything_shows_itself(diary: Diary) -> None:
    pipeline = Pipeline([doubling(diary), telling(diary)], batch=False)
    assert "not started" in pipeline._repr_html_()
    with pipeline:
        server = pipeline.serve(port=0)
        result = pipeline.call("double", X, request_id="<mine>")
        assert "<th>model</th>" in pipeline._repr_html_()
        assert server.url in server._repr_html_()
        assert "batch" in server._repr_html_()
        assert "&lt;mine&gt;" in result._repr_html_()
        assert "float32 [1, 2]" in result._repr_html_()
        assert "double@1" in pipeline.cache._repr_html_()
        with Client(server.url) as client:
            client.get("/v2")
            assert server.url in client._repr_html_()
    assert "closed" in pipeline._repr_html_()
    assert repr(pipeline) == "<penstock.Pipeline double, tell without batch closed>"
    with penstock.Batcher(lambda x: x) as batcher:
        assert "dispatch" in batcher._repr_html_()
