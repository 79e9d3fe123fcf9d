"""The batcher that a careful person writes on asyncio: rows gather until there are enough, or for a moment.

A wait of zero runs what came in one turn of the event loop.
"""

import asyncio
import os

import numpy as np
from network import mlp

MAX_BATCH = 100
WAIT = float(os.environ["PEER_WAIT_MS"]) / 1000


def network(rows):
    return mlp(np.array(rows, np.float32))


class Batcher:
    def __init__(self, predict=network, max_batch=MAX_BATCH):
        self.predict = predict
        self.max_batch = max_batch
        self.loop = asyncio.get_running_loop()
        self.rows = []
        self.futures = []
        self.timer = None

    def submit(self, row):
        """A future of the row's answer."""
        future = self.loop.create_future()
        self.rows.append(row)
        self.futures.append(future)
        if len(self.rows) >= self.max_batch:
            self.run()
        elif self.timer is None:
            self.timer = self.loop.call_later(WAIT, self.run) if WAIT else self.loop.call_soon(self.run)
        return future

    def run(self):
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        rows, self.rows = self.rows, []
        futures, self.futures = self.futures, []
        if rows:
            answers = self.predict(rows)
            for future, answer in zip(futures, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
