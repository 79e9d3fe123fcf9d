"""`penstock bench URL`: the load generator from a shell."""

from __future__ import annotations

import json
import math
import os
import platform
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from penstock import __version__, _bench_chart, _native, testing
from penstock._bench_chart import duration_text
from penstock.errors import Closed, ConfigError, DeadlineExceeded, TransportError

if TYPE_CHECKING:
    import argparse
    from typing import TextIO

    from penstock._bench_bodies import Bodies

_LOOK_SECONDS: Final = 0.05
_LINE_SECONDS: Final = 0.2
_LONGEST_RUN: Final = 3600.0
_PERCENTILES: Final = ("p50", "p75", "p90", "p95", "p99", "p999", "p9999", "max", "mean")
_BUSY: Final = 0.9
_INTERRUPTED: Final = 130
_WAITING_PART: Final = 0.01  # of an open loop's requests may wait when the last one falls due


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "bench",
        help="send load to a server on this machine and report latencies",
        description="Sends load to a server on this machine. Exit status: 0 where every answer was fine, 1 where one "
        "was not or got lost, 2 for a mistake in what was asked for, 130 after Ctrl-C.",
    )
    parser.set_defaults(carry_out=bench)
    add = parser.add_argument
    add("url", help="http://host:port/path, or grpc://host:port/service/method; the host must be a loopback address")
    add("-c", "--clients", type=int, default=64, help="requests that are out at a time (default: %(default)s)")
    add("-n", "--requests", type=int, help="how many requests are sent in all")
    add("-d", "--duration", type=float, help="seconds of sending (default: 10, without --requests)")
    add("--rate", type=float, help="open loop: so many requests fall due in a second, whatever the server does")
    add("--poisson", action="store_true", help="open loop: at random moments instead of evenly")
    add("--warmup", type=float, default=0.0, help="seconds of load before anything is counted (default: 0)")
    add("--timeout", type=float, default=30.0, help="seconds after which a request is lost (default: 30)")
    add("--deadline", type=float, help="seconds after which the run ends (default: what the other options take)")
    what = parser.add_argument_group("what is sent")
    add = what.add_argument
    add("--method", help="method of the requests (default: POST with a body, else GET)")
    add("--header", action="append", default=[], metavar="'NAME: VALUE'", help="a header; may be repeated")
    add("--body", metavar="TEXT|@FILE", help="the body of every request; over gRPC its message, as it is on the wire")
    add("--content-type", help="what the body is (default: JSON where it looks like it)")
    add("--model", help="send random inference requests that fit this model; URL is then that of the server")
    add("--rows", type=int, default=1, help="rows of an inference request (default: 1)")
    add("--binary", action="store_true", help="binary tensors instead of JSON; over gRPC they always are")
    add("--bodies", type=int, default=100, help="different inference requests (default: 100)")
    add("--seed", type=int, default=7, help="of all that is random (default: 7)")
    how = parser.add_argument_group("how it is sent")
    add = how.add_argument
    add("--http2", action="store_true", help="HTTP/2 by prior knowledge")
    add("--streams", type=int, default=1, help="HTTP/2 and gRPC: clients that share a connection (default: 1)")
    add("--connection-close", action="store_true", help="HTTP/1.1: a connection for each request")
    out = parser.add_argument_group("what is made of it")
    add = out.add_argument
    add("--check", action="store_true", help="every answer must be a 200 (or OK) and an inference response")
    add("--json", metavar="FILE", help="write the report as JSON; - is the standard output")
    add("--chart", type=Path, metavar="FILE", help="draw a chart: .svg, .png or .html (needs penstock[bench])")


