"""What goes wrong and when, and what each request is: all of it by a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "kill upstream",
    "kill worker",
    "stall upstream",
    "restart upstream",
    "reload upstream",
    "cut upstream",
    "hold upstream",
    "kill gateway",
    "kill gateway worker",
    "reload gateway",
    "cut gateway",
    "hold gateway",
    "block loop",
]

WEIGHTS: dict[Kind, int] = {
    "kill upstream": 3,
    "kill worker": 6,
    "stall upstream": 4,
    "restart upstream": 2,
    "reload upstream": 1,
    "cut upstream": 6,
    "hold upstream": 3,
    "kill gateway": 1,
    "kill gateway worker": 3,
    "reload gateway": 1,
    "cut gateway": 5,
    "hold gateway": 2,
    "block loop": 3,
}

Form = Literal["binary", "json", "grpc", "stream"]
Model = Literal["once", "again", "told"]


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        at: it begins when so many requests were sent.
        kind: what it is.
        target: which upstream, where it is one of theirs.
        seconds: how long it lasts, where it has a length.
    """

    at: int
    kind: Kind
    target: int
    seconds: float


@dataclass(frozen=True)
class Ask:
    """One request.

    Attributes:
        model: `once` and `told` must not be computed twice, `again` may be.
        form: how it is sent.
        timeout: the time that it has, or the client's own limit.
        patience: after so many seconds its caller leaves, or never.
    """

    model: Model
    form: Form
    timeout: float | None
    patience: float | None


def faults(seed: int, requests: int, count: int, upstreams: int) -> list[Fault]:
    """`count` faults over `requests` requests, in order; each kind comes before any comes a second time."""
    chance = random.Random(seed)
    kinds: list[Kind] = list(WEIGHTS)
    chance.shuffle(kinds)
    if count > len(kinds):
        kinds += chance.choices(list(WEIGHTS), list(WEIGHTS.values()), k=count - len(kinds))
    # The first and the last twentieth are left in peace: one to warm up, one to see that all is well again.
    places = sorted(chance.randrange(requests // 20, requests - requests // 20) for _ in range(count))
    return [
        Fault(at, kind, chance.randrange(upstreams), round(chance.uniform(0.05, 1.5), 3))
        for at, kind in zip(places, kinds, strict=False)
    ]


def ask(seed: int, number: int) -> Ask:
    """What the request of that number is."""
    chance = random.Random(seed * 1_000_003 + number)
    form: Form = chance.choices(("binary", "json", "grpc", "stream"), (9, 5, 4, 2))[0]
    model: Model = "told" if form == "stream" else chance.choice(("once", "again"))
    timeout = chance.uniform(0.001, 0.05) if chance.random() < 0.05 else None
    patience = chance.uniform(0, 0.02) if chance.random() < 0.03 else None
    return Ask(model, form, timeout, patience)
