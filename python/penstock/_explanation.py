"""Why requests wait: what the pools hold, told in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Explanation(list[dict[str, Any]]):
    """What each pool holds now, one dictionary for each endpoint; its `repr` is text to be read."""

    def __init__(self, endpoints: Iterable[Mapping[str, Any]]) -> None:
        super().__init__(dict(endpoint) for endpoint in endpoints)

    def __repr__(self) -> str:
        return "\n".join(_words(endpoint) for endpoint in self) or "no endpoint was used yet"

    def _repr_html_(self) -> str:
        import html  # noqa: PLC0415  a notebook asks for it, an import of penstock should not pay

        return f"<pre>{html.escape(repr(self))}</pre>"


def _words(endpoint: dict[str, Any]) -> str:
    known = dict(endpoint)
    lines = [f"{known.pop('endpoint', '?')}: {known.pop('why', '')}".rstrip(": ")]
    lines += [f"    {name.replace('_', ' ')}: {value}" for name, value in known.items() if value not in (None, [], {})]
    return "\n".join(lines)
