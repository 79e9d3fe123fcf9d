"""Models on other servers: batched here, computed there, whatever the two speak between them."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penstock
from penstock import BatchPolicy, Client, Pool, RemoteModel, Server, model
from penstock.errors import (
    ConfigError,
    ConnectFailed,
    DeadlineExceeded,
    ItemError,
    LoadFailed,
    ModelNotFound,
    RemoteError,
)
from tests.python.support.http_server import HttpServer, Peer, refusing_port
from tests.python.support.waiting import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DECLARED = {"inputs": {"x": ("float32", [4])}, "outputs": {"y": ("float32", [4])}}
LARGE = 25_600
"""Numbers of 100 KiB: less than a door reads elsewhere, and more than that as text."""
METADATA = {
    "name": "double",
    "versions": ["1"],
    "platform": "",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
}


class Upstream:
    """Models that remember the batches that they saw, on a server of their own."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.slow = threading.Event()
        self.slow.set()

        @model("double", **DECLARED, max_batch_size=100)
        def double(x: Any) -> Any:
            self.batches.append(len(x))
            assert self.slow.wait(PATIENCE)
            if (x < 0).any():
                raise ItemError("numbers below zero are not doubled")
            if (x > 1e6).any():
                raise ValueError("too large to bear")
            return x * 2

        @model(
            "mirror",
            inputs={"t": ("string", [-1]), "n": ("int64", [])},
            outputs={"t": ("string", [-1]), "n": ("int64", [])},
        )
        def mirror(t: Any, n: Any) -> Any:
            return {"t": t, "n": n}

        @model(
            "bits", inputs={"b": ("bytes", []), "w": ("bool", [2])}, outputs={"b": ("bytes", []), "w": ("bool", [2])}
        )
        def bits(b: Any, w: Any) -> Any:
            return {"b": b, "w": w}

        self.server = Server([double, mirror, bits], port=0)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    upstream = Upstream()
    with upstream.server:
        yield upstream
        upstream.slow.set()


@pytest.fixture(params=["http", "grpc"])
def url(request: pytest.FixtureRequest, upstream: Upstream) -> str:
    found = upstream.server.url if request.param == "http" else upstream.server.grpc_url
    assert found is not None
    return found


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


def full(value: float, rows: int = 1) -> dict[str, Any]:
    return {"x": np.full((rows, 4), value, np.float32)}


def locks(server: Server, name: str) -> int:
    wanted = f'penstock_lock_acquisitions_total{{model="{name}"}}'
    found = [line for line in server.metrics().splitlines() if line.startswith(wanted)]
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in found)


def test_rows_go_up_and_come_back_to_their_requests(upstream: Upstream, url: str, threads: ThreadPoolExecutor) -> None:
    remote = RemoteModel("double", url, concurrency=1)
    assert (remote.inputs, remote.outputs) == ({"x": ("float32", [4])}, {"y": ("float32", [4])})
    rows = np.random.default_rng(0).standard_normal((300, 4), np.float32)
    rows = np.abs(rows)
    with Server(remote, port=0) as server, Client(server.url) as client:
        answers = list(threads.map(lambda row: client.infer("double", {"x": row[np.newaxis]})["y"][0], rows))
        np.testing.assert_array_equal(answers, rows * 2)
        np.testing.assert_array_equal(client.infer("double", {"x": rows})["y"], rows * 2)
        stats = server.stats().models["double"]
        assert stats.requests == 600
        assert stats.batches < 600, "they share requests upstream"
        assert locks(server, "double") == 0, "no interpreter has a part in it"
        assert remote.pool_stats().total.acquired >= stats.batches
        metrics = server.metrics()
        assert f'penstock_pool_acquired_total{{model="double",endpoint="{url}"}}' in metrics
    assert sum(upstream.batches) == 600


