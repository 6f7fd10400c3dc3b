"""A server of the protocol that fails as it is told, independent of ours."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from splitveil.wire.bundle import Bundle
from splitveil.wire.engine import load_cloud


class Scripted(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Answers with the cloud half, but first with each of `failures`, a status name each.

    Attributes:
        contract: that it claims and insists on.
        asked: requests that came.
        gate: cleared, requests wait for it.
    """

    def __init__(self, bundle: Bundle, failures: Sequence[str] = (), max_batch: int = 64) -> None:
        self.bundle, self.failures, self.max_batch = bundle, list(failures), max_batch
        self.contract = bundle.manifest.contract
        self.cloud = load_cloud(bundle)
        self.asked: list[Any] = []
        self.tokens: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.most, self._now, self._lock = 0, 0, threading.Lock()

    def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        m = self.bundle.manifest
        described = service_pb2.ModelMetadataResponse.TensorMetadata
        return service_pb2.ModelMetadataResponse(
            name=m.name,
            inputs=[described(name=m.features.name, datatype=m.features.datatype, shape=m.features.shape)],
            outputs=[described(name=m.output.name, datatype=m.output.datatype, shape=m.output.shape)],
        )

    def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        answer = service_pb2.ModelConfigResponse()
        answer.config.max_batch_size = self.max_batch
        answer.config.parameters["contract"].string_value = self.contract
        return answer

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        with self._lock:
            self.asked.append(request)
            self._now += 1
            self.most = max(self.most, self._now)
            failure = self.failures.pop(0) if self.failures else None
        self.tokens.append(dict(context.invocation_metadata()).get("authorization", ""))
        try:
            if failure is not None:
                context.abort(grpc.StatusCode[failure], "as the test says.")
            if request.parameters["contract"].string_param != self.contract:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "expected contract A, got another; use this bundle.")
            assert self.gate.wait(20)
            dtype = {"UINT8": "u1", "FP16": "<f2", "FP32": "<f4"}[request.inputs[0].datatype]
            z = np.frombuffer(request.raw_input_contents[0], dtype).reshape(tuple(request.inputs[0].shape))
            logits = self.cloud.run({"z": z})
            answer = service_pb2.ModelInferResponse(raw_output_contents=[logits.tobytes()])
            answer.outputs.add(name="logits", datatype="FP32", shape=logits.shape)
            return answer
        finally:
            with self._lock:
                self._now -= 1


@contextmanager
def scripted(service: Scripted, credentials: Any = None, port: int = 0) -> Iterator[int]:
    """Its port."""
    server = grpc.server(
        ThreadPoolExecutor(16), options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)]
    )
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service, server)
    address = f"127.0.0.1:{port}"
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    try:
        yield port
    finally:
        service.gate.set()
        server.stop(None).wait(20)
