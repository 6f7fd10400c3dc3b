"""The cloud half on LitServe: base64 in JSON, its own batching. Arguments: GRAPH PORT."""

import base64
import sys

import litserve
import numpy as np
import onnxruntime


class Half(litserve.LitAPI):
    """One worker, one thread."""

    def setup(self, device):
        """Load the graph."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(sys.argv[1], options, ["CPUExecutionProvider"])

    def decode_request(self, request):
        """JSON -> one row."""
        return np.frombuffer(base64.b64decode(request["z"]), "<f4").reshape(128, 8, 8)

    def batch(self, inputs):
        """Rows -> one array."""
        return np.stack(inputs)

    def predict(self, z):
        """Logits."""
        return self.session.run(None, {"z": z})[0]

    def unbatch(self, output):
        """One array -> rows."""
        return list(output)

    def encode_response(self, output):
        """One row -> JSON."""
        return {"logits": output.tolist()}


if __name__ == "__main__":
    # A wait, however short, is what makes it batch at all.
    api = Half(max_batch_size=64, batch_timeout=0.001)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")
