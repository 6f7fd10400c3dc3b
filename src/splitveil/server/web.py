"""The Open Inference Protocol (KServe v2) over HTTP, as an ASGI application."""

import asyncio
import json
from typing import Any

import numpy as np
from google.protobuf.json_format import MessageToDict
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

import splitveil
from splitveil.server import tracing
from splitveil.server.deployment import VERSION
from splitveil.server.front import Front
from splitveil.server.http_body import HEAD_LENGTH, read_request, write_answer
from splitveil.server.refusal import RETRY_SECONDS, Reason, RefusedError
from splitveil.server.service import EXTENSIONS, TIMEOUT, model_config
from splitveil.wire import compression
from splitveil.wire.contract import PARAMETER

OPEN = ("/v2/health/live", "/v2/health/ready")
"""What a prober may ask without a token: one bit each, and nothing of the model."""


class Web:
    """Answers for one model; every refusal is ``{"error": one sentence}``.

    Args:
        front: decides about requests.
    """

    def __init__(self, front: Front) -> None:
        self.front = front
        model = "/v2/models/{name}"
        self._inside: ASGIApp = Starlette(
            routes=[
                Route("/v2/health/live", self._live),
                Route("/v2/health/ready", self._ready),
                Route("/v2", self._server),
                Route("/v2/repository/index", self._index, methods=["POST"]),
                *(
                    Route(f"{prefix}{path}", endpoint, methods=[method])
                    for prefix in (model, f"{model}/versions/{{version}}")
                    for path, endpoint, method in (
                        ("", self._model, "GET"),
                        ("/ready", self._model_ready, "GET"),
                        ("/config", self._config, "GET"),
                        ("/infer", self._infer, "POST"),
                    )
                ),
            ],
            exception_handlers={RefusedError: _refused, HTTPException: _not_found},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask for a token before anything else is looked at."""
        if scope["type"] == "http" and scope["path"] not in OPEN:
            try:
                self.front.admit("http", Headers(scope=scope).get("authorization"))
            except RefusedError as error:
                await _refused(None, error)(scope, receive, send)
                return
        await self._inside(scope, receive, send)

    async def _live(self, request: Request) -> Response:
        return _said({"live": True})

    async def _ready(self, request: Request) -> Response:
        return _said({"ready": self.front.ready}, 200 if self.front.ready else 503)

    async def _server(self, request: Request) -> Response:
        return _said({"name": "splitveil", "version": splitveil.__version__, "extensions": EXTENSIONS})

    async def _index(self, request: Request) -> Response:
        ready = self.front.ready
        state = "READY" if ready else "UNAVAILABLE"
        return _said([{"name": self.front.deployments.current.manifest.name, "version": VERSION, "state": state}])

    async def _model(self, request: Request) -> Response:
        return _said(self.front.named(*_asked_for(request)).described)

    async def _model_ready(self, request: Request) -> Response:
        name, version = _asked_for(request)
        self.front.named(name, version)
        return _said({"name": name, "ready": self.front.ready}, 200 if self.front.ready else 503)

    async def _config(self, request: Request) -> Response:
        config = model_config(self.front.named(*_asked_for(request)), self.front.deployments.previous)
        return _said(MessageToDict(config, preserving_proto_field_name=True))

    async def _infer(self, request: Request) -> Response:
        headers = request.headers
        with tracing.span("http", headers), self.front.watched("http"):
            if headers.get("content-encoding", "identity") != "identity":
                raise RefusedError(Reason.ENCODING, "expected no content encoding; send the body as it is.")
            expires = self.front.expiry(None)
            body = await self._body(request)
            asked = read_request(body, headers.get(HEAD_LENGTH), compression.PARAMETER)
            allowed = asked.parameters.get(TIMEOUT)
            model, logits = await self.front.infer(
                *_asked_for(request),
                asked.parameters.get(PARAMETER),
                asked.features,
                expires=expires,
                microseconds=allowed if type(allowed) is int else 0,
            )
            if not np.isfinite(logits).all():  # no class, and in JSON not even a number
                raise RefusedError(
                    Reason.FAILED, "the cloud half answered NaN or infinity; ask the operator to check its weights."
                )
        content, head = write_answer(model.manifest, VERSION, asked.id, logits, asked.binary)
        if head is None:
            return Response(content, media_type="application/json")
        return Response(content, headers={HEAD_LENGTH: str(head)}, media_type="application/octet-stream")

    async def _body(self, request: Request) -> bytes:
        too_large = RefusedError(Reason.PAYLOAD, f"expected at most {self.front.payload} bytes; split the batch.")
        told = request.headers.get("content-length")
        if told is not None and int(told) > self.front.payload:
            raise too_large
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.front.limits.read_seconds):
                async for part in request.stream():
                    size += len(part)
                    if size > self.front.payload:
                        raise too_large
                    parts.append(part)
        except TimeoutError:
            raise RefusedError(Reason.SLOW, "the body did not arrive in time; send it faster.") from None
        except ClientDisconnect:
            raise RefusedError(
                Reason.GONE, "the client left in the middle of its request; nobody reads this."
            ) from None
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _asked_for(request: Request) -> tuple[str, str]:
    return request.path_params["name"], request.path_params.get("version", "")


def _said(what: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(what).encode(), status, headers, "application/json")


def _refused(request: Request | None, error: Exception) -> Response:
    assert isinstance(error, RefusedError)  # noqa: S101
    headers: dict[str, Any] = {}
    if error.reason.passes:
        headers["retry-after"] = str(RETRY_SECONDS)
    if error.reason is Reason.TOKEN:
        headers["www-authenticate"] = "Bearer"
    if error.reason in (Reason.TOKEN, Reason.PAYLOAD, Reason.SLOW, Reason.ENCODING):
        # The rest of the body is still to come, and nobody will read it.
        headers["connection"] = "close"
    return _said({"error": str(error)}, error.reason.http, headers)


def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    sentence = "there is no such path or method; see the Open Inference Protocol v2."
    return _said({"error": sentence}, error.status_code, {**(error.headers or {}), "connection": "close"})
