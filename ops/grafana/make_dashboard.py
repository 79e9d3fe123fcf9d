"""Writes `penstock.json`, the dashboard for Grafana: `python ops/grafana/make_dashboard.py`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

TARGET = Path(__file__).with_name("penstock.json")
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
OF = '{job=~"$job",instance=~"$instance"}'
OF_MODEL = '{job=~"$job",instance=~"$instance",model=~"$model"}'
WIDTH = 24

OUTCOMES = {
    "ok": "blue",
    "invalid": "yellow",
    "overloaded": "purple",
    "expired": "orange",
    "failed": "red",
    "gone": "gray",
}


def of(*extra: str, model: bool = True) -> str:
    """The labels that choose what is shown, and more of them."""
    base = OF_MODEL if model else OF
    return base[:-1] + "".join(f",{each}" for each in extra) + "}"


def rate(name: str, labels: str, by: str = "") -> str:
    """The rate of a counter, added up."""
    return f"sum{f' by ({by})' if by else ''} (rate({name}{labels}[$__rate_interval]))"


def percentile(share: float, name: str, labels: str, by: str = "le") -> str:
    """A percentile of a histogram, as far as its buckets tell."""
    return f"histogram_quantile({share}, {rate(f'{name}_bucket', labels, by)})"


def target(expression: str, legend: str, letter: str, *, instant: bool = False) -> dict[str, Any]:
    """A query of a panel."""
    found: dict[str, Any] = {"datasource": SOURCE, "expr": expression, "legendFormat": legend, "refId": letter}
    return found | ({"instant": True, "range": False, "format": "table"} if instant else {"range": True})


def panel(
    kind: str, title: str, queries: list[tuple[str, str]], unit: str, about: str = "", **more: Any
) -> dict[str, Any]:
    """A panel of `kind`.

    `more` may be custom (of its fields), width, height, options, overrides, below_zero
    and steps.
    """
    steps = more.get("steps", [{"color": "green", "value": None}])
    defaults: dict[str, Any] = {
        "unit": unit,
        **({} if more.get("below_zero") else {"min": 0}),
        "color": {"mode": "thresholds" if kind == "stat" else "palette-classic"},
        "thresholds": {"mode": "absolute", "steps": steps},
        "custom": more.get("custom", {}),
        "mappings": [],
    }
    return {
        "type": kind,
        "title": title,
        "description": about,
        "datasource": SOURCE,
        "targets": [target(text, legend, chr(ord("A") + at)) for at, (text, legend) in enumerate(queries)],
        "fieldConfig": {"defaults": defaults, "overrides": more.get("overrides", [])},
        "options": more.get("options", {}),
        "gridPos": {"w": more.get("width", 12), "h": more.get("height", 8), "x": 0, "y": 0},
    }


def lines(title: str, queries: list[tuple[str, str]], unit: str, about: str = "", **more: Any) -> dict[str, Any]:
    """Lines over time."""
    custom = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 8, "showPoints": "never", "spanNulls": False}
    custom |= more.pop("custom", {})
    options = {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return panel("timeseries", title, queries, unit, about, custom=custom, options=options, **more)


def stacked(title: str, queries: list[tuple[str, str]], unit: str, about: str = "", **more: Any) -> dict[str, Any]:
    """Layers, one upon the other."""
    custom = {"fillOpacity": 40, "stacking": {"mode": "normal", "group": "A"}} | more.pop("custom", {})
    return lines(title, queries, unit, about, custom=custom, **more)


def stat(title: str, query: str, unit: str, about: str = "", **more: Any) -> dict[str, Any]:
    """One figure."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "area",
        "justifyMode": "auto",
        "orientation": "auto",
        "textMode": "auto",
    }
    return panel("stat", title, [(query, "")], unit, about, width=4, height=4, options=options, **more)


def coloured(colours: dict[str, str]) -> list[dict[str, Any]]:
    """Colours of series by their names."""
    return [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
        }
        for name, colour in colours.items()
    ]


def warned(*levels: float) -> list[dict[str, Any]]:
    """Green, then yellow and red from these values on."""
    colours = ["yellow", "red"][-len(levels) :]
    return [
        {"color": "green", "value": None},
        *({"color": c, "value": v} for c, v in zip(colours, levels, strict=True)),
    ]


