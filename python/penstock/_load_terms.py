"""How a model of a server is loaded, as its declaration says it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from penstock._cache_loader import check_timeout, is_reference
from penstock._policy import check_count
from penstock.errors import ConfigError
from penstock.settings import size_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEFAULTS: dict[str, Any] = {"requires": (), "size": None, "load_timeout": 30.0, "load_retries": 1, "warmup": None}


def load_terms(name: str, target: object, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The terms on which a model is loaded: from keywords, else from attributes of its class, else the usual ones.

    Raises:
        ConfigError: for what cannot be, or is said in both places.
    """
    terms = dict(_DEFAULTS)
    for term, given in keywords.items():
        of_class = getattr(target, term, None) if inspect.isclass(target) else None
        if term == "size" and not isinstance(of_class, int | str):
            # A method or a property of that name is the class's own affair.
            of_class = None
        if given is not None and of_class is not None:
            raise ConfigError(f"model '{name}': {term} is both a keyword and an attribute of its class")
        if (said := of_class if given is None else given) is not None:
            terms[term] = said
    terms["requires"] = _references(name, terms["requires"])
    if terms["size"] is not None:
        terms["size"] = size_of(f"model '{name}': size", terms["size"])
    seconds, retries, warmup = terms["load_timeout"], terms["load_retries"], terms["warmup"]
    check_timeout(f"model '{name}': load_timeout", seconds)
    terms["load_timeout"] = float(seconds)
    check_count(f"model '{name}': load_retries", retries)
    if warmup is not None and not callable(warmup):
        raise ConfigError(f"model '{name}': warmup must be a function of the model, not {warmup!r}")
    return terms


def _references(name: str, given: object) -> tuple[str, ...]:
    several = [given] if isinstance(given, str) else given
    if not isinstance(several, Sequence | set | frozenset):
        raise ConfigError(f"model '{name}': requires must be names of models, not {given!r}")
    for one in several:
        if not isinstance(one, str) or not is_reference(one):
            raise ConfigError(f"model '{name}': requires must be names such as 'scaler' or 'scaler@2', not {one!r}")
    return tuple(several)
