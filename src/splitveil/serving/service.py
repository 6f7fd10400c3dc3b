"""The Open Inference Protocol (KServe v2) for one bundle, on the stubs that tritonclient ships."""

from typing import Any

import grpc
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

import splitveil
from splitveil.errors import ContractError, LinkError
from splitveil.records import Manifest, Tensor
from splitveil.serving.batching import Batcher
from splitveil.serving.contract import PARAMETER, RequestRules

VERSION = "1"
NOT_READY = "the server is starting or draining; try again."


class InferenceService(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Answers for one model. Bad requests are refused before they can meet others in a batch.

    Args:
        manifest: of the bundle.
        rules: what a request must keep.
        batcher: runs the cloud half.
    """

    def __init__(self, manifest: Manifest, rules: RequestRules, batcher: Batcher) -> None:
        self.manifest, self.rules, self.batcher = manifest, rules, batcher
        self.ready = False

    async def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Whether the process answers."""
        return service_pb2.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Whether the self-test has passed and the server is not draining."""
        return service_pb2.ServerReadyResponse(ready=self.ready)

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The same for this model; any other is unknown."""
        await self._known(request.name, request.version, context)
        return service_pb2.ModelReadyResponse(ready=self.ready)

    async def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Name and version."""
        return service_pb2.ServerMetadataResponse(
            name="splitveil", version=splitveil.__version__, extensions=["model_configuration"]
        )

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Names, datatypes and shapes."""
        await self._known(request.name, request.version, context)
        return service_pb2.ModelMetadataResponse(
            name=self.manifest.name,
            versions=[VERSION],
            platform="onnxruntime_onnx",
            inputs=[_described(self.manifest.features)],
            outputs=[_described(self.manifest.output)],
        )

    async def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Triton's extension: carries the largest batch and the contract id."""
        await self._known(request.name, request.version, context)
        config = model_config_pb2.ModelConfig(name=self.manifest.name, max_batch_size=self.rules.max_batch)
        config.parameters[PARAMETER].string_value = self.manifest.contract
        return service_pb2.ModelConfigResponse(config=config)

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Features -> logits."""
        await self._known(request.model_name, request.model_version, context)
        if not self.ready:
            await context.abort(grpc.StatusCode.UNAVAILABLE, NOT_READY)
        try:
            z = self.rules.read(request)
        except ContractError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        try:
            logits = await self.batcher(z)
        except LinkError as error:
            await context.abort(grpc.StatusCode.INTERNAL, str(error))
        output = service_pb2.ModelInferResponse.InferOutputTensor(
            name=self.manifest.output.name, datatype=self.manifest.output.datatype, shape=logits.shape
        )
        return service_pb2.ModelInferResponse(
            model_name=self.manifest.name,
            model_version=VERSION,
            id=request.id,
            outputs=[output],
            raw_output_contents=[logits.astype("<f4", copy=False).tobytes()],
        )

    async def _known(self, name: str, version: str, context: Any) -> None:
        if name != self.manifest.name or version not in ("", VERSION):
            served = f"{self.manifest.name!r} version {VERSION}"
            await context.abort(grpc.StatusCode.NOT_FOUND, f"this server offers only {served}; ask for that model.")


def _described(tensor: Tensor) -> Any:
    return service_pb2.ModelMetadataResponse.TensorMetadata(
        name=tensor.name, datatype=tensor.datatype, shape=tensor.shape
    )
