"""The models that other servers list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock import _remote_text
from penstock._remote_terms import Upstream
from penstock.errors import ConfigError, DeadlineExceeded, PenstockError, TransportError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_OF_CLIENTS = frozenset(
    {"headers", "auth", "timeout", "pool", "balance", "retry", "eject", "verify", "cert", "proxy", "trust_env", "http2"}
)


def listed(
    urls: list[str], names: Iterable[str] | None, options: Mapping[str, Any]
) -> list[tuple[str, dict[str, Any]]]:
    """Every model that servers list, or those that are wanted, each with what `RemoteModel` is told of it.

    Raises:
        ConfigError: where they list none, or none of a name that is wanted.
        TransportError, DeadlineExceeded: where they cannot be asked.
    """
    wanted = None if names is None else list(names)
    own = {name: value for name, value in options.items() if name in _OF_CLIENTS}
    where = Upstream.of(urls, "any", None, own)
    with where.client() as client:
        found: dict[str, dict[str, Any]] = {}
        try:
            rows = client.repository_index(timeout=10.0)
            found = {str(row["name"]): {} for row in rows if _may_serve(row)}
        except (TransportError, DeadlineExceeded):
            raise
        except PenstockError:
            # It has no repository, or shows it to nobody.
            found = {}
        found |= dict(_remote_text.listed(client))
    if wanted is None:
        if not found:
            raise ConfigError(f"{', '.join(where.urls)} list no models: name them, penstock.RemoteModel(name, urls)")
        return list(found.items())
    return [(name, found.get(name, {})) for name in wanted]


def _may_serve(row: object) -> bool:
    """Whether a row of the index names a model that can be asked for.

    One that is UNAVAILABLE for a reason has failed to load, or was unloaded. Without one, its first request may load
    it. A server that says nothing of states has them all.
    """
    if not isinstance(row, dict) or not row.get("name"):
        return False
    return row.get("state") != "UNLOADING" and not (row.get("state") == "UNAVAILABLE" and row.get("reason"))
