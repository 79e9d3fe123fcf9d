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
    known = {"ejected": False, "in_use": 0, "size": 0, "connecting": 0, "waiting": 0, **endpoint}
    counts = f"{known['in_use']} of {known['size']} connections in use"
    if known["connecting"]:
        counts += f", {known['connecting']} being opened"
    lines = [f"{known['endpoint']}: {counts}, {known['waiting']} requests wait"]
    if known["waiting"] and known.get("oldest") is not None:
        lines.append(
            f"the first of them has waited for {known['oldest']:.3g} s: {known.get('obstacle') or 'it is next'}"
        )
    if known["ejected"]:
        lines.append("it is left out for a while, because of failures")
    if known.get("last_error"):
        lines.append(f"the last connect failed: {known['last_error']}")
    if known.get("retry_in"):
        lines.append(f"the next one may begin in {known['retry_in']:.3g} s")
    lines += [f"held for {age:.3g} s: {place}" for place, age in known.get("held", ())]
    return "\n    ".join(lines)
