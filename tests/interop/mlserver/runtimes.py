"""MLServer's runtimes for the tests: run by MLServer's own Python, which knows nothing of Penstock."""

import asyncio

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Mirror(MLModel):
    """Gives back what it is given, untouched."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        outputs = [
            ResponseOutput(name=one.name, shape=one.shape, datatype=one.datatype, data=one.data)
            for one in payload.inputs
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)


class Halves(MLModel):
    """Computes with NumPy: the lower half of every row, and its sum.

    Refuses what is negative, and takes its time for what is large.
    """

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        x = NumpyCodec.decode_input(payload.inputs[0])
        if (x < 0).any():
            raise InferenceError("numbers below zero are not served")
        await asyncio.sleep(float(x.max()) / 1000)
        lower = x[:, : x.shape[1] // 2]
        outputs = [NumpyCodec.encode_output("lower", lower), NumpyCodec.encode_output("sum", lower.sum(axis=1))]
        return InferenceResponse(model_name=self.name, outputs=outputs)
