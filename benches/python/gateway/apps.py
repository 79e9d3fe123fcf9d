"""The gateway: `PENSTOCK_BENCH_UPSTREAM` is the server behind it, `PENSTOCK_BENCH_MODEL` its model."""

import os

import penstock

served = penstock.RemoteModel(
    os.environ["PENSTOCK_BENCH_MODEL"],
    os.environ["PENSTOCK_BENCH_UPSTREAM"],
    max_batch_size=100,
    concurrency=int(os.environ.get("PENSTOCK_BENCH_CONCURRENCY", "16")),
)
