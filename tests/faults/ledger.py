"""The books of a run: what became of each request, and how often each was computed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from penstock.errors import AcquireTimeout, ConnectFailed, ConnectTimeout, InternalError, Overloaded, PenstockError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.faults.schedule import Ask

ANSWERED = "answered"
CANCELLED = "cancelled by its caller"
WRONG = "answered with something else"
UNTYPED = "not a typed error: "
HUNG = "neither answered nor failed in time"


class SaidInStream(PenstockError):
    """A stream that had begun ended with the server's own words of what went wrong."""


_NEVER_TAKEN = (AcquireTimeout, ConnectFailed, ConnectTimeout, Overloaded)
"""Errors that say that nobody has begun on the request."""


def named(error: BaseException) -> str:
    """What the books call an error."""
    if isinstance(error, InternalError) or not isinstance(error, PenstockError):
        return f"{UNTYPED}{type(error).__name__}: {error}"
    status = getattr(error, "status", None) or getattr(error, "code", None)
    return type(error).__name__ + (f" {status}" if status else "")


@dataclass
class Books:
    """What became of each request.

    Attributes:
        asks: the requests, by their numbers.
        outcomes: how each ended; one entry for each time that it did.
        refused: requests whose error said that nobody had begun on them.
    """

    asks: dict[int, Ask] = field(default_factory=dict)
    outcomes: dict[int, list[str]] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)

    def sent(self, number: int, ask: Ask) -> None:
        self.asks[number] = ask

    def ended(self, number: int, outcome: str | BaseException) -> None:
        if isinstance(outcome, BaseException):
            if isinstance(outcome, _NEVER_TAKEN):
                self.refused.add(number)
            outcome = named(outcome)
        self.outcomes.setdefault(number, []).append(outcome)

    def counts(self) -> Counter[str]:
        return Counter(outcome for ends in self.outcomes.values() for outcome in ends)


@dataclass(frozen=True)
class Balance:
    """What the books come to.

    Attributes:
        sent: requests.
        counts: how they ended.
        lost: requests of which nothing was heard.
        doubled: requests that ended more than once.
        twice: requests that were computed more than once although they must not be.
        repeated: requests that were computed more than once, and may be.
        from_nobody: requests that were answered, and computed by nobody.
        denied: requests that were computed, though their error said that nobody had begun on them.
    """

    sent: int
    counts: Counter[str]
    lost: list[int]
    doubled: list[int]
    twice: list[int]
    repeated: int
    from_nobody: list[int]
    denied: list[int]

    @property
    def wrong(self) -> int:
        return sum(count for outcome, count in self.counts.items() if outcome in (WRONG, HUNG) or UNTYPED in outcome)

    @property
    def holds(self) -> bool:
        return not (self.lost or self.doubled or self.twice or self.from_nobody or self.denied or self.wrong)

    def __str__(self) -> str:
        rows = [("sent", self.sent), *self.counts.most_common()]
        rows += [
            ("lost", len(self.lost)),
            ("ended twice", len(self.doubled)),
            ("computed twice, which must not be", len(self.twice)),
            ("computed again, which may be", self.repeated),
            ("answered, and computed by nobody", len(self.from_nobody)),
            ("said to be never taken, and computed", len(self.denied)),
        ]
        return "\n".join(f"{count:>9,}  {what}" for what, count in rows)


def computed(folder: Path) -> Counter[tuple[str, int]]:
    """How often each request was computed: model and number."""
    found: Counter[tuple[str, int]] = Counter()
    for path in folder.iterdir():
        model = path.name.partition("-")[0]
        found.update((model, int(number)) for number in np.fromfile(path, np.int64))
    return found


def balance(books: Books, folder: Path) -> Balance:
    """Holds what was said against what was done."""
    times = computed(folder)

    def of(number: int) -> int:
        return times[books.asks[number].model, number]

    def those(numbers: Iterable[int]) -> list[int]:
        return sorted(numbers)

    more = {number for number in books.asks if of(number) > 1}
    twice = those(number for number in more if books.asks[number].model != "again")
    answered = (number for number, ends in books.outcomes.items() if ANSWERED in ends)
    # What may be computed again may have been begun on by an attempt before the one that was refused.
    refused = (number for number in books.refused if books.asks[number].model != "again")
    return Balance(
        sent=len(books.asks),
        counts=books.counts(),
        lost=those(books.asks.keys() - books.outcomes.keys()),
        doubled=those(number for number, ends in books.outcomes.items() if len(ends) > 1),
        twice=twice,
        repeated=len(more) - len(twice),
        from_nobody=those(number for number in answered if not of(number)),
        denied=those(number for number in refused if of(number)),
    )