def test_texts_and_bytes_and_shapes_that_vary(url: str, threads: ThreadPoolExecutor) -> None:
    models = [RemoteModel("mirror", url), RemoteModel("bits", url)]
    with Server(models, port=0) as server, Client(server.url) as client:

        def ask(length: int) -> tuple[Any, Any]:
            texts = np.array([[f"naïve {length} {at}" for at in range(length)]], object)
            answer = client.infer("mirror", {"t": texts, "n": np.array([length])})
            return texts, answer

        for texts, answer in threads.map(ask, [1, 2, 3, 2, 1, 5] * 5):
            assert [text.decode() for text in answer["t"][0]] == list(texts[0])
            assert answer["n"].tolist() == [texts.shape[1]]
        raw = np.array([b"\xff\x00", b""], object)
        flags = np.array([[True, False], [False, True]])
        answer = client.infer("bits", {"b": raw, "w": flags})
        assert answer["b"].tolist() == raw.tolist()
        np.testing.assert_array_equal(answer["w"], flags)


def test_only_the_guilty_request_fails(upstream: Upstream, url: str, threads: ThreadPoolExecutor) -> None:
    upstream.slow.clear()
    with Server(RemoteModel("double", url, concurrency=1), port=0) as server, Client(server.url) as client:
        first = threads.submit(client.infer, "double", full(0))
        until(lambda: upstream.batches)
        values = [-1.0 if at == 7 else float(at) for at in range(20)]
        asked = [threads.submit(client.infer, "double", full(value)) for value in values]
        until(lambda: server.stats().models["double"].queued == 20)
        upstream.slow.set()
        assert first.result(PATIENCE)["y"][0, 0] == 0
        for value, answer in zip(values, asked, strict=True):
            if value < 0:
                with pytest.raises(ItemError, match="below zero"):
                    answer.result(PATIENCE)
            else:
                assert answer.result(PATIENCE)["y"][0, 0] == value * 2
    assert upstream.batches[1] == 20, "they went together first"


def test_a_row_that_a_model_cannot_bear_is_found(upstream: Upstream, url: str, threads: ThreadPoolExecutor) -> None:
    upstream.slow.clear()
    remote = RemoteModel("double", url, concurrency=1)
    with Server(remote, port=0) as server, Client(server.url) as client:
        first = threads.submit(client.infer, "double", full(0))
        until(lambda: upstream.batches)
        asked = [threads.submit(client.infer, "double", full(2e6 if at == 3 else at)) for at in range(8)]
        until(lambda: server.stats().models["double"].queued == 8)
        upstream.slow.set()
        first.result(PATIENCE)
        failed = [at for at, answer in enumerate(asked) if answer.exception(PATIENCE) is not None]
        assert failed == [3]
        error = asked[3].exception(PATIENCE)
        assert isinstance(error, RemoteError)


def test_fields_of_the_policy_and_the_names_of_both_sides(upstream: Upstream) -> None:
    remote = RemoteModel(
        "two",
        upstream.server.url,
        upstream_name="double",
        upstream_version="1",
        version=3,
        max_batch_size=1,
        concurrency=1,
    )
    assert remote.__penstock_model__.policy == BatchPolicy(max_batch_size=1)
    with Server(remote, port=0) as server, Client(server.url) as client:
        assert client.infer("two", full(4, rows=5), version="3")["y"].shape == (5, 4)
    assert upstream.batches == [1] * 5
    assert "two@3" in repr(remote)
    assert "double@1" in remote._repr_html_()


def test_the_upstream_is_told_what_time_is_left(threads: ThreadPoolExecutor) -> None:
    def behave(peer: Peer) -> None:
        for request in peer:
            told = request.target.startswith("/v2/models/double/infer")
            peer.answer(json.dumps(answer_of(request.body) if told else METADATA))

    with HttpServer(behave) as upstream, Server(RemoteModel("double", upstream.url, binary=False), port=0) as server:
        with Client(server.url) as client:
            client.infer("double", full(1), timeout=20)
            client.infer("double", full(1))
        asked = [request for request in upstream.requests if request.target.endswith("/infer")]
        assert 0 < float(asked[0].header("x-request-timeout") or 0) <= 20
        assert 0 < json.loads(asked[0].body)["parameters"]["timeout"] <= 20_000_000
        assert asked[1].header("x-request-timeout") is None
        assert "parameters" not in json.loads(asked[1].body)


