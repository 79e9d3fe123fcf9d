"""The figures of a server as lines of a terminal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_BOLD: Final = "\x1b[1m"
_FAINT: Final = "\x1b[2m"
_RED: Final = "\x1b[31m"
_GREEN: Final = "\x1b[32m"
_YELLOW: Final = "\x1b[33m"
_REVERSE: Final = "\x1b[7m"
_END: Final = "\x1b[0m"
_NAME: Final = 22
_MINUTES: Final = 120
_HOURS: Final = 7200
_THOUSANDS: Final = 1e5
_MANY: Final = 1e6
_LEAST_PERCENT: Final = 0.01
_UNIT: Final = 1024.0
_ERRORS: Final = 0.01

SORTS: Final = {"requests": "req/s", "latency": "p99", "errors": "errors", "waiting": "waiting", "model": "name"}
"""By what the models are sorted, and what the foot line calls it."""


def number(value: float | None) -> str:
    """A number as people read it, with three digits that count."""
    if value is None:
        return "-"
    size = abs(value)
    if size >= _MANY:
        return f"{value / 1e6:.1f}M"
    if size >= _THOUSANDS:
        return f"{value / 1e3:.0f}k"
    if size >= 100:  # noqa: PLR2004
        return f"{value:,.0f}"
    if size >= 10 or size == 0:  # noqa: PLR2004
        return f"{value:.1f}".removesuffix(".0")
    text = f"{value:.1f}" if size >= 1 else f"{value:.2f}"
    return text.rstrip("0").rstrip(".") or "0"


def duration(seconds: float | None) -> str:
    """A time as people read it."""
    if seconds is None:
        return "-"
    if seconds < 0.0001 and seconds:  # noqa: PLR2004
        return f"{number(seconds * 1e6)} us"
    if seconds < 1:
        return f"{number(seconds * 1e3)} ms"
    if seconds < _MINUTES:
        return f"{number(seconds)} s"
    return f"{number(seconds / 60)} min" if seconds < _HOURS else f"{number(seconds / 3600)} h"


def size(count: float | None) -> str:
    """Bytes as people read them."""
    if count is None:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1000:  # noqa: PLR2004
            return f"{number(count)} {unit}"
        count /= _UNIT
    return f"{number(count)} TiB"


def percent(share: float | None) -> str:
    """A share of a whole."""
    if share is None:
        return "-"
    hundredths = share * 100
    return "<0.01 %" if 0 < hundredths < _LEAST_PERCENT else f"{number(hundredths)} %"


class Screen:
    """Draws figures into so many columns and rows, in colours or without."""

    def __init__(self, columns: int, rows: int, *, colours: bool) -> None:
        self._columns = max(columns, 40)
        self._rows = max(rows, 8)
        self._colours = colours

    def lines(self, found: dict[str, Any], sort: str, *, foot: bool, trouble: str | None = None) -> list[str]:
        """The screen, line by line; none is longer than there are columns."""
        top = [self._title(found, trouble), "", *self._summary(found), ""]
        bottom = self._upstreams(found["upstreams"])
        if foot:
            bottom += ["", self._faint(f"q quits, s sorts (by {SORTS[sort]}), figures of {found['seconds']:.1f} s")]
        room = self._rows - len(top) - len(bottom) - 1 if foot else None
        return [*top, *self._models(found["models"], sort, room), *bottom]

    def _paint(self, text: str, *codes: str) -> str:
        return f"{''.join(codes)}{text}{_END}" if self._colours and codes else text

    def _faint(self, text: str) -> str:
        return self._paint(text[: self._columns], _FAINT)

    def _title(self, found: dict[str, Any], trouble: str | None) -> str:
        ready = found["ready"]
        state, colour = {True: ("ready", _GREEN), False: ("not ready", _YELLOW), None: ("", "")}[ready]
        if trouble is not None:
            state, colour = trouble, _RED
        version = f" {found['version']}" if found["version"] else ""
        many = f", {found['processes']} processes" if found["processes"] > 1 else ""
        clock = time.strftime("%H:%M:%S")
        left = f"penstock{version}  {found['url']}{many}"
        room = self._columns - len(state) - len(clock) - 4
        left = left[: max(room, 0)]
        gap = " " * max(2, self._columns - len(left) - len(state) - len(clock) - 2)
        return f"{self._paint(left, _BOLD)}{gap}{self._paint(state, colour) if colour else state}  {self._faint(clock)}"

    def _summary(self, found: dict[str, Any]) -> list[str]:
        latency, streams, memory = found["latency"], found["streams"], found["memory"]
        errors = found["errors"]
        bad = (_RED,) if errors is not None and errors > _ERRORS else ()
        rows = [
            (
                "requests",
                [("", f"{number(found['requests'])}/s"), ("errors", self._paint(percent(errors), *bad))]
                + [(key.replace("p999", "p99.9"), duration(value)) for key, value in latency.items()],
            ),
            (
                "batches",
                [
                    ("", f"{number(found['batches'])}/s"),
                    ("requests each", number(found["batch_size"])),
                    ("waiting", number(found["waiting"])),
                    *self._reasons(found),
                ],
            ),
            (
                "server",
                [
                    ("in flight", number(found["in_flight"])),
                    ("connections", number(found["connections"])),
                    ("lock waits", f"{duration(found['lock']['waited'])}/s"),
                    *self._process(found["process"]),
                ],
            ),
        ]
        if streams is not None:
            rows.append(
                (
                    "streams",
                    [
                        ("", f"{number(streams['open'])} open"),
                        ("pieces", f"{number(streams['pieces'])}/s"),
                        ("first p99", duration(streams["first_p99"])),
                        ("between p99", duration(streams["gap_p99"])),
                    ],
                )
            )
        if memory is not None:
            loading = [("loading", number(memory["loading"]))] if memory["loading"] else []
            rows.append(("models", [("", size(memory["bytes"])), ("hit rate", percent(memory["hit_rate"])), *loading]))
        return [self._row(name, entries) for name, entries in rows]

    def _reasons(self, found: dict[str, Any]) -> list[tuple[str, str]]:
        batches = found["batches"]
        most = sorted(found["reasons"].items(), key=lambda each: -each[1])[:2]
        return [(reason, percent(rate / batches)) for reason, rate in most if batches and rate]

    def _process(self, process: dict[str, Any]) -> list[tuple[str, str]]:
        if process["cpu"] is None:
            return []
        return [("cpu", percent(process["cpu"])), ("memory", size(process["resident_bytes"]))]

    def _row(self, name: str, entries: Sequence[tuple[str, str]]) -> str:
        """A line of names and figures; what has no room is left out."""
        line, width = self._faint(f"{name:<9}"), 9
        for label, value in entries:
            plain = f"{label} {_plain(value)}" if label else _plain(value)
            if width + len(plain) > self._columns:
                break
            line += (f"{self._faint(label)} {value}" if label else value) + "  "
            width += len(plain) + 2
        return line.rstrip()

    def _models(self, models: list[dict[str, Any]], sort: str, room: int | None) -> list[str]:
        wide = self._columns - 58
        name = min(max([_NAME, *(len(each["model"]) for each in models)]), max(wide, 12))
        head = f"{'MODEL':<{name}} {'REQ/S':>8} {'P50':>8} {'P99':>8} {'BATCH':>6} {'WAIT':>6} {'ERRORS':>8}  STATE"
        lines = [self._heading(head)]
        ordered = sorted(models, key=lambda each: _order(each, sort))
        shown = ordered if room is None or len(ordered) < room else ordered[: max(room - 2, 1)]
        lines += [self._model(each, name) for each in shown]
        if len(shown) < len(ordered):
            lines.append(self._faint(f"and {len(ordered) - len(shown)} more"))
        return lines

    def _heading(self, text: str) -> str:
        return self._paint(text[: self._columns].ljust(self._columns), _REVERSE).rstrip(" ")

    def _model(self, each: dict[str, Any], width: int) -> str:
        name = each["model"] if len(each["model"]) <= width else each["model"][: width - 1] + "~"
        latency, errors = each["latency"], each["errors"]
        bad = (_RED,) if errors is not None and errors > _ERRORS else ()
        state, colour = {True: ("ready", ()), False: ("not loaded", (_YELLOW,)), None: ("", ())}[each["ready"]]
        figures = (
            f"{number(each['requests']):>8} {duration(latency['p50']):>8} {duration(latency['p99']):>8} "
            f"{number(each['batch_size']):>6} {number(each['waiting']):>6} "
        )
        line = f"{name:<{width}} {figures}{self._paint(f'{percent(errors):>8}', *bad)}"
        left = self._columns - len(_plain(line)) - 2
        return f"{line}  {self._paint(state[:left], *colour)}" if left > 0 else line

    def _upstreams(self, pools: list[dict[str, Any]]) -> list[str]:
        if not pools:
            return []
        wide = min(max(len(each["endpoint"]) for each in pools), max(self._columns - 46, 14))
        head = f"{'UPSTREAM':<{wide}} {'REQ/S':>8} {'OPEN':>5} {'BUSY':>5} {'WAIT':>5} {'REUSED':>8}  STATE"
        lines = ["", self._heading(head)]
        for each in pools:
            state = self._paint("left out", _RED) if each["ejected"] else "in use"
            lines.append(
                f"{each['endpoint'][:wide]:<{wide}} {number(each['requests']):>8} {number(each['connections']):>5} "
                f"{number(each['in_use']):>5} {number(each['waiting']):>5} {percent(each['reuse_rate']):>8}  {state}"
            )
        return lines


def _order(each: dict[str, Any], sort: str) -> tuple[float, str]:
    first = {
        "requests": each["requests"],
        "latency": each["latency"]["p99"],
        "errors": each["errors"],
        "waiting": each["waiting"],
        "model": 0.0,
    }[sort]
    return (-(first or 0.0), each["model"])


def _plain(text: str) -> str:
    for code in (_BOLD, _FAINT, _RED, _GREEN, _YELLOW, _REVERSE, _END):
        text = text.replace(code, "")
    return text