def bench(options: argparse.Namespace) -> int:
    """Carries out the command and gives its exit status.

    Raises:
        ConfigError: where the options contradict themselves or the target is not on this machine.
    """
    if options.chart is not None:
        _bench_chart.require_chart(options.chart)
    settings = _settings(options, grpc=testing.split_url(options.url).grpc)
    said = sys.stderr if options.json == "-" else sys.stdout
    try:
        url, sent = _requests(options)
        settings["headers"] = _headers(options, sent)
        settings["method"] = options.method or ("POST" if settings["protocol"] == "gRPC" or any(sent.bodies) else "GET")
        place = testing.split_url(url)
        found = _watched(_native.NativeLoad(place.authority, place.path, sent.bodies, settings))
    except Closed as error:
        print(f"penstock: {error}", file=sys.stderr)  # noqa: T201  a command line answers so
        return _INTERRUPTED
    except (TransportError, DeadlineExceeded) as error:
        cause = f": {error.__cause__}" if error.__cause__ is not None else ""
        print(f"penstock: {error}{cause}", file=sys.stderr)  # noqa: T201
        return 2
    report = _report(found, url, settings)
    _print(report, said)
    if options.json is not None:
        _write_json(options.json, report)
    if options.chart is not None:
        _bench_chart.draw(options.chart, report["histogram"], url)
    if found["stopped"]:
        return _INTERRUPTED
    fine = found["ok"] == found["planned"] > 0 and not found["wrong"]
    return 0 if fine else 1