def test_where_all_say_the_same_it_goes_along() -> None:
    with (
        HttpServer(answering()) as upstream,
        Server(RemoteModel("double", upstream.url), port=0) as server,
        Client(server.url) as client,
    ):
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
        headers = {"traceparent": trace, "tracestate": "a=b", "x-request-priority": "high", "x-request-tenant": "team"}
        headers["x-request-id"] = "r7"
        answer = client.post("/v2/models/double/infer", json=body, headers=headers)
        assert answer.json()["outputs"][0]["data"] == [2, 4, 6, 8]
        (asked,) = [request for request in upstream.requests if request.target.endswith("/infer")]
    # Nobody records spans here: one of the batch's own would be a parent that no one ever sees.
    assert asked.header("traceparent") == trace
    assert asked.header("tracestate") == "a=b"
    assert asked.header("x-request-priority") == "high"
    assert asked.header("x-request-tenant") == "team"
    assert asked.header("x-request-id") == "r7"


def test_a_name_that_no_header_can_carry_fails_no_request() -> None:
    with (
        HttpServer(answering()) as upstream,
        Server(RemoteModel("double", upstream.url), port=0) as server,
        Client(server.url) as client,
    ):
        for name in ("zwölf", "a\r\nb: c", "x" * 300):
            assert client.infer("double", full(1), request_id=name)["y"][0, 0] == 2
        told = [request.header("x-request-id") for request in upstream.requests if request.target.endswith("/infer")]
        # What the door cut to 128 characters for its log is what it calls it.
        assert told == [None, "ab: c", "x" * 128]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads have names where there is /proc")
def test_large_bodies_are_written_elsewhere_than_where_all_connections_are() -> None:
    def elsewhere() -> bool:
        names = (comm.read_text() for comm in Path("/proc/self/task").glob("*/comm"))
        return any(name.startswith("penstock-blocki") for name in names)

    sizes: list[int] = []

    def behave(peer: Peer) -> None:
        for request in peer:
            if request.target.endswith("/infer"):
                sizes.append(len(request.body))
                rows = len(json.loads(request.body)["inputs"][0]["data"]) // LARGE
                output = {"name": "y", "datatype": "FP32", "shape": [rows, 1], "data": [0.5] * rows}
                peer.answer(json.dumps({"model_name": "wide", "outputs": [output]}))
            else:
                tensors = {"inputs": {"x": LARGE}, "outputs": {"y": 1}}
                told = {
                    kind: [{"name": name, "datatype": "FP32", "shape": [-1, size]} for name, size in several.items()]
                    for kind, several in tensors.items()
                }
                peer.answer(json.dumps({**METADATA, **told}))

    with HttpServer(behave) as upstream:
        remote = RemoteModel("wide", upstream.url, binary=False)
        with Server(remote, port=0) as server, Client(server.url) as client:
            # Such a thread stays for ten seconds: it may be that of another test.
            until(lambda: not elsewhere())
            ones = np.full((1, LARGE), 1 / 3, np.float32)
            assert client.infer("wide", {"x": ones}, binary=True)["y"].tolist() == [[0.5]]
            assert elsewhere(), "100 KiB came, and more than that went on"
    assert sizes[0] > 128 << 10


def test_json_where_the_upstream_knows_no_binary_tensors() -> None:
    with (
        HttpServer(answering(null=True)) as upstream,
        Server(RemoteModel("double", upstream.url), port=0) as server,
        Client(server.url) as client,
    ):
        answer = client.infer("double", full(3, rows=2))["y"]
        assert np.isnan(answer[0, 0])
        assert answer[1].tolist() == [6.0] * 4
        (asked,) = [request for request in upstream.requests if request.target.endswith("/infer")]
        assert asked.header("content-type") == "application/json"
        assert asked.header("accept-encoding") == "identity"


