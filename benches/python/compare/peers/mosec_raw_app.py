"""mosec with the bytes of a float32 row in, and those of its answer out."""

import os

import numpy as np
from mosec import Server, Worker
from network import mlp


class Mlp(Worker):
    def deserialize(self, data):
        return np.frombuffer(data, np.float32)

    def serialize(self, data):
        return data.tobytes()

    def forward(self, data):
        return list(mlp(np.stack(data)))


if __name__ == "__main__":
    server = Server()
    server.append_worker(Mlp, num=1, max_batch_size=100, max_wait_time=int(os.environ["PEER_WAIT_MS"]))
    server.run()
