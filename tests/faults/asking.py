"""Requests over both protocols, as bytes, so that they can also be spoiled; and clients that send many at once."""

import asyncio
import json
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from tests.faults.exact import Exact

INFER = "/inference.GRPCInferenceService/ModelInfer"
SECONDS = 30.0
"""That a good client waits for an answer before it calls that a hang."""
Rows = NDArray[np.float32]


class RefusedStatusError(Exception):
    """Another status than 200."""


def message(z: Rows, contract: str | None = None, model: str = "exact") -> Any:
    """A ``ModelInferRequest``."""
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="z", datatype="FP32", shape=z.shape)
    if contract is not None:
        request.parameters["contract"].string_param = contract
    request.raw_input_contents.append(z.tobytes())
    return request


def head(z: Rows, contract: str | None = None) -> dict[str, Any]:
    """The JSON part of an HTTP request whose tensor follows as bytes."""
    own = {"name": "z", "datatype": "FP32", "shape": list(z.shape), "parameters": {"binary_data_size": z.nbytes}}
    asked: dict[str, Any] = {"inputs": [own], "outputs": [{"name": "logits", "parameters": {"binary_data": True}}]}
    return asked if contract is None else {**asked, "parameters": {"contract": contract}}


def http_request(
    text: bytes, content: bytes, token: str | None = None, path: str = "/v2/models/exact/infer", **headers: str
) -> bytes:
    """A whole request; `headers` replace or add, underscores for hyphens."""
    told = {
        "Host": "localhost",
        "Content-Length": str(len(text) + len(content)),
        "Inference-Header-Content-Length": str(len(text)),
    }
    told |= {} if token is None else {"Authorization": f"Bearer {token}"}
    told |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "\r\n".join([f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in told.items())])
    return lines.encode("latin-1") + b"\r\n\r\n" + text + content


def grpc_logits(answer: bytes) -> Rows:
    """Logits (n, 8) of an answer."""
    found = service_pb2.ModelInferResponse.FromString(answer)
    return np.frombuffer(found.raw_output_contents[0], "<f4").reshape(tuple(found.outputs[0].shape))


def http_logits(told: bytes, body: bytes) -> Rows:
    """The same of an HTTP answer: its head and its body."""
    length = int(_header(told, b"inference-header-content-length"))
    shape = json.loads(body[:length])["outputs"][0]["shape"]
    return np.frombuffer(body[length:], "<f4").reshape(shape)


def _header(told: bytes, name: bytes) -> bytes:
    for line in told.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.lower() == name:
            return value.strip()
    raise RefusedStatusError(told[:80].decode("latin-1"))


class GrpcClient:
    """One channel."""

    protocol = "gRPC"

    def __init__(self, port: int, token: str | None = None) -> None:
        self._channel = grpc.aio.insecure_channel(
            f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        )
        self._ask = self._channel.unary_unary(INFER)
        self._metadata = None if token is None else (("authorization", f"Bearer {token}"),)

    async def ask(self, z: Rows, contract: str | None = None) -> Rows:
        """Logits."""
        sent = message(z, contract).SerializeToString()
        return grpc_logits(await self._ask(sent, timeout=SECONDS, metadata=self._metadata))

    async def close(self) -> None:
        """Close it."""
        await self._channel.close()


class HttpClient:
    """One connection that stays open; one request at a time."""

    protocol = "HTTP"

    def __init__(self, port: int, token: str | None = None) -> None:
        self._port, self._token = port, token
        self._line: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, z: Rows, contract: str | None = None) -> Rows:
        """Logits."""
        async with asyncio.timeout(SECONDS):
            if self._line is None:
                self._line = await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = self._line
            writer.write(http_request(json.dumps(head(z, contract)).encode(), z.tobytes(), self._token))
            told = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(int(_header(told, b"content-length")))
        if not told.startswith(b"HTTP/1.1 200"):
            raise RefusedStatusError(told[9:12].decode())
        return http_logits(told, body)

    async def close(self) -> None:
        """Close it."""
        if self._line is not None:
            self._line[1].close()
            self._line = None


Client = GrpcClient | HttpClient


def wrong_answers(exact: Exact, grpc_port: int, http_port: int, token: str | None, first: int) -> list[str]:
    """Ask one good question on each protocol; a sentence for each that is not answered rightly."""

    async def ask() -> list[str]:
        problems = []
        for client in (GrpcClient(grpc_port, token), HttpClient(http_port, token)):
            z = exact.questions(first, 3)
            try:
                if not exact.right(z, await client.ask(z, exact.bundle.manifest.contract)):
                    problems.append(f"A good request over {client.protocol} got a wrong answer.")
            except (grpc.RpcError, OSError, EOFError, RefusedStatusError) as error:
                problems.append(f"A good request over {client.protocol} failed ({type(error).__name__}).")
            finally:
                await client.close()
        return problems

    return asyncio.run(ask())
