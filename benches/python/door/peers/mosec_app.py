"""mosec with orjson in its worker."""

import os

import numpy as np
import orjson
from mosec import Server, Worker
from network import mlp


class Mlp(Worker):
    def deserialize(self, data):
        return orjson.loads(data)["x"]

    def serialize(self, data):
        return orjson.dumps({"y": data}, option=orjson.OPT_SERIALIZE_NUMPY)

    def forward(self, data):
        return list(mlp(np.array(data, np.float32)))


if __name__ == "__main__":
    server = Server()
    server.append_worker(Mlp, num=1, max_batch_size=100, max_wait_time=int(os.environ["PEER_WAIT_MS"]))
    server.run()
