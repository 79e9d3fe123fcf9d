"""How what lives long shows itself in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock._display import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from penstock._cache import ModelCache
    from penstock._connecting import Connections
    from penstock._inference import InferResult
    from penstock.batching import Batcher
    from penstock.server import Server

_COLUMNS = ("requests", "batches", "mean_batch_size", "queued", "rejected")
"""Of the statistics of a model: what one looks at first."""


def facts(caption: str, rows: Iterable[tuple[str, object]]) -> str:
    """A table of names and values."""
    import html  # noqa: PLC0415  a notebook asks for it, an import of penstock should not pay

    body = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{html.escape(shown(value))}</td></tr>"
        for name, value in rows
    )
    return f"<table><caption>{html.escape(caption)}</caption>{body}</table>"


def grid(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table with a head."""
    import html  # noqa: PLC0415  as above

    head = "".join(f"<th>{html.escape(name.replace('_', ' '))}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(shown(value))}</td>" for value in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def of_server(server: Server, caption: str) -> str:
    """What a server is, and what its models have done."""
    state = server._state  # noqa: SLF001  one package
    rows: list[tuple[str, object]] = [("state", state)]
    if state not in ("not started", "closed", "in process"):
        rows = [("listens at", f"{server.url} and {server.grpc_url}")]
    off = [name for name, on in vars(server.parts).items() if not on]
    rows.append(("switched off", ", ".join(off) or "nothing"))
    if state in ("not started", "closed"):
        return facts(caption, [*rows, ("models", ", ".join(server.names))])
    stats = server.stats()
    rows.append(("ready", "yes" if stats.ready else "no"))
    models = [(name, *(getattr(each, column) for column in _COLUMNS)) for name, each in stats.models.items()]
    return facts(caption, rows) + grid(("model", *_COLUMNS), models)


def of_cache(cache: ModelCache) -> str:
    """What a cache holds."""
    limit = "no limit" if cache.memory is None else shown(cache.memory)
    rows = [("state", "closed" if cache.closed else "open"), ("memory", limit)]
    models = [(f"{row.name}@{row.version}", row.state, row.bytes, row.leases) for row in cache.index()]
    return facts("ModelCache", rows) + grid(("model", "state", "bytes", "used by"), models)


def of_client(client: Connections) -> str:
    """What the pools of a client have done."""
    stats = client.stats()
    columns = ("size", "in_use", "waiting", "acquired", "reused", "failed")
    rows = [("state", "closed" if client.closed else "open")]
    pools = [(name, *(getattr(pool, column) for column in columns)) for name, pool in stats.endpoints.items()]
    return facts(type(client).__name__, rows) + grid(("endpoint", *columns), pools)


def of_result(result: InferResult) -> str:
    """The outputs of a model, without their values, and where the time went."""
    rows: list[tuple[str, object]] = [("model", f"{result.model_name} {result.model_version or ''}".strip())]
    if result.id is not None:
        rows.append(("id", result.id))
    rows += [(f"output {name}", f"{array.dtype} {list(array.shape)}") for name, array in result.items()]
    timing = {part: f"{1e3 * seconds:.3f} ms" for part, seconds in result.timing.items()}
    return facts("InferResult", [*rows, *timing.items()])


def of_batcher(batcher: Batcher[Any], name: str) -> str:
    """What a batched function is, and what it has done so far."""
    policy, stats = batcher.policy, batcher.stats()
    rows: list[tuple[str, object]] = [
        ("function", name),
        ("state", "closed" if batcher.closed else "open"),
        ("max batch size", str(policy.max_batch_size)),
        ("dispatch", policy.dispatch),
        ("workers", str(batcher.workers)),
    ]
    return facts("Batcher", rows) + grid(_COLUMNS, [tuple(getattr(stats, column) for column in _COLUMNS)])
