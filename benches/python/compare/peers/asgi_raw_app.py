"""The network behind bare ASGI: the bytes of a float32 row in, and those of its answer out."""

import numpy as np
from asgi import application
from batcher import Batcher

app = application(
    Batcher,
    lambda body: np.frombuffer(body, np.float32),
    lambda answer: answer.tobytes(),
    b"application/octet-stream",
)
