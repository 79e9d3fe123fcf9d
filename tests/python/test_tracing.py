"""Requests as spans of OpenTelemetry, and the trace that goes on through a batch."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import penstock
from penstock import AsyncClient, Client, Processes, Server, logs, model, testing
from penstock.errors import ConfigError
from tests.python.support.logs import Kept
from tests.python.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.trace import ReadableSpan

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
SEEN: list[dict[str, str]] = []


@model("double", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
def double(x: Any) -> Any:
    SEEN.append(penstock.current_trace())
    logging.getLogger("of.the.model").warning("it runs")
    return x * np.float32(2)


@model("fails", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
def fails(x: Any) -> Any:
    raise RuntimeError("no")


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    """What the one provider of the process exports: it can be set once."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Iterator[InMemorySpanExporter]:
    exporter.clear()
    SEEN.clear()
    yield exporter
    exporter.clear()


def ask(url: str, headers: dict[str, str] | None = None, name: str = "double", rows: int = 1) -> Any:
    body = json.dumps(testing.infer_body({"x": ("FP32", [rows, 2], [1.0, 2.0] * rows)})).encode()
    request = urllib.request.Request(f"{url}/v2/models/{name}/infer", body, headers or {})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer


def named(exporter: InMemorySpanExporter, name: str, count: int = 1) -> list[ReadableSpan]:
    found: list[ReadableSpan] = []

    def came() -> bool:
        found[:] = [span for span in exporter.get_finished_spans() if span.name == name]
        return len(found) >= count

    until(came)
    assert len(found) == count, found
    return found


def test_a_request_that_is_recorded_becomes_spans_in_the_trace_of_its_sender(spans: InMemorySpanExporter) -> None:
    with Server(double, port=0, trace_ratio=0) as server:
        answer = ask(server.url, {"traceparent": PARENT, "tracestate": "a=b", "X-Request-Id": "a7"})
        assert answer.headers["x-request-id"] == "a7"
        ask(server.url)
        (request,) = named(spans, "penstock.request")
        (queue,) = named(spans, "penstock.queue")
        (batch,) = named(spans, "penstock.batch")
    assert request.parent is not None
    assert (f"{request.context.trace_id:032x}", f"{request.parent.span_id:016x}") == (TRACE, SPAN)
    assert request.kind is SpanKind.SERVER
    assert request.attributes is not None
    said = {
        "http.request.method": "POST", "url.path": "/v2/models/double/infer", "http.response.status_code": 200,
        "network.protocol.version": "1.1", "client.address": "127.0.0.1", "penstock.model": "double",
        "penstock.request.id": "a7", "penstock.rows": 1, "penstock.batch.size": 1, "penstock.batch.reason": "tick",
    }  # fmt: skip
    assert said.items() <= dict(request.attributes).items()
    assert queue.parent is not None
    assert queue.parent.span_id == request.context.span_id
    assert batch.parent is not None
    assert (batch.context.trace_id, batch.parent.span_id) == (request.context.trace_id, request.context.span_id)
    assert [link.context.span_id for link in batch.links] == [request.context.span_id]
    assert [link.context.span_id for link in request.links] == [batch.context.span_id]
    times = [request.start_time, queue.start_time, queue.end_time, batch.end_time, request.end_time]
    assert times == sorted(times), "a wait is before its batch ends, and all of it within the request"  # type: ignore[type-var]
    assert SEEN[0] == {"traceparent": f"00-{TRACE}-{batch.context.span_id:016x}-01", "tracestate": "a=b"}
    assert SEEN[1] == {}, "nobody records it"
    assert penstock.current_trace() == {}


