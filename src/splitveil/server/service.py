"""The Open Inference Protocol (KServe v2) over gRPC, on the messages that tritonclient ships."""

import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError
from tritonclient.grpc import model_config_pb2, service_pb2

import splitveil
from splitveil.server import tracing
from splitveil.server.deployment import VERSION, Deployment
from splitveil.server.front import Front
from splitveil.server.refusal import RETRY_SECONDS, Reason, RefusedError
from splitveil.wire.contract import PARAMETER, PREVIOUS, TIMEOUT, BrokenRuleError

NAME = "inference.GRPCInferenceService"
EXTENSIONS = ("model_configuration", "model_repository", "binary_tensor_data")
OPEN = ("ServerLive", "ServerReady")
"""What a prober may ask without a token: one bit each, and nothing of the model."""
ASKED = ("ModelReady", "ServerMetadata", "ModelMetadata", "ModelConfig", "RepositoryIndex")
STREAM = "ModelStreamInfer"
Behaviour = Callable[[Any, Any], Awaitable[Any]]


class Methods(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Finds what answers a method; of others too, so that a token is asked for first.

    All are taken as streams of one message: so the head of a call is judged before its message is awaited, and the
    message has a deadline and a place that others may need more.
    """

    def __init__(self, behaviours: dict[str, tuple[Behaviour, Any]], other: Callable[[str], Behaviour]) -> None:
        self._found = {
            f"/{NAME}/{name}": grpc.stream_unary_rpc_method_handler(behaviour, None, answer)
            for name, (behaviour, answer) in behaviours.items()
        }
        self._other = other

    def service(self, handler_call_details: Any) -> Any:
        """The handler of one call."""
        method = handler_call_details.method
        return self._found.get(method) or grpc.stream_unary_rpc_method_handler(self._other(method), None, None)


class InferenceService:
    """Answers for one model. Bad requests are refused before they can meet others in a batch.

    Args:
        front: decides about requests.
    """

    def __init__(self, front: Front) -> None:
        self.front = front

    def handlers(self) -> grpc.GenericRpcHandler:
        """For a server of `grpc.aio`."""
        table = {
            name: (self._guarded(name, getattr(self, name)), getattr(service_pb2, f"{name}Response").SerializeToString)
            for name in (*OPEN, *ASKED)
        }
        table["ModelInfer"] = (self.ModelInfer, service_pb2.ModelInferResponse.SerializeToString)
        return Methods(table, self._unserved)

    async def ServerLive(self, request: Any) -> Any:  # noqa: N802
        """Whether the process answers."""
        return service_pb2.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any) -> Any:  # noqa: N802
        """Whether the self-test has passed and the server is not draining."""
        return service_pb2.ServerReadyResponse(ready=self.front.ready)

    async def ModelReady(self, request: Any) -> Any:  # noqa: N802
        """The same for this model; any other is unknown."""
        self.front.named(request.name, request.version)
        return service_pb2.ModelReadyResponse(ready=self.front.ready)

    async def ServerMetadata(self, request: Any) -> Any:  # noqa: N802
        """Name and version."""
        return service_pb2.ServerMetadataResponse(
            name="splitveil", version=splitveil.__version__, extensions=EXTENSIONS
        )

    async def ModelMetadata(self, request: Any) -> Any:  # noqa: N802
        """Names, datatypes and shapes."""
        return service_pb2.ModelMetadataResponse(**self.front.named(request.name, request.version).described)

    async def ModelConfig(self, request: Any) -> Any:  # noqa: N802
        """Triton's extension: carries the largest batch and the contract id."""
        model = self.front.named(request.name, request.version)
        return service_pb2.ModelConfigResponse(config=model_config(model, self.front.deployments.previous))

    async def RepositoryIndex(self, request: Any) -> Any:  # noqa: N802
        """Triton's extension: the one model."""
        ready = self.front.ready
        one = service_pb2.RepositoryIndexResponse.ModelIndex(
            name=self.front.deployments.current.manifest.name,
            version=VERSION,
            state="READY" if ready else "UNAVAILABLE",
        )
        return service_pb2.RepositoryIndexResponse(models=[] if request.ready and not ready else [one])

    async def ModelInfer(self, messages: Any, context: Any) -> Any:  # noqa: N802
        """Features -> logits."""
        try:
            metadata = context.invocation_metadata() or ()
            self.front.admit("grpc", shown(metadata))
            headers = {key: value for key, value in metadata if isinstance(value, str)}
            with tracing.span("grpc", headers), self.front.watched("grpc"):
                return await self._infer(context)
        except RefusedError as error:
            await refuse(context, error)

    async def _infer(self, context: Any) -> Any:
        left = context.time_remaining()
        expires = self.front.expiry(left if left is not None and math.isfinite(left) else None)
        request = await self._body(context, service_pb2.ModelInferRequest)
        parameters = request.parameters
        contract = parameters[PARAMETER].string_param if PARAMETER in parameters else None
        model, logits = await self.front.infer(
            request.model_name,
            request.model_version,
            contract,
            lambda rules: rules.read(request),
            expires=expires,
            microseconds=parameters[TIMEOUT].int64_param if TIMEOUT in parameters else 0,
        )
        output = service_pb2.ModelInferResponse.InferOutputTensor(
            name=model.manifest.output.name, datatype=model.manifest.output.datatype, shape=logits.shape
        )
        return service_pb2.ModelInferResponse(
            model_name=model.manifest.name,
            model_version=VERSION,
            id=request.id,
            outputs=[output],
            raw_output_contents=[logits.tobytes()],
        )

    async def _body(self, context: Any, kind: Any) -> Any:
        content = await self.front.arrivals.message(context)
        if not isinstance(content, bytes):
            raise BrokenRuleError("message", f"expected one message, got none; send a {kind.DESCRIPTOR.name}.")
        if len(content) > self.front.payload:
            raise RefusedError(Reason.PAYLOAD, f"expected at most {self.front.payload} bytes; split the batch.")
        try:
            return kind.FromString(content)
        except DecodeError:
            raise BrokenRuleError("message", f"the message is no {kind.DESCRIPTOR.name}; use a v2 client.") from None

    def _guarded(self, name: str, method: Callable[[Any], Awaitable[Any]]) -> Behaviour:
        kind = getattr(service_pb2, f"{name}Request")

        async def handler(messages: Any, context: Any) -> Any:
            try:
                if name in OPEN:  # their messages say nothing: nobody waits for them
                    return await method(None)
                self.front.admit("grpc", shown(context.invocation_metadata() or ()))
                return await method(await self._body(context, kind))
            except RefusedError as error:
                await refuse(context, error)
            except BrokenRuleError as error:
                await refuse(context, RefusedError(Reason.CONTRACT, str(error)))

        return handler

    def _unserved(self, method: str) -> Behaviour:
        async def handler(messages: Any, context: Any) -> Any:
            try:
                self.front.admit("grpc", shown(context.invocation_metadata() or ()))
                if method == f"/{NAME}/{STREAM}":
                    said = "this server answers one request by one answer; call ModelInfer for each."
                else:
                    said = "there is no such method; see the Open Inference Protocol v2."
                raise RefusedError(Reason.UNSERVED, said)
            except RefusedError as error:
                await refuse(context, error)

        return handler


def shown(metadata: Iterable[tuple[str, str | bytes]]) -> list[str]:
    """Every ``authorization`` of a call; bytes, which no header is, as an empty one."""
    return [value if isinstance(value, str) else "" for key, value in metadata if key == "authorization"]


def model_config(model: Deployment, previous: Deployment | None) -> Any:
    """Triton's configuration message of what is served, and was served before."""
    config = model_config_pb2.ModelConfig(name=model.manifest.name, max_batch_size=model.rules.max_batch)
    config.parameters[PARAMETER].string_value = model.manifest.contract
    if previous is not None:
        config.parameters[PREVIOUS].string_value = previous.manifest.contract
    return config


async def refuse(context: Any, error: RefusedError) -> NoReturn:
    """End a call with the error's status."""
    trailing = (("retry-after", str(RETRY_SECONDS)),) if error.reason.passes else ()
    await context.abort(getattr(grpc.StatusCode, error.reason.grpc), str(error), trailing)
    raise AssertionError("abort raises")
