"""What `penstock serve --upstream` puts itself in front of."""

from __future__ import annotations

from dataclasses import dataclass

from penstock._settings_model import Resolved, setting


@dataclass(frozen=True, kw_only=True)
class UpstreamSettings(Resolved, section="upstream", title="upstreams", keywords=False):
    """Servers that exist already, whose models `penstock serve` serves. In code, `penstock.RemoteModel` does it.

    Attributes:
        upstream: URLs of servers. Those that list the same model are one fleet for it.
        upstream_model: the models that are wanted, by what they are called there; with `=NAME` behind it, what one is
            called here.
        upstream_key: the key that the servers want, sent as `Authorization: Bearer`.
        upstream_timeout: time that one request there may take in all.
        upstream_concurrency: batches, or requests for text, that may be under way for one model at a time.
        upstream_pool_max: connections to each server, for each model.
        upstream_wait: time that servers have to come up before the start is given up.
    """

    upstream: tuple[str, ...] = setting((), "texts", "a server whose models are served", metavar="URL")
    upstream_model: tuple[str, ...] = setting(
        (), "texts", "a model there that is wanted, if not all are", metavar="MODEL[=NAME]"
    )
    upstream_key: str | None = setting(None, "secret", "the key that it wants")
    upstream_timeout: float | None = setting(None, "seconds", "time for one request to it", none="600 s")
    upstream_concurrency: int | None = setting(
        None, "count", "batches under way for a model", none="16, text: one a connection"
    )
    upstream_pool_max: int | None = setting(None, "count", "connections to it, for a model", none="100 (gRPC: 50)")
    upstream_wait: float = setting(30.0, "seconds", "time that it has to come up")
