"""`HttpListener`: connections over HTTP, accepted one by one: how many there may be, how they begin, how they end."""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from functools import partial

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from splitveil.core.errors import LinkError
from splitveil.server.connection import Connection
from splitveil.server.limits import Limits
from splitveil.server.visits import Standing, Visit, Visits

BACKLOG = 512
AT_ONCE = 64
"""Connections accepted before anything else has its turn."""
PAUSE_SECONDS = 0.5
"""Before the next look when the system has no descriptor left."""
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-type: application/json\r\n"
    b'content-length: 56\r\n\r\n{"error": "too many connections; try again in a second"}'
)
log = logging.getLogger(__name__)


class HttpListener:
    """``start()``, then ``stop()``, which answers what is in flight. It handles no signals.

    Args:
        app: what answers.
        host: address to listen on.
        port: 0 for a free one; `port` then says which.
        limits: of connections.
        context: for TLS, asked for at each handshake.
        option: of the command line that chooses the port.

    Raises:
        LinkError: the port is taken or the address is not this machine's.
    """

    def __init__(
        self, app: ASGIApp, host: str, port: int, limits: Limits,
        context: Callable[[], ssl.SSLContext | None] = lambda: None,
        option: str = "--http-port",
    ) -> None:  # fmt: skip
        self.host, self.port, self._limits, self._context, self._option = host, port, limits, context, option
        self._config = uvicorn.Config(
            app, http=HttpToolsProtocol, ws="none", lifespan="off", log_config=None, access_log=False,
            proxy_headers=False, server_header=False, timeout_keep_alive=int(max(1, limits.idle_seconds)),
        )  # fmt: skip
        self._state = ServerState()
        self._visits = Visits(limits.connections, limits.reserve)
        self._sockets: list[socket.socket] = []
        self._beginning: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> int:
        """How many are open, those that still shake hands included."""
        return len(self._visits)

    async def start(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(
                self.host.strip("[]") or None, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            for family, kind, protocol, _, address in dict.fromkeys(found):
                made = socket.socket(family, kind, protocol)
                self._sockets.append(made)
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                made.setblocking(False)
                made.bind((address[0], self.port, *address[2:]))
                self.port = int(made.getsockname()[1])
                made.listen(BACKLOG)
        except OSError:
            self._close()
            raise LinkError(
                f"cannot listen on {self.host}:{self.port}; choose another {self._option}, or 0 for a free one."
            ) from None
        for listening in self._sockets:
            loop.add_reader(listening, self._accept, listening)

    async def stop(self, grace: float) -> None:
        """Take no new request, finish those in flight within `grace` seconds."""
        self._close()
        self._visits.end_all(Standing.STRANGE)
        for connection in list(self._state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                while self._state.tasks:
                    await asyncio.wait(self._state.tasks)
                while self._visits:
                    await asyncio.sleep(0.01)
        self._visits.end_all()
        for task in list(self._state.tasks):
            task.cancel()

    def _close(self) -> None:
        for listening in self._sockets:
            if listening.fileno() >= 0:
                asyncio.get_running_loop().remove_reader(listening)
                listening.close()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(AT_ONCE):
            try:
                line, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.error("connections wait, for the system gives none (%s); raise ulimit -n.", error.strerror)
                loop = asyncio.get_running_loop()
                loop.remove_reader(listening)
                loop.call_later(PAUSE_SECONDS, self._look_again, listening)
                return
            line.setblocking(False)
            self._take(line, str(address[0]))

    def _look_again(self, listening: socket.socket) -> None:
        if listening.fileno() >= 0:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _take(self, line: socket.socket, address: str) -> None:
        """Begin with one connection, or turn it away."""
        visit = Visit(address, lambda: Standing.STRANGE, lambda: None)
        if not self._visits.come(visit):
            with line, contextlib.suppress(OSError):
                if self._context() is None:
                    line.send(FULL)
            return
        gone = partial(self._visits.go, visit)
        connection = Connection(self._limits, self._config, self._state, visit.reserved, gone)
        task = asyncio.get_running_loop().create_task(self._begin(line, connection, gone))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

        def end() -> None:
            begun: asyncio.Transport | None = connection.transport
            if begun is not None:
                begun.abort()
                return
            with contextlib.suppress(OSError):  # its handshake meets the end of the file
                line.shutdown(socket.SHUT_RDWR)

        visit.end, visit.standing = end, lambda: connection.standing

    async def _begin(self, line: socket.socket, connection: Connection, gone: Callable[[], None]) -> None:
        context = self._context()
        seconds = self._limits.handshake_seconds if context else None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection, line, ssl=context, ssl_handshake_timeout=seconds
            )
        except OSError:  # a handshake that failed, was too slow or had to leave; its transport closes the socket
            gone()
