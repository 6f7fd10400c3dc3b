"""The Open Inference Protocol (KServe v2) over HTTP, as an ASGI application."""

import asyncio
import json
from collections.abc import Iterable
from typing import Any, NoReturn

from google.protobuf.json_format import MessageToDict
from starlette.applications import Starlette
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
from splitveil.server.security import is_home
from splitveil.server.service import EXTENSIONS, model_config
from splitveil.server.visits import PROBES_ONLY, WELCOME
from splitveil.wire.contract import PARAMETER, TIMEOUT

LOOKED_AT = frozenset(
    {
        b"authorization", b"host", b"origin", b"transfer-encoding", b"content-encoding",
        b"inference-header-content-length",
    }
)  # fmt: skip
"""Fields of a head that decide whether it is read on."""
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
        inside = Starlette(
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
        # A path with a stroke too many would be sent on to whatever Host the request gave.
        inside.router.redirect_slashes = False
        self._inside: ASGIApp = inside

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask for a token before anything else is looked at."""
        if scope["type"] == "http":
            state = scope.setdefault("state", {})
            try:
                self._judge(scope["headers"], scope["path"] in OPEN, PROBES_ONLY in state)
            except RefusedError as error:
                await _refused(None, error)(scope, receive, send)
                return
            if scope["path"] not in OPEN:
                state[WELCOME] = True
        await self._inside(scope, receive, send)

    def _judge(self, headers: Iterable[tuple[bytes, bytes]], probe: bool, probes_only: bool) -> None:
        """Whether this head may be read on. Fields that stand twice, and mean one thing once, are none."""
        given = [(name, value.decode("latin-1")) for name, value in headers if name in LOOKED_AT]
        if not probe:
            self.front.admit("http", [value for name, value in given if name == b"authorization"])
        if self.front.tokens is None:
            hosts = [value for name, value in given if name == b"host"]
            if self.front.at_home and not (len(hosts) == 1 and is_home(hosts[0])):
                self._refuse(Reason.STRANGER, "expected one Host that names this machine; ask localhost.")
        if probes_only and not probe:
            self._refuse(Reason.FULL, "too many connections; try again in a second.")
        lengths = 0
        for name, value in given:
            if name == b"inference-header-content-length":
                lengths += 1
            elif name == b"origin" and self.front.tokens is None:
                self._refuse(Reason.STRANGER, "expected no Origin: no page in a browser is answered; use a v2 client.")
            elif name == b"transfer-encoding" and value.lower() != "chunked":
                self._refuse(Reason.ENCODING, "expected no transfer encoding but chunked; send the body as it is.")
            elif name == b"content-encoding" and value.lower() != "identity":
                self._refuse(Reason.ENCODING, "expected no content encoding; send the body as it is.")
        if lengths > 1:
            self._refuse(Reason.CONTRACT, "Inference-Header-Content-Length stands twice; send it once.")

    def _refuse(self, reason: Reason, sentence: str) -> NoReturn:
        with self.front.watched("http"):
            raise RefusedError(reason, sentence)
        raise AssertionError("refused")

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
            expires = self.front.expiry(None)
            body = await self._body(request)
            asked = read_request(body, headers.get(HEAD_LENGTH))
            model, logits = await self.front.infer(
                *_asked_for(request),
                asked.parameters.get(PARAMETER),
                asked.features,
                expires=expires,
                microseconds=asked.parameters.get(TIMEOUT, 0),
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
    if request is None or error.reason in (Reason.PAYLOAD, Reason.SLOW):
        # The rest of the body is still to come, and nobody will read it.
        headers["connection"] = "close"
    return _said({"error": str(error)}, error.reason.http, headers)


def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    sentence = "there is no such path or method; see the Open Inference Protocol v2."
    return _said({"error": sentence}, error.status_code, {**(error.headers or {}), "connection": "close"})
