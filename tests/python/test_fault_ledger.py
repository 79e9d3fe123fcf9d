"""Faults by a seed over some thousand requests: each has one end, and what must not be computed twice is not.

`make faults` does the same over a hundred thousand.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

from penstock.errors import ConnectFailed, Overloaded, ReadFailed
from tests.faults import schedule
from tests.faults.ledger import ANSWERED, HUNG, WRONG, Books, balance
from tests.faults.run import Plan, run
from tests.faults.schedule import Ask

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ONCE = Ask("once", "binary", None, None)
AGAIN = Ask("again", "json", None, None)
TOLD = Ask("told", "stream", None, None)


@pytest.mark.timeout(300)
def test_every_request_has_one_end_whatever_happens(tmp_path: Path) -> None:
    report = run(Plan(seed=20, requests=3000, faults=13, upstreams=2, rate=350, at_once=48), tmp_path)
    assert report.holds, f"{report.balance}\n{report.leaks}"
    assert report.balance.sent == 3000
    assert report.balance.counts[ANSWERED] > 1000, str(report.balance)
    assert report.happened == Counter(schedule.WEIGHTS.keys()), "each kind of fault once"


def test_the_same_seed_gives_the_same_requests_and_faults() -> None:
    assert schedule.faults(7, 10_000, 40, 3) == schedule.faults(7, 10_000, 40, 3) != schedule.faults(8, 10_000, 40, 3)
    asks = [[schedule.ask(seed, number) for number in range(500)] for seed in (7, 7, 8)]
    assert asks[0] == asks[1] != asks[2]
    assert {each.model for each in asks[0]} == {"once", "again", "told"}
    assert all((each.model == "told") == (each.form == "stream") for each in asks[0])
    assert any(each.timeout for each in asks[0])
    assert any(each.patience for each in asks[0])


def _booked(books: Books) -> None:
    for number, ask in enumerate((ONCE, AGAIN, ONCE)):
        books.sent(number, ask)
    books.ended(0, ANSWERED)
    books.ended(1, ReadFailed("cut"))
    books.ended(2, Overloaded("full"))


@pytest.mark.parametrize(
    ("what", "change", "times"),
    [
        ("lost", lambda books: books.sent(3, ONCE), {}),
        ("doubled", lambda books: books.ended(0, ANSWERED), {}),
        ("twice", lambda books: None, {("once", 0): 2}),
        ("from_nobody", lambda books: None, {("once", 0): 0}),
        ("twice", lambda books: books.sent(3, TOLD) or books.ended(3, ANSWERED), {("told", 3): 2}),
        ("denied", lambda books: None, {("once", 2): 1}),
        ("wrong", lambda books: (books.sent(3, ONCE), books.ended(3, WRONG)), {}),
        ("wrong", lambda books: (books.sent(3, ONCE), books.ended(3, HUNG)), {}),
        ("wrong", lambda books: (books.sent(3, ONCE), books.ended(3, ValueError("no error of ours"))), {}),
        (None, lambda books: (books.sent(3, ONCE), books.ended(3, ConnectFailed("nobody"))), {("again", 1): 2}),
    ],
)
def test_books_that_do_not_balance_are_told(
    what: str | None, change: Callable[[Books], object], times: dict[tuple[str, int], int], tmp_path: Path
) -> None:
    books = Books()
    _booked(books)
    change(books)
    for (model, number), count in ({("once", 0): 1, ("again", 1): 1} | times).items():
        with (tmp_path / f"{model}-1-1").open("ab") as file:
            file.write(np.full(count, number, np.int64).tobytes())
    found = balance(books, tmp_path)
    assert found.holds == (what is None), str(found)
    assert what is None or getattr(found, what)
