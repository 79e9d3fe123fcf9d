"""The gateway: `BENCH_UPSTREAM` is the server behind it, `BENCH_MODEL` its model."""

import os

import penstock

served = penstock.RemoteModel(
    os.environ["BENCH_MODEL"],
    os.environ["BENCH_UPSTREAM"],
    max_batch_size=100,
    concurrency=int(os.environ.get("BENCH_CONCURRENCY", "16")),
)
