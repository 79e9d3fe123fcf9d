"""KServe's model server, one process; it has no batches of its own."""

import logging
import sys

import numpy as np
import uvicorn
from kserve import InferOutput, InferResponse, Model, ModelServer
from kserve.utils.utils import generate_uuid
from network import mlp


class AtLoopback(uvicorn.Config):
    """KServe listens at every address of the machine, and has no setting for that."""

    def __init__(self, *given, **options):
        super().__init__(*given, **{**options, "host": "127.0.0.1"})


class Mlp(Model):
    def __init__(self):
        super().__init__("mlp")
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):  # noqa: ARG002  so KServe calls it
        if isinstance(payload, dict):  # KServe's own protocol, the first
            return {"predictions": mlp(np.array(payload["instances"], np.float32)).tolist()}
        y = mlp(payload.inputs[0].as_numpy())
        output = InferOutput("y", list(y.shape), "FP32")
        output.set_data_from_numpy(y, binary_data=payload.use_binary_outputs)
        return InferResponse(
            payload.id or generate_uuid(), self.name, [output], use_binary_outputs=payload.use_binary_outputs
        )


if __name__ == "__main__":
    uvicorn.Config = AtLoopback
    server = ModelServer(http_port=int(sys.argv[1]), workers=1, enable_grpc=False, enable_docs_url=False)
    for name in ("uvicorn.access", "kserve.trace"):  # two lines a request, otherwise
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate, logger.disabled = [], False, True
    server.start([Mlp()])
