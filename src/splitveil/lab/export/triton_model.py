"""Triton's python backend runs this file as ``model.py``: the cloud half on onnxruntime, batch by batch.

For Tritons without an onnxruntime backend, such as the one in the nvidia-pytriton wheel. Stands alone: it is copied
beside ``model.onnx`` and imports nothing of SplitVeil.
"""

import json
import os
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as backend  # type: ignore[import-not-found]  # Triton's own, there only


class TritonPythonModel:
    """The name that Triton looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load ``model.onnx`` from beside this file."""
        config = json.loads(args["model_config"])
        self.input, self.output = config["input"][0]["name"], config["output"][0]["name"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        graph = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """One answer a request, in order; the requests that Triton queued together are one batch."""
        parts = [backend.get_input_tensor_by_name(request, self.input).as_numpy() for request in requests]
        logits = self.session.run([self.output], {self.input: np.concatenate(parts)})[0]
        ends = np.cumsum([len(part) for part in parts])[:-1]
        # Own memory for each answer: Triton takes the buffer, not the view.
        answers = [np.ascontiguousarray(rows) for rows in np.split(logits, ends)]
        return [backend.InferenceResponse(output_tensors=[backend.Tensor(self.output, rows)]) for rows in answers]