def test_a_request_that_nobody_waits_for_is_dropped_upstream() -> None:
    dropped = threading.Event()

    def behave(peer: Peer) -> None:
        for request in peer:
            if not request.target.endswith("/infer"):
                peer.answer(json.dumps(METADATA))
            elif peer.sees_end():
                dropped.set()
                return

    with HttpServer(behave) as upstream, Server(RemoteModel("double", upstream.url), port=0) as server:
        with Client(server.url) as client, pytest.raises(DeadlineExceeded):
            # The door gives it up; so does the gateway.
            client.infer("double", full(1), timeout=penstock.Timeout(total=0.3))
        assert dropped.wait(PATIENCE)
        until(lambda: server.stats().models["double"].queued == 0)


def test_a_caller_that_leaves_takes_its_request_along() -> None:
    dropped, came = threading.Event(), threading.Event()

    def behave(peer: Peer) -> None:
        for request in peer:
            if not request.target.endswith("/infer"):
                peer.answer(json.dumps(METADATA))
                continue
            came.set()
            if peer.sees_end():
                dropped.set()
            return

    with HttpServer(behave) as upstream, Server(RemoteModel("double", upstream.url), port=0) as server:
        client = Client(server.url)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(client.infer, "double", full(1))
            assert came.wait(PATIENCE)
            assert not dropped.is_set()
            client.close(drain=False)
            assert asked.exception(PATIENCE) is not None
        assert dropped.wait(PATIENCE)


@pytest.mark.parametrize(
    ("status", "body", "expected", "words"),
    [
        ("400 Bad Request", '{"error": "not so"}', 400, "not so"),
        ("422 Unprocessable Entity", '{"detail": "nor so"}', 400, "nor so"),
        ("401 Unauthorized", "{}", 502, "status 401"),
        ("404 Not Found", '{"error": "gone"}', 404, "gone"),
        ("429 Too Many Requests", '{"error": "busy"}', 503, "busy"),
        ("500 Internal Server Error", '{"error": "broken"}', 502, "broken"),
        ("503 Service Unavailable", '{"error": "later"}', 503, "later"),
        ("504 Gateway Timeout", "", 504, "status 504"),
        ("302 Found", "", 502, "status 302"),
        ("200 OK", "no json", 502, "protocol"),
        ("200 OK", '{"outputs": []}', 500, "no output 'y'"),
        ("200 OK", '{"outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 4], "data": []}]}', 500, "shape"),
        ("200 OK", '{"outputs": [{"name": "y", "datatype": "INT8", "shape": [1, 4], "data": []}]}', 500, "INT8"),
    ],
)
def test_what_an_upstream_refuses_is_said_with_its_meaning(status: str, body: str, expected: int, words: str) -> None:
    def behave(peer: Peer) -> None:
        for request in peer:
            if request.target.endswith("/infer"):
                peer.answer(body, status=status, headers={"Retry-After": "7"})
            else:
                peer.answer(json.dumps(METADATA))

    with (
        HttpServer(behave) as upstream,
        Server(RemoteModel("double", upstream.url), port=0) as server,
        Client(server.url) as client,
    ):
        question = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
        answer = client.post("/v2/models/double/infer", json=question)
        assert answer.status_code == expected
        assert words in answer.json()["error"]
        if expected == 503:
            assert answer.headers["retry-after"] == "7"
        assert str(upstream.port) not in answer.text, "strangers do not hear where it is"


def test_an_upstream_that_dies_is_not_ready_and_one_that_is_back_is() -> None:
    first = Upstream()
    first.server.start()
    port = int(first.server.url.rsplit(":", 1)[1])
    remote = RemoteModel("double", first.server.url, pool=Pool(health_interval=0.1))
    with Server(remote, port=0) as server, Client(server.url) as client:
        assert client.infer("double", full(1))["y"][0, 0] == 2
        first.server.close()
        with pytest.raises(RemoteError, match="upstream"):
            client.infer("double", full(1))
        until(lambda: not client.is_ready("double"))
        second = Upstream()
        again = Server([second.server._given[0].target], port=port)
        with again:
            until(lambda: client.is_ready("double"))
            assert client.infer("double", full(1))["y"][0, 0] == 2


