"""mosec with MiniLM and orjson in its worker."""

import os

import orjson
from minilm_model import MAX_BATCH, model
from mosec import Server, Worker


class Embeddings(Worker):
    def deserialize(self, data):
        return orjson.loads(data)["text"]

    def serialize(self, data):
        return orjson.dumps({"embedding": data}, option=orjson.OPT_SERIALIZE_NUMPY)

    def forward(self, data):
        return list(model.encode(data))


if __name__ == "__main__":
    server = Server()
    server.append_worker(Embeddings, num=1, max_batch_size=MAX_BATCH, max_wait_time=int(os.environ["PEER_WAIT_MS"]))
    server.run()
