"""One process that serves the cloud half of one bundle."""

import asyncio
import ipaddress
import signal
from collections.abc import Callable
from types import TracebackType
from typing import Self

import grpc
from tritonclient.grpc import service_pb2_grpc

from splitveil.bundle import Bundle
from splitveil.errors import InputError, LinkError
from splitveil.serving.batching import Batcher
from splitveil.serving.contract import RequestRules
from splitveil.serving.engine import load_cloud, self_test
from splitveil.serving.service import InferenceService

LOOPBACK, PORT = "127.0.0.1", 8001
MAX_BATCH = 64
MAX_CONCURRENT = 1024
"""Requests in flight; more are told RESOURCE_EXHAUSTED at once."""
DRAIN_SECONDS = 30.0


class Server:
    """``async with Server(bundle) as server: await server.wait()``; ready once the golden self-test has passed.

    Args:
        bundle: what to serve.
        host: address to listen on.
        port: 0 for a free one; `port` then says which.
        max_batch: rows of one request and of one run of the model.

    Raises:
        BundleError: the cloud half cannot be loaded or fails its self-test.
        LinkError: the port is taken or the address is not this machine's.
    """

    def __init__(self, bundle: Bundle, host: str = LOOPBACK, port: int = PORT, max_batch: int = MAX_BATCH) -> None:
        if not 0 <= port < 2**16:
            raise InputError(f"expected a port from 0 to 65535, got {port}; 0 takes a free one.")
        self.bundle, self.host, self.port = bundle, host, port
        self.cloud = load_cloud(bundle)
        rules = RequestRules(bundle.manifest, max_batch)
        self.batcher = Batcher(lambda z: self.cloud.run({bundle.manifest.features.name: z}), max_batch)
        self.service = InferenceService(bundle.manifest, rules, self.batcher)
        self._options = [
            ("grpc.max_receive_message_length", rules.max_message),
            ("grpc.max_send_message_length", rules.max_message),
            # Without this a second server shares the port and takes half of the requests.
            ("grpc.so_reuseport", 0),
        ]
        self._server: grpc.aio.Server | None = None

    async def __aenter__(self) -> Self:
        server = grpc.aio.server(options=self._options, maximum_concurrent_rpcs=MAX_CONCURRENT)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self.service, server)
        try:
            self.port = server.add_insecure_port(f"{_bracketed(self.host)}:{self.port}")
        except RuntimeError:
            raise LinkError(
                f"cannot listen on {self.host}:{self.port}; choose another --port, or 0 for a free one."
            ) from None
        self._server = server
        await server.start()
        try:
            await asyncio.to_thread(self_test, self.bundle, self.cloud)
        except BaseException:
            await self._stop(0)
            raise
        self.service.ready = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop(DRAIN_SECONDS)

    def describe(self) -> str:
        """``NAME (cut, defence, codec) on HOST:PORT``."""
        m = self.bundle.manifest
        return f"{m.name} ({m.cut.name}, {m.defense}, {m.codec}) on {_bracketed(self.host)}:{self.port}"

    async def _stop(self, grace: float) -> None:
        """Take no new request, finish those in flight within `grace` seconds."""
        self.service.ready = False
        if self._server is not None:
            await self._server.stop(grace)
        self.batcher.close()


def serve(
    bundle: Bundle,
    host: str = LOOPBACK,
    port: int = PORT,
    max_batch: int = MAX_BATCH,
    announce: Callable[[str], None] = print,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return. `announce` gets one line once the server is ready.

    Raises:
        BundleError, LinkError: as `Server` says.
    """
    asyncio.run(_serve(Server(bundle, host, port, max_batch), announce))


async def _serve(server: Server, announce: Callable[[str], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with server:
        announce(f"serving {server.describe()}")
        await stop.wait()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
