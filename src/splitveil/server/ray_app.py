"""The same cloud half as a Ray Serve application: Ray's copies and placement, our protocol and rules inside.

For clusters that run Ray already: it costs several milliseconds of processor time a request, which our own server does
not. HTTP only; Ray's gRPC proxy listens on all interfaces without TLS and is not used. Needs the extra ``ray``.
"""

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from splitveil.core.errors import InputError, MissingExtraError
from splitveil.server.deployment import KEPT, Deployment, Deployments, Terms
from splitveil.server.front import Front
from splitveil.server.limits import Limits
from splitveil.server.metrics import Metrics
from splitveil.server.security import Tokens
from splitveil.server.web import Web
from splitveil.wire.bundle import Bundle

LOOPBACK, PORT = "127.0.0.1", 8000
ONGOING = 64
"""Requests that Ray hands to one copy at a time, so that there is a batch to make."""


class Replica:
    """One copy: a bundle's cloud half behind the Open Inference Protocol. Ray makes it where it runs.

    Args:
        folder: the bundle, or its cloud half, at a path that every node has.
        max_batch: rows of one request and of one run of the model.
        token_file: bearer tokens, one a line, at such a path; empty asks for none.

    Raises:
        BundleError: altered, without its cloud half, or with other answers than at export: Ray then starts no copy.
    """

    def __init__(self, folder: str, max_batch: int = 64, token_file: str = "") -> None:
        limits, metrics = Limits(), Metrics()
        terms = Terms(max_batch, limits.queue)
        only = Deployment(Bundle.load(Path(folder), keep=KEPT), terms)
        only.test()
        payload = only.rules.max_message
        tokens = Tokens(Path(token_file)) if token_file else None
        self.front = Front(Deployments(only, terms, metrics.batch, payload), tokens, limits, metrics, payload)
        self.front.tested = True
        self._web = Web(self.front)

    async def __call__(self, request: Request) -> Response:
        """Answer one request of Ray's proxy."""
        return await answered(self._web, request)

    def check_health(self) -> None:
        """Ray asks for this now and then: the golden features once more.

        Raises:
            BundleError: other logits than at export.
        """
        self.front.deployments.current.test()


def application(folder: Path, *, replicas: int = 1, max_batch: int = 64, token_file: Path | None = None) -> Any:
    """What ``ray.serve.run`` takes.

    Raises:
        BundleError: altered, or without its cloud half.
        InputError: not a bundle, or fewer than 1 replica.
        MissingExtraError: Ray Serve is not installed.
    """
    if replicas < 1:
        raise InputError(f"expected 1 replica or more, got {replicas}; use --replicas 1.")
    bundle = Bundle.load(folder)
    bundle.require_cloud()
    made = _ray_serve().deployment(name=bundle.manifest.name, num_replicas=replicas, max_ongoing_requests=ONGOING)
    return made(Replica).bind(str(folder.resolve()), max_batch, str(token_file.resolve()) if token_file else "")


def serve_on_ray(
    folder: Path,
    *,
    host: str = LOOPBACK,
    port: int = PORT,
    replicas: int = 1,
    max_batch: int = 64,
    token_file: Path | None = None,
) -> None:
    """Run the application on the cluster that Ray finds, or on one of its own here, until Ctrl-C.

    Raises:
        BundleError, InputError, MissingExtraError: as `application`.
    """
    app = application(folder, replicas=replicas, max_batch=max_batch, token_file=token_file)
    serve = _ray_serve()
    serve.start(http_options={"host": host, "port": port})
    serve.run(app, route_prefix="/", blocking=True)


async def answered(app: ASGIApp, request: Request) -> Response:
    """What an ASGI application answers to a request, whole."""
    status, headers, parts = 500, list[tuple[bytes, bytes]](), list[bytes]()

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal status, headers
        if message["type"] == "http.response.start":
            status, headers = message["status"], list(message.get("headers", []))
        elif message["type"] == "http.response.body":
            parts.append(message.get("body", b""))

    await app(request.scope, request.receive, send)
    response = Response(b"".join(parts), status)
    response.raw_headers = headers
    return response


def _ray_serve() -> Any:
    try:
        from ray import serve
    except ModuleNotFoundError:
        raise MissingExtraError("Ray Serve is not installed; pip install 'splitveil[ray]'.") from None
    return serve
