"""A server follows its directories: what is new is served, what has changed is replaced, what is gone leaves."""

from __future__ import annotations

import asyncio
import gc
import shutil
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from penstock import AsyncClient, Client, ModelDirectory, Server, model
from penstock.errors import Closed, ConfigError, ModelNotFound
from tests.python.support.directories import write, write_model
from tests.python.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE = 30.0
ONE = {"x": np.ones((1, 2), np.float32)}
TWO_AXES = {"inputs": {"x": ("float32", [2])}, "outputs": {"y": ("float32", [2])}}


def directory(path: Path, **said: Any) -> ModelDirectory:
    return ModelDirectory(path, **{"allow_python": True, "settle": 0.0, **said})


def ask(client: Client, name: str = "times", **options: Any) -> float:
    return float(client.infer(name, ONE, **options)["y"].ravel()[0])


def states(client: Client) -> dict[str, str]:
    return {f"{row['name']}@{row['version']}": row["state"] for row in client.repository_index()}


def reason(client: Client, name: str, version: str = "1") -> str:
    rows = client.repository_index()
    return next(row["reason"] for row in rows if (row["name"], row["version"]) == (name, version))


def test_an_empty_directory_is_served_and_filled(tmp_path: Path) -> None:
    with Server(directory(tmp_path), port=0) as server, Client(server.url) as client:
        assert server.ready
        assert server.names == []
        assert states(client) == {}
        write_model(tmp_path)
        assert states(client) in ({"times@1": "LOADING"}, {"times@1": "READY"}, {"times@1": "UNAVAILABLE"})
        assert ask(client) == 2
        write_model(tmp_path, "thrice", by=3)
        client.load_model("thrice")
        assert states(client) == {"thrice@1": "READY", "times@1": "READY"}
        assert ask(client, "thrice") == 3
        shutil.rmtree(tmp_path / "thrice")
        until(lambda: states(client) == {"times@1": "READY"})
        with pytest.raises(ModelNotFound):
            ask(client, "thrice")
        with pytest.raises(ModelNotFound):
            client.load_model("thrice")


def test_it_works_the_same_over_grpc(tmp_path: Path) -> None:
    with Server(directory(tmp_path), port=0) as server, Client(server.grpc_url) as client:
        assert states(client) == {}
        write_model(tmp_path)
        client.load_model("times")
        assert states(client) == {"times@1": "READY"}
        assert ask(client) == 2


def test_polling_says_what_has_changed(tmp_path: Path) -> None:
    write_model(tmp_path)
    with Server(directory(tmp_path), port=0) as server, Client(server.url) as client:
        assert not server.poll()
        write_model(tmp_path, by=5)
        write_model(tmp_path, "other", by=7)
        changes = server.poll()
        assert (changes.added, changes.changed, changes.removed) == (("other@1",), ("times@1",), ())
        assert (ask(client), ask(client, "other")) == (5, 7)
        shutil.rmtree(tmp_path / "times")
        assert server.poll().removed == ("times@1",)
        assert server.names == ["other"]
        assert asyncio.run(server.apoll()).removed == ()
        assert "removed" in server.poll()._repr_html_()
    with pytest.raises(Closed):
        server.poll()


def test_a_new_version_takes_over_when_it_is_loaded(tmp_path: Path) -> None:
    write_model(tmp_path)
    slow = tmp_path / "times" / "2" / "model.py"
    with Server(directory(tmp_path), port=0) as server, Client(server.url) as client:
        assert ask(client) == 2
        folder = write_model(tmp_path, version=2, by=3)
        waits = '        import time, pathlib\n        while not pathlib.Path(ctx.directory, "go").exists():\n'
        text = slow.read_text().replace(
            "        self.directory", waits + "            time.sleep(0.01)\n        self.directory"
        )
        write(slow, text)
        with ThreadPoolExecutor(1) as pool:
            polling = pool.submit(server.poll)
            until(lambda: "times@2" in {f"{row.name}@{row.version}" for row in server.cache.index()})
            until(lambda: server.cache.progress("times@2").state == "loading")
            assert ask(client) == 2, "the name means the old one until the new one is loaded"
            write(folder / "go")
            # What the folder holds has changed by that, and is the same to whoever loads it.
            changes = polling.result(PATIENCE)
        assert changes.added == ("times@2",)
        assert changes.removed == ("times@1",)
        assert ask(client) == 3
        assert client.get("/v2/models/times").json()["versions"] == ["2"]


