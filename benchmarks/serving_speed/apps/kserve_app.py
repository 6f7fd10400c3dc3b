"""The cloud half on KServe's Python server. Arguments: GRAPH NAME [--http_port N --grpc_port N]."""

import sys

import onnxruntime
from kserve import InferOutput, InferResponse, Model, ModelServer
from kserve.model_server import parser


class Half(Model):
    """One session, one thread; KServe's Python server has no batching of its own."""

    def __init__(self, name: str, graph: str) -> None:
        super().__init__(name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(graph, options, ["CPUExecutionProvider"])
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):
        """Features -> logits."""
        logits = self.session.run(None, {"z": payload.inputs[0].as_numpy()})[0]
        output = InferOutput("logits", list(logits.shape), "FP32")
        output.set_data_from_numpy(logits, binary_data=True)
        return InferResponse(payload.id, self.name, [output])


if __name__ == "__main__":
    graph, name = sys.argv[1:3]
    arguments, _ = parser.parse_known_args(sys.argv[3:])
    ModelServer(http_port=arguments.http_port, grpc_port=arguments.grpc_port, workers=1).start([Half(name, graph)])
