"""MiniLM behind bare ASGI, with orjson."""

import orjson
from asgi import application
from batcher import Batcher
from minilm_model import MAX_BATCH, model

app = application(
    lambda: Batcher(model.encode, MAX_BATCH),
    lambda body: orjson.loads(body)["text"],
    lambda answer: orjson.dumps({"embedding": answer}, option=orjson.OPT_SERIALIZE_NUMPY),
)
