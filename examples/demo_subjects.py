"""What the demo asks its models: real inputs, and the answers that direct calls of the same models give."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from examples import minilm_onnx
from examples.digits import ACCURACY_FLOOR, DigitClassifier, held_out
from examples.minilm import MiniLM
from penstock.testing import infer_body

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from examples.demo_server import ServerProcess

SENTENCES: Final = 400
SHORTEST: Final = 4
LONGEST: Final = 14
APART: Final = 0.3
COMPARED: Final = 64
TOLERANCE: Final = 1e-4
CAT: Final = "a cat sits on the mat"
KITTEN: Final = "a kitten is sitting on a rug"
STOCKS: Final = "stock prices fell"

WHO: Final = (
    "my neighbour", "the old captain", "our new teacher", "a young doctor", "the committee", "her grandmother",
    "every driver", "the night train", "a flock of geese", "the museum", "his brother", "the small orchestra",
    "a tired engineer", "the city council", "their daughter", "the last customer", "an honest lawyer", "the gardener",
)  # fmt: skip
DID: Final = (
    "repaired the roof", "lost a suitcase", "painted the fence green", "found an old map", "won the second race",
    "forgot the password", "planted tomatoes", "crossed the frozen river", "opened a small bakery", "missed the bus",
    "explained the new rule", "sold three paintings", "measured the temperature", "wrote a long letter",
    "closed the factory", "answered every question", "borrowed my umbrella", "cancelled the concert", "fell asleep",
)  # fmt: skip
WHERE: Final = (
    "in the mountains", "near the harbour", "behind the library", "at the airport", "on a quiet street",
    "under the bridge", "across the border", "at home", "beside the lake", "in Lisbon", "next to the old mill",
)  # fmt: skip
WHEN: Final = (
    "yesterday", "last winter", "before breakfast", "during the storm", "on Monday morning", "after the war",
    "twice", "without a word", "for the first time", "while it rained", "in the spring of 1987", "at midnight",
)  # fmt: skip
SHAPES: Final = (
    "{who} {did}",
    "{who} {did} {when}",
    "{who} {did} {where}",
    "{who} {did} {where} {when}",
    "{when} {who} {did}",
    "did {who} say that {other} {did}?",
    "nobody knows why {who} {did}",
    "{who} {did}, but {other} did not",
    "they told us that {who} {did} {where}",
)


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A model under load.

    Attributes:
        name: the name that it is served under.
        title: what it is, for people.
        output: the output to look at.
        bodies: requests of one item each.
        expected: what direct calls of the model with one item each answered, float32 [len(bodies), width].
    """

    name: str
    title: str
    output: str
    bodies: list[bytes]
    expected: NDArray[np.float32]


def sentences(count: int) -> list[str]:
    """Make English sentences of 4 to 14 words, no two alike, the same ones every time."""
    source = random.Random(1)
    made: dict[str, None] = {}
    while len(made) < count:
        who, other = source.sample(WHO, 2)
        shape = source.choice(SHAPES)
        sentence = shape.format(
            who=who, other=other, did=source.choice(DID), where=source.choice(WHERE), when=source.choice(WHEN)
        )
        if SHORTEST <= len(sentence.split()) <= LONGEST:
            made[sentence] = None
    return list(made)


def digits(count: int) -> Subject:
    """Images that training never saw, to the classifier of `examples.digits`; at most `count`."""
    images, _ = held_out()
    classifier = DigitClassifier.train()
    rows = images[:count]
    return Subject(
        name="digits",
        title="digits: an image to 10 probabilities",
        output="probabilities",
        bodies=[_encoded(infer_body({"x": ("FP32", row[np.newaxis].shape, row.tolist())})) for row in rows],
        expected=np.concatenate([classifier.predict(row[np.newaxis]) for row in rows]),
    )


def minilm(count: int) -> Subject:
    """Sentences to all-MiniLM-L6-v2; at most `count`. Raises `MiniLMMissing` where it is not installed."""
    model = MiniLM.load()
    texts = sentences(min(count, SENTENCES))
    return Subject(
        name="minilm",
        title="minilm: a sentence to 384 floats",
        output="embedding",
        bodies=[_encoded(infer_body({"text": ("BYTES", [1], [text])})) for text in texts],
        expected=np.concatenate([model.encode([text]) for text in texts]),
    )


