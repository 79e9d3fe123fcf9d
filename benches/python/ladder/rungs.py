"""The rungs: which of the four parts are on. Everything else is the same at all of them."""

from __future__ import annotations

from dataclasses import dataclass

import penstock

PARTS = ("pool", "batch", "stream", "load")
CLIENTS = 100
"""Requests that are out at a time, and connections that a pool may have."""


@dataclass(frozen=True)
class Rung:
    """A row of the ladder.

    Attributes:
        name: as in the tables.
        on: the parts that are switched on.
    """

    name: str
    on: tuple[str, ...]

    def environment(self) -> dict[str, str]:
        """What the server is told, by the product's own variables."""
        return {f"PENSTOCK_{part.upper()}": "on" if part in self.on else "off" for part in PARTS}

    def pool(self) -> penstock.Pool | bool:
        """What the client is told: connections that are kept, or one for each request."""
        return penstock.Pool(min_size=1, max_size=CLIENTS) if "pool" in self.on else False

    def shown(self) -> list[str]:
        """Its configuration, for a table: the server's variables and the client's keyword."""
        pool = f"penstock.Pool(min_size=1, max_size={CLIENTS})" if "pool" in self.on else "False"
        variables = " ".join(f"{name}={value}" for name, value in self.environment().items())
        return [self.name, f"`{variables}`", f"`pool={pool}`"]


BASELINE = Rung("baseline", ())
ALONE = tuple(Rung(f"{part} alone", (part,)) for part in PARTS)
TWO = Rung("pool + batch", PARTS[:2])
THREE = Rung("pool + batch + stream", PARTS[:3])
ALL = Rung("all four", PARTS)
ALL_BUT = tuple(
    Rung(f"all but {left_out}", tuple(part for part in PARTS if part != left_out)) for left_out in PARTS[:3]
)
"""All but loading are pool, batch and stream."""

ADDED = (BASELINE, ALONE[0], TWO, THREE, ALL)
"""One by one."""

RUNGS = (BASELINE, *ALONE, TWO, THREE, *ALL_BUT, ALL)
NOTES = (1900, 2138, 2660, 2850, 3705, 3895)
"""Requests a second that the project's notes name: the baseline, with pooling, batching, streaming and loading added to
it one by one, and all of them together."""
