"""What `penstock top` shows, as figures: the keys are those of `--json`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from penstock._metrics_text import WORKER, quantile

if TYPE_CHECKING:
    from penstock._metrics_text import Between

_BLAMED: Final = ("overloaded", "expired", "failed")
_PERCENTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p999": 0.999}
_SECONDS: Final = "penstock_request_seconds"
_SIZE: Final = "penstock_batch_size"


def figures(seen: Between, *, url: str, ready: bool | None, version: str | None) -> dict[str, Any]:
    """Everything that is shown of a server; rates are a second's, times are in seconds, sizes in bytes."""
    return {
        "url": url,
        "version": version,
        "ready": ready,
        "processes": max(1, len(seen.values_of("penstock_http_connections", WORKER))),
        "seconds": seen.seconds,
        **_requests(seen),
        **_batches(seen),
        "connections": seen.gauge("penstock_http_connections"),
        "in_flight": seen.gauge("penstock_http_requests_in_flight"),
        "lock": {
            "acquisitions": seen.rate("penstock_lock_acquisitions_total"),
            "waited": seen.rate("penstock_lock_wait_seconds_total"),
        },
        "streams": _streams(seen),
        "memory": _memory(seen),
        "process": {
            "cpu": seen.rate("process_cpu_seconds_total") if seen.has("process_cpu_seconds_total") else None,
            "resident_bytes": seen.gauge("process_resident_memory_bytes"),
        },
        "models": _models(seen),
        "upstreams": _upstreams(seen),
    }


def _requests(seen: Between, model: str | None = None) -> dict[str, Any]:
    name = "penstock_requests_total"
    outcomes = {one: seen.rate(name, model=model, outcome=one) for one in seen.values_of(name, "outcome")}
    requests = sum(outcomes.values())
    buckets = seen.buckets(_SECONDS, model=model)
    blamed = sum(outcomes.get(one, 0.0) for one in _BLAMED)
    return {
        "requests": requests,
        "outcomes": outcomes,
        "errors": blamed / requests if requests else None,
        "latency": {key: quantile(share, buckets) for key, share in _PERCENTILES.items()},
    }


def _batches(seen: Between, model: str | None = None) -> dict[str, Any]:
    name = "penstock_batches_total"
    return {
        "batches": seen.rate(name, model=model),
        "batch_size": seen.mean(_SIZE, model=model),
        "reasons": {one: seen.rate(name, model=model, reason=one) for one in seen.values_of(name, "reason")},
        "waiting": seen.gauge("penstock_queue_depth", model=model),
    }


def _streams(seen: Between) -> dict[str, Any] | None:
    if not seen.gauge("penstock_stream_started_total"):
        return None
    return {
        "open": seen.gauge("penstock_stream_open"),
        "pieces": seen.rate("penstock_stream_pieces_total"),
        "first_p50": seen.quantile(0.5, "penstock_stream_first_piece_seconds"),
        "first_p99": seen.quantile(0.99, "penstock_stream_first_piece_seconds"),
        "gap_p50": seen.quantile(0.5, "penstock_stream_piece_gap_seconds"),
        "gap_p99": seen.quantile(0.99, "penstock_stream_piece_gap_seconds"),
    }


def _memory(seen: Between) -> dict[str, Any] | None:
    if not seen.has("penstock_models_bytes"):
        return None
    return {
        "bytes": seen.gauge("penstock_models_bytes", kind="used"),
        "registered": seen.gauge("penstock_models_registered", max),
        "loading": seen.gauge("penstock_models_loading"),
        "hit_rate": seen.gauge("penstock_models_hit_rate", min),
        "evictions": seen.rate("penstock_models_evictions_total", reason="space"),
    }


def _models(seen: Between) -> list[dict[str, Any]]:
    names = [*seen.values_of("penstock_queue_depth", "model"), *seen.values_of("penstock_models_ready", "model")]
    models = []
    for name in dict.fromkeys(names):
        ready = seen.gauge("penstock_models_ready", min, model=name)
        models.append(
            {
                "model": name,
                "ready": None if ready is None else ready >= 1,
                **_requests(seen, name),
                **_batches(seen, name),
                "batch_cap": seen.gauge("penstock_batch_cap", max, model=name),
            }
        )
    return models


def _upstreams(seen: Between) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for labels, _ in seen.members("penstock_pool_connections"):
        model, endpoint = labels.get("model", ""), labels.get("endpoint", "")
        of = {"model": model, "endpoint": endpoint}
        acquired = seen.rise("penstock_pool_acquired_total", **of)
        found[model, endpoint] = {
            **of,
            "ejected": bool(seen.gauge("penstock_pool_ejected", max, **of)),
            "requests": acquired / seen.seconds,
            "connections": seen.gauge("penstock_pool_connections", **of),
            "in_use": seen.gauge("penstock_pool_connections_in_use", **of),
            "waiting": seen.gauge("penstock_pool_waiting", **of),
            "reuse_rate": seen.rise("penstock_pool_reused_total", **of) / acquired if acquired else None,
            "wait_p99": seen.gauge("penstock_pool_acquire_p99_seconds", max, **of),
        }
    return list(found.values())
