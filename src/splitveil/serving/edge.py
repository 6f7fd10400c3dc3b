"""The device's end: the edge half here, the cloud half over the wire."""

import json
import math
from types import TracebackType
from typing import Any, Self

import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from splitveil.bundle import Bundle
from splitveil.errors import ContractError, DataError, LinkError
from splitveil.serving.contract import PARAMETER, wire_dtype
from splitveil.serving.engine import load_edge
from splitveil.serving.noise import standard_normal

Array = NDArray[Any]
SERVICE = "inference.GRPCInferenceService"
RETRY = {
    "maxAttempts": 5,
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
LINK_STATUS = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")
CONNECT_SECONDS = 5.0
RETRY_BUFFER = 2**28
"""Bytes, 256 MiB: above any request that a server takes by default."""


class Edge:
    """The edge half of a bundle, tied to a server: ``with Edge(bundle, "host:8001") as edge: logits = edge.ask(x)``.

    Every request draws fresh noise for a stochastic defence. A retry after a broken connection resends the same bytes
    (it is gRPC's, below the defence), so it shows no second draw for an adversary to average.

    Args:
        bundle: the bundle whose cloud half the server runs.
        target: ``host:port``.
        timeout: seconds that one request may take, retries and a restart of the server included.

    Raises:
        LinkError: nothing answers there.
        ContractError: another model or another bundle is served there.
        BundleError: the edge half cannot be loaded.
    """

    def __init__(self, bundle: Bundle, target: str, timeout: float = 30.0) -> None:
        self.manifest, self.target, self.timeout = bundle.manifest, target, timeout
        self._half = load_edge(bundle)
        self._dtype = wire_dtype(self.manifest.features)
        self._client: Any = triton.InferenceServerClient(target, channel_args=self._channel_options())
        try:
            self.max_batch = self._agree()
        except BaseException:
            self._client.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    @property
    def bytes_per_image(self) -> int:
        """Bytes of one image's features on the wire, without protocol headers."""
        return math.prod(self.manifest.features.shape[1:]) * self._dtype.itemsize

    def features(self, x: Array) -> Array:
        """What leaves the device. x: (n, C, H, W), uint8 or float in [0, 1] -> (n, *cut) of the wire's type.

        Raises:
            DataError: another shape or type, values outside [0, 1], or no image.
        """
        return self._encode(self._checked(x))

    def _encode(self, x: NDArray[np.float32]) -> Array:
        inputs = {self.manifest.input.name: x}
        if self.manifest.noise is not None:
            inputs[self.manifest.noise.name] = standard_normal((len(x), *self.manifest.noise.shape[1:]))
        return self._half.run(inputs)

    def ask(self, x: Array) -> NDArray[np.float32]:
        """Logits of images. x: (n, C, H, W), uint8 or float in [0, 1] -> (n, K). Large n goes in several requests.

        Raises:
            DataError: as `features` says.
            LinkError: no answer in time.
            ContractError: the server refuses the request.
        """
        x = self._checked(x)
        parts = [x[i : i + self.max_batch] for i in range(0, len(x), self.max_batch)]
        return np.concatenate([self.send(self._encode(part)) for part in parts])

    def _checked(self, x: Array) -> NDArray[np.float32]:
        shape = self.manifest.image_shape
        if x.shape[1:] != shape or len(x) == 0:
            raise DataError(f"expected images {('n', *shape)}, got {x.shape}; give images of the size the model takes.")
        if x.dtype == np.uint8:
            return x.astype(np.float32) / np.float32(255)
        if x.dtype.kind != "f":
            raise DataError(f"expected uint8 or float images, got {x.dtype}; convert them first.")
        if not (x.min() >= 0 and x.max() <= 1):
            raise DataError("expected values in [0, 1]; divide images of 0 to 255 by 255, or give them as uint8.")
        return x.astype(np.float32, copy=False)

    def send(self, z: Array) -> NDArray[np.float32]:
        """Logits of features that `features` gave, in one request. z: (n, *cut) of the wire's type -> (n, K).

        Raises:
            LinkError: no answer in time.
            ContractError: the server refuses the request.
        """
        m = self.manifest
        tensor = triton.InferInput(m.features.name, list(z.shape), m.features.datatype)
        tensor.set_data_from_numpy(z)
        try:
            answer = self._client.infer(
                m.name,
                [tensor],
                outputs=[triton.InferRequestedOutput(m.output.name)],
                client_timeout=self.timeout,
                parameters={PARAMETER: m.contract},
            )
        except InferenceServerException as error:
            raise self._explained(error) from None
        logits: NDArray[np.float32] | None = answer.as_numpy(m.output.name)
        expected = (len(z), m.output.shape[1])
        if logits is None or logits.shape != expected:
            got = "none" if logits is None else logits.shape
            raise ContractError(f"expected logits {expected} from {self.target}, got {got}; serve this bundle there.")
        return logits

    def _agree(self) -> int:
        """Check what is served; the largest batch that it takes."""
        m = self.manifest
        try:
            found = self._client.get_model_metadata(m.name, client_timeout=min(self.timeout, CONNECT_SECONDS))
        except InferenceServerException as error:
            raise self._explained(error) from None
        for mine, theirs in ((m.features, found.inputs), (m.output, found.outputs)):
            described = [(t.name, t.datatype, tuple(t.shape)[1:]) for t in theirs]
            if described != [(mine.name, mine.datatype, mine.shape[1:])]:
                raise ContractError(
                    f"the server at {self.target} describes {described}, expected {mine.name} {mine.datatype} "
                    f"{mine.shape}; serve the bundle that the device holds."
                )
        try:
            config = self._client.get_model_config(m.name, client_timeout=self.timeout).config
        except InferenceServerException as error:
            if "UNIMPLEMENTED" in str(error.status()):
                return 1
            raise self._explained(error) from None
        theirs = config.parameters[PARAMETER].string_value if PARAMETER in config.parameters else ""
        if theirs and theirs != m.contract:
            raise ContractError(
                f"the server at {self.target} has contract {theirs}, this device {m.contract}; "
                "give both the same bundle."
            )
        return max(1, int(config.max_batch_size))

    def _explained(self, error: Any) -> LinkError | ContractError:
        status = str(error.status()).rpartition(".")[2]
        said = str(error.message()).rstrip(".")
        if status in LINK_STATUS:
            return LinkError(
                f"no answer from {self.target} ({status}: {said}); check the address and that `splitveil serve` runs."
            )
        if status in ("INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"):
            return ContractError(f"the server at {self.target} refuses: {said}.")
        return LinkError(f"the server at {self.target} failed ({status}: {said}); ask its operator.")

    def _channel_options(self) -> list[tuple[str, str | int]]:
        requests = {"name": [{"service": SERVICE, "method": "ModelInfer"}], "waitForReady": True, "retryPolicy": RETRY}
        others = {"name": [{"service": SERVICE}], "retryPolicy": RETRY}
        return [
            ("grpc.service_config", json.dumps({"methodConfig": [requests, others]})),
            ("grpc.enable_retries", 1),
            # gRPC silently drops retries of messages above 256 KiB unless its buffer is larger.
            ("grpc.per_rpc_retry_buffer_size", RETRY_BUFFER),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", RETRY_BUFFER),
            ("grpc.enable_http_proxy", 0),
        ]