def mean(name: str, by: str = "") -> str:
    """The mean of what a histogram saw."""
    return f"{rate(f'{name}_sum', of(), by)} / {rate(f'{name}_count', of(), by)}"


def part_of(part: str, whole: str, by: str) -> str:
    """One counter as a share of another."""
    return f"{rate(part, of(), by)} / {rate(whole, of(), by)}"


PARTS = (
    f"{rate('penstock_batch_wait_seconds_sum', of(), 'part')}"
    f" / ignoring(part) group_left {rate('penstock_batch_size_count', of())}"
)
PARTS_ABOUT = (
    "The mean of each part: until it could leave, until a worker was free, until the model was called, the model "
    "itself, until its answers were there."
)
IN_MEMORY = of('kind=~"ready|draining|reserved"', model=False)
QUANTILE = 'quantile="0.999"'
BLAMED = of('outcome=~"overloaded|expired|failed"')

OVERVIEW = [
    stat("Requests", rate("penstock_requests_total", of()), "reqps", "Requests that ended, whatever the end."),
    stat(
        "Latency p99",
        percentile(0.99, "penstock_request_seconds", of()),
        "s",
        "From the whole request to its answer.",
        steps=warned(0.5, 2),
    ),
    stat(
        "Errors",
        f"{rate('penstock_requests_total', BLAMED)} / {rate('penstock_requests_total', of())}",
        "percentunit",
        "Overloaded, timed out or failed.",
        steps=warned(0.01, 0.05),
    ),
    stat(
        "Requests per batch",
        mean("penstock_batch_size"),
        "none",
        "What batching makes of the traffic.",
    ),
    stat("Waiting", f"sum (penstock_queue_depth{of()})", "none", "Rows that wait for a batch."),
    stat("Connections", f"sum (penstock_http_connections{of(model=False)})", "none", "Connections that are open."),
]

TRAFFIC = [
    stacked(
        "Requests by how they ended",
        [(rate("penstock_requests_total", of(), "outcome"), "{{outcome}}")],
        "reqps",
        overrides=coloured(OUTCOMES),
    ),
    lines(
        "Latency",
        [
            (percentile(share, "penstock_request_seconds", of()), name)
            for share, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"), (0.999, "p99.9"))
        ],
        "s",
        "From the whole request to its answer, estimated from histogram buckets.",
        custom={"scaleDistribution": {"type": "log", "log": 10}},
        below_zero=True,
    ),
    lines("Requests by model", [(rate("penstock_requests_total", of(), "model"), "{{model}}")], "reqps"),
    lines(
        "Latency p99 by model", [(percentile(0.99, "penstock_request_seconds", of(), "le, model"), "{{model}}")], "s"
    ),
    lines(
        "Latency p99.9 of the last minute",
        [(f"max by (model) (penstock_request_seconds_quantile{of(QUANTILE)})", "{{model}}")],
        "s",
        "Counted by the server itself: exact to 2 %.",
    ),
    lines(
        "Bytes",
        [
            (rate("penstock_request_bytes_total", of(model=False)), "in"),
            (rate("penstock_response_bytes_total", of(model=False)), "out, whole answers"),
            (rate("penstock_stream_bytes_total", of(model=False)), "out, streams"),
        ],
        "Bps",
    ),
    lines(
        "Answers other than 200",
        [
            (rate("penstock_http_responses_total", of('status!="200"', model=False), "status"), "HTTP {{status}}"),
            (rate("penstock_grpc_responses_total", of('code!="OK"', model=False), "code"), "gRPC {{code}}"),
        ],
        "reqps",
    ),
    lines(
        "Refused by a limit of the door",
        [(rate("penstock_http_refusals_total", of(model=False), "limit"), "{{limit}}")],
        "reqps",
    ),
]

BATCHING = [
    lines(
        "Requests per batch",
        [
            (
                mean("penstock_batch_size", "model"),
                "{{model}}",
            )
        ],
        "none",
        "The mean size of a batch.",
    ),
    stacked(
        "Batches by why they left",
        [(rate("penstock_batches_total", of(), "reason"), "{{reason}}")],
        "ops",
        "full: it held all that a batch may. tick: a worker was free. window: its first request had waited max_wait.",
    ),
    stacked(
        "Where a batch's time goes",
        [
            (
                PARTS,
                "{{part}}",
            )
        ],
        "s",
        PARTS_ABOUT,
    ),
    lines("Waiting for a batch", [(f"sum by (model) (penstock_queue_depth{of()})", "{{model}}")], "none"),
    lines(
        "Most rows that a batch may have now",
        [(f"max by (model) (penstock_batch_cap{of()})", "{{model}}")],
        "none",
        "Halves when memory runs out, and recovers.",
    ),
    stacked(
        "What batches cost",
        [(rate("penstock_batch_cost_total", of(), "kind"), "{{kind}}")],
        "ops",
        "Padding is what rows are filled up with.",
    ),
]