def test_a_new_version_that_cannot_be_loaded_leaves_the_old_one(tmp_path: Path) -> None:
    write_model(tmp_path)
    with Server(directory(tmp_path), port=0) as server, Client(server.url) as client:
        write_model(tmp_path, version=2)
        write(tmp_path / "times" / "2" / "by.txt", "no number")
        write(tmp_path / "times" / "2" / "model.toml", "load_retries = 0")
        changes = server.poll()
        assert "could not convert" in changes.skipped["times/2"], changes
        assert changes.removed == ()
        assert ask(client) == 2
        assert "times@1" in states(client)
        assert not server.poll().removed
        assert ask(client) == 2
        write(tmp_path / "times" / "2" / "by.txt", "4")
        assert server.poll().changed == ("times@2",)
        assert server.poll().removed in (("times@1",), ())
        assert ask(client) == 4
        until(lambda: list(server.names) == ["times@2"])


def test_a_change_that_cannot_be_loaded_leaves_what_was_there(tmp_path: Path) -> None:
    write_model(tmp_path)
    write(tmp_path / "times" / "model.toml", "load_retries = 0")
    with Server(directory(tmp_path), port=0) as server, Client(server.url) as client:
        write(tmp_path / "times" / "1" / "by.txt", "no number")
        changes = server.poll()
        assert changes.changed == ()
        assert "no number" in changes.skipped["times/1"]
        assert ask(client) == 2
        write(tmp_path / "times" / "1" / "model.py", "this is no python")
        skipped = server.poll().skipped
        assert "times/1" in skipped
        assert ask(client) == 2
        assert states(client)["times@1"] == "READY"
        assert reason(client, "times") == skipped["times/1"]
        write_model(tmp_path, by=6)
        assert server.poll().changed == ("times@1",)
        assert ask(client) == 6


def test_a_bad_model_does_not_take_the_others_down(tmp_path: Path) -> None:
    write_model(tmp_path)
    write_model(tmp_path, "broken")
    write(tmp_path / "broken" / "1" / "by.txt", "no number")
    write(tmp_path / "broken" / "model.toml", "load_retries = 0")
    write(tmp_path / "wrong" / "1" / "model.py", "raise OSError('no such thing')")
    write_model(tmp_path, "needy")
    write(tmp_path / "needy" / "model.toml", 'requires = ["nothing"]')
    with Server(directory(tmp_path), port=0) as server, Client(server.url) as client:
        assert server.ready
        assert ask(client) == 2
        found = states(client)
        assert found["broken@1"] == found["wrong@1"] == found["needy@1"] == "UNAVAILABLE"
        assert "no such thing" in reason(client, "wrong")
        assert "requires 'nothing'" in reason(client, "needy")
        assert sorted(server.names) == ["broken", "times"]


def test_a_directory_that_disappears_goes_on_serving(tmp_path: Path) -> None:
    place = tmp_path / "models"
    write_model(place)
    with Server(directory(place), port=0) as server, Client(server.url) as client:
        place.rename(tmp_path / "away")
        changes = server.poll()
        assert not changes
        assert "." in changes.skipped
        assert ask(client) == 2
        assert states(client)["times@1"] == "READY"
        (tmp_path / "away").rename(place)
        assert server.poll().skipped == {}
        assert ask(client) == 2


def test_models_of_an_app_and_of_directories_are_served_together(tmp_path: Path) -> None:
    @model("head", requires="times", **TWO_AXES)
    class Head:
        def load(self, ctx: Any) -> None:
            self.times = ctx["times"]

        def predict(self, x: Any) -> Any:
            return self.times.predict(x) + 1

    @model("taken", **TWO_AXES)
    def taken(x: Any) -> Any:
        return x

    one, other = tmp_path / "one", tmp_path / "other"
    write_model(one)
    write_model(one, "taken")
    write_model(other, "thrice", by=3)
    with Server([Head, taken, directory(one), directory(other)], port=0) as server, Client(server.url) as client:
        assert (ask(client, "head"), ask(client, "taken"), ask(client, "thrice")) == (3, 1, 3)
        changes = server.poll()
        assert "is served already" in changes.skipped[str(one / "taken" / "1")]
        shutil.rmtree(one / "times")
        changes = server.poll()
        assert changes.removed == ()
        assert "'head' requires 'times'" in changes.skipped[str(one / "times" / "1")]
        assert ask(client, "head") == 3
    with pytest.raises(ModelNotFound, match="requires 'times'"), Server([Head, directory(other)], port=0):
        pass


