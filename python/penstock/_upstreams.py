"""The models of the servers that `penstock serve --upstream` names: found, named and put together."""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from penstock._remote_index import listed
from penstock.errors import ConfigError, DeadlineExceeded, ModelNotFound, ModelNotReady, Overloaded, TransportError
from penstock.pooling import Pool, Timeout
from penstock.remote import RemoteModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from penstock._upstream_settings import UpstreamSettings

T = TypeVar("T")

LOG = logging.getLogger("penstock.gateway")

_PAUSE = 0.5
"""Seconds between two looks for a server that is not up."""

_NOT_UP = (TransportError, DeadlineExceeded, ModelNotReady, Overloaded)

_STRANGE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass
class _Found:
    """A model that servers list."""

    told: dict[str, Any]
    urls: list[str] = field(default_factory=list)


def models_of_upstreams(settings: UpstreamSettings) -> list[RemoteModel]:
    """The models that are served in front of other servers; none where none is named. It blocks until all are up.

    Raises:
        ConfigError: for a URL, a model or a setting that cannot be, and where two models would have one name.
        ModelNotFound: where no server has a model that is wanted.
        TransportError, DeadlineExceeded, ModelNotReady: where a server does not come up within `upstream_wait`.
    """
    if not settings.upstream:
        if settings.upstream_model:
            raise ConfigError("upstream_model names models of other servers: say where they are, by upstream")
        return []
    wanted = dict(map(_wanted, settings.upstream_model))
    options = _options(settings)
    until = time.monotonic() + settings.upstream_wait
    found: dict[str, _Found] = {}
    for url in dict.fromkeys(settings.upstream):
        for name, told in _when_up(url, until, partial(_listed, url, list(wanted) or None, options)):
            found.setdefault(name, _Found(told)).urls.append(url)
    for name in wanted:
        if name not in found:
            there = ", ".join(sorted(found)) or "none of those that are wanted"
            raise ModelNotFound(f"no upstream has a model '{name}'; there are {there}")
    return _declared(found, wanted, settings, options, until)


def _declared(
    found: dict[str, _Found],
    wanted: dict[str, str],
    settings: UpstreamSettings,
    options: dict[str, Any],
    until: float,
) -> list[RemoteModel]:
    models: dict[str, RemoteModel] = {}
    for name, each in found.items():
        local = wanted.get(name) or _local(name)
        if local in models:
            other = models[local].upstream.model
            raise ConfigError(
                f"models '{other}' and '{name}' would both be called '{local}': say upstream_model={name}=NAME"
            )
        own = {"upstream_name": name, "concurrency": settings.upstream_concurrency, **options, **each.told}
        models[local] = _when_up(each.urls[0], until, partial(RemoteModel, local, each.urls, **own))
        LOG.info("model %r is served from %s", local, ", ".join(each.urls))
    return list(models.values())


def _wanted(text: str) -> tuple[str, str]:
    """What a model is called there, and here."""
    name, equals, local = text.partition("=")
    if not name.strip() or (equals and not local.strip()):
        raise ConfigError(f"upstream_model must be MODEL or MODEL=NAME, not {text!r}")
    return name.strip(), local.strip()


def _local(name: str) -> str:
    """A name that a model can have here: those of other servers may have slashes and colons."""
    return _STRANGE.sub("-", name).lstrip("._-") or "model"


def _options(settings: UpstreamSettings) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if settings.upstream_key is not None:
        options["headers"] = {"Authorization": f"Bearer {settings.upstream_key}"}
    if settings.upstream_timeout is not None:
        options["timeout"] = Timeout(total=settings.upstream_timeout)
    if settings.upstream_pool_max is not None:
        options["pool"] = Pool(max_size=settings.upstream_pool_max)
    return options


def _listed(url: str, names: Iterable[str] | None, options: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The models of one server, or those of them that are wanted."""
    wanted = None if names is None else list(names)
    try:
        there = listed([url], None, options)
    except ConfigError:
        if wanted is None:
            raise
        # It lists none: it is believed that it has what is asked for.
        return [(name, {}) for name in wanted]
    return [(name, told) for name, told in there if wanted is None or name in wanted]


def _when_up(url: str, until: float, ask: Callable[[], T]) -> T:
    """What a server says, once it is up."""
    said = False
    while True:
        try:
            return ask()
        except _NOT_UP as error:
            if isinstance(error, ModelNotFound) or time.monotonic() + _PAUSE >= until:
                raise
            if not said:
                LOG.warning("waiting for the upstream %s: %s", url, error)
                said = True
            time.sleep(_PAUSE)