def test_several_servers_share_the_work_and_one_may_die(threads: ThreadPoolExecutor) -> None:
    both = [Upstream(), Upstream()]
    for one in both:
        one.server.start()
    remote = RemoteModel("double", [one.server.url for one in both], balance="round_robin", max_batch_size=1)
    with Server(remote, port=0) as server, Client(server.url) as client:
        list(threads.map(lambda _: client.infer("double", full(1)), range(100)))
        assert all(one.batches for one in both)
        both[0].server.close()
        for _ in range(20):
            assert client.infer("double", full(2))["y"][0, 0] == 4
    both[1].server.close()


def test_an_upstream_that_is_not_there_fails_the_load_and_not_the_declaration() -> None:
    remote = RemoteModel("double", f"http://127.0.0.1:{refusing_port()}", **DECLARED, load_retries=0)
    with pytest.raises(LoadFailed) as caught:
        Server(remote, port=0).start()
    assert isinstance(caught.value.__cause__, ConnectFailed)
    with Server(remote, port=0, preload=[]) as server, Client(server.url) as client:
        assert not client.is_ready("double")
        with pytest.raises(RemoteError, match="failed to load"):
            client.infer("double", full(1))


def test_what_was_declared_must_be_there(upstream: Upstream) -> None:
    for declared, words in [
        ({**DECLARED, "inputs": {"z": ("float32", [4])}}, "'z'"),
        ({**DECLARED, "inputs": {"x": ("float64", [4])}}, "float64"),
        ({**DECLARED, "outputs": {"y": ("float32", [5])}}, r"\[5\]"),
        ({**DECLARED, "outputs": {"y": ("float32", [4, 1])}}, r"\[4, 1\]"),
    ]:
        remote = RemoteModel("double", upstream.server.url, **declared, load_retries=0)
        with pytest.raises(LoadFailed, match=words):
            Server(remote, port=0).start()


def test_reload_and_unload_end_what_is_under_way_in_order(upstream: Upstream, threads: ThreadPoolExecutor) -> None:
    remote = RemoteModel("double", upstream.server.url)
    with Server(remote, port=0) as server, Client(server.url) as client:
        stop = threading.Event()

        def ask() -> int:
            count = 0
            while not stop.is_set():
                assert client.infer("double", full(3))["y"][0, 0] == 6
                count += 1
            return count

        asking = [threads.submit(ask) for _ in range(8)]
        for _ in range(5):
            server.cache.reload("double").wait(PATIENCE)
            time.sleep(0.01)
        server.cache.unload("double").wait(PATIENCE)
        stop.set()
        assert sum(one.result(PATIENCE) for one in asking) > 0
        assert server.stats().models["double"].requests > 0
    assert remote.pool_stats().endpoints == {}


def test_closing_drains_what_is_upstream(upstream: Upstream, threads: ThreadPoolExecutor) -> None:
    upstream.slow.clear()
    server = Server(RemoteModel("double", upstream.server.url), port=0).start()
    with Client(server.url) as client:
        asked = threads.submit(client.infer, "double", full(1))
        until(lambda: upstream.batches)
        closing = threads.submit(server.close)
        upstream.slow.set()
        assert asked.result(PATIENCE)["y"][0, 0] == 2
        closing.result(PATIENCE)