STREAMS = [
    lines(
        "Pieces per second",
        [(rate("penstock_stream_pieces_total", of(model=False)), "pieces")],
        "ops",
        "Tokens, where a step says one.",
    ),
    lines(
        "Time to the first piece",
        [
            (percentile(share, "penstock_stream_first_piece_seconds", of(model=False)), name)
            for share, name in ((0.5, "p50"), (0.99, "p99"))
        ],
        "s",
    ),
    lines(
        "Time between pieces",
        [
            (percentile(share, "penstock_stream_piece_gap_seconds", of(model=False)), name)
            for share, name in ((0.5, "p50"), (0.99, "p99"))
        ],
        "s",
    ),
    lines(
        "Streams",
        [
            (f"sum (penstock_stream_open{of(model=False)})", "open"),
            (rate("penstock_stream_cancelled_total", of(model=False)), "client left, a second"),
            (rate("penstock_stream_failed_total", of(model=False)), "broken off, a second"),
        ],
        "none",
    ),
    lines(
        "Bytes that readers have not taken", [(f"sum (penstock_stream_held_bytes{of(model=False)})", "held")], "bytes"
    ),
    lines(
        "Slow readers",
        [
            (rate("penstock_stream_reader_waits_total", of(model=False)), "waits"),
            (rate("penstock_stream_pauses_total", of(model=False)), "pauses"),
            (rate("penstock_stream_dropped_total", of(model=False)), "dropped pieces"),
        ],
        "ops",
    ),
]

MODELS = [
    stacked(
        "Memory of models",
        [
            (
                f"sum by (kind) (penstock_models_bytes{IN_MEMORY})",
                "{{kind}}",
            )
        ],
        "bytes",
    ),
    lines(
        "Hit rate",
        [
            (f"avg (penstock_models_hit_rate{of(model=False)})", "accesses"),
            (f"avg (penstock_models_byte_hit_rate{of(model=False)})", "bytes"),
        ],
        "percentunit",
        "Of all accesses, the share that found its model loaded.",
    ),
    stacked(
        "Loads and evictions",
        [
            (f"sum by (outcome) (increase(penstock_models_loads_total{of()}[$__rate_interval]))", "load {{outcome}}"),
            (
                f"sum by (reason) (increase(penstock_models_evictions_total{of()}[$__rate_interval]))",
                "eviction {{reason}}",
            ),
        ],
        "none",
    ),
    lines(
        "Time of loads",
        [
            (percentile(share, "penstock_models_load_seconds", of(model=False)), name)
            for share, name in ((0.5, "p50"), (0.99, "p99"))
        ],
        "s",
    ),
    lines(
        "Loads under way",
        [
            (f"sum (penstock_models_loading{of(model=False)})", "loading"),
            (f"sum (penstock_models_load_queue_depth{of(model=False)})", "waiting"),
            (f"sum (penstock_models_stuck{of(model=False)})", "past their time"),
        ],
        "none",
    ),
    stacked(
        "Preloads by what became of them",
        [
            (
                f"sum by (outcome) (increase(penstock_models_preloads_total{of(model=False)}[$__rate_interval]))",
                "{{outcome}}",
            )
        ],
        "none",
    ),
]

UPSTREAMS = [
    lines("Requests to upstreams", [(rate("penstock_pool_acquired_total", of(), "endpoint"), "{{endpoint}}")], "reqps"),
    lines(
        "Connections to upstreams",
        [
            (f"sum by (endpoint) (penstock_pool_connections{of()})", "{{endpoint}}"),
            (f"sum (penstock_pool_waiting{of()})", "requests that wait"),
        ],
        "none",
    ),
    lines(
        "Connections that were reused",
        [
            (
                part_of("penstock_pool_reused_total", "penstock_pool_acquired_total", "endpoint"),
                "{{endpoint}}",
            )
        ],
        "percentunit",
    ),
    lines(
        "Left out, or not to be opened",
        [
            (f"max by (endpoint) (penstock_pool_ejected{of()})", "left out: {{endpoint}}"),
            (rate("penstock_pool_failed_total", of(), "endpoint"), "not opened, a second: {{endpoint}}"),
        ],
        "none",
    ),
]

