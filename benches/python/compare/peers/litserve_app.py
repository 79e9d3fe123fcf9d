"""LitServe with its batches: the front and the model are processes of their own."""

import os
import sys

import litserve
import numpy as np
from network import mlp


class Mlp(litserve.LitAPI):
    def setup(self, device):
        """Nothing to load."""

    def decode_request(self, request):
        return request["x"]

    def batch(self, inputs):
        return np.array(inputs, np.float32)

    def predict(self, x):
        return mlp(x)

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        return {"y": output.tolist()}


if __name__ == "__main__":
    api = Mlp(max_batch_size=100, batch_timeout=float(os.environ["PEER_WAIT_MS"]) / 1000)
    fast = os.environ.get("PEER_FAST_QUEUE") == "1"
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=fast)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
