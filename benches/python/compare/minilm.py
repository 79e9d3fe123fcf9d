"""A model that weighs something: MiniLM behind Penstock's door and behind the two best of the others."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benches.python.compare.http_servers import MEASURES, OURS, beside
from benches.python.compare.outcome import Outcome
from benches.python.compare.servers import embedding
from benches.python.compare.workload import text_oip, texts
from benches.python.door.servers import Absent, penstock
from benches.python.door.workload import check
from examples.minilm import MiniLM, MiniLMMissing

if TYPE_CHECKING:
    from benches.python.door.story import Bench

SECONDS = 2.5
WITHIN = 120.0
ABOUT = (
    "all-MiniLM-L6-v2 in NumPy on one thread, the same Python code behind all of them, one sentence a request. The "
    "model takes most of the CPU, and how long the batches are decides the rest."
)


def run(bench: Bench, only: tuple[str, ...] = ()) -> Outcome:
    """One client and 64 of them."""
    try:
        model = MiniLM.load()
    except MiniLMMissing as missing:
        raise Absent(str(missing)) from missing
    outcome = Outcome("HTTP servers, MiniLM", ABOUT, OURS, MEASURES)
    ours = (penstock("minilm", name="penstock minilm", path="minilm"), text_oip())
    checked = partial(check, expected=model.encode(texts()), within=WITHIN)
    return beside(bench, outcome, ours, embedding(), (1, 64), seconds=SECONDS, checked=checked, only=only)
