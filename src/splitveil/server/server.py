"""One process that serves the cloud half of one bundle."""

import asyncio
import json
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import grpc

from splitveil.core.errors import BundleError, InputError, LinkError, MissingExtraError, SplitVeilError
from splitveil.server.batching import Batcher
from splitveil.server.deployment import CLOSE_SECONDS, Deployment, Deployments, Terms
from splitveil.server.descriptors import affordable
from splitveil.server.front import Front
from splitveil.server.limits import Limits
from splitveil.server.metrics import Metrics, Prometheus
from splitveil.server.patience import in_time
from splitveil.server.policy import PrivacyPolicy
from splitveil.server.security import Certificates, Tls, Tokens, is_loopback, refuse_exposure
from splitveil.server.service import InferenceService
from splitveil.wire.bundle import Bundle

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from splitveil.server.listener import HttpListener

LOOPBACK, PORT = "127.0.0.1", 8001
MAX_BATCH = 64
MAX_STREAMS = 1024
"""gRPC calls of one connection; a client keeps more of them back until others end."""
BEGINNING = 4096
"""Connections of gRPC beyond the limit, while they begin: it cannot tell silent ones from others, or send one away."""
SCRAPERS = Limits(connections=32, reserve=1, read_seconds=5.0, idle_seconds=30.0)
"""Of the port for metrics, which only this machine reaches."""
log = logging.getLogger(__name__)


