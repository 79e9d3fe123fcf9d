"""What a story found, its table, and where a peer is as good as Penstock or better."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from benches.python.door.rounds import Figures, spread
from benches.python.measure import table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Verdict = Literal["worse", "as good", "better"]
DIGITS = 2
FEW = 3
BROAD = 100
"""From such ratios on, hundredths say nothing."""


@dataclass(frozen=True)
class Measure:
    """A column: a figure of each visit.

    Attributes:
        key: its name in the figures.
        least: the less of it, the better.
        compared: whether its ratio is shown.
    """

    key: str
    title: str
    digits: int = 0
    least: bool = True
    compared: bool = True


@dataclass
class Outcome:
    """The rounds of all contenders under all loads; round by round, they belong together.

    Attributes:
        about: what was done, in sentences.
        ours: the contender that all others are compared with.
        settings: each contender's version and settings, in words.
        loads: by its name, each contender's rounds.
        notes: what was left out and why, and how quiet the machine was.
    """

    title: str
    about: str
    ours: str
    measures: tuple[Measure, ...]
    settings: dict[str, str] = field(default_factory=dict)
    loads: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, load: str, contender: str, rounds: Sequence[Figures]) -> None:
        """Takes a contender's rounds under a load."""
        self.loads.setdefault(load, {})[contender] = list(rounds)

    def ratios(self, load: str, contender: str, key: str) -> list[float]:
        """Penstock's figure ÷ the contender's, round by round; nothing where they have no rounds in common."""
        ours, theirs = self.loads[load].get(self.ours, []), self.loads[load][contender]
        if len(ours) != len(theirs):
            return []
        pairs = [(mine[key], other[key]) for mine, other in zip(ours, theirs, strict=True)]
        return [mine / other for mine, other in pairs if mine > 0 and other > 0]

    def packed(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def unpacked(cls, content: dict[str, Any]) -> Outcome:
        """From what `packed` gave."""
        measures = tuple(Measure(**one) for one in content["measures"])
        return cls(**{**content, "measures": measures})


def ratio(values: Sequence[float]) -> str:
    """Median and range; as many digits as they deserve."""
    if not values:
        return ""
    digits = DIGITS if max(values) < BROAD else 0
    if 0 < min(values) < 0.1:
        digits = 3
    return spread(values, digits)


def verdict(values: Sequence[float], *, least: bool) -> Verdict | None:
    """How a peer does beside Penstock: only what every round agrees on is better or worse; few rounds say nothing."""
    if len(values) < FEW:
        return None
    low, high = (min(values), max(values)) if least else (1 / max(values), 1 / min(values))
    if low > 1:
        return "better"
    return "worse" if high < 1 else "as good"


def tabled(outcome: Outcome, *, brief: bool = False) -> str:
    """One table: every load, every contender; `brief` leaves out the ranges of figures, never those of ratios."""
    shown = [one for one in outcome.measures if one.compared or not brief]
    compared = [one for one in outcome.measures if one.compared]
    rows = []
    for load, contenders in outcome.loads.items():
        for name in sorted(contenders, key=lambda name: name != outcome.ours):
            figures = [_figure([one[measure.key] for one in contenders[name]], measure, brief) for measure in shown]
            beside = [ratio(outcome.ratios(load, name, one.key)) for one in compared]
            rows.append([load, name, *figures, *(beside if name != outcome.ours else [""] * len(beside))])
    head = [one.title for one in shown] + [
        f"÷: {one.title.partition(chr(47))[0].removesuffix(' µs')}" for one in compared
    ]
    return table(["load", "who", *head], rows)


def _figure(values: list[float], measure: Measure, brief: bool) -> str:
    return spread([median(values)] if brief else values, measure.digits)


def verdicts(outcome: Outcome) -> Iterator[tuple[str, str, Measure, Verdict, list[float]]]:
    """Load, peer, measure, how the peer does, and the ratios that say so; not of Penstock's own other ways."""
    for load, contenders in outcome.loads.items():
        for name in contenders:
            if name.lower().startswith("penstock"):
                continue
            for measure in outcome.measures:
                values = outcome.ratios(load, name, measure.key) if measure.compared else []
                found = verdict(values, least=measure.least)
                if found is not None:
                    yield load, name, measure, found, values


def concessions(outcome: Outcome) -> list[str]:
    """Every figure in which a peer is as good as Penstock, or better; those of a peer under a load together."""
    found: dict[tuple[str, str], list[str]] = {}
    for load, name, measure, said, values in verdicts(outcome):
        if said != "worse":
            words = f"{said} in {measure.title} ({ratio(values)})"
            found.setdefault((name, load), []).append(words)
    return [f"{name}, {load}: {'; '.join(words)}." for (name, load), words in found.items()]


def summary(outcome: Outcome) -> str:
    """How often peers were worse, as good and better, by all comparisons of the story."""
    count = Counter(said for _, _, _, said, _ in verdicts(outcome))
    if not count:
        return "There are too few rounds to say who is better."
    return (
        f"Of {count.total()} figures of peers, {count['worse']} are worse than Penstock's in every round, "
        f"{count['as good']} are as good, and {count['better']} are better in every round."
    )
