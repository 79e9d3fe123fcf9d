"""What two looks at `/metrics` say together: rates, means and percentiles of the time between them."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    Wanted: TypeAlias = str | Callable[[str], bool] | None

Labels: TypeAlias = tuple[tuple[str, str], ...]
Samples: TypeAlias = dict[str, dict[Labels, float]]
_Member: TypeAlias = tuple[dict[str, str], float, float]

_LABEL: Final = re.compile(r'([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"')
_SAMPLE: Final = re.compile(r'([A-Za-z_:][\w:]*)(\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\})? (\S+)')
_ESCAPED: Final = re.compile(r"\\(.)")
WORKER: Final = "worker"
"""The label that says which of several processes a sample is of."""


def parse(text: str) -> Samples:
    """The samples of a text of OpenMetrics, by name and labels.

    Raises:
        ValueError: for what is no such text, or is one without its end.
    """
    if not text.rstrip("\n").endswith("# EOF"):
        raise ValueError("the text does not end with '# EOF'")
    samples: Samples = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        found = _SAMPLE.match(line)
        if found is None:
            raise ValueError(f"this is no sample: {line!r}")
        name, labels, value = found.groups()
        samples.setdefault(name, {})[_labels(labels or "")] = float(value)
    return samples


def _labels(text: str) -> Labels:
    return tuple(sorted((name, _ESCAPED.sub(_unescaped, value)) for name, value in _LABEL.findall(text)))


def _unescaped(found: re.Match[str]) -> str:
    return "\n" if found[1] == "n" else found[1]


def _fits(labels: Mapping[str, str], wanted: Mapping[str, Wanted]) -> bool:
    for name, want in wanted.items():
        value = labels.get(name, "")
        if want is not None and not (want(value) if callable(want) else value == want):
            return False
    return True


class Between:
    """The time between two looks.

    Attributes:
        seconds: how long it was.
    """

    def __init__(self, before: Samples, after: Samples, seconds: float) -> None:
        self._before = before
        self._after = after
        self._read: dict[str, list[_Member]] = {}
        self.seconds = max(seconds, 1e-9)

    def _of(self, name: str) -> list[_Member]:
        """The samples of that name: labels, what they said last, and by how much they rose, if they count."""
        if name not in self._read:
            before = self._before.get(name, {})
            members = []
            for labels, value in self._after.get(name, {}).items():
                known = before.get(labels, 0.0)
                # What fell began anew, and has risen by all that it has.
                members.append((dict(labels), value, value - known if value >= known else value))
            self._read[name] = members
        return self._read[name]

    def has(self, name: str) -> bool:
        """Whether there is a sample of that name."""
        return bool(self._after.get(name))

    def values_of(self, name: str, label: str) -> list[str]:
        """The values that a label has in samples of that name, in the order of the text."""
        return list(dict.fromkeys(labels[label] for labels, _, _ in self._of(name) if label in labels))

    def members(self, name: str, **wanted: Wanted) -> Iterator[tuple[dict[str, str], float]]:
        """Labels and value, as said last, of the samples of that name whose labels are as wanted."""
        return ((labels, value) for labels, value, _ in self._of(name) if _fits(labels, wanted))

    def gauge(
        self, name: str, how: Callable[[Iterable[float]], float] = math.fsum, /, **wanted: Wanted
    ) -> float | None:
        """What was said last, of several samples put together; `None` where nothing was."""
        values = [value for _, value in self.members(name, **wanted) if not math.isnan(value)]
        return how(values) if values else None

    def rise(self, name: str, **wanted: Wanted) -> float:
        """By how much counters rose; of one that began anew, what it has since."""
        return math.fsum(rise for labels, _, rise in self._of(name) if _fits(labels, wanted))

    def rate(self, name: str, **wanted: Wanted) -> float:
        """The same, in a second."""
        return self.rise(name, **wanted) / self.seconds

    def mean(self, name: str, **wanted: Wanted) -> float | None:
        """The mean of what a histogram saw; `None` where it saw nothing."""
        count = self.rise(f"{name}_count", **wanted)
        return self.rise(f"{name}_sum", **wanted) / count if count > 0 else None

    def buckets(self, name: str, **wanted: Wanted) -> list[tuple[float, float]]:
        """What a histogram saw: upper bounds, rising, and how much fell at or below each."""
        found: dict[float, float] = {}
        for labels, _, rise in self._of(f"{name}_bucket"):
            if _fits(labels, wanted):
                bound = float(labels["le"])
                found[bound] = found.get(bound, 0.0) + rise
        return sorted(found.items())

    def quantile(self, share: float, name: str, **wanted: Wanted) -> float | None:
        """The value that a share of what a histogram saw stayed within, as far as its buckets tell; `None` for none."""
        return quantile(share, self.buckets(name, **wanted))


def quantile(share: float, buckets: list[tuple[float, float]]) -> float | None:
    """The value below which a share of what fell into buckets lies, evenly spread within each; `None` for nothing.

    Args:
        share: between 0 and 1.
        buckets: upper bounds, rising, and how much fell at or below each.
    """
    total = buckets[-1][1] if buckets else 0.0
    if total <= 0:
        return None
    rank = share * total
    below = left = 0.0
    for bound, count in buckets:
        if count >= rank and count > 0:
            if math.isinf(bound):
                return below
            return below + (bound - below) * ((rank - left) / ((count - left) or 1.0))
        below, left = bound, count
    return below