PROCESS = [
    lines(
        "CPU",
        [(f"sum by (instance) (rate(process_cpu_seconds_total{of(model=False)}[$__rate_interval]))", "{{instance}}")],
        "percentunit",
        "100 % is one core.",
    ),
    lines("Memory", [(f"sum by (instance) (process_resident_memory_bytes{of(model=False)})", "{{instance}}")], "bytes"),
    lines(
        "Waiting for the interpreter lock",
        [(rate("penstock_lock_wait_seconds_total", of(), "model"), "{{model}}")],
        "s",
        "Seconds in a second, of all workers. Near one, a Python thread holds everybody up.",
    ),
    lines(
        "Lock acquisitions per request",
        [
            (
                f"{rate('penstock_lock_acquisitions_total', of())} / {rate('penstock_requests_total', of())}",
                "acquisitions",
            )
        ],
        "none",
        "One a batch, never one a request.",
    ),
    lines(
        "Connections and requests in flight",
        [
            (f"sum (penstock_http_connections{of(model=False)})", "connections"),
            (f"sum (penstock_http_requests_in_flight{of(model=False)})", "in flight"),
        ],
        "none",
    ),
    lines(
        "Garbage collection",
        [(rate("penstock_gc_pause_seconds_sum", of(model=False)), "pauses")],
        "s",
        "Seconds in a second that Python's garbage collector held the interpreter.",
    ),
]

ROWS = {
    "Now": OVERVIEW,
    "Traffic": TRAFFIC,
    "Batching": BATCHING,
    "Streams": STREAMS,
    "Models": MODELS,
    "Upstreams": UPSTREAMS,
    "Processes": PROCESS,
}


def variable(name: str, label: str, query: str) -> dict[str, Any]:
    """A label to choose by: all, one or several."""
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": SOURCE,
        "query": {"query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
        "options": [],
        "hide": 0,
        "regex": "",
        "skipUrlSync": False,
    }


def laid_out() -> list[dict[str, Any]]:
    """The panels, each in its place: as many beside one another as there is room for."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, members in ROWS.items():
        panels.append(
            {
                "type": "row",
                "title": title,
                "collapsed": False,
                "gridPos": {"w": WIDTH, "h": 1, "x": 0, "y": y},
                "panels": [],
            }
        )
        y += 1
        x = 0
        for member in members:
            place = member["gridPos"]
            if x + place["w"] > WIDTH:
                x = 0
                y += place["h"]
            panels.append({**member, "gridPos": {**place, "x": x, "y": y}})
            x += place["w"]
        y += members[-1]["gridPos"]["h"]
    return [{"id": number, **each} for number, each in enumerate(panels, 1)]


def dashboard() -> dict[str, Any]:
    """The dashboard, in the classic model that every Grafana from 10 on imports."""
    source = {
        "type": "datasource",
        "name": "datasource",
        "label": "Prometheus",
        "query": "prometheus",
        "options": [],
        "refresh": 1,
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "regex": "",
        "skipUrlSync": False,
    }
    return {
        "uid": "penstock",
        "title": "Penstock",
        "description": "Servers of Penstock: traffic, batches, streams, models, upstreams and processes.",
        "tags": ["penstock", "inference"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "weekStart": "",
        "fiscalYearStartMonth": 0,
        "links": [],
        "annotations": {"list": []},
        "templating": {
            "list": [
                source,
                variable("job", "Job", "label_values(penstock_http_connections, job)"),
                variable("instance", "Instance", 'label_values(penstock_http_connections{job=~"$job"}, instance)'),
                variable(
                    "model", "Model", 'label_values(penstock_queue_depth{job=~"$job",instance=~"$instance"}, model)'
                ),
            ]
        },
        "panels": laid_out(),
    }


def main() -> int:
    """Writes the file, or says with `--check` whether it is as it would be written."""
    text = json.dumps(dashboard(), indent=2) + "\n"
    if "--check" in sys.argv:
        return 0 if TARGET.is_file() and TARGET.read_text(encoding="utf-8") == text else 1
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
