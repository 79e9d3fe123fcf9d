"""The network behind bare ASGI, with orjson."""

import orjson
from asgi import application
from batcher import Batcher

app = application(
    Batcher,
    lambda body: orjson.loads(body)["x"],
    lambda answer: orjson.dumps({"y": answer}, option=orjson.OPT_SERIALIZE_NUMPY),
)
