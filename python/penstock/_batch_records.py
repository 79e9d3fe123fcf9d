"""Why batches were as they were: what was noted of each, as a table and in words."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from penstock._display import Table, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

PARTS = ("queue", "slot", "gather", "model", "scatter")
"""The parts of a batch's time, from the arrival of its first request to its answers."""

_WORDS = {
    "full": "it was full",
    "tick": "its tick had ended and a worker was free",
    "window": "its first request had waited max_wait",
    "deadline": "a later or larger one would have missed a deadline",
    "key": "the others that waited may not share a call with it",
    "budget": "one more request would have exceeded its budget, or wasted more of it than a call of its own costs",
    "drain": "the batcher was closing",
}


@dataclass(frozen=True, kw_only=True)
class BatchRecord(Table):
    """What was noted of one batch; a table in a notebook. Times are seconds.

    Attributes:
        number: batches of one batcher are counted from 1.
        age: time since a worker took it.
        reason: why it was cut: `full`, `tick`, `window`, `deadline`, `key`, `budget` or `drain`.
        size: its requests; of a served model, its rows.
        cap: requests that it could have had at most.
        cost: what its requests cost.
        padded_cost: what the batch cost: more than that where rows were filled up.
        queue: from the arrival of its first request until it could have been taken: the wait for company.
        slot: from there until a worker took it: the wait for one that is free, and for the interpreter's lock.
        gather: from there until the function was called: its input was made.
        model: in the function, all calls together.
        scatter: the rest until the results were out: what the function returned was taken apart.
        predicted: time that the function was expected to take; `None` where too little was known.
        reruns: calls of the function beyond the first, made to find whose fault a failure was.
        failed: requests that were answered with an error.
        request_ids: the `id`s of the requests of a served model, as far as they have any.
    """

    number: int
    age: float
    reason: str
    size: int
    cap: int
    cost: int
    padded_cost: int
    queue: float
    slot: float
    gather: float
    model: float
    scatter: float
    predicted: float | None
    reruns: int
    failed: int
    request_ids: tuple[str, ...] = ()

    @property
    def padding(self) -> float:
        """Share of what the batch cost that was padding."""
        return max(0.0, 1 - self.cost / self.padded_cost) if self.padded_cost else 0.0

    @property
    def seconds(self) -> float:
        """From the arrival of its first request until its results were out."""
        return float(sum(getattr(self, part) for part in PARTS))

    def why(self) -> str:
        """One sentence that says why it was as it was, and what its time was spent on."""
        of = f" of {self.cap}" if self.cap else ""
        sentence = f"batch {self.number} left with {self.size}{of} because {_WORDS.get(self.reason, self.reason)}; "
        sentence += f"its {_milliseconds(self.seconds)} were mostly {_MOSTLY[self._longest()]}"
        notes = [
            f"{self.padding:.0%} of its cost was padding" if self.padding else "",
            f"{self.reruns} more calls found whose fault a failure was" if self.reruns else "",
            f"{self.failed} failed" if self.failed else "",
        ]
        return "; ".join([sentence, *filter(None, notes)])

    def _longest(self) -> str:
        return max(PARTS, key=lambda part: float(getattr(self, part)))


_MOSTLY = {
    "queue": "a wait for company (queue)",
    "slot": "a wait for a free worker (slot)",
    "gather": "the making of its input (gather)",
    "model": "the function itself (model)",
    "scatter": "the taking apart of its results (scatter)",
}


@dataclass(frozen=True)
class BatchExplanation:
    """What was noted of some batches, in the order in which they were done: a table in a notebook, text elsewhere.

    Attributes:
        batches: a record of each.
    """

    batches: tuple[BatchRecord, ...]

    def __iter__(self) -> Iterator[BatchRecord]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)

    def __str__(self) -> str:
        if not self.batches:
            return "no such batch is kept: the last 256 are"
        header = [
            "batch",
            "size",
            "cap",
            "reason",
            *(f"{part} ms" for part in PARTS),
            "predicted ms",
            "padding",
            "failed",
        ]
        rows = [header, *(_row(batch) for batch in self.batches)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join([*lines, "", *(batch.why() for batch in self.batches)])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        import html  # noqa: PLC0415  a notebook asks for it, an import of penstock should not pay

        names = [field.name for field in fields(BatchRecord)]
        head = "".join(f"<th>{html.escape(name.replace('_', ' '))}</th>" for name in [*names, "why"])
        body = "".join(
            "<tr>"
            + "".join(f"<td>{html.escape(_cell(getattr(batch, name)))}</td>" for name in names)
            + f"<td style='text-align:left'>{html.escape(batch.why())}</td></tr>"
            for batch in self.batches
        )
        return f"<table><caption>{len(self)} batches; times in seconds</caption><tr>{head}</tr>{body}</table>"


def explanation_of(records: Iterable[Mapping[str, Any]]) -> BatchExplanation:
    """What the extension noted of some batches."""
    batches = ({**record, "request_ids": tuple(record["request_ids"])} for record in records)
    return BatchExplanation(tuple(BatchRecord(**batch) for batch in batches))


def _row(batch: BatchRecord) -> list[str]:
    predicted = "" if batch.predicted is None else _plain(batch.predicted)
    times = [_plain(float(getattr(batch, part))) for part in PARTS]
    counts = [str(batch.number), str(batch.size), str(batch.cap), batch.reason]
    return [*counts, *times, predicted, f"{batch.padding:.0%}", str(batch.failed)]


def _cell(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "" if value is None else shown(value)


def _plain(seconds: float) -> str:
    return f"{seconds * 1e3:.3f}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"
