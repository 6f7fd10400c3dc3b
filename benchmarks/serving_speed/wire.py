"""One row of features in each server's tongue, and logits out of its answers."""

import base64
import http.client
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from splitveil.core.records import Manifest

Array = NDArray[Any]
INFER = "/inference.GRPCInferenceService/ModelInfer"
HEAD_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Request:
    """A request as bytes, and how to read its answer.

    Args:
        path: of the URL.
        headers: beside content-length.
        body: what is posted; for gRPC with its 5 bytes of frame.
        read: answer (headers in lower case, body) -> logits.
    """

    path: str
    headers: dict[str, str]
    body: bytes
    read: Callable[[dict[str, str], bytes], Array]
    grpc: bool = False

    def ask(self, port: int, timeout: float = 30) -> tuple[Array, int]:
        """Ask once over loopback; logits (K,) and the bytes of the answer's body.

        Raises:
            OSError, http.client.HTTPException, ValueError, grpc.RpcError: no answer, or none that can be read.
        """
        if self.grpc:
            with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_http_proxy", 0)]) as channel:
                answer = channel.unary_unary(INFER)(self.body[5:], timeout=timeout)
            return self.read({}, answer), 5 + len(answer)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        try:
            connection.request("POST", self.path, self.body, self.headers)
            response = connection.getresponse()
            body = response.read()
            if response.status != 200:
                raise ValueError(f"status {response.status}: {body[:300]!r}")
            return self.read({k.lower(): v for k, v in response.getheaders()}, body), len(body)
        finally:
            connection.close()


def v2_grpc(manifest: Manifest, z: Array) -> Request:
    """Open Inference Protocol over gRPC. z: (1, *cut) float32, as below."""
    request = service_pb2.ModelInferRequest(model_name=manifest.name)
    request.inputs.add(name=manifest.features.name, datatype="FP32", shape=z.shape)
    request.parameters["contract"].string_param = manifest.contract
    request.raw_input_contents.append(z.tobytes())
    message = request.SerializeToString()

    def read(headers: dict[str, str], body: bytes) -> Array:
        answer = service_pb2.ModelInferResponse.FromString(body)
        if answer.raw_output_contents:
            return np.frombuffer(answer.raw_output_contents[0], "<f4")
        return np.array(answer.outputs[0].contents.fp32_contents, "f4")

    headers = {"content-type": "application/grpc", "te": "trailers"}
    return Request(INFER, headers, struct.pack(">BI", 0, len(message)) + message, read, grpc=True)


def v2_http(manifest: Manifest, z: Array) -> Request:
    """Open Inference Protocol over HTTP with the binary tensor extension, both ways."""
    content = z.tobytes()
    given = {"name": manifest.features.name, "datatype": "FP32", "shape": list(z.shape)}
    head = json.dumps(
        {
            "id": "1",  # KServe answers 500 to a request without one
            "parameters": {"contract": manifest.contract},
            "inputs": [{**given, "parameters": {"binary_data_size": len(content)}}],
            "outputs": [{"name": manifest.output.name, "parameters": {"binary_data": True}}],
        }
    ).encode()

    def read(headers: dict[str, str], body: bytes) -> Array:
        size = headers.get(HEAD_LENGTH.lower())
        if size is None:
            return np.array(json.loads(body)["outputs"][0]["data"], "f4")
        return np.frombuffer(body[int(size) :], "<f4")

    headers = {"content-type": "application/octet-stream", HEAD_LENGTH: str(len(head))}
    return Request(f"/v2/models/{manifest.name}/infer", headers, head + content, read)


def base64_json(path: str, z: Array) -> Request:
    """``{"z": base64}`` -> ``{"logits": [...]}``: what a server without binary tensors takes."""
    body = json.dumps({"z": base64.b64encode(z.tobytes()).decode()}).encode()
    return Request(path, {"content-type": "application/json"}, body, lambda _, b: np.array(json.loads(b)["logits"]))


def plain_bytes(path: str, z: Array) -> Request:
    """The tensor's bytes and nothing else, both ways."""
    headers = {"content-type": "application/octet-stream"}
    return Request(path, headers, z.tobytes(), lambda _, b: np.frombuffer(b, "<f4"))
