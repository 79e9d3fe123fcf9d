"""Ray Serve: one proxy, one replica, its batches, orjson; no dashboard and no access log."""

import os
import signal
import sys

import numpy as np
import orjson
import ray
from network import mlp
from ray import serve
from ray.serve.schema import LoggingConfig
from starlette.responses import Response

WAIT = float(os.environ["PEER_WAIT_MS"]) / 1000


@serve.deployment(num_replicas=1, max_ongoing_requests=1000)
class Mlp:
    @serve.batch(max_batch_size=100, batch_wait_timeout_s=WAIT)
    async def infer(self, rows):
        return list(mlp(np.array(rows, np.float32)))

    async def __call__(self, request):
        if request.method == "GET":
            return Response(b"ready")
        row = orjson.loads(await request.body())["x"]
        answer = orjson.dumps({"y": await self.infer(row)}, option=orjson.OPT_SERIALIZE_NUMPY)
        return Response(answer, media_type="application/json")


def main():
    port = int(sys.argv[1])
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        _temp_dir=f"{os.environ['PEER_TEMPORARY']}/{port}",
        _node_ip_address="127.0.0.1",
        log_to_driver=False,
    )
    logging = LoggingConfig(enable_access_log=False, log_level="WARNING")
    serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config=logging)
    serve.run(Mlp.options(logging_config=logging).bind(), route_prefix="/")
    signal.pause()


if __name__ == "__main__":
    main()
