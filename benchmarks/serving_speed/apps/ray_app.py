"""The cloud half on Ray Serve: raw bytes over HTTP, its own batching. Arguments: GRAPH PORT."""

import signal
import sys

import numpy as np
import onnxruntime
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response


@serve.deployment(num_replicas=1, max_ongoing_requests=128, ray_actor_options={"num_cpus": 1})
class Half:
    """One replica, one thread."""

    def __init__(self, graph: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(graph, options, ["CPUExecutionProvider"])

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0)
    async def logits(self, rows: list) -> list:
        """Whatever queued meanwhile, at once."""
        return list(self.session.run(None, {"z": np.stack(rows)})[0])

    async def __call__(self, request: Request) -> Response:
        """Bytes in, bytes out."""
        z = np.frombuffer(await request.body(), "<f4").reshape(128, 8, 8)
        return Response((await self.logits(z)).tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
    serve.run(Half.bind(sys.argv[1]), route_prefix="/")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.pause()