class Server:
    """``async with Server(bundle) as server: ...``; ready once the golden self-test has passed.

    Args:
        bundle: what to serve.
        host: address to listen on.
        port: of gRPC; 0 for a free one, `port` then says which.
        max_batch: rows of one request and of one run of the model.
        http_port: of HTTP, as for `port`; None for gRPC alone.
        metrics_port: of Prometheus' metrics, on loopback; None for none.
        tls: certificates; None for plain connections.
        tokens: who may ask; None for everybody.
        limits: on what clients may take.
        policy: what the leakage card must say.
        signed_by: public key whose owner must have signed the bundle, and later ones.
        threads: of one run of the model.
        allow_missing_contract: take requests without a contract id even where a defence is on.
        insecure: let others reach it without TLS or without credentials.

    Raises:
        BundleError: the cloud half cannot be loaded or fails its self-test, or the signature does not hold.
        PrivacyPolicyError: the leakage card does not keep the policy.
        InputError: a port or a TLS file that cannot be used, or an address that needs TLS and credentials.
        LinkError: a port is taken or the address is not this machine's.
        MissingExtraError: HTTP or metrics are asked for and not installed.
    """

    def __init__(
        self,
        bundle: Bundle,
        host: str = LOOPBACK,
        port: int = PORT,
        max_batch: int = MAX_BATCH,
        *,
        http_port: int | None = None,
        metrics_port: int | None = None,
        tls: Tls | None = None,
        tokens: Tokens | None = None,
        limits: Limits = Limits(),  # noqa: B008
        policy: PrivacyPolicy | None = None,
        signed_by: Path | None = None,
        threads: int = 1,
        allow_missing_contract: bool = False,
        insecure: bool = False,
    ) -> None:
        refuse_exposure(host, tls, tokens, insecure)
        for number in (port, http_port, metrics_port):
            if number is not None and not 0 <= number < 2**16:
                raise InputError(f"expected a port from 0 to 65535, got {number}; 0 takes a free one.")
        if max_batch < 1 or threads < 1:
            raise InputError(
                f"expected max_batch and threads of at least 1, got {max_batch} and {threads}; use 64 and 1."
            )
        self.host, self.port = host, port
        self._tls, self._tokens, self._limits = tls, tokens, limits
        terms = Terms(max_batch, limits.queue, threads, allow_missing_contract, policy, signed_by, limits.test_seconds)
        self.metrics = Metrics()
        self._scraped: HttpListener | None = None
        if metrics_port is not None:
            self.metrics = counting = Prometheus(lambda: self.deployments.waiting)
            self._scraped = self._listener(counting, metrics_port, "--metrics-port", LOOPBACK, SCRAPERS)
        first = Deployment(bundle, terms, self.metrics.batch)
        self.bundle = first.bundle
        payload = limits.payload or first.rules.max_message
        self.deployments = Deployments(first, terms, self.metrics.batch, payload)
        self._certificates = Certificates(tls) if tls else None
        self.front = Front(
            self.deployments, tokens, limits, self.metrics, payload,
            at_home=tls is None and is_loopback(host), lapsed=self._lapsed,
        )  # fmt: skip
        self.service = InferenceService(self.front)
        self._http = self._web(host, http_port) if http_port is not None else None
        self._server: grpc.aio.Server | None = None
        self.left_alone = False
        """The model did not end when it was stopped: the process would wait for it."""

    async def __aenter__(self) -> Self:
        try:
            await self._listen()
            await in_time(self.deployments.current.test, self._limits.test_seconds + CLOSE_SECONDS)
        except TimeoutError:
            await self._stop(0)
            raise BundleError(f"{self.bundle.folder} was not tested in time; export it anew.") from None
        except BaseException:
            await self._stop(0)
            raise
        self.front.tested = True
        self.metrics.serves(self.deployments.current.manifest)
        if self._certificates is not None:
            self.metrics.secured(self._certificates.seconds_left)
        self.remind()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop(self._limits.drain_seconds)

    @property
    def stop_seconds(self) -> float:
        """Within which a stopped server has ended."""
        return self._limits.drain_seconds + 4 * CLOSE_SECONDS

    @property
    def batcher(self) -> Batcher:
        """The queue of what is served now."""
        return self.deployments.current.batcher

    @property
    def http_port(self) -> int | None:
        """Where HTTP listens."""
        return self._http.port if self._http else None

    @property
    def metrics_port(self) -> int | None:
        """Where Prometheus finds the metrics."""
        return self._scraped.port if self._scraped else None

    def describe(self) -> str:
        """``NAME (cut, defence, codec) on HOST:PORT``, and where else it listens."""
        m, at = self.deployments.current.manifest, _bracketed(self.host)
        also = f", HTTP on {at}:{self.http_port}" if self._http else ""
        also += f", metrics on {LOOPBACK}:{self.metrics_port}" if self.metrics_port is not None else ""
        return f"{m.name} ({m.cut.name}, {m.defense}, {m.codec}) on {at}:{self.port}{also}"

    def describe_as_json(self) -> str:
        """The same as one JSON object on one line."""
        m = self.deployments.current.manifest
        return json.dumps(
            {
                "model": m.name, "contract": m.contract, "cut": m.cut.name, "defense": m.defense, "codec": m.codec,
                "host": self.host, "grpc_port": self.port, "http_port": self.http_port,
                "metrics_port": self.metrics_port, "tls": self._tls is not None, "tokens": self._tokens is not None,
            }
        )  # fmt: skip

    async def reload(self) -> bool:
        """Read tokens, certificates and the bundle anew, without dropping a request; what fails stays as it is.

        Returns:
            Whether another bundle is served from now on.
        """
        for what, then in (
            (self._tokens, "nobody is let in until it is mended and SIGHUP is sent again"),
            (self._certificates, "the certificates that were read before stay"),
        ):
            try:
                if what is not None:
                    await asyncio.to_thread(what.reload)
            except SplitVeilError as error:
                log.error("%s; %s", str(error).rstrip("."), then)
        changed = await self.deployments.reload()
        self.metrics.reloaded(changed)
        if changed:
            self.metrics.serves(self.deployments.current.manifest)
        return changed

    def remind(self) -> None:
        """Say in the log, at most once a day, which certificates end soon."""
        if self._certificates is not None:
            self._certificates.remind()

    def _web(self, host: str, port: int) -> "HttpListener":
        try:
            from splitveil.server.web import Web
        except ModuleNotFoundError as error:
            raise MissingExtraError(f"HTTP needs {error.name}; pip install 'splitveil[serve]'.") from None
        return self._listener(Web(self.front), port, "--http-port", host, self._limits, self._context)

    def _listener(
        self, app: "ASGIApp", port: int, option: str, host: str, limits: Limits,
        context: Callable[[], ssl.SSLContext | None] = lambda: None,
    ) -> "HttpListener":  # fmt: skip
        try:
            from splitveil.server.listener import HttpListener
        except ModuleNotFoundError as error:
            raise MissingExtraError(f"HTTP needs {error.name}; pip install 'splitveil[serve]'.") from None
        return HttpListener(app, host, port, limits, context, option)

    def _context(self) -> ssl.SSLContext | None:
        return self._certificates.context if self._certificates is not None else None

    def _lapsed(self) -> bool:
        return self._certificates is not None and self._certificates.lapsed

    async def _listen(self) -> None:
        if self._scraped is not None:
            await self._scraped.start()
        self._server = grpc.aio.server(options=self._options())
        self._server.add_generic_rpc_handlers((self.service.handlers(),))
        address = f"{_bracketed(self.host)}:{self.port}"
        try:
            if self._certificates is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, self._certificates.grpc_credentials())
        except RuntimeError:
            raise LinkError(f"cannot listen on {address}; choose another --grpc-port, or 0 for a free one.") from None
        await self._server.start()
        if self._http is not None:
            await self._http.start()

    def _options(self) -> list[tuple[str, int]]:
        limits, largest = self._limits, self.front.payload
        others = (limits.connections + limits.reserve) * (self._http is not None)
        connections = affordable(limits.connections + BEGINNING + others) - others
        answer = max(largest, self.deployments.current.rules.max_message)
        return [
            ("grpc.max_receive_message_length", largest),
            ("grpc.max_send_message_length", answer),
            ("grpc.max_allowed_incoming_connections", max(1, connections)),
            ("grpc.max_concurrent_streams", MAX_STREAMS),
            ("grpc.server_handshake_timeout_ms", int(1000 * limits.handshake_seconds)),
            ("grpc.max_connection_idle_ms", int(1000 * limits.idle_seconds)),
            # A peer that is gone without a word is found within two minutes; a silent one may stay.
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            # Without this a second server shares the port and takes half of the requests.
            ("grpc.so_reuseport", 0),
        ]

    async def _stop(self, grace: float) -> None:
        """Take no new request, finish those in flight within `grace` seconds, over both protocols."""
        self.front.draining = True
        stopping = [self._server.stop(grace)] if self._server is not None else []
        if self._http is not None:
            stopping.append(self._http.stop(grace))
        await asyncio.gather(*stopping)
        if not await self.deployments.close():
            log.error("the model still computes and is left alone")
            self.left_alone = True
        if self._scraped is not None:
            await self._scraped.stop(1.0)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