def test_requests_of_several_traces_share_a_batch_that_has_its_own(spans: InMemorySpanExporter) -> None:
    entered, opened = threading.Event(), threading.Event()

    @model("waits", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
    def waits(x: Any) -> Any:
        entered.set()
        assert opened.wait(60)
        SEEN.append(penstock.current_trace())
        return x

    with Server(waits, port=0, trace_ratio=1.0) as server:
        threads = [threading.Thread(target=ask, args=(server.url, None, "waits")) for _ in range(4)]
        threads[0].start()
        assert entered.wait(60)
        for thread in threads[1:]:
            thread.start()
        until(lambda: server.stats().models["waits"].queued == 3)
        opened.set()
        for thread in threads:
            thread.join()
        requests = named(spans, "penstock.request", 4)
        batches = named(spans, "penstock.batch", 2)
    assert len({request.context.trace_id for request in requests}) == 4
    assert all(request.parent is None for request in requests)
    (shared,) = [batch for batch in batches if len(batch.links) == 3]
    assert shared.parent is None
    assert SEEN[1]["traceparent"] == f"00-{shared.context.trace_id:032x}-{shared.context.span_id:016x}-01"
    linked = {link.context.span_id for link in shared.links}
    assert linked < {request.context.span_id for request in requests}


def test_a_server_begins_no_more_traces_a_second_than_it_may(spans: InMemorySpanExporter) -> None:
    with Server(double, port=0, trace_ratio=1.0, trace_limit=2) as server:
        began = time.monotonic()
        for _ in range(30):
            ask(server.url)
        ask(server.url, {"traceparent": PARENT})
        took = time.monotonic() - began
        until(lambda: any(span.context.trace_id == int(TRACE, 16) for span in spans.get_finished_spans()))
    requests = [span for span in spans.get_finished_spans() if span.name == "penstock.request"]
    assert 3 <= len(requests) <= 1 + 2 * (1 + took), "two at once, two a second, and what its sender records"


def test_what_fails_is_said_to_have_failed(spans: InMemorySpanExporter) -> None:
    with Server([fails], port=0, trace_ratio=1.0) as server:
        with pytest.raises(urllib.error.HTTPError) as failure:
            ask(server.url, name="fails")
        failure.value.close()
        (request,) = named(spans, "penstock.request")
        (batch,) = named(spans, "penstock.batch")
    assert request.status.status_code is StatusCode.ERROR
    assert request.attributes is not None
    assert request.attributes["error.type"] == "500"
    assert batch.status.status_code is StatusCode.ERROR


async def test_calls_of_grpc_are_recorded_too(spans: InMemorySpanExporter) -> None:
    with Server(double, port=0, trace_ratio=0) as server:
        async with AsyncClient(server.grpc_url, headers={"traceparent": PARENT}) as client:
            await client.infer("double", {"x": np.ones((1, 2), np.float32)})
        (request,) = await asyncio.to_thread(named, spans, "penstock.request")
    assert request.parent is not None
    assert (f"{request.context.trace_id:032x}", f"{request.parent.span_id:016x}") == (TRACE, SPAN)
    assert request.attributes is not None
    assert request.attributes["rpc.system"] == "grpc"
    assert request.attributes["rpc.method"] == "ModelInfer"
    assert request.attributes["rpc.grpc.status_code"] == 0


@pytest.mark.usefixtures("spans")
async def test_clients_send_the_trace_of_whoever_asks() -> None:
    with Server(double, port=0, trace_ratio=0) as server, Client(server.url) as blocking:
        tracer = trace.get_tracer("test")
        x = {"x": np.ones((1, 2), np.float32)}
        with tracer.start_as_current_span("outside") as outside:
            await asyncio.to_thread(lambda: blocking.infer("double", x))
            async with AsyncClient(server.url) as client, AsyncClient(server.grpc_url) as grpc:
                await client.infer("double", x)
                await grpc.infer("double", x)
                own = {"headers": {"traceparent": PARENT}}
                await client.post(
                    "/v2/models/double/infer", json=testing.infer_body({"x": ("FP32", [1, 2], [1.0, 2.0])}), **own
                )
        blocking.infer("double", x)
    of_outside = f"{outside.get_span_context().trace_id:032x}"
    traces = [seen.get("traceparent", "--").split("-")[1] for seen in SEEN]
    assert traces == [of_outside, of_outside, of_outside, TRACE, ""]


@pytest.mark.usefixtures("spans")
def test_what_a_model_asks_of_others_is_in_the_trace_of_its_batch() -> None:
    inner = Server(double, port=0).start()

    @model("outer", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
    def outer(x: Any) -> Any:
        SEEN.append(penstock.current_trace())
        with Client(inner.url) as client:
            return client.infer("double", {"x": x})["y"]

    with inner, Server(outer, port=0, trace_ratio=0) as server:
        ask(server.url, {"traceparent": PARENT}, "outer")
    assert [seen["traceparent"].split("-")[1] for seen in SEEN] == [TRACE, TRACE]
    assert SEEN[0] != SEEN[1], "the inner batch has a span of its own"


def test_a_worker_process_knows_the_trace_too() -> None:
    with Server(ProcessModel, port=0, tracing="off") as server:
        answer = json.loads(ask_for_text(server.url, {"traceparent": PARENT, "X-Request-Id": "a7"}))
    assert answer["outputs"][0]["data"] == [f"{PARENT} ['a7']"]


@model("process", inputs={"x": ("float32", [2])}, outputs={"y": ("string", [])}, workers=Processes(1))
class ProcessModel:
    def load(self, ctx: Any) -> None:
        pass

    def predict(self, x: Any) -> list[str]:
        from penstock._scope import SCOPE

        scope = SCOPE.get()
        return [f"{penstock.current_trace().get('traceparent')} {scope and list(scope.request_ids)}"] * len(x)


def ask_for_text(url: str, headers: dict[str, str]) -> bytes:
    body = json.dumps(testing.infer_body({"x": ("FP32", [1, 2], [1.0, 2.0])})).encode()
    request = urllib.request.Request(f"{url}/v2/models/process/infer", body, headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return bytes(answer.read())


def test_nothing_is_recorded_where_tracing_is_off_and_the_trace_goes_on(spans: InMemorySpanExporter) -> None:
    with Server(double, port=0, tracing="off", trace_ratio=1.0) as server:
        ask(server.url, {"traceparent": PARENT, "tracestate": "a=b"})
        ask(server.url, {"traceparent": "00-nonsense"})
    assert spans.get_finished_spans() == ()
    assert SEEN == [{"traceparent": PARENT, "tracestate": "a=b"}, {}]


def test_a_processor_that_raises_loses_no_other_span(
    spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    export, failures = spans.export, [RuntimeError("full"), RuntimeError("full")]

    def exports(batch: Any) -> Any:
        if batch[0].name == "penstock.request" and failures:
            raise failures.pop()
        return export(batch)

    monkeypatch.setattr(spans, "export", exports)
    with Server(double, port=0, trace_ratio=1.0) as server:
        for _ in range(3):
            ask(server.url)
        named(spans, "penstock.request", 1)


def test_records_and_the_logs_of_models_name_the_trace(spans: InMemorySpanExporter) -> None:
    with Kept("penstock.access") as kept, Kept("of.the.model") as of_model:
        of_model.addFilter(logs.BatchFilter())
        formatter = logs.JsonFormatter()
        with Server(double, port=0, access_log=True, trace_ratio=0) as server:
            answer = ask(server.url, {"traceparent": PARENT})
            (request,) = named(spans, "penstock.request")
            (batch,) = named(spans, "penstock.batch")
            made = answer.headers["x-request-id"]
    (record,) = kept.records
    line = json.loads(formatter.format(record))
    assert (line["trace_id"], line["span_id"]) == (TRACE, f"{request.context.span_id:016x}")
    assert line["request_id"] == made
    (own,) = of_model.records
    line = json.loads(formatter.format(own))
    assert (line["trace_id"], line["span_id"]) == (TRACE, f"{batch.context.span_id:016x}")
    assert line["request_ids"] == [made]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tracing": "yes"}, "tracing must be 'auto' or 'on' or 'off', not 'yes'"),
        ({"trace_ratio": 2}, "trace_ratio must be a number from 0 to 1, not 2"),
        ({"trace_limit": 0}, "trace_limit must be a whole number of at least 1, not 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        Server(double, **settings)


def test_tracing_that_is_wanted_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    with pytest.raises(ConfigError, match=r"pip install 'penstock\[otel\]'"):
        Server(double, port=0, tracing="on").start()


def speaker(started: threading.Event, go: threading.Event) -> Any:
    """A model of text whose batch others may join, which says its second word when it is let."""

    @model("says", task="generate", batched=True, max_batch_size=4)
    def says(batch: penstock.Batch) -> Iterator[Any]:
        said: dict[int, int] = {}
        while batch.live:
            batch.join()
            yield dict.fromkeys(batch, "a ")
            started.set()
            assert go.wait(60)
            for index in batch.live:
                said[index] = said.get(index, 0) + 1
                if said[index] == 2:
                    batch.finish(index)

    return says


@pytest.mark.parametrize("stream", [True, False])
def test_a_request_for_text_has_waited_too(spans: InMemorySpanExporter, *, stream: bool) -> None:
    go = threading.Event()
    go.set()
    with Server(speaker(threading.Event(), go), port=0) as server, Client(server.url) as client:
        asked = {"model": "says", "prompt": "x", "stream": stream}
        client.post("/v1/completions", json=asked, headers={"traceparent": PARENT}).raise_for_status()
        (request,) = named(spans, "penstock.request")
        (queue,) = named(spans, "penstock.queue")
        (batch,) = named(spans, "penstock.batch")
    assert queue.parent is not None
    assert queue.parent.span_id == request.context.span_id
    assert [link.context.span_id for link in request.links] == [batch.context.span_id]
    times = [request.start_time, queue.start_time, queue.end_time, request.end_time]
    assert times == sorted(times)  # type: ignore[type-var]


def test_who_joins_a_batch_that_runs_is_linked_to_it(spans: InMemorySpanExporter) -> None:
    started, go = threading.Event(), threading.Event()
    others = [f"00-{number:032x}-{number:016x}-01" for number in (7, 8)]
    with Server(speaker(started, go), port=0) as server, Client(server.url) as client:

        def complete(headers: dict[str, str]) -> None:
            client.post("/v1/completions", json={"model": "says", "prompt": "x"}, headers=headers).raise_for_status()

        # The first is not recorded; the batch is, for those who join it.
        first = PARENT.removesuffix("01") + "00"
        threads = [threading.Thread(target=complete, args=({"traceparent": one},)) for one in (first, *others)]
        threads[0].start()
        assert started.wait(60)
        for thread in threads[1:]:
            thread.start()
        until(lambda: server.stats().models["says"].queued == 2)
        go.set()
        for thread in threads:
            thread.join()
        requests = named(spans, "penstock.request", 2)
        named(spans, "penstock.queue", 2)
        (batch,) = named(spans, "penstock.batch")
    assert {link.context.span_id for link in batch.links} == {request.context.span_id for request in requests}
    for request in requests:
        assert [link.context.span_id for link in request.links] == [batch.context.span_id]


async def test_a_pipeline_is_in_the_trace_of_whoever_asks(spans: InMemorySpanExporter) -> None:
    tracer = trace.get_tracer("test")
    with penstock.Pipeline(double) as pipeline:
        with tracer.start_as_current_span("caller") as caller:
            await pipeline.infer("double", {"x": np.ones((1, 2), np.float32)})
            pipeline.call("double", {"x": np.ones((1, 2), np.float32)})
        await pipeline.infer("double", {"x": np.ones((1, 2), np.float32)})
        batches = named(spans, "penstock.batch", 2)
    own = caller.get_span_context()
    for batch, seen in zip(batches, SEEN, strict=False):
        assert batch.parent is not None
        assert (batch.context.trace_id, batch.parent.span_id) == (own.trace_id, own.span_id)
        assert seen["traceparent"] == f"00-{own.trace_id:032x}-{batch.context.span_id:016x}-01"
    assert SEEN[2] == {}
    SEEN.clear()
    with penstock.Pipeline(double, tracing="off") as pipeline, tracer.start_as_current_span("caller"):
        await pipeline.infer("double", {"x": np.ones((1, 2), np.float32)})
    assert SEEN == [{}], "it does not ask"


def test_a_model_that_asks_a_pipeline_has_it_in_the_trace_of_its_batch() -> None:
    with penstock.Pipeline(double, tracing="off") as pipeline:

        @model("asks", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
        def asks(x: Any) -> Any:
            return pipeline.call("double", {"x": x})["y"]

        SEEN.clear()
        with Server(asks, port=0, tracing="off") as server:
            ask(server.url, {"traceparent": PARENT, "tracestate": "a=b"}, "asks")
    assert SEEN == [{"traceparent": PARENT, "tracestate": "a=b"}]


async def test_a_batched_function_runs_in_the_trace_of_its_callers(spans: InMemorySpanExporter) -> None:
    seen: list[tuple[dict[str, str], int]] = []

    @penstock.batched(max_batch_size=8)
    def twice(x: Any) -> Any:
        seen.append((penstock.current_trace(), trace.get_current_span().get_span_context().trace_id))
        return x * 2

    tracer = trace.get_tracer("test")
    with tracer.start_as_current_span("caller") as caller:
        assert await asyncio.gather(*(twice(number) for number in range(4))) == [0, 2, 4, 6]
        assert await asyncio.to_thread(twice.call, 3) == 6
    own = caller.get_span_context()
    header = f"00-{own.trace_id:032x}-{own.span_id:016x}-01"
    assert seen == [({"traceparent": header}, own.trace_id)] * 2
    seen.clear()
    assert await twice(1) == 2
    assert seen == [({}, 0)]
    seen.clear()

    async def of_its_own(number: int) -> None:
        with tracer.start_as_current_span("one"):
            await twice(number)

    await asyncio.gather(of_its_own(1), of_its_own(2))
    ((told, inside),) = seen
    assert told["traceparent"].split("-")[1] == f"{inside:032x}"
    assert inside not in {span.context.trace_id for span in named(spans, "one", 2)}, "the batch is of both"
    once = penstock.batched(max_batch_size=8, single_flight=True)(lambda x: [penstock.current_trace()] * len(x))
    with tracer.start_as_current_span("caller") as caller:
        answers = await asyncio.gather(once(1), once(1))
    expected = f"{caller.get_span_context().trace_id:032x}"
    assert [answer["traceparent"].split("-")[1] for answer in answers] == [expected] * 2
    twice.close()
    once.close()