def test_several_versions_are_served_where_that_is_wanted(tmp_path: Path) -> None:
    write_model(tmp_path, version=1, by=2)
    write_model(tmp_path, version=2, by=3)
    with Server(directory(tmp_path, versions="all"), port=0) as server, Client(server.url) as client:
        assert (ask(client), ask(client, version="1")) == (3, 2)
        write_model(tmp_path, version=10, by=4)
        assert server.poll().added == ("times@10",)
        assert (ask(client), ask(client, version="1"), ask(client, version="2")) == (4, 2, 3)
        shutil.rmtree(tmp_path / "times" / "10")
        assert server.poll().removed == ("times@10",)
        assert ask(client) == 3


def test_what_is_to_be_loaded_is_said_by_preload(tmp_path: Path) -> None:
    write_model(tmp_path)
    write_model(tmp_path, "later")
    with Server(directory(tmp_path), port=0, preload=["times", "missing"]) as server, Client(server.url) as client:
        assert states(client) == {"later@1": "UNAVAILABLE", "times@1": "READY"}
        write_model(tmp_path, "later", by=8)
        assert server.poll().changed == ("later@1",)
        assert states(client)["later@1"] == "UNAVAILABLE"
        assert ask(client, "later") == 8


def test_pinned_models_stay(tmp_path: Path) -> None:
    write_model(tmp_path)
    write(tmp_path / "times" / "model.toml", "pinned = true")
    with Server(directory(tmp_path), port=0) as server:
        assert [row.pinned for row in server.cache.index()] == [True]


def test_it_looks_by_itself_where_it_is_told_to(tmp_path: Path) -> None:
    with Server(directory(tmp_path), port=0, poll_seconds=0.05) as server, Client(server.url) as client:
        write_model(tmp_path)
        until(lambda: server.names == ["times"])
        assert ask(client) == 2
    for wrong in (-1, "often", True):
        with pytest.raises(ConfigError, match="poll_seconds"):
            Server(directory(tmp_path), poll_seconds=wrong)


def test_many_calls_share_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path)
    served = directory(tmp_path)
    looks: list[float] = []
    scan = served.scan
    slow = threading.Event()

    def counted(*, wait: float = 0.0) -> Any:
        looks.append(wait)
        slow.wait(0.05)
        return scan(wait=wait)

    with Server(served, port=0) as server:
        monkeypatch.setattr(served, "scan", counted)

        async def main() -> None:
            async with AsyncClient(server.url) as client:
                await asyncio.gather(*(client.repository_index() for _ in range(50)))

        asyncio.run(main())
    assert 1 <= len(looks) <= 10


def test_a_look_that_fails_is_no_failure_of_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_model(tmp_path)
    served = directory(tmp_path)

    def fails(**_: Any) -> Any:
        raise OSError("no such disk")

    with Server(served, port=0) as server, Client(server.url) as client:
        monkeypatch.setattr(served, "scan", fails)
        assert states(client) == {"times@1": "READY"}
        assert "no such disk" in caplog.text
        with pytest.raises(OSError, match="no such disk"):
            server.poll()
        assert ask(client) == 2


def test_a_server_that_nobody_refers_to_closes_and_its_thread_ends(tmp_path: Path) -> None:
    write_model(tmp_path)
    server = Server(directory(tmp_path), port=0)
    server.start()
    gone = weakref.ref(server)
    del server
    gc.collect()
    assert gone() is None
    until(lambda: not any(thread.name == "penstock-repository" for thread in threading.enumerate()))
    # It looks every five seconds whether somebody is gone.
    until(lambda: not any(thread.name == "penstock-log" for thread in threading.enumerate()))


def test_it_can_be_entered_without_a_door(tmp_path: Path) -> None:
    from penstock.testing import TestClient

    write_model(tmp_path)
    with TestClient(Server(directory(tmp_path))) as client:
        assert client.infer("times", ONE)["y"].tolist() == [[2, 2]]
        write_model(tmp_path, "thrice", by=3)
        assert client.post("/v2/repository/models/thrice/load").status_code == 200
        assert client.infer("thrice", ONE)["y"].tolist() == [[3, 3]]
