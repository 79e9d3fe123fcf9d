"""How what lives long shows itself in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock._display import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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
