"""What is asked of each model, and whether what comes back is what a direct call of it says."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from benches.python.door.machine import NotServing
from benches.python.door.workload import EXPECTED, OIP_JSON
from examples import demo_subjects, demo_text
from examples.byte_lm.network import ByteLM
from examples.demo_load import check_answers
from examples.demo_subjects import Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import penstock

OK = 200
INPUTS = 100
"""Different inputs of a model."""
TOKENS = 48
"""Of a text; the model's tokens are bytes."""
HEADERS = {"Content-Type": "application/json"}
LARGE_SUMS = 1e-4
"""The network of the benchmarks adds up numbers of a hundred: what it may be away, as a part of them."""


class Call(NamedTuple):
    """One request: the model, and which of its inputs."""

    model: str
    index: int


class Answer(NamedTuple):
    """What came: whole, and when its first piece did, where it came in pieces."""

    call: Call
    content: Any
    first: float | None


class Rows:
    """A model of tensors, asked for one row at a time."""

    def __init__(self, subject: Subject, relative: float = 0.0) -> None:
        self.subject = subject
        self._relative = relative

    def __len__(self) -> int:
        return len(self.subject.bodies)

    async def ask(self, client: penstock.AsyncClient, call: Call) -> Answer:
        """Ask, and keep the answer's bytes: they are looked at when nobody measures."""
        body = self.subject.bodies[call.index]
        response = await client.post(f"/v2/models/{call.model}/infer", content=body, headers=HEADERS)
        if response.status_code != OK:
            raise NotServing(f"{call.model} answered with status {response.status_code}: {response.content[:200]!r}")
        return Answer(call, response.content, None)

    def check(self, answers: Sequence[Answer]) -> None:
        """Hold answers against direct calls of the model.

        Raises:
            NotServing: where one is wrong.
        """
        different = Counter((answer.call.index, OK, answer.content) for answer in answers)
        wrong = check_answers(different, self.subject, self._relative).wrong
        if wrong:
            raise NotServing(f"{self.subject.name}: {wrong} different answers of {len(answers):,} are WRONG")


class Texts:
    """The byte model, asked to go on with texts; at temperature 0, hence always in the same way."""

    def __init__(self) -> None:
        openings = demo_text.OPENINGS
        self._prompts = [f"{number} {openings[number % len(openings)]}" for number in range(INPUTS)]
        self._network = ByteLM.load()

    def __len__(self) -> int:
        return len(self._prompts)

    async def ask(self, client: penstock.AsyncClient, call: Call) -> Answer:
        """Ask for a stream of events, and read it to its end."""
        text = await demo_text.complete(client, self._prompts[call.index], TOKENS, temperature=0)
        return Answer(call, text, text.came[0] - text.asked if text.came else None)

    def check(self, answers: Sequence[Answer]) -> None:
        """Every byte must be the likeliest after those before it.

        Raises:
            NotServing: where one is not.
        """
        different = {(answer.content.prompt, answer.content.text): answer.content for answer in answers}
        if wrong := demo_text.check(self._network, list(different.values()), TOKENS):
            raise NotServing("; ".join(wrong[:3]))


@dataclass(frozen=True)
class Workload:
    """What one column of the ladder is about.

    Attributes:
        name: as in the tables.
        models: what its server serves.
        preload: of those, what is loaded at the start where loading is on.
        memory: of all models together, as `penstock serve --memory` takes it; empty for no limit.
        trace: requests in their order, once; without one, those of the only model, for a while.
    """

    name: str
    models: tuple[str, ...]
    preload: tuple[str, ...] = ()
    memory: str = ""
    trace: tuple[Call, ...] = ()

    @property
    def streams(self) -> bool:
        """True where its answers come in pieces, some of them at least."""
        return "byte-lm" in self.models


MIXED = "mixed trace"
BIG = ("minilm", "minilm-onnx", "minilm-2", "minilm-onnx-2")
"""86 MiB each; there is room for three."""
ROOM = "300MiB"
SHARES = {"mlp": 0.6, "digits": 0.3, "byte-lm": 0.02}
"""Of the trace; what is left goes to the large models, one of which is in use at a time."""
PHASES = (0, 1, 2, 0, 3, 0, 1)
"""Which of the large ones it is: with room for three, the fourth drives one out, which is then wanted again."""
WORKLOADS = ("mlp", "digits", "minilm", "minilm-onnx", "byte-lm", MIXED)


def workload(name: str, requests: int) -> Workload:
    """A column by its name; `requests` is the length of a trace."""
    if name != MIXED:
        return Workload(name, (name,), (name,))
    small = tuple(SHARES)
    return Workload(MIXED, (*small, *BIG), (*small, *BIG[:3]), ROOM, tuple(_trace(requests)))


def _trace(requests: int) -> list[Call]:
    """The same requests in the same order every time."""
    source = random.Random(29)
    left = 1 - sum(SHARES.values())
    calls = []
    for place in range(requests):
        large = BIG[PHASES[place * len(PHASES) // requests]]
        [model] = source.choices([*SHARES, large], [*SHARES.values(), left])
        calls.append(Call(model, source.randrange(INPUTS)))
    return calls


def questions(models: Sequence[str]) -> dict[str, Rows | Texts]:
    """What is asked of these models, with what direct calls of them answer."""
    made: dict[str, Rows | Texts] = {}
    for name in models:
        made[name] = _MADE[name.removesuffix("-2")](made)
    return made


def _mlp(_: dict[str, Rows | Texts]) -> Rows:
    return Rows(Subject("mlp", "mlp: 64 floats to 8", "y", OIP_JSON.bodies, EXPECTED), LARGE_SUMS)


def _minilm(made: dict[str, Rows | Texts]) -> Rows:
    """Computed once, for all deployments."""
    found = made.get("minilm")
    return found if isinstance(found, Rows) else Rows(demo_subjects.minilm(INPUTS))


_MADE: dict[str, Callable[[dict[str, Rows | Texts]], Rows | Texts]] = {
    "mlp": _mlp,
    "digits": lambda _: Rows(demo_subjects.digits(INPUTS)),
    "minilm": _minilm,
    "minilm-onnx": lambda made: Rows(demo_subjects.minilm_as_onnx(_minilm(made).subject)),
    "byte-lm": lambda _: Texts(),
}