def test_models_that_are_not_available_are_not_discovered() -> None:
    index = [
        {"name": "double", "version": "1", "state": "READY", "reason": ""},
        {"name": "double", "version": "2", "state": "UNAVAILABLE", "reason": "it does not load"},
        {"name": "gone", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"},
        {"name": "going", "version": "1", "state": "UNLOADING"},
        {"name": "coming", "state": "LOADING"},
        {"name": "asleep", "state": "UNAVAILABLE", "reason": ""},
        {"name": "silent"},
    ]

    def behave(peer: Peer) -> None:
        for request in peer:
            if request.target == "/v2/repository/index":
                peer.answer(json.dumps(index))
            elif request.target.startswith("/v2/"):
                peer.answer(json.dumps(METADATA))
            else:
                peer.answer("{}", status="404 Not Found")

    with HttpServer(behave) as server:
        found = [one.name for one in RemoteModel.discover(server.url)]
        assert found == ["double", "coming", "asleep", "silent"]
        assert [one.name for one in RemoteModel.discover(server.url, names=["gone"])] == ["gone"]


def test_models_are_discovered(upstream: Upstream) -> None:
    found = RemoteModel.discover(upstream.server.url)
    assert sorted(one.name for one in found) == ["bits", "double", "mirror"]
    (mirror,) = [one for one in found if one.name == "mirror"]
    assert mirror.inputs == {"t": ("bytes", [-1]), "n": ("int64", [])}
    (one,) = RemoteModel.discover([upstream.server.url], names=["double"], max_batch_size=7)
    assert one.__penstock_model__.policy.max_batch_size == 7
    with pytest.raises(ModelNotFound):
        RemoteModel.discover(upstream.server.url, names=["nowhere"])


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"inputs": []}, "does not say what inputs"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [64]}]}, "without a batch axis"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": []}]}, "without a batch axis"),
        ({"inputs": [{"name": "x", "datatype": "FP12", "shape": [-1]}]}, "FP12"),
        ({"inputs": [{"name": "x"}]}, "cannot be read"),
    ],
)
def test_metadata_that_say_too_little(metadata: dict[str, Any], words: str) -> None:
    def behave(peer: Peer) -> None:
        for _ in peer:
            peer.answer(json.dumps({**METADATA, **metadata}))

    with HttpServer(behave) as upstream, pytest.raises(ConfigError, match=words):
        RemoteModel("double", upstream.url)


def test_a_model_of_one_row_gets_one_row() -> None:
    fixed = [{"name": "x", "datatype": "FP32", "shape": [1, 4]}]

    def behave(peer: Peer) -> None:
        for _ in peer:
            peer.answer(json.dumps({**METADATA, "inputs": fixed}))

    with HttpServer(behave) as upstream:
        assert RemoteModel("double", upstream.url).__penstock_model__.policy.max_batch_size == 1
        with pytest.raises(ConfigError, match="one row at a time"):
            RemoteModel("double", upstream.url, max_batch_size=8)


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"urls": []}, "empty"),
        ({"urls": ""}, "URL"),
        ({"urls": "ftp://x"}, "http://"),
        ({"urls": ["http://a", "http://a"]}, "twice"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": True}, "concurrency"),
        ({"task": "other"}, "task"),
        ({"name": "a b"}, "name"),
        ({"upstream_name": ""}, "upstream_name"),
        ({"upstream_version": 1.5}, "upstream_version"),
        ({"max_batch": 3}, "unknown setting"),
        ({"policy": BatchPolicy(), "max_batch_size": 3}, "exclude each other"),
        ({"timeout": -1}, "timeout"),
        ({"balance": "best"}, "balance"),
        ({"inputs": {"x": "float32"}}, "declared as"),
    ],
)
def test_what_cannot_be_declared(keywords: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {"name": "double", "urls": "http://127.0.0.1:9", **DECLARED, **keywords}
    with pytest.raises(ConfigError, match=words):
        RemoteModel(**given)


def answer_of(body: bytes, *, null: bool = False) -> dict[str, Any]:
    """What a server that doubles would answer to a request in JSON."""
    (given,) = json.loads(body)["inputs"]
    data: list[Any] = [value * 2 for value in given["data"]]
    if null:
        data[0] = None
    output = {"name": "y", "datatype": "FP32", "shape": given["shape"], "data": data}
    return {"model_name": "double", "outputs": [output]}


def answering(*, null: bool = False) -> Callable[[Peer], None]:
    """A server that knows JSON alone."""

    def behave(peer: Peer) -> None:
        for request in peer:
            told = request.target.endswith("/infer")
            peer.answer(json.dumps(answer_of(request.body, null=null) if told else METADATA))

    return behave