def _refuse_contradictions(options: argparse.Namespace, *, grpc: bool) -> None:
    rate = options.rate
    refusals = (
        (
            options.requests is not None and options.duration is not None,
            "--requests and --duration both say when to end: give one of them",
        ),
        (rate is not None and not (math.isfinite(rate) and rate > 0), f"--rate must be a positive number, not {rate}"),
        (options.poisson and rate is None, "--poisson is a way to space the requests of --rate, which is not given"),
        (options.http2 and options.connection_close, "--connection-close belongs to HTTP/1.1, and --http2 is given"),
        (
            options.streams != 1 and not (options.http2 or grpc),
            "--streams are those of --http2 or of grpc://, and neither is given",
        ),
        (grpc and options.connection_close, "--connection-close belongs to HTTP/1.1, and the URL is of gRPC"),
        (options.model is not None and options.body is not None, "--body and --model both say what to send"),
        (
            options.model is None and (options.binary or options.rows != 1),
            "--binary and --rows are about the requests of --model, which is not given",
        ),
    )
    for contradicts, message in refusals:
        if contradicts:
            raise ConfigError(message)
    for name in ("requests", "clients", "streams", "rows", "bodies"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name} {value} is fewer than 1")
    for name in ("duration", "timeout", "deadline"):
        value = getattr(options, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ConfigError(f"--{name} must be a positive number of seconds, not {value}")


def _settings(options: argparse.Namespace, *, grpc: bool) -> dict[str, Any]:
    _refuse_contradictions(options, grpc=grpc)
    requests, duration = options.requests or 0, options.duration
    if options.rate is not None and requests:
        # The open loop knows times only; half a gap more, so that the last one falls due.
        requests, duration = 0, (requests - 0.5) / options.rate
    elif duration is None:
        duration = 0.0 if requests else 10.0
    longest = _LONGEST_RUN if requests else duration + options.warmup + options.timeout + 5.0
    return dict(
        testing.LOAD_DEFAULTS,
        clients=options.clients,
        requests=requests,
        rate=options.rate or 0.0,
        poisson_seed=options.seed if options.poisson else None,
        duration=duration,
        warmup=options.warmup,
        timeout=options.timeout,
        deadline=longest if options.deadline is None else options.deadline,
        protocol="gRPC" if grpc else "HTTP/2" if options.http2 else "HTTP/1.1",
        streams=options.streams,
        connection_close=options.connection_close,
        check=options.check,
        # What ends by the clock outlives a server that is away for a while.
        max_reopens=100 if requests else 2**32 - 1,
    )


def _requests(options: argparse.Namespace) -> tuple[str, Bodies]:
    from penstock._bench_bodies import (  # noqa: PLC0415  it imports NumPy
        Bodies,
        inference_bodies,
        inference_messages,
        model_inputs,
    )

    grpc = testing.split_url(options.url).grpc
    if options.model is None and grpc:
        return options.url, Bodies([b"" if options.body is None else _body(options.body)], {})
    if options.model is None:
        body = b"" if options.body is None else _body(options.body)
        looks = "application/json" if body.lstrip()[:1] in (b"{", b"[") else "application/octet-stream"
        return options.url, Bodies([body], {"Content-Type": looks} if body else {})
    inputs = model_inputs(options.url, options.model)
    if grpc:
        how = {"count": options.bodies, "rows": options.rows, "seed": options.seed}
        return options.url, inference_messages(options.model, inputs, **how)
    sent = inference_bodies(inputs, count=options.bodies, rows=options.rows, binary=options.binary, seed=options.seed)
    return f"{options.url.rstrip('/')}/v2/models/{options.model}/infer", sent


def _body(text: str) -> bytes:
    if not text.startswith("@"):
        return text.encode()
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise ConfigError(f"the body cannot be read from {text[1:]}: {error.strerror}") from error


def _headers(options: argparse.Namespace, sent: Bodies) -> list[tuple[str, str]]:
    headers = dict(sent.headers)
    if options.content_type is not None:
        headers["Content-Type"] = options.content_type
    given = []
    for text in options.header:
        name, colon, value = text.partition(":")
        if not (colon and name.strip()):
            raise ConfigError(f"a header is 'name: value', not {text!r}")
        given.append((name.strip(), value.strip()))
    return [*headers.items(), *given]


def _watched(run: _native.NativeLoad) -> dict[str, Any]:
    """Waits for the run, with a line about it where somebody looks. Ctrl-C ends it early, a second one at once."""
    line = _Line(sys.stderr) if sys.stderr.isatty() else None
    before = usage = resource.getrusage(resource.RUSAGE_SELF)
    began = time.monotonic()

    def interrupt(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        run.stop()

    main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, interrupt) if main else None
    try:
        found = None
        while found is None:
            found = run.wait(_LOOK_SECONDS)
            if line is not None and found is None:
                line.show(run)
        usage = resource.getrusage(resource.RUSAGE_SELF)
    finally:
        if main:
            signal.signal(signal.SIGINT, handler)
        if line is not None:
            line.clear()
    cpu = usage.ru_utime + usage.ru_stime - before.ru_utime - before.ru_stime
    found["generator_cpu_seconds"] = cpu
    found["generator_busy"] = cpu / (time.monotonic() - began)
    return found


class _Line:
    """One line of a terminal, written again about five times a second."""

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal
        self._next = 0.0

    def show(self, run: _native.NativeLoad) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _LINE_SECONDS
        seen = run.snapshot()
        if seen["seconds"] is None:
            text = "warming up"
        else:
            rate = seen["answered"] / seen["seconds"] if seen["seconds"] > 0 else 0.0
            text = (
                f"{seen['seconds']:6.1f} s  {seen['answered']:>10,} answers  {rate:>9,.0f}/s  "
                f"p50 {duration_text(seen['p50'])}  p99 {duration_text(seen['p99'])}  {seen['errors']:,} errors"
            )
        self._terminal.write(f"\r\x1b[K{text}")
        self._terminal.flush()

    def clear(self) -> None:
        self._terminal.write("\r\x1b[K")
        self._terminal.flush()


def _report(found: dict[str, Any], url: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Everything that the JSON report holds."""
    rate, planned = settings["rate"], found["planned"]
    sent = found["answered"] + found["warmup_answered"]
    report = {name: value for name, value in found.items() if name not in ("answers", "latency")}
    report.update({name: found["latency"][name] for name in ("min", *_PERCENTILES)})
    report["statuses"] = {str(status): count for status, count in found["statuses"].items()}
    report["generator_cpu_us_per_request"] = found["generator_cpu_seconds"] / sent * 1e6 if sent else None
    if rate:
        waiting = found["backlog"] > max(1, planned * _WAITING_PART)
        report["kept_up"] = not (waiting or found["unfinished"])
    report["configuration"] = {
        "url": url,
        "mode": "open" if rate else "closed",
        **{name: settings[name] for name in settings if name not in ("keep", "requests_each", "max_reopens")},
    }
    report["versions"] = {"penstock": __version__, "python": platform.python_version()}
    report["machine"] = {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "cores_allowed": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
    }
    return report


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def _print(report: dict[str, Any], out: TextIO) -> None:
    unicode = (out.encoding or "").lower().startswith("utf")
    lines = [*_summary(report), "", *_bench_chart.bars(report["histogram"], "█" if unicode else "#"), *_notes(report)]
    text = "\n".join(lines)
    if not unicode:
        text = text.replace("µ", "u").replace("≤", "<")
    print(text, file=out, flush=True)


def _summary(report: dict[str, Any]) -> list[str]:
    asked = report["configuration"]
    loop = f"open loop at {asked['rate']:,g}/s" if asked["rate"] else "closed loop"
    fine = "OK" if asked["protocol"] == "gRPC" else "2xx"
    counts = [f"{report['answered']:,} answers", f"{report['ok']:,} of them {fine}"]
    others = ("refused", "failed", "wrong", "unfinished", "reopened")
    counts += [f"{report[name]:,} {name}" for name in others if report[name]]
    lines = [
        f"{asked['url']}, {asked['clients']} clients, {loop}, {asked['protocol']}",
        f"{report['requests_per_second']:,.0f} requests/s in {report['seconds']:.2f} s; {', '.join(counts)}",
    ]
    if report["answered"]:
        first = report["first_byte"]
        lines.append("latency  " + "  ".join(f"{_label(name)} {duration_text(report[name])}" for name in _PERCENTILES))
        lines.append(f"to the first byte  p50 {duration_text(first['p50'])}  p99 {duration_text(first['p99'])}")
    if asked["rate"]:
        lag = report["lag"]
        late = "  ".join(f"{name} {duration_text(lag[name])}" for name in ("p50", "p99", "max"))
        lines.append(f"the load generator's own lag  {late}")
    if report["statuses"].keys() - {"200"}:
        lines.append("statuses  " + "  ".join(f"{status}: {count:,}" for status, count in report["statuses"].items()))
    if report["codes"].keys() - {"OK"}:
        lines.append("codes  " + "  ".join(f"{code}: {count:,}" for code, count in report["codes"].items()))
    if report["errors"]:
        lines.append("lost  " + "  ".join(f"{kind}: {count:,}" for kind, count in report["errors"].items()))
    return lines


def _label(name: str) -> str:
    return {"p999": "p99.9", "p9999": "p99.99"}.get(name, name)


def _notes(report: dict[str, Any]) -> list[str]:
    """What a reader must know before believing the figures."""
    asked, notes = report["configuration"], []
    if report["stopped"]:
        notes.append("ended by Ctrl-C: the figures are those until then")
    if report["timed_out"]:
        notes.append(f"ended by the deadline of {asked['deadline']:g} s")
    if report.get("kept_up") is False:
        notes.append(
            f"did not keep up: {asked['rate']:,g} requests fell due in a second and "
            f"{report['requests_per_second']:,.0f} were answered; {report['backlog']:,} waited for a client at the end"
        )
    if report["wrong"]:
        notes.append(f"{report['wrong']:,} answers failed the check; of the first, {report['first_wrong']}")
    if report["generator_busy"] > _BUSY and not asked["rate"]:
        notes.append(
            f"the load generator was busy for {report['generator_busy']:.0%} of the time: "
            "the server may be able to do more"
        )
    return ["", *(f"note: {note}" for note in notes)] if notes else []


def _write_json(target: str, report: dict[str, Any]) -> None:
    text = json.dumps(report, indent=1) + "\n"
    if target == "-":
        sys.stdout.write(text)
        return
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the report cannot be written to {target}: {error.strerror}") from error