def minilm_as_onnx(numpys: Subject) -> Subject:
    """The sentences of `minilm`, as tokens, to the same model as an ONNX graph; what NumPy answers is expected."""
    texts = sentences(SENTENCES)[: len(numpys.bodies)]
    return Subject(
        name=minilm_onnx.NAME,
        title="minilm-onnx: tokens to 384 floats",
        output=minilm_onnx.EMBEDDING,
        bodies=[_encoded(_of_tokens([text])) for text in texts],
        expected=numpys.expected,
    )


def _of_tokens(texts: Sequence[str]) -> dict[str, object]:
    ids, mask = minilm_onnx.tokens(texts)
    return infer_body(
        {
            minilm_onnx.IDS: ("INT64", ids.shape, ids.ravel().tolist()),
            minilm_onnx.MASK: ("INT64", mask.shape, mask.ravel().tolist()),
        }
    )


def tensor(answer: object, name: str) -> NDArray[np.float32]:
    """Read an output out of the answer to an inference request. Raises `ValueError` where it is not there."""
    outputs = answer.get("outputs", ()) if isinstance(answer, dict) else ()
    for output in outputs:
        if output["name"] == name:
            return np.array(output["data"], np.float32).reshape(output["shape"])
    raise ValueError(f"there is no output {name!r} in the answer")


def tell_digits(server: ServerProcess) -> tuple[dict[str, float], list[str]]:
    """Classify every held-out image through the server; what was found, and what is not as it should be."""
    images, labels = held_out()
    body = infer_body({"x": ("FP32", images.shape, images.ravel().tolist())})
    probabilities = tensor(server.infer("digits", body), "probabilities")
    accuracy = float(np.mean(probabilities.argmax(axis=1) == labels))
    print(f"digits: {accuracy:.3f} of {len(labels)} held-out images are read right (needed: {ACCURACY_FLOOR})")
    low = [f"digits: accuracy {accuracy:.3f} is below {ACCURACY_FLOOR}"] if accuracy < ACCURACY_FLOOR else []
    return {"accuracy": accuracy}, low


def tell_minilm(server: ServerProcess) -> tuple[dict[str, float], list[str]]:
    """Compare three sentences through the server; what was found, and what is not as it should be."""
    texts = [CAT, KITTEN, STOCKS]
    vectors = tensor(server.infer("minilm", infer_body({"text": ("BYTES", [3], texts)})), "embedding")
    similarity = vectors @ vectors.T
    alike, apart = float(similarity[0, 1]), float(max(similarity[0, 2], similarity[1, 2]))
    print("minilm: similarity of")
    for one, other in ((0, 1), (0, 2), (1, 2)):
        print(f"  {similarity[one, other]:6.3f}  {texts[one]!r} and {texts[other]!r}")
    print(f"  {alike - apart:6.3f}  lie between them (needed: {APART})")
    near = alike - apart < APART
    failures = [f"minilm: {CAT!r} and {KITTEN!r} are only {alike - apart:.3f} nearer than {STOCKS!r}"] if near else []
    return {"alike": alike, "most_alike_of_the_others": apart}, failures


def tell_minilm_as_onnx(server: ServerProcess) -> tuple[dict[str, float], list[str]]:
    """Hold the graph against NumPy's model, tokens and texts through the server; what was found, and what is wrong."""
    texts = sentences(COMPARED)
    asked = infer_body({"text": ("BYTES", [len(texts)], texts)})
    expected = tensor(server.infer("minilm", asked), "embedding")
    of_tokens = tensor(server.infer(minilm_onnx.NAME, _of_tokens(texts)), minilm_onnx.EMBEDDING)
    of_texts = tensor(server.infer(f"{minilm_onnx.NAME}-text", asked), minilm_onnx.EMBEDDING)
    apart = max(float(np.max(np.abs(found - expected))) for found in (of_tokens, of_texts))
    print(
        f"minilm-onnx: {len(texts)} sentences as tokens and as texts, at most {apart:.1e} from NumPy's (needed: 1e-4)"
    )
    far = [f"minilm-onnx: {apart:.1e} from NumPy's vectors"] if not apart <= TOLERANCE else []
    return {"largest_difference": apart}, far


def _encoded(body: dict[str, object]) -> bytes:
    return json.dumps(body).encode()
